"""One expression has one value, wherever a policy or a command evaluates it.

Rule 1: the places share no code here: each expression is written into a real document, or given to a real command, and
        what came of it is read off the record, the bytes that left, or the document of `explain`.
Rule 2: every place is asked over the whole response: its text is the same whether it streamed or came in one piece.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from policyd.adapters.recordings import Recording
from policyd.cli.aloud.hearing import HeardSet, Listening
from policyd.cli.aloud.secrets import scrubber
from policyd.cli.aloud.telling import Told
from policyd.cli.dry_run import DryRun
from policyd.cli.fail_on import conditions
from policyd.core.model.credentials import pseudonym
from policyd.core.model.options import Options
from tests.driving import Bed, NoPrices, Outcome, answer_of, chat, policy, stream_of
from tests.worlds import RUNNER

EXAMPLES = int(os.environ.get("POLICYD_ONE_VALUE_EXAMPLES", "30"))
YES, NO, FAILS = "yes", "no", "fails"
OUTCOMES = {"matched": YES, "not_matched": NO, "errored": FAILS}
OVER = "response.finish_reasons.size() > 0"

# ---- random expressions and calls -----------------------------------------------------------------------------------

WORDS = ("ab", "b c", "a", "zz", "é", "ca")
PATTERNS = (r"a+b", r"\bab\b", r"^ca", r"ab$", r"b.c", r"(?i)AB", r"z{2,}", r"^$", r"a[^z]*c", r"(?s)a.*é")
REQUEST = (
    'caller.team == "red"',
    'request.model == "gpt-4o"',
    "request.stream",
    "has(request.max_tokens)",
    "request.?temperature.orValue(1.0) > 0.5",
    'request.headers["x-never"] == "1"',
    'request.messages.exists(m, m.text.contains("ab"))',
    'request.text.matches("^a")',
    "request.messages[2].role == 'user'",
)


@st.composite
def terms(draw: DrawFn, response: bool) -> str:
    kind = draw(st.integers(0, 3)) if response else 0
    if kind == 0:
        return draw(st.sampled_from(REQUEST))
    if kind == 1:
        return f"response.text.contains({json.dumps(draw(st.sampled_from(WORDS)), ensure_ascii=False)})"
    if kind == 2:
        return f"response.text.matches({json.dumps(draw(st.sampled_from(PATTERNS)), ensure_ascii=False)})"
    return draw(st.sampled_from(("response.text.size() > 4", "response.text == 'ab'", 'response.text.startsWith("a")')))


def expressions(response: bool) -> st.SearchStrategy[str]:
    def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pairs = st.tuples(inner, st.sampled_from(("&&", "||", "==")), inner)
        three = st.tuples(inner, inner, inner)
        return (
            pairs.map(lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})")
            | inner.map(lambda part: f"!({part})")
            | three.map(lambda parts: f"({parts[0]}) ? ({parts[1]}) : ({parts[2]})")
        )

    return st.recursive(terms(response), joined, max_leaves=4)


texts = st.lists(st.sampled_from(("ab", "a", "b c", " ", "z", "é", "\n", "ca", "x")), min_size=1, max_size=5)
prompts = st.sampled_from(("ab", "hello", "cab"))
teams = st.sampled_from(("red", "blue"))

# ---- the places -----------------------------------------------------------------------------------------------------


def play(spec: str, prompt: str, team: str, pieces: Sequence[str], *, stream: bool) -> Outcome:
    chunks = stream_of(*pieces) if stream else [answer_of("".join(pieces))]
    bed = Bed(policy(spec, mode="Full"))
    return RUNNER.run(bed.acall(chat(prompt, stream=stream), headers=[("x-team-id", team)], chunks=chunks))


def quoted(expression: str) -> str:
    return json.dumps(expression, ensure_ascii=False)


def in_when(source: str, *call: object, stream: bool) -> str:
    spec = f"rules: [{{name: r, mode: Monitor, when: {quoted(f'{OVER} && ({source})')}, terminate: {{}}}}]"
    return OUTCOMES[play(spec, *call, stream=stream).rule("r").outcome.value]  # type: ignore[arg-type]


def in_charge(source: str, *call: object, stream: bool) -> str:
    amount = quoted(f"({source}) ? 1.0 : 0.0")
    spec = (
        f"failurePolicy: Ignore\ncounters: [{{name: c, key: '\"k\"', window: {{lifetime: 1h}}, "
        f"charge: {{expression: {amount}}}}}]\nrules: [{{name: r, mode: Monitor, when: '{OVER}', terminate: {{}}}}]"
    )
    record = play(spec, *call, stream=stream).record  # type: ignore[arg-type]
    if record.degraded:
        return FAILS
    return YES if record.counters[0].spent else NO


def in_a_text(source: str, *call: object, stream: bool) -> str:
    text = quoted(f'({source}) ? "Q-yes-Q" : "Q-no-Q"')
    spec = (
        f"rules: [{{name: r, when: '{OVER}', terminate: "
        f"{{message: Q-fails-Q, messageExpression: {text}, fallback: Q-fails-Q, fallbackExpression: {text}}}}}]"
    )
    body = play(spec, *call, stream=stream).body.decode()  # type: ignore[arg-type]
    return next(value for value in (YES, NO, FAILS) if f"Q-{value}-Q" in body)


def in_conditions(source: str, *call: object, stream: bool) -> str:
    spec = (
        f"matchConditions: [{{name: m, expression: {quoted(source)}}}]\n"
        "rules: [{name: r, mode: Monitor, terminate: {}}]"
    )
    rules = play(spec, *call, stream=stream).record.rules  # type: ignore[arg-type]
    return OUTCOMES[rules[0].outcome.value] if rules else NO


def in_a_key(source: str, *call: object, stream: bool) -> str:
    key = quoted(f'({source}) ? "yes" : "no"')
    spec = f"rules: []\ncounters: [{{name: c, key: {key}, window: {{lifetime: 1h}}, charge: Requests}}]"
    found = play(spec, *call, stream=stream).record.counters[0].key  # type: ignore[arg-type]
    return {pseudonym("yes"): YES, pseudonym("no"): NO, "": FAILS}[found]


def dry(source: str, prompt: str, team: str, pieces: Sequence[str], *, stream: bool) -> tuple[bool, str]:
    """What `--fail-on` finds, and what `explain` shows."""
    chunks = stream_of(*pieces) if stream else [answer_of("".join(pieces))]
    recording = Recording(
        source="here#0", time=0.0, method="POST", path="/v1/chat/completions", host="api.openai.com", scheme="https",
        headers=(("x-team-id", team),), body=chat(prompt, stream=stream), status=200,
        response_headers=(("content-type", "text/event-stream" if stream else "application/json"),),
        chunks=tuple((float(at), chunk) for at, chunk in enumerate(chunks)),
    )  # fmt: skip
    spec = f"rules: [{{name: r, when: {quoted(f'{OVER} && ({source})')}, terminate: {{}}}}]"
    policies = Bed(policy(spec, mode="Monitor")).policy_set
    listening = Listening(policies.engine)
    run = DryRun(HeardSet(policies, listening), NoPrices(), Options(observe_all=True), gather=False)
    played = RUNNER.run(run.play(recording))
    (condition,) = conditions([source], policies)
    document = Told(policies, listening, played, scrubber(recording)).document()
    shown = document["rules"][0]["values"][0]  # type: ignore[index]
    return condition.finds(played), FAILS if "error" in shown else {True: YES, False: NO}[shown["value"]]


# ---- the property ---------------------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES, deadline=None)
@given(expressions(True), prompts, teams, texts)
def test_an_expression_over_the_response_has_one_value(source: str, prompt: str, team: str, pieces: list[str]) -> None:
    call = (prompt, team, pieces)
    for stream in (False, True):
        value = in_when(source, *call, stream=stream)
        assert in_charge(source, *call, stream=stream) == value
        assert in_a_text(source, *call, stream=stream) == value
        found, explained = dry(source, *call, stream=stream)
        assert (found, explained) == (value != NO, value)
    if "request.stream" not in source:
        assert in_when(source, *call, stream=False) == in_when(source, *call, stream=True)


@settings(max_examples=EXAMPLES, deadline=None)
@given(expressions(False), prompts, teams, texts)
def test_an_expression_over_the_request_has_one_value(source: str, prompt: str, team: str, pieces: list[str]) -> None:
    call = (prompt, team, pieces)
    for stream in (False, True):
        value = in_when(source, *call, stream=stream)
        assert in_conditions(source, *call, stream=stream) == value
        assert in_a_key(source, *call, stream=stream) == value
        assert in_a_text(source, *call, stream=stream) == value
        assert dry(source, *call, stream=stream) == (value != NO, value)
