"""How rules combine: the engine against tests/oracle.py, on random policy sets and calls.

Rule 1: a policy set of the oracle's is written down as documents, compiled, and put before real calls: what left, what
        came back, what was recorded and what was charged are compared, not what the engine holds inside.
Rule 2: POLICYD_ORACLE_EXAMPLES says how many policy sets are tried; each sees up to three calls, one after another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.driving import Outcome, chat, stream_of
from tests.oracle import (
    ERROR,
    NO,
    YES,
    Allow,
    Call,
    Constrain,
    Counter,
    CounterKey,
    Decided,
    Glance,
    Policy,
    Reroute,
    Rule,
    Terminate,
    World,
)
from tests.sizes import size
from tests.worlds import (
    EIGHTH,
    EVERY,
    MODELS,
    NAMESPACES,
    PRICES,
    RUNNER,
    SEVERITIES,
    TERMINATES,
    Asked,
    a_rule,
    asked,
    bed_of,
    begin,
    done,
    first_call,
    made,
    pick,
    policy_sets,
    spent,
    told,
    worlds,
)

EXAMPLES = int(os.environ.get("POLICYD_ORACLE_EXAMPLES", size(1000)))
COMMON = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
RARELY = max(50, EXAMPLES // 20)  # the properties that need no oracle

pytestmark = pytest.mark.timeout(max(240, EXAMPLES))


# ---- field by field -----------------------------------------------------------------------------------------------


def compare(expected: Decided, one: Asked, out: Outcome) -> None:
    """Every field that both know."""
    record = out.record
    assert (out.sent is not None) == expected.left
    assert record.enforced == (expected.verdict != "allow")
    assert record.verdict == (expected.verdict if record.enforced else expected.would)
    assert record.would == expected.would
    assert record.degraded == expected.degraded
    _same_rules(expected, out)
    if record.enforced:
        assert record.determined_by == (_short(expected.winner),)
    if expected.verdict == "terminate":
        _same_refusal(expected, out)
    else:
        assert (out.rejected, record.reason) == (None, "")
    if expected.left:
        assert record.served_model == (expected.served if out.sent else "")  # a body that nothing reads is not read
        assert bool(record.conflicts) == bool(expected.merged.conflicts)
        exceeded = {(one.namespace, one.policy, one.name): one.exceeded for one in record.counters}
        for (policy, name), wanted in expected.exceeded.items():
            assert exceeded[(*_parts(policy), name)] == wanted
    if expected.left and expected.verdict != "terminate":  # an answer refused leaves nothing of the change to be seen
        _same_request(expected, one, out)


def _parts(qualified: str) -> tuple[str, str]:
    namespace, _, name = qualified.rpartition("/")
    return namespace, name


def _short(rule: str) -> str:
    """policy/rule, as records name it, of [namespace/]policy/rule."""
    return "/".join(rule.split("/")[-2:])


def _same_rules(expected: Decided, out: Outcome) -> None:
    got = {
        f"{rule.namespace}/{rule.policy}/{rule.rule}".removeprefix("/"): (rule.outcome.value, rule.enforced)
        for rule in out.record.rules
    }
    wanted = {rule: (outcome, expected.enforced[rule]) for rule, outcome in expected.outcomes.items()}
    assert {rule: said for rule, said in got.items() if rule in wanted} == wanted
    # A rule that was never judged, as the call was over before, may be told as one that did not match.
    assert all(said == (NO, False) for rule, said in got.items() if rule not in wanted)


def _same_refusal(expected: Decided, out: Outcome) -> None:
    assert out.rejected is not None
    assert (out.rejected.status, out.record.status) == (expected.status, expected.status)
    assert out.record.reason == expected.reason
    body = json.loads(out.rejected.body)
    if expected.status == 200:
        rule, _, policy = expected.winner.rpartition("/")[::-1]
        said = body["choices"][0]["message"]["content"]
        assert said == f"The call was stopped by rule {rule} of policy {policy}."
    else:
        assert expected.reason in json.dumps(body["error"])


def _same_request(expected: Decided, one: Asked, out: Outcome) -> None:
    merged = expected.merged
    removed = {name for name, value in merged.request_headers.items() if value is None}
    sets = {name: value for name, value in merged.request_headers.items() if value is not None}
    if expected.reroute and expected.reroute.upstream:
        sets["x-policyd-upstream"] = expected.reroute.upstream
        removed |= set() if expected.reroute.keep_credentials else {"authorization"}  # what the caller sent
    assert {name: value for name, value in out.request_headers.items() if name != "accept-encoding"} == sets
    assert out.removed & {"x-one", "x-two", "authorization", "x-api-key", "cookie"} == removed
    answered = {name: value for name, value in merged.response_headers.items() if value is not None}
    got = {name: value for name, value in out.response_headers.items() if name != "x-policyd-decision"}
    assert got == answered
    assert out.moved == (expected.reroute is not None)
    if out.sent and one.call.readable:
        assert json.loads(out.sent) == _body(expected, one)
        if expected.verdict == "allow":
            assert out.sent == one.body


def _body(expected: Decided, one: Asked) -> dict[str, object]:
    """The request's body as it should leave."""
    merged, body = expected.merged, json.loads(one.body)
    for path, value in merged.set.items():
        place = body
        for step in path.split(".")[:-1]:
            place = place.setdefault(step, {})
        place[path.split(".")[-1]] = value
    if merged.cap is not None:
        body["max_tokens"] = min(merged.cap, body.get("max_tokens", merged.cap))
    if "tools" in body:
        names = [tool["function"]["name"] for tool in body["tools"]]
        allowed = names if merged.tools_allow is None else merged.tools_allow
        kept = [name for name in names if name in allowed and name not in merged.tools_deny]
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in kept]
    for word in merged.redact:
        body["messages"][-1]["content"] = body["messages"][-1]["content"].replace(word, "[x]")
    body["messages"][:0] = [{"role": "system", "content": text} for text in dict.fromkeys(merged.injects)]
    body["model"] = expected.served
    return dict(body)


async def agree(world: World, calls: Sequence[Asked]) -> None:
    bed = bed_of(world)
    await begin(world, bed)
    for one in calls:
        expected = oracle.decide(world, one.call)
        out = await made(bed, one)
        compare(expected, one, out)
        before = dict(world.spent)
        for key, units in expected.charged.items():
            world.spent[key] = world.spent.get(key, 0) + units
        if world.store:
            got = await spent(world, bed, list(world.spent))
            _would_have_spent(world, out, before, got)
            assert got == {key: (units, 0) for key, units in world.spent.items()}


def _would_have_spent(
    world: World, out: Outcome, before: Mapping[CounterKey, int], got: Mapping[CounterKey, tuple[int, int]]
) -> None:
    """A policy in Monitor that would have ended the call charges what would have been used by then, and no more. How
    much that is, test_counterfactual.py holds to what Full does."""
    ended = {f"{one.namespace}/{one.policy}".removeprefix("/") for one in out.record.shadow}
    for key in world.spent:
        if key[0] in ended and key[3] == "monitor":
            assert before.get(key, 0) <= got[key][0] <= world.spent[key]
            world.spent[key] = got[key][0]


@settings(COMMON, max_examples=EXAMPLES)
@given(worlds(), st.lists(asked(), min_size=1, max_size=3))
def test_the_engine_combines_as_the_oracle_does(world: World, calls: list[Asked]) -> None:
    RUNNER.run(agree(world, calls))


# ---- properties -----------------------------------------------------------------------------------------------------


@settings(COMMON, max_examples=RARELY)
@given(worlds(), asked(streams=True), st.data())
def test_adding_a_terminate_never_turns_a_refusal_into_anything_else(
    world: World, one: Asked, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(world.policies) - 1))
    policy = world.policies[at]
    added = replace(a_rule(data.draw, "added", policy.counters), action=pick(data.draw, TERMINATES))
    more = replace(policy, rules=(*policy.rules, added))
    before = first_call(world, one)

    after = first_call(replace(world, policies=[*world.policies[:at], more, *world.policies[at + 1 :]]), one)

    assert after.rejected is not None or before.rejected is None
    assert after.record.would.rank >= before.record.would.rank


@settings(COMMON, max_examples=RARELY)
@given(worlds(), asked(streams=True), st.sampled_from(SEVERITIES), st.sampled_from(NAMESPACES))
def test_adding_a_terminate_that_matches_refuses(world: World, one: Asked, severity: str, namespace: str) -> None:
    added = Policy("added", namespace, rules=(Rule("no", Terminate(451), severity=severity),))

    out = first_call(replace(world, mode="Full", policies=[*world.policies, added]), one)

    assert out.rejected is not None
    assert (out.sent, out.record.verdict.value, out.record.enforced) == (None, "terminate", True)


@settings(COMMON, max_examples=RARELY)
@given(worlds(), asked(streams=True))
def test_file_order_never_matters(world: World, one: Asked) -> None:
    forwards, backwards = first_call(world, one), first_call(world, one, backwards=True)

    assert done(one, forwards) == done(one, backwards)
    assert told(forwards) == told(backwards)


@settings(COMMON, max_examples=RARELY)
@given(worlds(tuple(("", name) for name in ("p", "q", "p.x"))), asked(streams=True), st.sampled_from(("a", "a-b")))
def test_an_allow_of_a_namespace_never_loosens_a_cluster_policy(world: World, one: Asked, namespace: str) -> None:
    allow = Policy("allows", namespace, rules=(Rule("all", Allow(frozenset(EVERY)), severity="Critical"),))

    before, after = first_call(world, one), first_call(replace(world, policies=[*world.policies, allow]), one)

    for out in (before, after):  # which says that something could act, and an exemption could
        out.response_headers.pop("x-policyd-decision", None)
    assert done(one, after) == done(one, before)
    assert {repr(rule) for rule in before.record.rules} <= {repr(rule) for rule in after.record.rules}


@settings(COMMON, max_examples=RARELY)
@given(worlds(), policy_sets((("a", "m"), ("", "m"), ("a", "n")), ("Monitor",)), asked(streams=True))
def test_monitor_policies_change_nothing_of_what_is_done(world: World, more: tuple[Policy, ...], one: Asked) -> None:
    before, after = first_call(world, one), first_call(replace(world, policies=[*world.policies, *more]), one)

    assert done(one, after) == done(one, before)
    assert (after.record.enforced, after.record.reason) == (before.record.enforced, before.record.reason)


@settings(COMMON, max_examples=RARELY)
@given(worlds(), asked(streams=True))
def test_a_process_in_monitor_changes_nothing_at_all(world: World, one: Asked) -> None:
    out = first_call(replace(world, mode="Monitor"), one)

    assert done(one, out) == {
        "sent": one.body,
        "request headers": ([], []),
        "moved": False,
        "response headers": [],
        "answer": None,
        "body": b"".join(one.answer),
    }


@settings(COMMON, max_examples=RARELY)
@given(st.lists(st.sampled_from((5.0, 10.0, 40.0, 1000.0)), min_size=1, max_size=3))
def test_the_lowest_pace_wins(paces: list[float]) -> None:
    def ends(*paces: float) -> list[float | None]:
        made = tuple(Rule(f"r{at}", Constrain(pace=pace)) for at, pace in enumerate(paces))
        bed = bed_of(World([Policy("p", rules=made)], PRICES))
        return RUNNER.run(bed.acall(chat(stream=True), chunks=stream_of(*["a word or two "] * 6))).times

    assert ends(*paces) == ends(min(paces))
    assert ends(5.0) != ends(1000.0)


# ---- what the oracle found ------------------------------------------------------------------------------------------

ALWAYS = dict.fromkeys(MODELS, YES)


def only(model: str) -> dict[str, str]:
    return {name: YES if name == model else NO for name in MODELS}


def test_every_counter_that_a_call_does_not_fit_is_exceeded() -> None:
    move = Rule("move", Reroute("m3"), glance=Glance("c"))
    stop = Rule("stop", Terminate(451), glance=Glance("d"))
    counters = (Counter("c", "Cost", EIGHTH * 5), Counter("d", "Cost", EIGHTH * 5))

    out = first_call(World([Policy("p", counters=counters, rules=(move, stop))], PRICES), Asked(Call("m1")))

    assert out.record.determined_by == ("p/stop",)
    assert [one.exceeded for one in out.record.counters] == [True, True]


def test_a_refusal_says_when_to_come_back_also_of_the_second_limit() -> None:
    soften = Rule("soften", Constrain(cap=100), glance=Glance("c"))
    world = World([Policy("p", counters=(Counter("c", limit=1), Counter("d", limit=1)), rules=(soften,))], PRICES)
    world.spent = {("p", name, "everybody", "live"): 1 for name in "cd"}

    out = first_call(world, Asked(Call("m1")))

    assert out.record.determined_by == ("p/d.exceeded",)
    assert out.rejected is not None
    assert dict(out.rejected.headers)["retry-after"] == "86400"


def test_constrains_of_both_passes_are_merged_in_one_order() -> None:
    mild = Rule("mild", Constrain(set={"temperature": 0.5}), only("m1"), severity="Low")
    grave = Rule("grave", Constrain(set={"temperature": 0.25}), only("m3"), severity="Critical")
    move = Rule("move", Reroute("m3"), only("m1"))

    out = first_call(World([Policy("p", rules=(mild, grave, move))], PRICES), Asked(Call("m1")))

    assert json.loads(out.sent or b"")["temperature"] == 0.25
    assert len(out.record.conflicts) == 1


def test_a_rule_that_is_exempted_need_not_be_judged() -> None:
    rules = (
        Rule("r0", Terminate(), dict.fromkeys(MODELS, ERROR)),
        Rule("pass", Allow(frozenset({"p/r0"}))),
    )

    out = first_call(World([Policy("p", fails=False, rules=rules)], PRICES), Asked(Call("m1")))

    assert (out.rule("r0").outcome.value, out.record.degraded) == ("exempted", False)


def test_a_count_of_calls_does_not_grow_while_one_runs() -> None:
    stop = Rule("stop", Terminate(), glance=Glance("c", 1))
    reader = Rule("reader", Terminate(), only("m2"), answer=True)
    world = World([Policy("p", counters=(Counter("c"),), rules=(stop, reader))], PRICES)

    assert first_call(world, Asked(Call("m1"))).rejected is None


def test_under_monitor_too_a_rule_speaks_for_its_limit() -> None:
    soften = Rule("soften", Constrain(cap=100), glance=Glance("c"))
    counter = Counter("c", "OutputTokens", 0)

    out = first_call(
        World([Policy("p", mode="Monitor", counters=(counter,), rules=(soften,))], PRICES), Asked(Call("m1"))
    )

    assert (out.record.would.value, out.record.determined_by) == ("constrain", ("p/soften",))


def test_the_answers_rules_see_the_model_that_answers() -> None:
    move = Rule("move", Reroute("m3"), only("m1"))

    def ends(model: str) -> Outcome:
        judge = Rule("judge", Terminate(451), only(model), answer=True)
        return first_call(World([Policy("p", rules=(move, judge))], PRICES), Asked(Call("m1")))

    assert (ends("m3").record.verdict.value, ends("m1").record.verdict.value) == ("terminate", "reroute")
    assert (ends("m3").record.model, ends("m3").record.served_model) == ("m1", "m3")
