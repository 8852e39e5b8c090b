"""What a policy in Monitor says it would have done is what it does in Full, over the same traffic: verdicts, cut points
and counters, call by call."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.core.model.decision import DecisionRecord, Verdict
from tests.driving import Bed, FlatPrices, answer_of, chat, policy, stream_of
from tests.sizes import size

EXAMPLES = int(os.environ.get("POLICYD_COUNTERFACTUAL_EXAMPLES", size(60, 20)))
WORDS = ["one", "two ", " three", "launch", "a much longer piece of text than the others", "é漢字"]
LIMITS = {"Cost": ("0.002 USD", "0.02 USD"), "Requests": ("2 requests", "4 requests")}
TOKENS = ("TotalTokens", "OutputTokens")

counters = st.builds(
    lambda charge, which, key, denies: {
        "name": "n",
        "text": f"  - {{name: n, key: {key}, charge: {charge}, window: {{lifetime: 1h}}, "
        f"limit: {LIMITS.get(charge, ('25 tokens', '60 tokens'))[which]}, onExceeded: {denies}}}",
    },
    st.sampled_from([*LIMITS, *TOKENS]),
    st.sampled_from([0, 1]),
    st.sampled_from(["session.id", "\"'all'\""]),
    st.sampled_from(["Terminate", "Terminate", "Continue"]),
)
conditions = st.sampled_from(
    [
        "response.output_tokens > 12",
        "response.events > 4",
        'response.text.contains("launch")',
        'response.text.contains("three") && response.events > 2',
        'request.text.contains("secret")',
        "request.stream",
        "response.finish_reasons.size() > 0",
        "counters.n.value > 20.0",
        "counters.n.exceeded",
        "counters.n.used >= 0.5",
        "response.cost_usd > 0.01",
        "response.status == 200",
    ]
)
severities = st.sampled_from(["Low", "High", "Critical"])


@st.composite
def specs(draw: st.DrawFn) -> str:
    """The spec of a policy: at most one counter, up to three rules."""
    counter = draw(st.none() | counters)
    rules = draw(st.lists(st.tuples(conditions, severities, st.booleans()), min_size=0 if counter else 1, max_size=3))
    lines = [f"counters:\n{counter['text']}"] if counter else []
    known = [(when, severity, fails) for when, severity, fails in rules if counter or "counters" not in when]
    known = known or ([] if counter else [("request.stream", "High", False)])
    lines += ["rules:"] if known else []
    for number, (when, severity, exempts) in enumerate(known):
        early = when.startswith(("request", "true"))
        action = "allow: {rules: [p/n.exceeded]}" if exempts and early and counter else "terminate: {}"
        lines.append(f"  - {{name: r{number}, severity: {severity}, when: '{when}', {action}}}")
    return "\n".join(lines)


calls = st.lists(
    st.tuples(
        st.sampled_from(["hello", "my secret", "more " * 9]),
        st.booleans(),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=8),
        st.sampled_from(["s1", "s2"]),
    ),
    min_size=1,
    max_size=6,
)
Told = tuple[bool, str, int | None, list[int]]


def run(spec: str, mode: str, traffic: list[tuple[str, bool, list[str], str]]) -> list[DecisionRecord]:
    """The records of this traffic under this policy in this mode."""
    bed = Bed(policy(spec, mode=mode), prices=FlatPrices("gpt-4o"))
    found = []
    for text, stream, words, session in traffic:
        chunks = stream_of(*words) if stream else [answer_of(" ".join(words))]
        headers = [("x-session-id", session)]
        found.append(bed.call(body=chat(text, stream=stream), headers=headers, chunks=chunks).record)
    return found


def in_full(record: DecisionRecord) -> Told:
    stopped = record.verdict is Verdict.TERMINATE
    rule = record.determined_by[0].rpartition("/")[2] if stopped else ""
    return stopped, rule, record.event if stopped else None, [counter.spent for counter in record.counters]


def in_shadow(record: DecisionRecord) -> Told:
    assert not record.enforced
    spent = [counter.spent for counter in record.counters]
    if not record.shadow:
        return False, "", None, spent
    (fate,) = record.shadow
    return True, fate.rule, fate.event, spent


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(), calls)
def test_the_report_of_a_shadow_is_what_full_does(spec: str, traffic: list[tuple[str, bool, list[str], str]]) -> None:
    full, shadow = run(spec, "Full", traffic), run(spec, "Monitor", traffic)
    assert [in_shadow(record) for record in shadow] == [in_full(record) for record in full]


def test_a_call_after_one_that_would_have_been_cut_meets_what_would_have_been_left() -> None:
    """The first call's answer of 20 tokens would have been cut after some of them; so the third still begins."""
    spec = """\
counters:
  - {name: n, key: session.id, charge: TotalTokens, window: {lifetime: 1h}, limit: 60 tokens}
rules:
  - {name: long, when: response.output_tokens > 3, terminate: {}}
"""
    traffic = [("hello", True, ["one "] * 20, "s1")] * 3
    full, shadow = run(spec, "Full", traffic), run(spec, "Monitor", traffic)
    assert [in_shadow(record) for record in shadow] == [in_full(record) for record in full]
    assert [record.shadow[0].rule for record in shadow] == ["long", "long", "long"]
