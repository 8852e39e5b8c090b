"""Which credential is the caller's key, and which parts of a request are credentials at all."""

from __future__ import annotations

import base64
import json

import pytest

from policyd.core.exchange.opening import open_call
from policyd.core.model.credentials import (
    credentials_in,
    is_credential,
    is_credential_parameter,
    key_id,
    without_credentials,
)
from policyd.core.model.decision import Mode
from policyd.core.model.facts import CallerFacts
from policyd.core.model.steps import RequestHeaders
from tests.callers import ACCESS_KEY, CALLERS, HOSTS, KEY, Caller, Pairs
from tests.driving import Bed, answer_of, chat, policy

BUDGET = policy(
    "counters: [{name: c, key: caller.key, charge: Requests, window: {lifetime: 1h}, limit: 3 requests}]", "budget"
)


def caller_of(
    headers: Pairs, path: str = "/v1/chat/completions", host: str = "localhost", **metadata: object
) -> CallerFacts:
    head = ((":method", "POST"), (":path", path), (":authority", host))
    return open_call(RequestHeaders((*head, *headers), True, 0.0, 0.0, metadata), "headers")[0].caller  # type: ignore[arg-type]


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_one_caller_has_one_key_whatever_else_it_sends(caller: Caller) -> None:
    expected = key_id(ACCESS_KEY if caller.name.startswith("bedrock") and caller.way.__name__ != "bearer" else KEY)
    for n in range(8):
        headers, path, _ = caller.request(n)
        found = caller_of(headers, path, HOSTS[n % len(HOSTS)])
        assert (found.key, found.conflict) == (expected, "")


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_one_caller_has_one_budget_of_three_calls(caller: Caller) -> None:
    bed = Bed(BUDGET)
    passed = []
    for n in range(8):
        headers, path, body = caller.request(n)
        out = bed.call(body=body, path=path, host=HOSTS[n % len(HOSTS)], headers=headers, chunks=[b"{}"])
        passed.append(out.rejected is None)
    assert passed == [True] * 3 + [False] * 5


GEMINI = "/v1beta/models/g:generateContent"
CONVERSE = "/model/m/converse"
AZURE = "/openai/deployments/d/chat/completions"
SIGNED = "AWS4-HMAC-SHA256 Credential=A/d/r/s/aws4_request, SignedHeaders=h, Signature=1"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", (("authorization", "Bearer a"), ("authorization", "Bearer b"))),
        ("/v1/chat/completions", (("authorization", "Bearer a, Bearer b"),)),
        ("/v1/chat/completions", (("authorization", "Foo a b"),)),
        ("/v1/chat/completions", (("authorization", "a,b"),)),
        ("/v1/messages", (("x-api-key", "a"), ("x-api-key", "b"))),
        ("/v1/messages", (("x-api-key", "a, b"),)),
        (AZURE, (("api-key", "a"), ("api-key", "b"))),
        (AZURE, (("api-key", "a"), ("ocp-apim-subscription-key", "b"))),
        (GEMINI, (("x-goog-api-key", "a"), ("x-goog-api-key", "b"))),
        (f"{GEMINI}?key=a", (("x-goog-api-key", "b"),)),
        (f"{GEMINI}?key=a&key=b", ()),
        (f"{GEMINI}?key=a&%6bey=b", ()),
        (f"{GEMINI}?key=a&$key=b", ()),
        (CONVERSE, (("authorization", SIGNED), ("authorization", SIGNED.replace("=A/", "=B/")))),
        (CONVERSE, (("authorization", f"{SIGNED}, {SIGNED.replace('=A/', '=B/')}"),)),
        (CONVERSE, (("authorization", f"{SIGNED}, Bearer x"),)),
        (f"{CONVERSE}?X-Amz-Credential=B%2Fd", (("authorization", SIGNED),)),
    ],
)
def test_two_values_of_the_credential_that_counts_are_refused(path: str, headers: Pairs) -> None:
    found = caller_of(headers, path)
    assert (
        found.key == "" and found.conflict and not any(secret in found.conflict for secret in ("Bearer", "Credential="))
    )

    for mode, refused in ((Mode.FULL, True), (Mode.MONITOR, False)):
        bed = Bed(
            policy("failurePolicy: Ignore\nrules: [{name: r, when: caller.key == 'x', terminate: {}}]"), mode=mode
        )
        out = bed.call(body=b"{}", path=path, headers=headers, chunks=[b"{}"])
        assert (out.rejected is not None) == refused
        if out.rejected is not None:
            assert out.rejected.status == 400 and b"different credentials" in out.rejected.body
            assert out.record.reason == "ambiguous_credentials" and out.record.enforced


def test_a_call_that_contradicts_itself_is_an_attempt() -> None:
    window = "window: {lifetime: 1h}"
    bed = Bed(policy(f"counters: [{{name: c, key: '\"all\"', charge: Attempts, {window}, limit: 2 attempts}}]"))
    for _ in range(2):
        out = bed.call(body=b"{}", headers=(("authorization", "Bearer a, Bearer b"),))
        assert out.rejected is not None and out.rejected.status == 400
    assert list(bed.memory.snapshot().values()) == [2]


def test_the_refusal_is_in_the_callers_dialect() -> None:
    bed = Bed(policy("rules: [{name: r, when: caller.key == 'x', terminate: {}}]"))
    out = bed.call(body=b"{}", path="/v1/messages", headers=(("x-api-key", "a"), ("x-api-key", "b")))
    assert out.rejected is not None
    assert json.loads(out.rejected.body)["type"] == "error"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", (("x-api-key", "junk"),)),
        ("/v1/chat/completions?key=junk", (("x-goog-api-key", "junk"), ("api-key", "junk"))),
        ("/v1/messages?key=junk", (("api-key", "junk"),)),
        (GEMINI, (("x-api-key", "junk"), ("api-key", "junk"))),
        (CONVERSE, (("x-api-key", "junk"), ("x-amz-security-token", "junk"))),
        (AZURE, (("x-api-key", "junk"), ("x-goog-api-key", "junk"))),
        ("/v1/chat/completions", (("authorization", "Bearer"), ("cookie", "junk"))),
    ],
)
def test_a_credential_that_the_provider_ignores_is_no_key(path: str, headers: Pairs) -> None:
    found = caller_of(headers, path)
    assert (found.key, found.conflict) == ("", "")


def test_where_nothing_is_known_the_order_is_fixed() -> None:
    sent = [("x-goog-api-key", "g"), ("x-api-key", "x"), ("api-key", "a"), ("authorization", "Bearer b")]
    keys = []
    while sent:
        keys.append(caller_of(tuple(sent), "/v9/whatever").key)
        sent.remove(next(pair for pair in sent if key_id(pair[1].split()[-1]) == keys[-1]))
    assert keys == [key_id(one) for one in "bxag"]


def test_every_credential_can_be_compared() -> None:
    headers = (("x-api-key", "x"), ("authorization", "Bearer b"), ("cf-aig-authorization", "Bearer c"))
    found = caller_of(headers, f"{GEMINI}?key=k")
    assert found.keys[0] == found.key == key_id("k")
    assert set(found.keys) == {key_id(one) for one in "xbck"}


# ---- JWTs ---------------------------------------------------------------------------------------------------------


def token(signature: str = "s", **claims: object) -> str:
    parts = (json.dumps({"alg": "RS256"}), json.dumps(claims))
    return ".".join([*(base64.urlsafe_b64encode(one.encode()).decode().rstrip("=") for one in parts), signature])


VERIFIED = {"envoy.filters.http.jwt_authn": {"jwt_payload": {"iss": "https://idp", "sub": "ann", "exp": 5.0}}}


def test_a_verified_jwt_keeps_its_key_while_tokens_rotate() -> None:
    keys = {
        caller_of((("authorization", f"Bearer {token(f's{n}', iss='https://idp', sub='ann', exp=n)}"),), **VERIFIED).key
        for n in range(3)
    }
    (key,) = keys
    assert key != key_id(token(iss="https://idp", sub="ann"))
    assert caller_of((), **VERIFIED).key == key, "Envoy removes the token where `forward` is off"


@pytest.mark.parametrize(
    "other",
    [
        token(iss="https://idp", sub="bob"),
        token(iss="https://other", sub="ann"),
        token(sub="ann"),
        "not.a.jwt",
        "a.b",
        "sk-plain",
        token() + ".more",
    ],
)
def test_a_token_that_envoy_has_not_verified_is_a_bearer_like_any(other: str) -> None:
    assert caller_of((("authorization", f"Bearer {other}"),), **VERIFIED).key == key_id(other)
    assert caller_of((("authorization", f"Bearer {other}"),)).key == key_id(other)


def test_a_pseudonym_is_no_credential() -> None:
    key = caller_of((("authorization", "Bearer sk-victim"),)).key
    assert caller_of((("authorization", f"Bearer {key}"),)).key == key_id(key) != key


# ---- what is a credential -----------------------------------------------------------------------------------------

HEADERS = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "set-cookie",
    "proxy-authorization",
    "x-amz-security-token",
    "x-amz-date",
    "x-amz-content-sha256",
    "cf-aig-authorization",
    "x-portkey-api-key",
    "x-portkey-config",
    "x-portkey-virtual-key",
    "helicone-auth",
    "ocp-apim-subscription-key",
    "x-auth-token",
    "x-access-token",
    "x-secret",
    "x-my-signature",
    "x-client-credential",
    "authentication",
    "x-functions-key",
    "dpop",
    "x-goog-iam-authorization-token",
    "litellm-key",
    "x-litellm-api-key",
    "x-password",
    "x-jwt",
    "openai-api-key",
    "x-vault-token",
    "x-auth",
    "x-forwarded-access-token",
    "anthropic-auth-token",
    "x-csrf-token",
]
NO_HEADERS = [
    "content-type",
    "content-length",
    "accept",
    "user-agent",
    "x-user-id",
    "x-session-id",
    "openai-organization",
    "openai-project",
    "anthropic-version",
    "anthropic-beta",
    "x-stainless-lang",
    "idempotency-key",
    "x-max-tokens",
    "x-amzn-bedrock-guardrailidentifier",
    "host",
    ":authority",
    ":path",
    "author",
    "x-tokenizer",
    "traceparent",
    "x-request-id",
]


QUERY = [
    "key",
    "KEY",
    "%6bey",
    "$key",
    "api_key",
    "api-key",
    "apiKey",
    "access_token",
    "oauth_token",
    "token",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "sig",
    "code",
    "signature",
    "subscription-key",
    "subscriptionKey",
    "x-amz-security-token",
    "client_secret",
    "auth",
    "password",
]


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_hold_credentials(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize("name", NO_HEADERS)
def test_headers_that_hold_none(name: str) -> None:
    assert not is_credential(name)


@pytest.mark.parametrize(
    "name",
    QUERY,
)
def test_parameters_that_hold_credentials(name: str) -> None:
    assert is_credential_parameter(name)
    assert without_credentials(f"/p?a=1&{name}=secret&b=2") == "/p?a=1&b=2"
    assert without_credentials(f"/p?{name}=secret") == "/p"


@pytest.mark.parametrize("name", ["alt", "api-version", "monkey", "max_tokens", "author", "design", "encoding", "n"])
def test_parameters_that_hold_none(name: str) -> None:
    assert without_credentials(f"/p?{name}=1&&x") == f"/p?{name}=1&&x"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", ()),
        ("Bearer", ()),
        ("Bearer ", ()),
        ("Bearer a", ("a",)),
        ("bearer\ta ", ("a",)),
        ("Bearer Bearer a", ("a",)),
        ("a", ("a",)),
        ("Basic YTpi", ("Basic YTpi",)),
        ("BASIC YTpi", ("Basic YTpi",)),
        ("Token a", ("a",)),
        ("Token: a", ("a",)),
        ("Bearer a,a", ("a",)),
        ("Bearer a,b", ("a", "b")),
        ("Bearer a b", ("a", "b")),
        ("Basic a b", ("Basic a", "b")),
        ("Basic a, Basic a", ("Basic a",)),
        (SIGNED, ("A",)),
        (SIGNED.lower().replace("=a/", "=A/"), ("A",)),
        ("AWS4-ECDSA-P256-SHA256 Credential=A/d, SignedHeaders=h, Signature=1", ("A",)),
        ("AWS4-HMAC-SHA256 Credential=A/d, Credential=B/d", ("A", "B")),
        ("AWS4-HMAC-SHA256 Signature=1", ()),
        ("Bearer bedrock-api-key-???", ("bedrock-api-key-???",)),
    ],
)
def test_the_credentials_in_a_header(value: str, found: tuple[str, ...]) -> None:
    assert credentials_in(value) == found


# ---- reroutes -----------------------------------------------------------------------------------------------------

REROUTE = "rules: [{{name: r, when: 'true', reroute: {{upstream: other{}}}}}]"


def test_a_reroute_to_another_upstream_removes_every_credential() -> None:
    bed = Bed(policy(REROUTE.format("")))
    headers = tuple((name, "secret") for name in (*HEADERS, *NO_HEADERS) if not name.startswith((":", "authorization")))
    path = "/v1beta/models/g:generateContent?alt=sse&key=secret&X-Amz-Signature=secret"

    out = bed.call(body=json.dumps({"contents": []}).encode(), path=path, headers=headers)

    assert set(HEADERS) - {"authorization"} <= out.removed
    assert not out.removed & set(NO_HEADERS)
    assert out.request_headers[":path"] == "/v1beta/models/g:generateContent?alt=sse"


def test_a_reroute_may_keep_the_credentials() -> None:
    bed = Bed(policy(REROUTE.format(", keepCredentials: true")))

    out = bed.call(body=chat(), path="/v1/chat/completions?key=a", headers=(("authorization", "Bearer b"),))

    assert not out.removed and ":path" not in out.request_headers


def test_a_reroute_keeps_the_credential_that_it_sets() -> None:
    bed = Bed(policy(REROUTE.format(", headers: {set: {authorization: Bearer new}}")))

    out = bed.call(body=chat(), headers=(("authorization", "Bearer b"),), chunks=[answer_of("x")])

    assert out.request_headers["authorization"] == "Bearer new" and "authorization" not in out.removed
