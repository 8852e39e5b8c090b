"""What the review takes as impossible is impossible: random conditions over random facts, judged by the engine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.compile.cel import CelEngine, CompiledProgram
from policyd.core.compile.cel_batch import Inputs
from policyd.core.compile.cel_tree import Ident
from policyd.core.compile.policyset import CounterRef
from policyd.core.compile.whole import OPERATIONS
from policyd.core.model.facts import (
    CallerFacts,
    CounterFacts,
    Facts,
    Message,
    RequestFacts,
    ResponseFacts,
    SessionFacts,
    ToolCall,
)
from policyd.core.review.assume import Assumption, Case
from policyd.core.review.ranges import Leaves
from policyd.core.stream.hits import Hits
from tests.expressions import POLICY, compiled, scope
from tests.sizes import size

EXAMPLES = int(os.environ.get("POLICYD_REVIEW_EXAMPLES", size(60, 20)))
NAMES = ("a", "b", "ab", "gpt", "")
NUMBERS = (-1, 0, 1, 2, 3, 24)
SHARES = (-0.5, 0.0, 0.5, 1.0, 1.5)

strings = st.sampled_from(
    (
        "request.model",
        "request.system",
        "caller.team",
        'request.tags[?"f"].orValue("")',
        "response.inspection",
        "request.operation",
    )
)
integers = st.sampled_from(
    (
        "response.output_tokens",
        "request.max_tokens",
        "request.input_tokens",
        "response.text.size()",
        "now.getHours()",
        "request.messages.size()",
        "response.events - request.max_tokens",
    )
)
doubles = st.sampled_from(
    (
        "counters.spend.used",
        "counters.spend.value / counters.requests.value",
        "session.similarity[0]",
        "response.elapsed_ms",
        "request.temperature",
        "double(response.output_tokens)",
    )
)
words = st.sampled_from((*NAMES, "full", "ful", "chat", "unknown")).map(lambda word: f'"{word}"')
orders = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
whole = st.sampled_from(NUMBERS).map(str)
share = st.sampled_from(SHARES).map(str)


def _joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(" ".join)


atoms = st.one_of(
    _joined(strings, st.sampled_from(("==", "!=")), words),
    _joined(words, st.just("=="), strings),
    _joined(strings, st.just("in"), st.lists(words, min_size=1, max_size=3).map(lambda some: f"[{', '.join(some)}]")),
    st.tuples(strings, st.sampled_from(("startsWith", "endsWith", "contains", "matches")), words).map(
        lambda parts: f"{parts[0]}.{parts[1]}({parts[2]})"
    ),
    _joined(integers, orders, whole),
    _joined(whole, orders, integers),
    _joined(integers, orders, integers),
    _joined(doubles, orders, share),
    _joined(doubles, orders, doubles),
    st.sampled_from(
        (
            "request.stream",
            "counters.spend.exceeded",
            "has(request.model)",
            "has(request.max_tokens)",
            "has(request.tags.f)",
            'response.text.contains("a")',
            'request.tools.exists(t, t.name == "a")',
            'request.tools.exists(t, t.name == "a" && t.name == "b")',
            'response.tool_calls.exists(t, t.name == "a" && request.model == "a")',
            'request.messages.all(m, m.role == "a")',
            '(request.model == "a" ? request.stream : caller.team == "a")',
            "request.stream == false",
        )
    ),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        _joined(st.just("("), inner, st.sampled_from(("&&", "&&", "||")), inner, st.just(")")),
        inner.map(lambda text: f"!({text})"),
        st.tuples(inner, inner, inner).map(lambda three: f"({three[0]} ? {three[1]} : {three[2]})"),
    ),
    max_leaves=6,
)

names = st.sampled_from(NAMES)
amounts = st.sampled_from((0.0, 0.5, 1.0, 1.5))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Facts, dict[CounterRef, CounterFacts]]:
    """A call as it can be: what policyd makes keeps to its ranges, what others write is anything."""
    few = st.integers(0, 3)
    request = RequestFacts(
        operation=draw(st.sampled_from(OPERATIONS)),
        model=draw(st.none() | names),
        system=draw(st.none() | names),
        stream=draw(st.none() | st.booleans()),
        max_tokens=draw(st.none() | st.integers(-2, 25)),
        temperature=draw(st.none() | st.sampled_from((*SHARES, float("nan")))),
        tags=draw(st.dictionaries(st.just("f"), names)),
        tools=draw(st.lists(names, max_size=2)),
        messages=draw(st.lists(st.builds(Message, names, names), max_size=2)),
        input_tokens=draw(few),
    )
    response = ResponseFacts(
        output_tokens=draw(few),
        events=draw(few),
        elapsed_ms=draw(amounts),
        inspection=draw(st.sampled_from(("full", "partial", "none"))),
        tool_calls=draw(st.lists(st.builds(ToolCall, names), max_size=2)),
        text_chars=draw(few),
    )
    session = SessionFacts(similarity=draw(st.lists(st.sampled_from((0.0, 0.5, 1.0)), max_size=2)))
    caller = CallerFacts(team=draw(names))
    now = draw(st.integers(0, 23)) * 3600.0
    facts = Facts(request=request, caller=caller, session=session, response=response, now=now)
    counter = st.builds(CounterFacts, value=amounts, used=amounts, exceeded=st.booleans())
    return facts, {(POLICY, name): draw(counter) for name in ("spend", "requests")}


hits = st.sampled_from((frozenset[str](), frozenset({"a"})))


def _fits(case: Case, values: dict[str, object]) -> bool:
    """Whether a call is in a case, by what the case says of leaves."""
    for term, known in case.items():
        value = values.get(term.name) if isinstance(term, Ident) else None
        if not isinstance(value, bool | int | float | str) or value != value:
            continue
        if not known.allows(value) or (known.only is not None and value not in known.only):
            return False
    return True


def _assumed(program: CompiledProgram) -> tuple[list[Case], list[Case]]:
    leaves = Leaves()
    leaves.add(program.inputs)
    assume = Assumption(leaves)
    return assume.cases(program.tree, True, [{}]), assume.cases(program.tree, False, [{}])


@settings(max_examples=EXAMPLES, deadline=None)
@given(conditions, st.lists(st.tuples(worlds(), hits), min_size=8, max_size=8))
def test_every_call_is_in_a_case_of_its_truth(
    source: str, calls: Sequence[tuple[tuple[Facts, dict[CounterRef, CounterFacts]], frozenset[str]]]
) -> None:
    program = compiled(source, into=_SCOPE)
    true, false = _assumed(program)
    batch, inputs = CelEngine().batch([program]), Inputs(program.inputs)
    for (facts, counters), found in calls:
        hit = Hits({one for one in program.watchers if one.pattern in found}, set(program.watchers))
        (value,) = batch.evaluate(facts, counters, hit)
        if isinstance(value, bool):
            values = inputs.values(facts, counters, hit)
            assert any(_fits(case, values) for case in (true if value else false)), (source, value)


_SCOPE = scope()
