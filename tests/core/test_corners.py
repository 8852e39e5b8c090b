"""Corners of the policy language: what two of its sentences say together."""

from __future__ import annotations

import pytest

from policyd.core.model.decision import Outcome, Verdict
from tests.driving import Bed, answer_of, chat, policy

HOUR = "window: {lifetime: 1h}"


def counter(name: str, charge: str = "Requests", limit: str = "10 requests", *, more: str = "") -> str:
    """One counter a session, as a line of YAML."""
    return f"- {{name: {name}, key: session.id, charge: {charge}, {HOUR}, limit: {limit}{more}}}"


# ---- counters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        ("!counters.c.available", Outcome.NOT_MATCHED),
        ("counters.c.available", Outcome.MATCHED),
        ("counters.c.limit > 5", Outcome.MATCHED),
        ("has(counters.c.limit) && counters.c.limit < 5", Outcome.NOT_MATCHED),
    ],
)
def test_a_rule_may_read_of_a_counter_only_what_no_reading_tells(when: str, outcome: Outcome) -> None:
    spec = f"counters:\n{counter('c')}\nrules:\n- {{name: r, when: '{when}', constrain: {{cap: {{max_tokens: 3}}}}}}"

    out = Bed(policy(spec)).call(body=chat(), chunks=[answer_of("x")])

    assert out.rule("r").outcome is outcome
    assert out.rejected is None
