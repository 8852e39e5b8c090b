"""Which policies are about a call, by its route: the index against the plain definition, and its cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile.policyset import CompiledPolicy, Match
from policyd.core.compile.select import CompiledSet
from policyd.core.model.decision import FailurePolicy, Mode
from policyd.core.model.route import GATEWAY, HTTP_ROUTE, Route, Target
from tests.core.test_select import MATCHES, WORDS, NoEngine, plainly

ANY = Match()


def policy(name: str, namespace: str = "", *targets: Target, match: Match = ANY) -> CompiledPolicy:
    """An LLMPolicy; without a namespace a ClusterLLMPolicy."""
    cluster = not namespace
    return CompiledPolicy(name, namespace, cluster, Mode.FULL, FailurePolicy.FAIL, match, (), (), (), None, targets)


def set_of(*policies: CompiledPolicy) -> CompiledSet:
    return CompiledSet("sha256:0", policies, NoEngine())


def names(policies: Sequence[CompiledPolicy]) -> str:
    return " ".join(policy.name for policy in policies)


def chat(chosen: CompiledSet, route: Route | None) -> str:
    return names(chosen.select("chat", "openai", "/v1", "gpt-4o", route))


def about(policy: CompiledPolicy, route: Route | None) -> bool:
    """POLICY.md's section Scope, word by word."""
    if route is None or policy.cluster:
        return True
    if not policy.targets:
        return policy.namespace == route.namespace
    for target in policy.targets:
        place = (policy.namespace, target.name)
        if target.kind == GATEWAY and place in route.gateways:
            return True
        if target.kind == HTTP_ROUTE and route.name and place == (route.namespace, route.name):
            return True
    return False


EDGE, SPARE = Target(GATEWAY, "edge"), Target(GATEWAY, "spare")
CHAT, BATCH = Target(HTTP_ROUTE, "chat"), Target(HTTP_ROUTE, "batch")
FOUR = set_of(policy("all"), policy("own", "a"), policy("chat", "a", CHAT), policy("edge", "a", EDGE))


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (None, "all own chat edge"),
        (Route("a"), "all own"),
        (Route("a", "chat"), "all own chat"),
        (Route("a", "batch"), "all own"),
        (Route("a", "chat", (("a", "edge"),)), "all own chat edge"),
        (Route("a", "edge"), "all own"),
        (Route("b", "chat"), "all"),
        (Route("b", "chat", (("a", "edge"),)), "all edge"),
        (Route("b", "chat", (("b", "edge"),)), "all"),
        (Route("b", "chat", (("b", "x"), ("a", "edge"))), "all edge"),
        (Route("", "chat"), "all"),
        (Route("A", "chat"), "all"),
    ],
)
def test_who_is_about_a_call(route: Route | None, expected: str) -> None:
    assert chat(FOUR, route) == expected


def test_a_policy_that_names_two_places_is_there_once() -> None:
    chosen = set_of(policy("two", "a", CHAT, BATCH, EDGE))
    assert chat(chosen, Route("a", "batch", (("a", "edge"),))) == "two"


def test_one_that_names_the_same_route_as_its_neighbour_does_not_stand_in_its_place() -> None:
    chosen = set_of(policy("here", "a", CHAT), policy("there", "b", CHAT))
    assert [chat(chosen, Route(space, "chat")) for space in "ab"] == ["here", "there"]


NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from([EDGE, SPARE, CHAT, BATCH]), max_size=3)
POLICIES = st.tuples(st.sampled_from(["", "a", "b", "c"]), TARGETS, MATCHES)
PLACES = st.lists(st.tuples(NAMES, st.sampled_from(["edge", "spare"])), max_size=2)
ROUTES = st.none() | st.builds(Route, NAMES, st.sampled_from(["", "chat", "batch", "x"]), PLACES.map(tuple))


@given(st.lists(POLICIES, max_size=10), st.lists(st.tuples(ROUTES, WORDS, WORDS, WORDS, WORDS), max_size=6))
def test_the_index_agrees_with_the_definition(
    written: list[tuple[str, list[Target], Match]], calls: list[tuple[Route | None, str, str, str, str]]
) -> None:
    policies = [
        policy(str(at), space, *(targets if space else ()), match=match)
        for at, (space, targets, match) in enumerate(written)
    ]
    chosen = set_of(*policies)
    for route, operation, provider, path, model in calls:
        matching = [one for one in policies if plainly(one.match, operation, provider, path, model)]
        expected = names([one for one in matching if about(one, route)])
        for _ in range(2):
            assert names(chosen.select(operation, provider, path, model, route)) == expected


def test_routes_that_the_same_policies_are_about_share_one_answer() -> None:
    one = FOUR.select("chat", "openai", "/v1", "gpt-4o", Route("a", "x"))
    assert FOUR.select("chat", "openai", "/v1", "gpt-4o", Route("a", "y")) is one


def test_ten_thousand_policies_of_other_namespaces_cost_a_call_nothing() -> None:
    glob = Match(models=("gpt-*-x*",))
    own = [policy(f"own{at}", "mine", match=glob) for at in range(5)]
    few, many = (
        set_of(*own),
        set_of(*own, *(policy(str(at), f"n{at}", match=Match((), (f"gpt-{at}*",))) for at in range(10_000))),
    )

    def cost(chosen: CompiledSet) -> float:
        began = time.process_time()
        for at in range(2_000):  # never the same question twice: no cache helps
            assert len(chosen.select("chat", "openai", "/v1", f"gpt-{at}-x", Route("mine", f"r{at}"))) == 5
        return time.process_time() - began

    cost(many)
    assert min(cost(many) for _ in range(3)) < 3 * min(cost(few) for _ in range(3)) + 0.02
