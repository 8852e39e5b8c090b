"""A namespace that would loosen what holds for the cluster: it has no effect, and that is known beforehand.

Each pair is judged twice: by what is said of it, and by calls with the namespace's policy and without.
"""

from __future__ import annotations

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.model.route import Route
from policyd.core.review.assume import Effort
from policyd.core.review.overruled import Overruled, names_of, overruled
from policyd.core.review.review import review
from policyd.core.review.reviewed import reviewed
from tests.driving import Bed, Outcome, answer_of, chat, cluster_policy, policy

STOP = "rules: [{name: no, severity: Critical, when: 'request.model == \"o3\"', terminate: {reason: stop}}]"
CAP = "rules: [{name: cap, constrain: {cap: {max_tokens: 256}}}]"
DAY = "counters: [{name: n, key: caller.team, charge: Requests, window: {calendar: Day}, limit: %s requests}]"
LIFETIME = "counters: [{name: n, key: caller.team, charge: Requests, window: {lifetime: 1h}, limit: %s requests}]"
MOVE = "rules: [{name: move, when: 'request.model == \"%s\"', reroute: {model: %s}}]"


def found(cluster: str, own: str, *beside: str) -> Overruled | None:
    texts = [("c.yaml", cluster), ("n.yaml", own), *((f"b{at}.yaml", text) for at, text in enumerate(beside))]
    compiled = compile_documents(texts)
    assert compiled.policy_set is not None, compiled.issues
    every = reviewed(compiled.written, Effort())
    names = frozenset[str]().union(*(names_of(one.policy) for one in every if one.policy.namespace == "default"))
    return overruled(every[1], [one for one in every if one.policy.cluster], names)


BEATEN = [
    (STOP, "rules: [{name: free, allow: {rules: [c/no]}}]", "exempts from nothing"),
    (CAP, "rules: [{name: r, constrain: {cap: {max_tokens: 1000}}}]", "lowers nothing"),
    (CAP, "rules: [{name: r, when: request.stream, constrain: {cap: {max_tokens: 256}}}]", "lowers nothing"),
    (DAY % 2, DAY % 5, "is never reached"),
    (DAY % 2, DAY % 2, "is never reached"),
    (STOP, MOVE % ("o3", "gpt-4o"), "reroutes no call"),
]


@pytest.mark.parametrize(("cluster", "own", "said"), BEATEN)
def test_what_never_acts_is_known(cluster: str, own: str, said: str) -> None:
    conflict = found(cluster_policy(cluster), policy(own))
    assert conflict is not None
    assert conflict.whole
    assert said in conflict.issues[0].message
    assert conflict.issues[0].span.file == "n.yaml"


ACTS = [
    (CAP, "rules: [{name: r, constrain: {cap: {max_tokens: 100}}}]"),
    (CAP, "rules: [{name: r, constrain: {cap: {max_tokens: 1000}, set: {temperature: 0}}}]"),
    (CAP, "rules: [{name: r, constrain: {pace: {tokens_per_second: 5}}}]"),
    (CAP.replace("name: cap,", "name: cap, when: request.stream,"), CAP),
    ("match: {models: [gpt-4o]}\n" + CAP, CAP),
    (DAY % 5, DAY % 2),
    (LIFETIME % 2, LIFETIME % 5),
    (DAY % 2, DAY.replace("caller.team", "caller.user") % 5),
    (DAY % 2, DAY.replace("Day", "Week") % 5),
    ((DAY % 2).replace("limit:", "onExceeded: Continue, limit:"), DAY % 5),
    (DAY % 2 + "\nrules: [{name: r, when: counters.n.exceeded, reroute: {model: m}}]", DAY % 5),
    (DAY % 2 + "\nrules: [{name: r, when: caller.team == 'x', allow: {rules: [c/n.exceeded]}}]", DAY % 5),
    (STOP, MOVE % ("gpt-4o", "gpt-4o-mini")),
    (STOP, MOVE % ("gpt-4o", "o3")),  # it refuses what it reroutes there
    (STOP, "rules: [{name: r, when: 'request.model == \"o3\"', terminate: {}}]"),
    (STOP, "rules: [{name: free, allow: {rules: [c/nothing]}}]"),
    ("rollout: {percent: 50}\n" + CAP, CAP),
    (CAP.replace("name: cap,", "name: cap, rollout: {percent: 50},"), CAP),
]


@pytest.mark.parametrize(("cluster", "own"), ACTS)
def test_of_what_may_act_nothing_is_said(cluster: str, own: str) -> None:
    assert found(cluster_policy(cluster), policy(own)) is None


def test_one_in_monitor_or_softer_beats_nothing() -> None:
    assert found(cluster_policy(CAP, mode="Monitor"), policy(CAP)) is None
    assert found(cluster_policy(DAY % 2, mode="Monitor"), policy(DAY % 5)) is None
    assert found(cluster_policy(CAP, mode="Soft"), policy(CAP)) is None


def test_a_name_that_the_namespace_has_too_is_its_own() -> None:
    free = policy("rules: [{name: free, allow: {rules: [c/no]}}]")
    assert found(cluster_policy(STOP), free, policy(STOP, "c")) is None


def test_a_policy_of_which_a_part_acts_is_no_conflict_as_a_whole() -> None:
    both = "rules:\n  - {name: free, allow: {rules: [c/no]}}\n  - {name: own, when: request.stream, terminate: {}}"
    conflict = found(cluster_policy(STOP), policy(both))
    assert conflict is not None
    assert (conflict.whole, len(conflict.issues)) == (False, 1)


def test_check_says_it_too() -> None:
    compiled = compile_documents([("c.yaml", cluster_policy(DAY % 2)), ("n.yaml", policy(DAY % 5))])
    assert "POL117" in [issue.code for issue in review(compiled)]


# ---- calls ----------------------------------------------------------------------------------------------------------


def calls(*documents: str) -> list[tuple[object, ...]]:
    """What becomes of calls of one team."""
    bed = Bed(*documents)
    models = ("o3", "gpt-4o", "gpt-4o", "o3", "gpt-4o", "gpt-4o")
    return [
        told(bed.call(body=chat(model=model), headers=(("x-team-id", "t"),), chunks=[answer_of("x")]))
        for model in models
    ]


def told(out: Outcome) -> tuple[object, ...]:
    return out.record.verdict, out.record.reason, out.sent, out.rejected, out.body


@pytest.mark.parametrize(("cluster", "own", "_"), BEATEN)
def test_what_never_acts_changes_no_call(cluster: str, own: str, _: str) -> None:
    assert calls(cluster_policy(cluster), policy(own)) == calls(cluster_policy(cluster))


# ---- namespaces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "refused"),
    [(None, False), (Route("a"), True), (Route("b", "chat"), True), (Route("b", "batch"), False), (Route("c"), False)],
)
def test_a_call_is_judged_by_its_routes_policies_alone(route: Route | None, refused: bool) -> None:
    bound = policy(STOP, "two", namespace="b").replace("spec:", "spec:\n  targetRefs: [{kind: HTTPRoute, name: chat}]")
    bed = Bed(policy(STOP, "one", namespace="a"), bound, home="home")
    assert (bed.call(body=chat(model="o3"), route=route).rejected is not None) is refused


def test_a_namespaces_exemption_is_no_other_ones() -> None:
    free = policy("rules: [{name: free, allow: {rules: [p/no]}}]", "free", namespace="b")
    bed = Bed(policy(STOP, namespace="a"), free, policy(STOP, namespace="b"), home="home")
    assert bed.call(body=chat(model="o3"), route=Route("a")).rejected is not None
    assert bed.call(body=chat(model="o3"), route=Route("b")).rejected is None


def test_a_reroute_leaves_a_call_to_the_policies_of_its_route() -> None:
    move = policy(MOVE % ("gpt-4o", "o3"), "move", namespace="a")
    bed = Bed(move, policy(STOP, namespace="b"), home="home")
    assert bed.call(body=chat(model="gpt-4o"), route=Route("a")).rejected is None
    assert bed.call(body=chat(model="gpt-4o"), route=Route("b")).rejected is None
