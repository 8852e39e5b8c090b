"""What is wrong with an expression: each problem, warning and limit with its exact place."""

from __future__ import annotations

import pytest

from policyd.core.compile.cel import Want
from tests.expressions import compiled, problems, scope

PLACES = [
    ("request.modle == 'a'", (1, 1), "CEL002", "unknown variable `request.modle`", "did you mean `request.model`?"),
    ("session.token > 1", (1, 1), "CEL002", "unknown variable `session.token`", "did you mean `session.tokens`?"),
    ("'é😀' == request.modle", (1, 9), "CEL002", "unknown variable `request.modle`", "did you mean `request.model`?"),
    (
        "request.stream &&\n  // ünï\n  caller.teem == 'a'",
        (3, 3),
        "CEL002",
        "unknown variable `caller.teem`",
        "did you mean `caller.team`?",
    ),
    (
        "session.novelty > 0.5",
        (1, 1),
        "CEL004",
        "`session.novelty` is not yet supported",
        "for repetition there is `session.similarity`",
    ),
    (
        "session.tool_cycle > 1",
        (1, 1),
        "CEL004",
        "`session.tool_cycle` is not yet supported",
        "for repetition there is `session.similarity`, for many calls `session.calls`",
    ),
    (
        "request.prompt.id == 'a'",
        (1, 1),
        "CEL004",
        "`request.prompt` is not yet supported",
        "the text of the prompt is `request.text`, the system prompt `request.system`",
    ),
    (
        "request.intent == 'a'",
        (1, 1),
        "CEL004",
        "`request.intent` is not yet supported",
        'compare `request.text`, or a tag: `request.tags[?"intent"].orValue("")`',
    ),
    (
        "caller.risk > 1",
        (1, 1),
        "CEL004",
        "`caller.risk` is not yet supported",
        'compare `caller.labels[?"risk"].orValue("")`',
    ),
    (
        "true && counters.spnd.exceeded",
        (1, 9),
        "CEL002",
        "unknown counter `counters.spnd`",
        "did you mean `counters.spend`?",
    ),
    (
        "counters.spend.valu > 1",
        (1, 1),
        "CEL002",
        "unknown variable `counters.spend.valu`",
        "did you mean `counters.spend.value`?",
    ),
    (
        "counters",
        (1, 1),
        "CEL010",
        "`counters` needs the name of a counter",
        "read one: `counters.spend`, `counters.requests`",
    ),
    ("model == 'a'", (1, 1), "CEL002", "unknown variable `model`", "did you mean `request.model` or `response.model`?"),
    ("request.status == 1", (1, 1), "CEL002", "unknown variable `request.status`", "did you mean `response.status`?"),
    ("params.chaep == 'a'", (1, 1), "CEL002", "unknown parameter `params.chaep`", "did you mean `params.cheap`?"),
    ("params.nothing == 'a'", (1, 1), "CEL010", "`params.nothing` cannot be used: a parameter cannot be null", ""),
    (
        "request.tools.exists(t, t.nme == 'a')",
        (1, 27),
        "CEL002",
        "unknown field `nme` of a tool",
        "did you mean `name`?",
    ),
    (
        "request.model.foo",
        (1, 1),
        "CEL003",
        "`request.model` is a string and has no fields",
        "`model` is the value itself: write `request.model`, or another field of `request`",
    ),
    ("sise(request.model) > 1", (1, 1), "CEL002", "unknown function `sise`", "did you mean `size(request.model)`?"),
    (
        "request.model.startWith('a')",
        (1, 15),
        "CEL002",
        "unknown function `startWith`",
        "did you mean `request.model.startsWith('a')`?",
    ),
    (
        "request.model.contains(1)",
        (1, 15),
        "CEL003",
        "`contains` does not take (string, int)",
        'write `request.model.contains("1")`',
    ),
    (
        "request.model + 1 == 'a'",
        (1, 15),
        "CEL003",
        "`+` does not work on string and int",
        "write `request.model + string(1)`",
    ),
    ("loop", (1, 1), "CEL001", "`loop` is a reserved word of CEL", "use another name"),
    ("request.model = 'a'", (1, 15), "CEL001", "`=` has no meaning here", "equality is written `==`"),
    ("request.stream and true", (1, 16), "CEL001", "`and` is no operator of CEL", "write &&"),
    ("request.model == 'a", (1, 18), "CEL001", "a text that does not end", "close it with '"),
    (
        "true &&",
        (1, 8),
        "CEL001",
        "the expression ends too early",
        "something is missing after this: a value, or a closing bracket",
    ),
    (
        "policyd.facts.v1.Request{}.model == ''",
        (1, 1),
        "CEL010",
        "messages cannot be made here",
        "write a map, or call timestamp() or duration()",
    ),
    (
        "type(request) == policyd.facts.v1.Request",
        (1, 34),
        "CEL010",
        "types of messages cannot be named here",
        "compare the fields",
    ),
    ("true \0 && sise(1)", (1, 6), "CEL001", "a character that is no text", "remove it"),
    ("request.model == '\ud800'", (1, 19), "CEL001", "a character that is no text", "remove it"),
    ("(true", (1, 6), "CEL001", "missing `)`", "add `)`"),
    (" ", (1, 1), "CEL001", "the expression is empty", "leave the field out, or write true"),
    (
        "[1].exists(request, true)",
        (1, 11),
        "CEL010",
        "`request` names the facts and cannot name a loop variable",
        "choose another name",
    ),
]


@pytest.mark.parametrize(("source", "place", "code", "message", "hint"), PLACES, ids=[row[0] for row in PLACES])
def test_a_problem_stands_where_the_author_wrote_it(
    source: str, place: tuple[int, int], code: str, message: str, hint: str
) -> None:
    (found,) = problems(source)
    assert ((found.line, found.column), found.code, found.message, found.hint) == (place, code, message, hint)


def test_what_an_author_wrote_is_quoted_in_part_only() -> None:
    (found,) = problems("x" * 5000)
    assert len(found.message) == 200


def test_every_problem_is_reported_at_once_and_parameters_do_not_move_places() -> None:
    found = problems("request.model in params.dear && request.modle == params.odd && sise(1) && params.nope && 2 > 'a'")
    assert [(one.column, one.code) for one in sorted(found)] == [
        (33, "CEL002"),
        (64, "CEL002"),
        (75, "CEL002"),
        (92, "CEL003"),
    ]


@pytest.mark.parametrize("source", ["has(params.most)", "has(counters.spend)", "has(variables.a)"])
def test_has_takes_a_field_not_a_declared_name(source: str) -> None:
    found = problems(source, into=scope(("a", "true")))
    assert [(one.column, one.code) for one in found] == [(5, "CEL010")]


# ---- limits ---------------------------------------------------------------------------------------------------------

TOO_MUCH = [
    ("response.text.matches('(')", "CEL007", (1, 23)),
    (r"request.model.matches(r'(a)\1')", "CEL007", (1, 23)),
    ("request.model.matches('(?=a)')", "CEL007", (1, 23)),
    ("request.model.matches('((a{1000}){1000}){1000}')", "CEL007", (1, 23)),
    ("request.model.matches(caller.user)", "CEL007", (1, 29)),
    ("[1].all(a, [1].all(b, [1].all(c, true)))", "CEL006", (1, 30)),
    ("[1].map(x, 'a' + 'b').size() > 1", "CEL008", (1, 16)),
    ("[1].map(x, [1] + [2]).size() > 1", "CEL008", (1, 16)),
    ("request.messages.exists(m, (m.text + m.text).contains('a'))", "CEL008", (1, 36)),
    ("request.messages.exists(m, [m.text, m.text].join('').contains('a'))", "CEL008", (1, 49)),
    ("request.model in [" + ", ".join(["'a'"] * 1000) + "]", "CEL006", (1, 1)),
    ("(" * 40 + "true" + ")" * 40, "CEL006", (1, 1)),
    ("(" * 1000 + "true" + ")" * 1000, "CEL006", (1, 1)),
    ("[" * 5000 + "]" * 5000 + " == []", "CEL006", (1, 1)),
    ("1 + " * 40 + "1 > 0", "CEL006", (1, 1)),
    ("true ? false : " * 40 + "true", "CEL006", (1, 1)),
    ("!" * 5000 + "true", "", (1, 1)),
    ("request.model == '" + "x" * 65_536 + "'", "CEL006", (1, 1)),
    ("é" * 9000, "CEL006", (1, 1)),
]


@pytest.mark.parametrize(("source", "code", "place"), TOO_MUCH, ids=[source[:40] for source, _, _ in TOO_MUCH])
def test_what_costs_too_much_is_refused_when_it_is_loaded(source: str, code: str, place: tuple[int, int]) -> None:
    found = scope().compile(source, Want.BOOL)
    if not code:
        return  # whatever the parser makes of it: no crash
    assert isinstance(found, tuple)
    assert [(one.code, (one.line, one.column)) for one in found] == [(code, place)]


def test_many_conditions_beside_each_other_are_no_depth() -> None:
    compiled(" || ".join([f"request.model == 'm{index}'" for index in range(200)]))


def test_a_parameter_as_large_as_the_limit_is_counted_with_the_expression() -> None:
    many = {"many": [f"m{index}" for index in range(1200)]}
    assert [one.code for one in problems("request.model in params.many", into=scope(params=many))] == ["CEL006"]
    huge = {"huge": "x" * 70_000}
    assert [one.code for one in problems("request.model == params.huge", into=scope(params=huge))] == ["CEL006"]


# ---- warnings -------------------------------------------------------------------------------------------------------

WARNINGS = [
    ("request.max_tokens > 5", [(1, "CEL101")]),
    ("true && 5 < request.temperature", [(13, "CEL101")]),
    ("double(request.max_tokens) > 5.5", [(8, "CEL101")]),
    ("has(request.max_tokens) && request.max_tokens > 5", []),
    ("request.?max_tokens.orValue(0) > 5", []),
    ("request.input_tokens > 5", []),
    ("request.tags['x'] == 'a'", [(1, "CEL102")]),
    ("request.tags.x == 'a'", [(1, "CEL102")]),
    ("request.headers['x'].size() > 1", [(1, "CEL102")]),
    ("'x' in request.tags && request.tags['x'] == 'a'", []),
    ("has(request.tags.x) && request.tags.x == 'a'", []),
    ("has(request.tags.x) && request.tags.y == 'a'", [(24, "CEL102")]),
    ("request.tags[?'x'].orValue('') == 'a'", []),
    ("1 < 2", [(1, "CEL103")]),
    ("1 / 0 > 1", [(1, "CEL103")]),
    ("params.most > 1", [(1, "CEL103")]),
    ("true", []),
    ("false", []),
]


@pytest.mark.parametrize(("source", "expected"), WARNINGS)
def test_warnings(source: str, expected: list[tuple[int, str]]) -> None:
    assert [(one.column, one.code) for one in compiled(source).warnings] == expected


def test_a_warning_in_a_variable_is_the_variables() -> None:
    known = scope(("loose", "request.tags['x'] == 'a'"), ("sent", "has(request.max_tokens)"))
    assert [(one.column, one.code) for one in known.warnings["loose"]] == [(1, "CEL102")]
    assert compiled("variables.loose", into=known).warnings == ()
    assert compiled("variables.sent && request.max_tokens > 5", into=known).warnings == ()


def test_the_hint_for_a_map_is_what_to_write() -> None:
    (one,) = compiled("request.tags['feature'] == 'a'").warnings
    assert one.hint == 'write request.tags[?"feature"].orValue("")'
