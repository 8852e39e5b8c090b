"""A policy, or a rule, that is enforced for a share of the calls."""

from __future__ import annotations

import itertools

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import Mode
from tests.driving import Bed, answer_of, chat, policy
from tests.sizes import size

CALLERS = [f"user-{number}" for number in range(size(400, 200))]
RULE = "rules: [{name: r, terminate: {status: 403}}]"


def refused(bed: Bed, *, header: str = "x-user-id", body: bytes = b"") -> set[str]:
    """The callers who were refused."""
    return {
        one
        for one in CALLERS
        if bed.call(body=body or chat(), headers=[(header, one)], chunks=[answer_of("x")]).rejected is not None
    }


def bed(percent: float, by: str = "caller.user", spec: str = RULE, **more: object) -> Bed:
    return Bed(policy(f"rollout: {{percent: {percent}, by: {by}}}\n{spec}"), **more)  # type: ignore[arg-type]


def test_a_share_is_about_as_large_as_it_says_and_raising_it_only_adds() -> None:
    shares = [refused(bed(percent)) for percent in (0, 5, 20, 60, 100)]
    assert shares[0] == set()
    assert shares[-1] == set(CALLERS)
    assert all(small <= large for small, large in itertools.pairwise(shares))
    assert [round(len(share) / len(CALLERS), 1) for share in shares[1:4]] == pytest.approx([0.1, 0.2, 0.6], abs=0.1)


def test_a_share_is_stable() -> None:
    assert refused(bed(30)) == refused(bed(30))


def test_different_policies_take_different_callers_first() -> None:
    one = refused(Bed(policy(f"rollout: {{percent: 30, by: caller.user}}\n{RULE}", "one")))
    two = refused(Bed(policy(f"rollout: {{percent: 30, by: caller.user}}\n{RULE}", "two")))
    assert one != two


def test_the_others_are_judged_as_under_monitor() -> None:
    found = bed(0).call(body=chat(), headers=[("x-user-id", "u")], chunks=[answer_of("x")])
    assert found.rejected is None
    assert (found.record.mode, found.record.would, found.record.enforced) == (Mode.MONITOR, "terminate", False)
    assert found.rule("r").mode == "Monitor"


def test_their_counters_live_apart() -> None:
    """Who is outside spends nothing of the limit of those inside, and is refused nothing."""
    spec = """\
rollout: {percent: 50, by: caller.user}
counters:
  - {name: calls, key: "'all'", charge: Requests, window: {lifetime: 1h}, limit: 40 requests}
"""
    stopped = refused(Bed(policy(spec)))
    inside = refused(bed(50))
    assert stopped < inside
    assert len(inside) - len(stopped) == 40


def test_a_rule_may_have_a_share_of_its_own() -> None:
    spec = """\
rules:
  - {name: some, rollout: {percent: 25, by: caller.user}, terminate: {status: 403}}
  - {name: every, when: caller.user == "user-1", terminate: {status: 403}}
"""
    found = refused(Bed(policy(spec)))
    assert "user-1" in found
    assert len(CALLERS) / 8 < len(found) < 3 * len(CALLERS) / 8


@pytest.mark.parametrize("header", ["x-nobody", "x-other"])
def test_who_cannot_be_told_is_not_in_the_share(header: str) -> None:
    assert refused(bed(99.9), header=header) == set()


def test_an_error_is_not_in_the_share() -> None:
    assert refused(bed(99.9, by="'request.headers[\"x-gone\"]'")) == set()


def test_the_key_may_read_the_body() -> None:
    models = {f"gpt-4o-{number}" for number in range(200)}
    share = bed(30, by="request.model")
    found = {model for model in models if share.call(body=chat(model=model), chunks=[answer_of("x")]).rejected}
    assert 20 < len(found) < 100


def test_a_reroute_does_not_change_who_is_in_the_share() -> None:
    spec = """\
rules:
  - {name: go, reroute: {model: gpt-4o-mini}}
  - {name: no, when: request.model == "gpt-4o-mini", terminate: {}}
"""
    share = bed(50, by="request.model", spec=spec)
    for model in (f"gpt-4o-{number}" for number in range(40)):
        found = share.call(body=chat(model=model), chunks=[answer_of("x")])
        assert (found.rejected is not None) == found.record.enforced


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ("{percent: 101, by: caller.user}", "POL005"),
        ("{percent: -1}", "POL005"),
        ("{percent: 5, by: response.status}", "CEL005"),
        ("{percent: 5, by: 3}", "POL004"),
        ("{percent: 5, by: caller.usr}", "CEL002"),
        ("{}", "POL003"),
    ],
)
def test_a_wrong_rollout_is_told(rollout: str, said: str) -> None:
    compiled = compile_documents([("p.yaml", policy(f"rollout: {rollout}\n{RULE}"))])
    assert said in {issue.code for issue in compiled.issues}


def test_a_rollout_of_a_monitor_policy_enforces_nothing_and_says_so() -> None:
    compiled = compile_documents([("p.yaml", policy(f"rollout: {{percent: 5}}\n{RULE}", mode="Monitor"))])
    assert any("rollout" in issue.message for issue in compiled.issues)
