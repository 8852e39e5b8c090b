"""What `policyd check` doubts, and what it lets pass: each pair differs in the one thing that matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.review.assume import Effort
from policyd.core.review.review import review
from tests.driving import cluster_policy, policy

NEVER, SHADOWED, UNREAD, UNBOUNDED, WATCHING, CONTRADICTS = (f"POL11{n}" for n in range(6))


def doubts(*texts: str) -> list[str]:
    """The codes of what is doubted, in order of places."""
    compiled = compile_documents([(f"{at}.yaml", text) for at, text in enumerate(texts)])
    assert compiled.policy_set is not None, compiled.issues
    return [issue.code for issue in review(compiled) if issue.code.startswith("POL11")]


def of_when(when: str, before: str = "") -> list[str]:
    return doubts(policy(f"{before}\nrules:\n  - name: r\n    when: '{when}'\n    terminate: {{}}"))


@pytest.mark.parametrize(
    "when",
    [
        'request.operation == "chats"',
        'request.operation in ["cha", "unknow"]',
        'request.operation == "unknown"',  # without `operations`, unknown calls are not the policy's
        'response.inspection == "ful"',
        "response.output_tokens < 0",
        "response.status > 999",
        "session.similarity[0] > 1",
        "session.similarity[0] > 0.9 && session.similarity[0] < 0.1",
        'session.age > duration("1h") && !(session.age > duration("1h"))',
        'request.model == "a" && request.model == "b"',
        'request.model == "a" && request.model.startsWith("b")',
        'request.model in ["a", "b"] && !request.model.matches("^[ab]$")',
        'request.model != "a" && request.model == "a"',
        'has(request.system) && request.system == ""',
        '!has(request.model) && request.model == "a"',
        "response.events > 5 && response.events < 6",
        "now.getHours() > 22 && now.getHours() < 6",
        "now.getDayOfWeek() == 7",
        'request.tools.exists(t, t.name == "a" && t.name == "b")',
        'request.tags[?"f"].orValue("") == "a" && request.tags[?"f"].orValue("") != "a"',
        'request.stream && (request.stream ? request.operation == "x" : true)',
        '(request.model == "a" || request.model == "b") && request.model == "c"',
    ],
)
def test_a_rule_that_can_never_match(when: str) -> None:
    assert of_when(when) == [NEVER]


@pytest.mark.parametrize(
    "when",
    [
        'request.operation == "chat"',
        "response.output_tokens <= 0",
        "session.similarity[0] >= 1",
        "request.temperature < 0",  # a client may send anything
        "request.max_tokens < 0",
        'request.model == "a" || request.model == "b"',
        'request.model == "a" && caller.team == "b"',
        "response.events > 5 && response.events < 7",
        'request.tools.exists(t, t.name == "a") && request.tools.exists(t, t.name == "b")',
        'request.tools.all(t, t.name == "a" && t.name == "b")',  # true of no tools
        'has(request.model) && request.model != ""',
        "!(response.events < 1) && response.events <= 1",
        "!(response.events > 1) && response.events >= 1",
        "!(request.temperature > 1) && !(request.temperature <= 1)",  # nothing says that it is a number
        'request.headers["x"] == "a"',
        "counters.c.value / counters.c.value != 1.0",
        "false",  # a lone word is meant
    ],
)
def test_a_rule_that_can_match(when: str) -> None:
    counter = "counters: [{name: c, key: session.id, charge: Requests, window: {idle: 1h}, limit: 5 requests}]"
    assert of_when(when, counter) == []


@pytest.mark.parametrize(
    ("before", "when", "said"),
    [
        ("match: {models: [a, b]}", 'request.model == "c"', [NEVER]),
        ("match: {models: [a, b]}", 'request.model == "b"', []),
        ("match: {models: [a, b]}", 'request.model == "c" && response.events > 1', []),  # after a reroute it may be
        ("match: {operations: [unknown]}", 'request.operation == "unknown"', []),
        ("match: {providers: [openai]}", 'request.provider != "openai"', [NEVER]),
        ("matchConditions: [{name: m, expression: 'caller.team == \"a\"'}]", 'caller.team == "b"', [NEVER]),
        ("matchConditions: [{name: m, expression: 'caller.team != \"a\"'}]", 'caller.team == "b"', []),
    ],
)
def test_what_the_policy_lets_in_counts(before: str, when: str, said: list[str]) -> None:
    assert of_when(when, before) == said


def _counter(more: str, key: str = "session.id", charge: str = "Requests") -> str:
    return f"counters: [{{name: c, key: '{key}', charge: {charge}, window: {{idle: 1h}}{more}}}]"


@pytest.mark.parametrize(
    ("more", "when", "said"),
    [
        ("", "counters.c.exceeded", [NEVER]),
        ("", "counters.c.used > 0.5", ["POL116", NEVER]),
        ("", "counters.c.value > 5", []),
        (", limit: 5 requests", "counters.c.exceeded", []),
        (", limit: 5 requests", "counters.c.limit > 5", [NEVER]),
        ("", "request.stream", [UNREAD]),
        (", limit: 5 requests", "request.stream", []),
        (", limit: 5 requests, onExceeded: Continue", "request.stream", [UNREAD]),
        (", limit: 5 requests, onExceeded: Continue", "counters.c.exceeded", []),
    ],
)
def test_counters(more: str, when: str, said: list[str]) -> None:
    assert of_when(when, _counter(more)) == said


def test_a_counter_is_read_by_a_text_too() -> None:
    rule = "rules: [{name: r, terminate: {messageExpression: 'string(counters.c.value)'}}]"
    assert doubts(policy(f"{_counter('')}\n{rule}")) == []


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("session.id", []),
        ("caller.key", []),
        ("request.model", []),
        ("request.text", [UNBOUNDED]),
        ("string(now)", [UNBOUNDED]),
        ("string(now.getHours())", []),
        ('request.headers[?"x-request-id"].orValue("")', [UNBOUNDED]),
        ('request.stream ? "a" : caller.team', []),
        ('request.text.contains("a") ? "a" : "b"', []),
    ],
)
def test_keys(key: str, said: list[str]) -> None:
    assert doubts(policy(_counter(", limit: 5 requests", key.replace("'", "''")))) == said


@pytest.mark.parametrize(
    "bound",
    [
        'matchConditions: [{name: m, expression: \'request.tags[?"f"].orValue("") in ["a", "b"]\'}]',
        'rules: [{name: r, when: \'!(request.tags[?"f"].orValue("") in ["a", "b"])\', terminate: {}}]',
    ],
)
def test_a_key_of_few_values_is_bounded(bound: str) -> None:
    spec = _counter(", limit: 5 requests", 'request.tags[?"f"].orValue("")')
    assert doubts(policy(spec)) == [UNBOUNDED]
    assert doubts(policy(f"{spec}\n{bound}")) == []


ONE = "{name: one, when: request.input_tokens > 10, severity: High, terminate: {}}"
TWO = "{name: two, when: request.input_tokens > 20, terminate: {}}"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ONE, TWO, [SHADOWED]),
        (ONE, TWO.replace("20", "5"), []),
        (ONE, TWO.replace("when", "severity: Critical, when"), []),  # then it wins, and Soft enforces it alone
        (ONE, TWO.replace("terminate: {}", "reroute: {model: m}"), [SHADOWED]),
        (ONE, TWO.replace("terminate: {}", "constrain: {cap: {max_tokens: 5}}"), []),
        (ONE.replace("severity: High", "mode: Monitor"), TWO, []),
        (ONE, TWO.replace("> 20", "> 20 && response.events > 3"), [SHADOWED]),
        (ONE.replace("> 10", "> 10 && counters.c.value > 1"), TWO, []),
        (ONE.replace("when: request.input_tokens > 10, ", ""), TWO, [SHADOWED]),
    ],
)
def test_shadows(first: str, second: str, said: list[str]) -> None:
    assert doubts(policy(f"{_counter(', limit: 5 requests')}\nrules: [{first}, {second}]")) == said


def test_an_exempted_rule_shadows_nothing() -> None:
    spare = "{name: spare, when: caller.key == 'key-1', allow: {rules: [p/one]}}"
    assert doubts(policy(f"rules: [{ONE}, {TWO}, {spare}]")) == []


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (cluster_policy(f"rules: [{ONE}]"), policy(f"rules: [{TWO}]"), [SHADOWED]),
        (policy(f"rules: [{ONE}]", "o", namespace="far"), policy(f"rules: [{TWO}]"), []),
        (cluster_policy(f"match: {{models: [a]}}\nrules: [{ONE}]"), policy(f"rules: [{TWO}]"), []),
        (cluster_policy(f"failurePolicy: Ignore\nrules: [{ONE}]"), policy(f"rules: [{TWO}]"), []),
    ],
)
def test_shadows_of_other_policies(first: str, second: str, said: list[str]) -> None:
    assert doubts(first, second) == said


REROUTE = "rules: [{name: cheap, when: request.input_tokens > 5, reroute: {model: mini}}]"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ('request.model == "mini"', [CONTRADICTS]),
        ('!(request.model in ["a", "b"])', [CONTRADICTS]),
        ('!(request.model in ["a", "mini"])', []),
        ('request.model == "mini" && caller.team == "x"', []),
        ('request.model == "mini" && request.input_tokens > 4', [CONTRADICTS]),
    ],
)
def test_a_reroute_to_what_is_refused(when: str, said: list[str]) -> None:
    refusing = cluster_policy(f"rules:\n  - name: no\n    when: '{when}'\n    terminate: {{}}")
    assert doubts(policy(REROUTE), refusing) == said


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("set: {temperature: 0}", "set: {temperature: 1}", [CONTRADICTS]),
        ("set: {temperature: 0}", "set: {temperature: 0}", []),
        ("set: {temperature: 0}", "set: {top_p: 1}", []),
        ("cap: {max_tokens: 5}", "cap: {max_tokens: 9}", []),
        ("tools: {allow: [a]}", "tools: {allow: [b]}", [CONTRADICTS]),
        ("tools: {allow: [a]}", "tools: {allow: [a, b]}", []),
        ("tools: {allow: [a]}", "tools: {deny: [a]}", [CONTRADICTS]),
        ("headers: {request: {set: {x-a: '1'}}}", "headers: {request: {remove: [x-a]}}", [CONTRADICTS]),
    ],
)
def test_two_values_for_one_field(first: str, second: str, said: list[str]) -> None:
    rules = f"rules: [{{name: a, constrain: {{{first}}}}}]", f"rules: [{{name: b, constrain: {{{second}}}}}]"
    assert sorted(set(doubts(*(policy(text, name) for text, name in zip(rules, "pq", strict=True))))) == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rules: [{name: r, when: response.events > 5, terminate: {}}]", [WATCHING]),
        ("rules: [{name: r, when: request.stream, terminate: {}}]", []),
        ("match: {models: [a]}\nrules: [{name: r, when: response.events > 5, terminate: {}}]", []),
        (_counter(", limit: 5 USD", charge="Cost"), [WATCHING]),
        (_counter(", limit: 5 requests"), []),
    ],
)
def test_watching_every_answer(spec: str, said: list[str]) -> None:
    assert doubts(policy(spec, mode="Monitor")) == said
    assert doubts(policy(spec, mode="Full")) == []


def test_watching_costs_nothing_where_the_answers_are_read_anyway() -> None:
    rule = "rules: [{name: r, when: response.events > 5, terminate: {}}]"
    assert WATCHING not in doubts(policy(rule, "p", mode="Monitor"), policy(rule, "q"))


def test_with_less_effort_it_doubts_less_and_never_more() -> None:
    files = [(file.parent.name, file.read_text()) for file in sorted(LIBRARY.glob("*/policy.yaml"))]
    doubtful = """
counters:
  - {name: a, key: request.text, charge: Requests, window: {idle: 1h}, limit: 5 requests}
rules:
  - {name: never, when: 'request.model == "a" && request.model == "b"', terminate: {}}
  - {name: wide, when: 'request.model in ["a", "b"]', terminate: {}}
  - {name: narrow, when: 'request.model == "a"', terminate: {}}
matchConditions: [{name: few, expression: 'request.model in ["a", "b", "c"]'}]
"""
    compiled = compile_documents([*files, ("doubtful", policy(doubtful))])
    every = set(review(compiled))
    for most in (*range(60), 100, 300, 1_000, 3_000):
        assert set(review(compiled, Effort(most))) <= every, most
    assert set(review(compiled, Effort(100_000))) == every
    assert set(review(compiled, Effort(0))) < every


def test_many_rules_of_many_parts_are_given_up_on_in_time() -> None:
    parts = [" || ".join(f'request.text.contains("{rule}-{part}")' for part in range(8)) for rule in range(64)]
    rules = "".join(f"  - {{name: r{at}, when: '{when}', terminate: {{}}}}\n" for at, when in enumerate(parts))
    effort = Effort(5_000)
    review(compile_documents([("many", policy(f"\nrules:\n{rules}"))]), effort)
    assert -50_000 < effort.left < 0


LIBRARY = Path(__file__).parents[2] / "policies"


@pytest.mark.parametrize("file", sorted(LIBRARY.glob("*/policy.yaml")), ids=lambda file: file.parent.name)
def test_no_false_alarm_on_the_library(file: Path) -> None:
    """What ships watches answers, as it says; beyond that only a count for records is doubted."""
    meant = {"attribution-required": {UNREAD, UNBOUNDED}}.get(file.parent.name, set())
    assert set(doubts(file.read_text())) - {WATCHING} == meant
