"""Judging: one value or failure per program, over any policies, whatever the facts hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.compile.cel import CelEngine, Scope, Want
from policyd.core.compile.cel_batch import GROUP, reason
from policyd.core.compile.cel_check import Vocabulary, check
from policyd.core.compile.cel_facts import NOW, ROOTS, whole, whole_counter
from policyd.core.compile.cel_native import Checker, Failed, Plan, activate
from policyd.core.compile.policyset import CelFailure, CounterRef, Watcher
from policyd.core.model.bounds import Bounds
from policyd.core.model.facts import CounterFacts, Facts, Message, ToolCall, functions
from policyd.core.stream.hits import Hits
from tests.expressions import POLICY, compiled
from tests.sizes import size

SPEND: CounterRef = (POLICY, "spend")
NO_SUCH_KEY = CelFailure("no such key in a map")


def judge(
    *sources: str,
    facts: Facts | None = None,
    counters: dict[CounterRef, CounterFacts] | None = None,
    found: frozenset[Watcher] = frozenset(),
    want: Want = Want.BOOL,
) -> list[object]:
    batch = CelEngine().batch([compiled(source, want) for source in sources])
    return batch.evaluate(facts or Facts(), counters or {}, Hits(found))


def sent() -> Facts:
    """A call of which everything was sent."""
    facts = Facts(now=1_767_225_600.5)
    request, caller, session, response = facts.request, facts.caller, facts.session, facts.response
    request.method, request.path, request.model, request.system = "POST", "/v1/chat", "gpt-4o", "be kind"
    request.headers, request.tags = {"host": "a", "x-é": "ü"}, {"feature": "chat"}
    request.operation, request.dialect, request.provider = "chat", "openai.chat", "openai"
    request.stream, request.max_tokens, request.temperature, request.input_tokens = True, 100, 0.5, 12
    request.messages = [Message("system", "be kind"), Message("user", "hello", "ann")]
    request.text, request.tools = "be kind\nhello", functions(["shell", "search"])
    caller.user, caller.team, caller.tenant, caller.key, caller.labels = "ann", "research", "t", "k1", {"a": "b"}
    session.id, session.source, session.calls, session.cost_nano = "s1", "header", 3, 1_500_000_000
    session.tokens, session.age_s, session.similarity = 900, 90.25, [0.95, 0.5]
    response.status, response.headers, response.model = 200, {"x": "y"}, "gpt-4o-2024"
    response.texts, response.text_chars, response.delta = {0: ["he", "llo"], 1: ["x"]}, 6, "x"
    response.events, response.input_tokens, response.output_tokens = 4, 12, 5
    response.cached_input_tokens, response.reasoning_tokens, response.cost_nano = 2, 1, 2_000_000
    response.elapsed_ms, response.ttft_ms, response.finish_reasons = 250.0, 80.0, ["stop"]
    response.tool_calls, response.refusal = [ToolCall("shell", '{"cmd":'), ToolCall("search")], "no"
    return facts


COUNTERS = {
    SPEND: CounterFacts(value=1.5, held=0.25, limit=2.0, remaining=0.25, used=0.75, exceeded=False, available=True),
    (POLICY, "requests"): CounterFacts(available=False),
}

# every fact, once over nothing and once over everything
TRUTHS = [
    ("request.model == ''", True, False),
    ("has(request.model)", False, True),
    ("request.max_tokens == 0", True, False),
    ("has(request.max_tokens) && request.max_tokens == 100", False, True),
    ("request.?max_tokens.orValue(7) == 7", True, False),
    ("has(request.temperature)", False, True),
    ("request.temperature * 2 == 1", False, True),
    ("request.stream", False, True),
    ("has(request.stream)", False, True),
    ("request.operation == 'chat' && request.dialect == 'openai.chat' && request.provider == 'openai'", False, True),
    ("request.method == 'POST' && request.path == '/v1/chat'", False, True),
    ("request.headers.size() == 2 && request.headers['x-é'] == 'ü'", False, True),
    ("'host' in request.headers", False, True),
    ("has(request.tags.feature)", False, True),
    ("request.tags[?'feature'].orValue('none') == 'none'", True, False),
    ("request.?tags.?feature.orValue('none') == 'chat'", False, True),
    ("request.messages.exists(m, m.role == 'user' && m.name == 'ann')", False, True),
    ("request.messages.exists(m, has(m.name))", False, True),
    ("request.messages.all(m, has(m.name))", True, False),
    ("request.messages.filter(m, m.text.contains('kind')).size() == 1", False, True),
    ("request.system.contains('kind') && request.text.endsWith('hello')", False, True),
    ("'shell' in request.tools.map(t, t.name)", False, True),
    ("request.tools[?0].?name.orValue('') == 'shell'", False, True),
    ("request.input_tokens == 12", False, True),
    ("caller.user == 'ann' && caller.team == 'research' && caller.tenant == 't' && caller.key == 'k1'", False, True),
    ("has(caller.team)", False, True),
    ("caller.labels[?'a'].orValue('') == 'b' && caller.source == 'headers'", False, True),
    ("session.id == 's1' && session.source == 'header' && session.calls == 3", False, True),
    ("session.cost_usd == 1.5 && session.tokens == 900", False, True),
    ("session.age > duration('90s') && session.age < duration('91s')", False, True),
    ("session.similarity.size() >= 2 && session.similarity[0] > 0.9", False, True),
    ("response.status == 200 && response.model == 'gpt-4o-2024'", False, True),
    ("has(response.status)", False, True),
    ("response.headers[?'x'].orValue('') == 'y'", False, True),
    ("response.text == 'hello\\nx'", False, True),
    ("response.text.size() == 7 && size(response.text) == 7", False, True),
    ("response.text.startsWith('he') && response.delta == 'x'", False, True),
    ("response.events == 4 && response.input_tokens == 12 && response.output_tokens == 5", False, True),
    ("response.cached_input_tokens == 2 && response.reasoning_tokens == 1", False, True),
    ("response.cost_usd == 0.002 && response.elapsed_ms == 250", False, True),
    ("has(response.ttft_ms) && response.ttft_ms == 80", False, True),
    ("'stop' in response.finish_reasons", False, True),
    ("response.tool_calls.exists(t, t.name == 'shell' && t.arguments.contains('cmd'))", False, True),
    ("has(response.refusal) && response.refusal == 'no'", False, True),
    ("response.inspection == 'full'", True, True),
    ("now > timestamp('2026-01-01T00:00:00Z')", False, True),
    ("now.getHours('Europe/Berlin') == 1 && now.getMilliseconds() == 500", False, True),
    ("dyn(request).model == 'gpt-4o' && dyn(request).max_tokens == 100", False, True),
    ("[session].exists(s, s.age > duration('1s') && s.similarity[0] > 0.9)", False, True),
    ("[response].exists(r, r.tool_calls.size() == 2 && r.headers.x == 'y' && has(r.ttft_ms))", False, True),
    ("[caller, caller].all(c, c.team == 'research' && c.labels.size() == 1)", False, True),
    ("request.messages.filter(m, m.role == 'user').exists(m, m.text == 'hello')", False, True),
    ("request.messages.map(m, [m])[1][0].name == 'ann'", None, True),
]


@pytest.mark.parametrize(("source", "empty", "full"), TRUTHS, ids=[row[0] for row in TRUTHS])
def test_each_fact_over_nothing_and_over_everything(source: str, empty: bool | None, full: bool) -> None:
    expected = CelFailure("no such element in a list") if empty is None else empty
    assert judge(source, facts=Facts()) == [expected]
    assert judge(source, facts=sent()) == [full]


@pytest.mark.parametrize(
    ("source", "truth"),
    [
        ("counters.spend.value == 1.5 && counters.spend.held == 0.25 && counters.spend.remaining == 0.25", True),
        ("counters.spend.used >= 0.75 && counters.spend.limit == 2", True),
        ("has(counters.spend.limit) && !has(counters.requests.limit)", True),
        ("counters.requests.limit == 0", True),
        ("counters.spend.exceeded", False),
        ("counters.spend.available && !counters.requests.available", True),
        ("counters.spend.?limit.orValue(9) == 2 && counters.requests.?limit.orValue(9) == 9", True),
        ("dyn(counters.spend).value == 1.5", True),
    ],
)
def test_counters(source: str, truth: bool) -> None:
    assert judge(source, counters=COUNTERS) == [truth]


def test_a_counter_that_was_not_brought_makes_its_readers_fail_and_no_others() -> None:
    answers = judge("counters.spend.exceeded", "request.stream", "!request.stream")
    assert answers == [CelFailure("a value that it reads is missing"), False, True]


def test_one_batch_judges_policies_whose_counters_share_a_name() -> None:
    policies = ["a/p", "b/p", "a.b/p", "a/b.p", "p"]
    made = [Scope(policy=name, counters=["spend"], params={}, variables=[]) for name in policies]
    programs = [compiled("counters.spend.value > 1", into=each) for each in made]
    counters = {(name, "spend"): CounterFacts(value=2.0 * (name in ("b/p", "p"))) for name in policies}
    assert CelEngine().batch(programs).evaluate(Facts(), counters, Hits()) == [False, True, False, False, True]


def test_messages_are_as_wide_as_the_widest_reader_in_the_batch() -> None:
    answers = judge(
        "request.messages.exists(m, m.role == 'user')", "request.messages.exists(m, m.text == 'hello')", facts=sent()
    )
    assert answers == [True, True]


def test_the_shortcut_changes_no_answer() -> None:
    """More conditions than one group holds; every third true, every seventh failing."""
    sources, expected = [], []
    for index in range(3 * GROUP + 1):
        if index % 7 == 6:
            sources.append("request.tags['none'] == 'a'")
            expected.append(NO_SUCH_KEY)
        else:
            sources.append(f"{index} % 3 == request.input_tokens")
            expected.append(index % 3 == 0)
    assert judge(*sources) == expected
    assert judge(*sources, "request.tools.size() == 0")[-1] is True


def test_a_text_condition_that_is_followed_is_handed_in_as_its_truth() -> None:
    sources = ["response.text.contains('bomb')", "!response.text.matches('a.c') && request.model == ''"]
    programs = [compiled(source) for source in sources]
    batch = CelEngine().batch(programs)
    facts = Facts()
    facts.response.texts = {0: ["bomb abc"]}  # the text itself is not looked at
    watchers = {*programs[0].watchers, *programs[1].watchers}
    assert batch.evaluate(facts, {}, Hits(set(), watchers)) == [False, True]
    assert batch.evaluate(facts, {}, Hits(watchers, watchers)) == [True, False]


def test_a_text_condition_that_nobody_follows_is_searched_for() -> None:
    sources = ["response.text.contains('bomb')", "response.text.matches('a.c')", "response.text.contains('x')"]
    batch = CelEngine().batch([compiled(source) for source in sources])
    facts = Facts()
    facts.response.texts = {0: ["bo", "mb"], 1: ["abc"]}
    assert batch.evaluate(facts, {}, Hits()) == [True, True, False]


VALUES = [
    ("session.id", Want.KEYS, "s1"),
    ("[session.id, caller.team]", Want.KEYS, ["s1", "research"]),
    ("request.tools.map(t, t.name)", Want.KEYS, ["shell", "search"]),
    ("[caller.user + '/' + string(session.calls)]", Want.KEYS, ["ann/3"]),
    ("response.output_tokens * 2", Want.NUMBER, 10),
    ("response.cost_usd * 2", Want.NUMBER, 0.004),
    ("'%s spent %.2f USD'.format([caller.user, session.cost_usd])", Want.STRING, "ann spent 1.50 USD"),
    ("request.headers['none']", Want.STRING, NO_SUCH_KEY),
    ("[request.headers['none']]", Want.KEYS, NO_SUCH_KEY),
    ("1 / (session.calls - 3)", Want.NUMBER, CelFailure("division by zero")),
]


@pytest.mark.parametrize(("source", "want", "expected"), VALUES, ids=[row[0] for row in VALUES])
def test_values_that_are_no_truth(source: str, want: Want, expected: object) -> None:
    (answer,) = judge(source, facts=sent(), want=want)
    assert answer == expected
    assert type(answer) is type(expected)


FAILURES = [
    ("request.tags['x'] == 'a'", "no such key in a map"),
    ("request.tags.x == 'a'", "no such key in a map"),
    ("request.tools[5].name == 'a'", "no such element in a list"),
    ("1 / request.max_tokens > 0", "division by zero"),
    ("1 % request.max_tokens > 0", "modulus by zero"),
    ("9223372036854775807 + response.events > 0", "a number out of range"),
    ("int(request.method) > 0", "a value could not be converted"),
    ("timestamp(request.method) > now", "a value could not be converted"),
    ("dyn(request).modle == 'a'", "no such field"),
    ("dyn(request.method) + 1 == 2", "a value has another type than the expression needs"),
    ("request.?tags.value().size() > 0", "an optional without a value"),
    ("[0,1,2,3,4,5,6,7,8,9].all(a, session.similarity.all(b, b >= 0))", "loops ran too often"),
]


@pytest.mark.parametrize(("source", "said"), FAILURES)
def test_a_failure_says_why_and_quotes_nothing(source: str, said: str) -> None:
    facts = Facts()
    facts.response.events, facts.request.method, facts.session.similarity = 5, "secret", [0.0] * 2000
    facts.bounds = Bounds(cel_cost=1 << 40)
    assert judge(source, facts=facts) == [CelFailure(said)]
    assert judge("request.method == ''", source, "true", facts=facts) == [False, CelFailure(said), True]


def test_unknown_words_of_the_runtime_are_not_repeated() -> None:
    assert reason("INTERNAL: sk-secret") == "the expression failed"


# ---- what facts may hold --------------------------------------------------------------------------------------------


def test_text_behind_a_nul_is_seen() -> None:
    facts = Facts()
    facts.request.model, facts.request.text = "a\0b", "x\0forbidden"
    facts.request.tags, facts.request.tools = {"k": "a\0b", "n\0": "v"}, functions(["a\0b"])
    facts.response.finish_reasons, facts.session.id = ["a\0b"], "s\0t"
    sources = [
        "request.model == 'a\\x00b'",
        "request.text.contains('forbidden')",
        "request.tags['k'].size() == 3",
        "!('n' in request.tags)",
        "request.tools[0].name.endsWith('b')",
        "'a\\x00b' in response.finish_reasons",
        "request.model.size() == 3",
    ]
    assert judge(*sources, facts=facts) == [True] * len(sources)
    assert judge("session.id", "[session.id]", facts=facts, want=Want.KEYS) == ["s\0t", ["s\0t"]]


def test_halves_of_surrogate_pairs_are_no_fault_of_the_rule() -> None:
    facts = Facts()
    facts.request.model, facts.request.tags, facts.request.tools = (
        "a\ud800b",
        {"k\udfff": "\ud800"},
        functions(["\ud800"]),
    )
    facts.request.messages = [Message("user", "\ud800")]
    facts.response.texts = {0: ["x\udc00y"]}
    sources = [
        "request.model.startsWith('a') && request.model.endsWith('b')",
        "request.tags.size() == 1",
        "request.tools.size() == 1 && request.tools[0].name != ''",
        "request.messages[0].text != ''",
        "response.text.endsWith('y')",
        "dyn(request).model != ''",
    ]
    assert judge(*sources, facts=facts) == [True] * len(sources)


def test_numbers_that_do_not_fit_read_as_the_largest() -> None:
    facts = Facts(now=1e300)
    facts.request.max_tokens, facts.session.age_s, facts.response.output_tokens = 2**80, 1e300, -(2**80)
    sources = [
        "request.max_tokens == 9223372036854775807",
        "response.output_tokens < -9223372036854775807",
        "session.age > duration('1h')",
        "now > timestamp('9000-01-01T00:00:00Z')",
    ]
    assert judge(*sources, facts=facts) == [True] * len(sources)


def test_facts_of_an_impossible_type_fail_and_never_raise() -> None:
    facts = Facts()
    facts.request.model = 5  # type: ignore[assignment]
    assert judge("request.model == 'a'", "true", facts=facts) == [CelFailure("the facts could not be read")] * 2


# ---- the lowered tree says what the checked one says ----------------------------------------------------------------

texts = st.none() | st.sampled_from(["", "gpt-4o", "research", "hello", "é\U0001f600", "a"])
plain = st.sampled_from(["", "gpt-4o", "research", "hello", "é\U0001f600"])
tables = st.dictionaries(st.sampled_from(["feature", "x", "a"]), plain, max_size=3)


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    facts = Facts(now=draw(st.sampled_from([0.0, 1.7e9])))
    request, response = facts.request, facts.response
    request.model, request.system, request.text = draw(texts), draw(texts), draw(texts)
    request.max_tokens, request.temperature = draw(st.none() | st.integers(0, 300)), draw(st.none() | st.floats(0, 2))
    request.stream, request.tags, request.tools = (
        draw(st.none() | st.booleans()),
        draw(tables),
        functions(draw(st.lists(plain))),
    )
    request.messages = draw(st.lists(st.builds(Message, plain, plain, texts), max_size=3))
    facts.caller.team, facts.session.similarity = draw(plain), draw(st.lists(st.floats(0, 1), max_size=3))
    facts.session.age_s, facts.session.calls = draw(st.floats(0, 1e6)), draw(st.integers(0, 9))
    response.status, response.events = draw(st.sampled_from([0, 200, 500])), draw(st.integers(0, 5))
    response.texts = {0: [draw(plain)]}
    response.text_chars = len(response.text())
    response.tool_calls = draw(st.lists(st.builds(ToolCall, plain, plain), max_size=3))
    response.ttft_ms, response.finish_reasons = draw(st.none() | st.floats(0, 1e4)), draw(st.lists(plain, max_size=2))
    return facts


PAIRS = [row[0] for row in TRUTHS if "[" not in row[0] or "?" in row[0]] + [
    "request.?model.orValue('none') == 'none' || request.tags.x == 'hello'",
    "response.text.size() > session.calls && request.messages.exists_one(m, m.role == 'a')",
    "cel.bind(n, request.tools.size(), n > 1 && n < response.events)",
    "request.messages.exists(m, request.tools.exists(t, t.name == m.text))",
    "request.tags.exists(k, request.tags[k] == 'hello')",
]


@given(some_facts(), st.sampled_from(PAIRS))
@settings(max_examples=size(300), deadline=None)
def test_the_lowered_tree_says_what_the_checked_one_says(facts: Facts, source: str) -> None:
    tree, _ = Checker(["spend", "requests"], {}).check(_with_doubles(source))
    values: dict[str, object] = {root: whole(root, facts) for root in ROOTS} | {"now": NOW.get(facts)}
    values["counters.spend"] = whole_counter(COUNTERS[SPEND])
    try:
        expected: object = Plan(tree).value(activate(values))
    except Failed as error:
        expected = CelFailure(reason(str(error)))
    assert judge(source, facts=facts, counters=COUNTERS) == [expected]


def _with_doubles(source: str) -> str:
    names = ["spend", "requests"]
    return check(source, Vocabulary(names, {}, [], {}), Checker(names, {})).text.text
