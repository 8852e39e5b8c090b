"""`--identity`: what it takes, what it refuses, and which claims and headers it reads."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from policyd.adapters.identity_watch import IN_A_ROW, IdentityWatch
from policyd.core.exchange.opening import open_call
from policyd.core.model.facts import Facts
from policyd.core.model.identity import BadIdentity, claim_at, parse_identity
from policyd.core.model.steps import RequestHeaders
from tests.contracts.test_records import RECORD
from tests.driving import Bed, chat, policy

NAMESPACE = "envoy.filters.http.jwt_authn"
CLAIMS: dict[str, object] = {
    "sub": "ann",
    "groups": ["research", "all"],
    "org": {"id": 7.0, "name": "acme"},
    "https://example.com/team": "by-url",
    "a.b": {"c.d": "dotted"},
    "sid": "s-1",
    "admin": True,
    "labels": {"region": "eu", "roles": ["a", "b"], "level": 3.0},
}
FORGED = (
    ("x-user-id", "forged"),
    ("x-team-id", "forged"),
    ("x-tenant-id", "forged"),
    ("x-session-id", "forged"),
    ("x-who", "header"),
)


def facts_of(identity: str, claims: object = None, headers: tuple[tuple[str, str], ...] = FORGED) -> Facts:
    head = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "h"))
    metadata = {NAMESPACE: {"jwt_payload": CLAIMS if claims is None else claims, **CLAIMS}}
    return open_call(RequestHeaders((*head, *headers), True, 0.0, 0.0, metadata), identity)[0]  # type: ignore[arg-type]


AT = f"metadata:{NAMESPACE}/jwt_payload"


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("", {"user": "ann", "team": "", "tenant": "", "session": "derived:user:", "region": "eu"}),
        (
            ",user=sub,team=groups.0,tenant=org.name,session=sid",
            {"team": "research", "tenant": "acme", "session": "s-1"},
        ),
        (",user=email|sub,tenant=org.id", {"user": "ann", "tenant": "7"}),
        (",team=groups.9,user=groups", {"team": "", "user": ""}),
        (",team=https://example.com/team", {"team": "by-url"}),
        (",team=a.b.c.d", {"team": "dotted"}),
        (",user=admin", {"user": "true"}),
        (",user=", {"user": ""}),
        (",session=header:x-session-id", {"session": "forged", "user": "ann"}),
        (",user=header:X-Who", {"user": "header"}),
        (",user=missing|header:x-who", {"user": "header"}),
        (",labels.kind=org.name", {"region": "eu", "kind": "acme"}),
        (",labels=org", {"region": "", "name": "acme"}),
        (",labels=", {"region": ""}),
        (" , user = sub , team = groups.1 ", {"user": "ann", "team": "all"}),
    ],
)
def test_claims(mapping: str, expected: dict[str, str]) -> None:
    facts = facts_of(AT + mapping)
    caller = facts.caller
    found = {"user": caller.user, "team": caller.team, "tenant": caller.tenant, "session": facts.session.id}
    for name, value in expected.items():
        got = found.get(name, caller.labels.get(name, ""))
        assert got.startswith(value) if name == "session" and value.endswith(":") else got == value
    assert caller.source == "metadata"


@pytest.mark.parametrize("claims", [{}, {"sub": None}, {"sub": {}}, {"sub": [1]}, [], "text"])
def test_no_header_names_anybody_where_the_claims_do_not(claims: object) -> None:
    facts = facts_of(AT, claims)
    assert (facts.caller.user, facts.caller.team, facts.caller.tenant) == ("", "", "")
    assert facts.caller.partition == "default"
    assert facts.session.id == "derived:anonymous"
    assert facts.caller.missing == ("any",)


@pytest.mark.parametrize(
    ("identity", "user", "team", "session"),
    [
        ("headers", "forged", "forged", "forged"),
        ("headers:team=x-who", "forged", "header", "forged"),
        ("headers:user=X-WHO,session=x-nothing", "header", "forged", "derived:key-"),
        ("headers:user=x-nothing|x-who", "header", "forged", "forged"),
        ("headers:user=,team=", "", "", "forged"),
    ],
)
def test_headers(identity: str, user: str, team: str, session: str) -> None:
    facts = facts_of(identity)
    assert (facts.caller.user, facts.caller.team) == (user, team)
    assert facts.session.id.startswith(session)
    assert facts.caller.source == "headers"
    assert facts.caller.partition == "default"


def test_a_mapped_header_that_is_sent_twice_is_absent() -> None:
    assert facts_of("headers:user=x-who", headers=(("x-who", "a"), ("x-who", "b"))).caller.user == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no identity"),
        ("jwt", "no identity"),
        ("headers:", "names no field"),
        ("headers:user", "FIELD=NAME"),
        ("headers:,", "FIELD=NAME"),
        ("headers:who=x", "no field"),
        ("headers:user=a b", "no name of a header"),
        ("headers:user=:path", "no name of a header"),
        ("headers:user=authorization", "holds a credential"),
        ("headers:labels=x", "no single header"),
        ("metadata:", "no identity"),
        ("metadata:a b", "NAMESPACE"),
        ("metadata:ns/", "NAMESPACE"),
        ("metadata:/path", "NAMESPACE"),
        ("metadata:user=sub", "NAMESPACE"),
        ("metadata:ns,user", "FIELD=NAME"),
        ("metadata:ns,who=sub", "no field"),
        ("metadata:ns,user=a,user=b", "mapped twice"),
        ("metadata:ns,user=a||b", "without a name"),
        ("metadata:ns,user=header:", "no name of a header"),
        ("metadata:ns,user=header:x-api-key", "holds a credential"),
        ("metadata:ns,labels.=x", "no field"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadIdentity, match=words):
        parse_identity(text)


@pytest.mark.parametrize(
    "path", ["x", "sub.x", "groups.x", "groups.-1", "groups.99999999999999999999", "groups.0.x", "."]
)
def test_a_path_that_leads_nowhere(path: str) -> None:
    assert claim_at(CLAIMS, path) is None


# ---- a mapping that finds nothing ---------------------------------------------------------------------------------


def test_a_field_that_is_never_found_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = IdentityWatch(parse_identity(f"{AT},team=teams.0"))
    missing, found = replace(RECORD, identity_missing=("team",)), replace(RECORD, identity_missing=())
    with caplog.at_level(logging.WARNING, "policyd"):
        for _ in range(IN_A_ROW - 1):
            watch.write(missing)
        watch.write(found)
        for _ in range(IN_A_ROW - 1):
            watch.write(missing)
        assert not caplog.records
        for _ in range(IN_A_ROW * 2):
            watch.write(missing)
    (line,) = caplog.messages
    assert "team" in line and "teams.0" in line and f"{NAMESPACE}/jwt_payload" in line


def test_claims_that_are_nowhere_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = IdentityWatch(parse_identity("metadata:ns"))
    for _ in range(IN_A_ROW):
        watch.write(replace(RECORD, identity_missing=("any",)))
    assert "payload_in_metadata" in caplog.text


def test_a_record_says_what_was_missing() -> None:
    bed = Bed(policy("rules: [{name: r, when: 'true', terminate: {}}]"), identity=f"{AT},user=sub,team=groups.0")
    out = bed.call(body=chat(), metadata={NAMESPACE: {"jwt_payload": {"sub": "ann"}}})
    assert out.record.identity_missing == ("team",)
    assert bed.call(body=chat()).record.identity_missing == ("any", "team", "user")
