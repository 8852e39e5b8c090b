"""Who is calling: which counters and sessions a caller can reach, and which it cannot, whatever it sends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policyd.core.exchange.opening import open_call
from policyd.core.model.steps import RequestHeaders
from tests.driving import Bed, answer_of, chat, policy

HOUR = "window: {lifetime: 1h}"
NAMESPACE = "envoy.filters.http.jwt_authn"
METADATA = f"metadata:{NAMESPACE}"
PLACE = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com"))
Pairs = tuple[tuple[str, str], ...]


def budget(key: str, *, calls: int = 3, more: str = "") -> str:
    return policy(f"counters: [{{name: c, key: {key}, charge: Requests, {HOUR}, limit: {calls} requests{more}}}]")


def passes(bed: Bed, headers: Pairs = (), claims: Mapping[str, object] | None = None) -> bool:
    metadata = {NAMESPACE: claims} if claims is not None else {}
    return bed.call(body=chat(), headers=headers, chunks=[answer_of("x")], metadata=metadata).rejected is None


KEY = ("authorization", "Bearer sk-1")


def test_a_tenant_that_a_header_claims_opens_no_counters_of_its_own() -> None:
    bed = Bed(budget("caller.key"))

    passed = [passes(bed, (KEY, ("x-tenant-id", f"t{n}"))) for n in range(6)]

    assert passed == [True] * 3 + [False] * 3


def test_an_authenticated_tenant_has_counters_of_its_own() -> None:
    bed = Bed(budget("caller.key", calls=1), identity=METADATA)

    passed = [passes(bed, (KEY,), {"user": "u", "tenant": tenant}) for tenant in ("a", "b", "a", "", "")]

    assert passed == [True, True, False, True, False]


CALLERS: list[Pairs] = [
    (),
    (KEY,),
    (("authorization", "Bearer sk-2"),),
    (KEY, ("x-user-id", "ann")),
    (KEY, ("x-user-id", "bob")),
    (("x-user-id", "ann"),),
    (("x-user-id", "bob"),),
    (("x-tenant-id", "acme"),),
    (("x-tenant-id", "acme"), KEY),
]


@pytest.mark.parametrize("key", ["session.id", "[caller.source, session.id]", "variables.mine"])
@pytest.mark.parametrize("id", ["s1", "derived:anonymous", "@", "key-0", "user:ann/s1"])
def test_a_session_id_belongs_to_its_caller(id: str, key: str) -> None:
    variables = "variables: [{name: mine, expression: \"'of ' + session.id\"}]\n"
    bed = Bed(policy(f"{variables}counters: [{{name: c, key: '{key}', charge: Requests, {HOUR}, limit: 1 requests}}]"))

    first = [passes(bed, (*caller, ("x-session-id", id))) for caller in CALLERS]
    again = [passes(bed, (*caller, ("x-session-id", id))) for caller in CALLERS]

    assert first == [True] * len(CALLERS), "each caller's own session"
    assert again == [False] * len(CALLERS), "and the same one again"


@pytest.mark.parametrize("victim", CALLERS)
def test_no_session_id_reaches_the_derived_session_of_another(victim: Pairs) -> None:
    bed = Bed(policy("rules: [{name: r, when: session.calls > 0, terminate: {}}]"))
    assert passes(bed, victim)
    assert not passes(bed, victim), "its own session, which has one call"
    event = RequestHeaders((*PLACE, *victim), True, 0.0, 0.0)
    derived = open_call(event, "headers")[0].session.id

    others = [caller for caller in CALLERS if caller != victim]

    assert all(passes(bed, (*caller, ("x-session-id", derived))) for caller in others)


def test_the_fact_is_the_id_that_the_client_sent() -> None:
    bed = Bed(policy("rules: [{name: r, when: 'session.id == \"s1\"', terminate: {}}]"))

    assert not passes(bed, (KEY, ("x-session-id", "s1")))


def test_a_global_counter_counts_a_callers_session_across_tenants() -> None:
    bed = Bed(budget("session.id", calls=1, more=", scope: Global"))

    passed = [passes(bed, (KEY, ("x-session-id", "s"), ("x-tenant-id", tenant))) for tenant in ("a", "b")]

    assert passed == [True, False]


def test_sessions_of_authenticated_users_follow_the_user_and_not_the_credential() -> None:
    bed = Bed(budget("session.id", calls=1), identity=METADATA)

    def call(user: str, key: str) -> bool:
        return passes(bed, (("authorization", f"Bearer {key}"),), {"user": user, "session": "s"})

    assert [call("ann", "1"), call("ann", "2"), call("bob", "1"), call("bob", "2")] == [True, False, True, False]
