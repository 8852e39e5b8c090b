"""What compiles, what it gives, and what it reads."""

from __future__ import annotations

import pytest

from policyd.core.compile.cel import CompiledProgram, Want
from policyd.core.compile.policyset import Watcher
from tests.expressions import compiled, problems, scope

CALLER = {f"caller.{name}" for name in ("user", "team", "tenant", "key", "keys", "labels", "source")}

# ---- literals beside doubles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "counters.spend.value > 2",
        "2 < response.cost_usd",
        "response.cost_usd == 2",
        "response.cost_usd in [1, 2]",
        "counters.spend.value + 1 > 3",
        "1 + counters.spend.value > 3",
        "response.cost_usd * 100 >= 5",
        "response.cost_usd > -2",
        "response.cost_usd > - 2",
        "response.cost_usd > -(2)",
        "response.cost_usd > (request.stream ? 1 : 2)",
        "(request.stream ? response.cost_usd : 2) > 1",
        "response.cost_usd > 60 * 2 + 1",
        "response.cost_usd > 0x10",
        "response.cost_usd > params.most",
        "response.cost_usd > params.least",
        'response.cost_usd > params.limits["research"]',
        "response.cost_usd > params.limits.sales",
        "params.most > 1 && response.cost_usd > params.most",
        "session.similarity.exists(s, s > 1)",
        "session.similarity[0] == 1",
        "request.?temperature.orValue(0) > 1",
        "response.cost_usd > 1 && response.cost_usd > 2 && response.cost_usd > 3",
        "math.greatest(response.cost_usd, 1.0) > 2",
    ],
)
def test_an_integer_literal_beside_a_double_reads_as_a_double(source: str) -> None:
    compiled(source)


def test_a_literal_is_a_double_only_where_it_stands_beside_one() -> None:
    program = compiled("params.most > 1 && response.cost_usd > params.most && response.output_tokens > params.most")
    assert (
        program.source == "params.most > 1 && response.cost_usd > params.most && response.output_tokens > params.most"
    )


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("request.max_tokens > 1.5", "double(request.max_tokens)"),
        ("1.5 < request.max_tokens", "double(request.max_tokens)"),
        ("response.cost_usd > request.max_tokens", "double(request.max_tokens)"),
        ("response.cost_usd > request.max_tokens * 2", "double(…)"),
        ("response.cost_usd > request.tools.size()", "double(…)"),
    ],
)
def test_an_integer_fact_beside_a_double_says_how_to_convert_it(source: str, hint: str) -> None:
    (found,) = problems(source)
    assert (found.code, found.hint) == ("CEL003", f"convert the int: `{hint}`")


# ---- types ----------------------------------------------------------------------------------------------------------

WANTS = [
    ("request.model", Want.BOOL, "this must give true or false, but it is a string"),
    ("null", Want.BOOL, "this must give true or false, but it is a null"),
    ("dyn(true)", Want.BOOL, "this must give true or false, but its type is known only when it runs"),
    ("request.?stream", Want.BOOL, "this must give true or false, but it is an optional(bool)"),
    ("counters.spend", Want.BOOL, "this must give true or false, but it is a counter"),
    ("true ? null : null", Want.STRING, "this must give a string, but it is a null"),
    ("response.status", Want.STRING, "this must give a string, but it is an int"),
    ("true ? dyn(null) : 'x'", Want.STRING, "this must give a string, but its type is known only when it runs"),
    ("request.model", Want.NUMBER, "this must give a number, but it is a string"),
    ("1u", Want.NUMBER, "this must give a number, but it is a uint"),
    ("[1]", Want.KEYS, "this must give a string or a list of strings, but it is a list(int)"),
    ("[null]", Want.KEYS, "this must give a string or a list of strings, but it is a list(null)"),
    ("[]", Want.KEYS, "this must give a string or a list of strings, but it is a list(dyn)"),
]


@pytest.mark.parametrize(("source", "want", "message"), WANTS)
def test_the_static_type_is_what_the_place_needs(source: str, want: Want, message: str) -> None:
    (found,) = problems(source, want)
    assert (found.code, found.message) == ("CEL005", message)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("session.id", Want.KEYS),
        ("[caller.team, request.model]", Want.KEYS),
        ("request.tools.map(t, t.name)", Want.KEYS),
        ("response.output_tokens", Want.NUMBER),
        ("response.cost_usd * 2", Want.NUMBER),
        ("'hello ' + caller.user", Want.STRING),
    ],
)
def test_what_gives_the_wanted_type_compiles(source: str, want: Want) -> None:
    assert compiled(source, want).want is want


# ---- reads ----------------------------------------------------------------------------------------------------------

READS = [
    ("true", set()),
    ("request.model in params.dear", {"request.model"}),
    ("has(request.max_tokens)", {"request.max_tokens"}),
    ("request.?max_tokens.orValue(1) > 2", {"request.max_tokens"}),
    ("'a' in request.tags", {"request.tags"}),
    ("request.headers['x'] == request.tags[?'y'].orValue('')", {"request.headers", "request.tags"}),
    ("counters.spend.exceeded || counters.requests.used > 0.5", {"counters.spend.exceeded", "counters.requests.used"}),
    ("has(counters.spend.limit)", {"counters.spend.limit"}),
    ("response.tool_calls.exists(t, t.name == session.id)", {"response.tool_calls", "session.id"}),
    ("response.text.contains('a')", {"response.text"}),
    ("response.text.size() > 5", {"response.text"}),
    ("now > timestamp('2026-01-01T00:00:00Z')", {"now"}),
    ("[caller].exists(c, c.team == 'a')", CALLER),
    ("dyn(caller)['team'] == 'a'", CALLER),
    (
        "dyn(counters.spend).value > 1.0",
        {f"counters.spend.{name}" for name in ("value", "held", "limit", "remaining", "used", "exceeded", "available")},
    ),
    ("request.messages.exists(request_, request_.role == caller.user)", {"request.messages", "caller.user"}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "reads"), READS, ids=[source for source, _ in READS])
def test_what_an_expression_reads(source: str, reads: set[str]) -> None:
    assert compiled(source).reads == reads


@pytest.mark.parametrize(
    ("source", "watchers"),
    [
        ("response.text.contains('bomb')", [Watcher("contains", "bomb", 4)]),
        ("response.text.contains('é😀')", [Watcher("contains", "é😀", 2)]),
        ("response.text.matches('a{1,3}b')", [Watcher("matches", "a{1,3}b", 4)]),
        ("matches(response.text, 'ab')", [Watcher("matches", "ab", 2)]),
        ("response.text.matches('a+')", [Watcher("matches", "a+", None)]),
        ("response.text.contains(params.cheap)", [Watcher("contains", "gpt-4o-mini", 11)]),
        (
            "!response.text.contains('a') || response.text.contains('b')",
            [Watcher("contains", "a", 1), Watcher("contains", "b", 1)],
        ),
        ("response.text.contains(request.model)", []),
        ("response.text.contains('')", []),
        ("response.text.lowerAscii().contains('a')", []),
        ("response.delta.contains('a')", []),
        ("request.text.contains('a')", []),
        ("response.tool_calls.exists(t, t.arguments.contains('a'))", []),
    ],
)
def test_searches_in_the_answer_become_watchers(source: str, watchers: list[Watcher]) -> None:
    assert list(compiled(source).watchers) == watchers


# ---- variables ------------------------------------------------------------------------------------------------------


def test_variables_are_inlined_with_what_they_read() -> None:
    known = scope(
        ("repeating", "session.similarity.size() >= 2 && session.similarity[0] > 0.9"),
        ("dear", "variables.repeating && request.model in params.dear"),
    )
    assert known.problems == {}
    program = compiled("variables.dear || counters.spend.exceeded", into=known)
    assert program.reads == {"session.similarity", "request.model", "counters.spend.exceeded"}


def test_a_variable_sees_only_those_before_it_and_cycles_are_named() -> None:
    known = scope(("a", "variables.b"), ("b", "variables.a"), ("c", "variables.c"), ("d", "variables.e"), ("e", "true"))
    said = {name: [one.message for one in found] for name, found in known.problems.items()}
    assert said == {
        "a": ["`variables.b` is declared later: a variable sees only those before it"],
        "b": ["`variables.a` cannot be used: it has a problem of its own"],
        "c": ["`variables.c` refers to itself"],
        "d": ["`variables.e` is declared later: a variable sees only those before it"],
    }
    assert isinstance(known.compile("variables.e", Want.BOOL), CompiledProgram)
    assert [one.code for one in problems("variables.a", into=known)] == ["CEL009"]


def test_a_long_chain_of_variables_is_refused_not_followed() -> None:
    chain = [("v0", "request.stream")]
    chain += [(f"v{index}", f"variables.v{index - 1} && request.stream") for index in range(1, 1000)]
    known = scope(*chain)
    first = known.problems[min(known.problems, key=lambda name: int(name[1:]))]
    assert first[0].code == "CEL006"


def test_doubling_variables_are_refused_before_they_are_built() -> None:
    known = scope(
        ("v0", "request.stream"), *((f"v{n}", f"variables.v{n - 1} && variables.v{n - 1}") for n in range(1, 60))
    )
    (first, *_), *_ = known.problems.values()
    assert (first.code, first.line, first.column) == ("CEL006", 1, 1)
    assert len(known.problems) > 40
