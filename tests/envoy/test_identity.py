"""Who is calling, behind a real Envoy: one budget a credential, claims that `jwt_authn` has verified, and credentials
that stay where they belong."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage
from tests.callers import ACCESS_KEY, CALLERS, CHAT, HOSTS, KEY, Caller, Pairs
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import policy, stack, upstream_calls

pytestmark = pytest.mark.envoy

ECHO = """
rules:
  - name: echo
    when: '"x-echo" in request.headers'
    terminate:
      status: 418
      message: nobody
      messageExpression: >-
        [caller.user, caller.team, caller.tenant, session.id, caller.source, caller.key].join("|")
"""


def ask(
    up: Stage, headers: Pairs, path: str = "/v1/chat/completions", body: bytes = b"", host: str = "h"
) -> tuple[int, str]:
    """(status, body) of one call, its header lines as they are given."""
    connection = http.client.HTTPConnection("127.0.0.1", up.listener, timeout=20)
    body = body or json.dumps(CHAT).encode()
    connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
    for name, value in (("host", host), ("content-type", "application/json"), ("content-length", str(len(body)))):
        connection.putheader(name, value)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


# ---- one budget a credential ----------------------------------------------------------------------------------------

BUDGET = """
failurePolicy: Fail
counters:
  - name: calls
    key: [caller.key, 'request.headers["x-case"]']
    charge: Requests
    window: {lifetime: 1h}
    limit: 3 requests
"""


@pytest.fixture(scope="module")
def budget() -> Iterator[Stage]:
    with stack({"budget.yaml": policy("budget", BUDGET)}, providers=[Emulator("provider")]) as up:
        yield up


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_one_caller_gets_three_calls_whatever_else_it_changes(budget: Stage, caller: Caller) -> None:
    before = len(upstream_calls(budget, "provider"))
    refused = []
    for n in range(9):
        headers, path, body = caller.request(n)
        status, _ = ask(budget, (("x-case", caller.name), *headers), path, body, HOSTS[n % len(HOSTS)])
        refused.append(status == 429)
    assert refused == [False] * 3 + [True] * 6
    assert len(upstream_calls(budget, "provider")) == before + 3


AMBIGUOUS: list[tuple[str, Pairs]] = [
    ("/v1/chat/completions", (("authorization", "Bearer a"), ("authorization", "Bearer b"))),
    ("/v1/messages", (("x-api-key", "a"), ("x-api-key", "b"))),
    ("/v1beta/models/g:generateContent?key=a", (("x-goog-api-key", "b"),)),
    ("/v1beta/models/g:generateContent?key=a&key=b", ()),
    ("/openai/deployments/d/chat/completions", (("api-key", "a,b"),)),
]


@pytest.mark.parametrize(("path", "headers"), AMBIGUOUS)
def test_two_values_of_the_credential_that_counts_never_leave(budget: Stage, path: str, headers: Pairs) -> None:
    before = len(upstream_calls(budget, "provider"))
    status, text = ask(budget, headers, path)
    assert status == 400 and "different credentials" in text
    assert len(upstream_calls(budget, "provider")) == before


# ---- what jwt_authn has verified ------------------------------------------------------------------------------------

ISSUER = "https://login.example.com"
NAMESPACE = "envoy.filters.http.jwt_authn"
MAPPING = f"metadata:{NAMESPACE}/jwt_payload,user=sub,team=groups.0,tenant=org,session=sid"
FORGED = tuple((f"x-{name}-id", "forged") for name in ("user", "team", "tenant", "session"))
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def jwks() -> str:
    one, other = RSA.public_key().public_numbers(), EC.public_key().public_numbers()
    keys = [
        {"kty": "RSA", "kid": "RS256", "alg": "RS256", "n": number(one.n, 256), "e": number(one.e, 3)},
        {
            "kty": "EC",
            "kid": "ES256",
            "alg": "ES256",
            "crv": "P-256",
            "x": number(other.x, 32),
            "y": number(other.y, 32),
        },
    ]
    return json.dumps({"keys": keys})


def sign_rsa(text: bytes) -> bytes:
    return RSA.sign(text, padding.PKCS1v15(), hashes.SHA256())


def sign_ec(text: bytes) -> bytes:
    r, s = decode_dss_signature(EC.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(algorithm: str = "RS256", **claims: object) -> str:
    known = {"iss": ISSUER, "sub": "ann", "exp": int(time.time()) + 600, "jti": str(time.perf_counter_ns()), **claims}
    text = f"{b64(json.dumps({'alg': algorithm, 'kid': algorithm}).encode())}.{b64(json.dumps(known).encode())}"
    return f"{text}.{b64((sign_rsa if algorithm == 'RS256' else sign_ec)(text.encode()))}"


def with_jwt(forward: bool) -> Callable[[str], str]:
    """The bootstrap's configuration, as a user adds `jwt_authn` to it."""

    def configured(text: str) -> str:
        whole = yaml.safe_load(text)
        listener = whole["static_resources"]["listeners"][0]
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        provider: Mapping[str, Any] = {
            "issuer": ISSUER,
            "forward": forward,
            "local_jwks": {"inline_string": jwks()},
            "payload_in_metadata": "jwt_payload",
        }
        kind = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
        rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "company"}}]
        config = {"@type": kind, "providers": {"company": provider}, "rules": rules}
        filters.insert(0, {"name": NAMESPACE, "typed_config": config})
        return str(yaml.safe_dump(whole))

    return configured


SESSIONS = """
counters:
  - {name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 2 requests}
  - {name: keys, key: caller.key, charge: Requests, window: {lifetime: 1h}, limit: 4 requests}
"""


@pytest.fixture(scope="module", params=(VERSIONS[0], VERSIONS[-1]))
def verified(request: pytest.FixtureRequest) -> Iterator[Stage]:
    policies = {"echo.yaml": policy("echo", ECHO), "sessions.yaml": policy("sessions", SESSIONS)}
    options = {"serve": ("--identity", MAPPING), "bootstrap": ("--identity", MAPPING)}
    with stack(policies, version=request.param, configured=with_jwt(forward=True), **options) as up:
        yield up


def echoed(up: Stage, token: str, *headers: tuple[str, str]) -> list[str]:
    status, text = ask(up, (("authorization", f"Bearer {token}"), ("x-echo", "1"), *headers))
    assert status == 418, text
    return str(json.loads(text)["error"]["message"]).split("|")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_claims_arrive_and_forged_headers_do_nothing(verified: Stage, algorithm: str) -> None:
    signed = token(algorithm, groups=["research", "all"], org="acme", sid="s-1")

    assert echoed(verified, signed, *FORGED)[:5] == ["ann", "research", "acme", "s-1", "metadata"]


def test_no_header_fills_what_the_claims_leave_open(verified: Stage) -> None:
    user, team, tenant, session, _, _ = echoed(verified, token(), *FORGED)

    assert (user, team, tenant) == ("ann", "", "")
    assert session.startswith("derived:user:")


def test_the_key_stays_while_tokens_rotate(verified: Stage) -> None:
    keys = {echoed(verified, token(algorithm))[5] for algorithm in ("RS256", "ES256", "RS256")}

    assert len(keys) == 1 and keys != {echoed(verified, token(sub="bob"))[5]}


def test_a_call_without_a_valid_token_is_refused_by_envoy(verified: Stage) -> None:
    forged = token()[:-8] + "AAAAAAAA"
    for headers in ((), (("authorization", "Bearer sk-1"),), (("authorization", f"Bearer {forged}"),)):
        status, text = ask(verified, (*headers, *FORGED, ("x-echo", "1")))
        assert (status, "Jwt" in text) == (401, True)


def test_a_session_and_a_key_are_those_of_the_subject(verified: Stage) -> None:
    def passes(subject: str, **headers: str) -> bool:
        signed = (("authorization", f"Bearer {token(sub=subject, sid='same')}"), *headers.items())
        return ask(verified, tuple(signed))[0] == 200

    assert [passes("carl", **{"x-session-id": f"s{n}"}) for n in range(3)] == [True, True, False]
    assert [passes("dora") for _ in range(3)] == [True, True, False], "another caller's session of the same name"


def test_a_token_that_envoy_keeps_to_itself_is_still_the_key() -> None:
    policies = {"echo.yaml": policy("echo", ECHO)}
    with stack(policies, serve=("--identity", MAPPING), configured=with_jwt(forward=False)) as up:
        first, second = echoed(up, token()), echoed(up, token("ES256"))

    assert first[5] == second[5] != ""


def test_a_mapping_that_finds_nothing_is_told_of() -> None:
    wrong = f"metadata:{NAMESPACE},user=sub"
    with stack(
        {"echo.yaml": policy("echo", ECHO)}, serve=("--identity", wrong), configured=with_jwt(forward=True)
    ) as up:
        for _ in range(100):
            assert echoed(up, token())[0] == ""
        up.wait_until(lambda: "identity not found" in (up.folder / "policyd.log").read_text(), "the warning")
        assert 'policyd_identity_missing_total{field="user"} 100.0' in up.metrics()


# ---- where credentials do not go ------------------------------------------------------------------------------------


CREDENTIALS = """x-api-key api-key x-goog-api-key cookie x-amz-security-token x-amz-date cf-aig-authorization
    x-portkey-api-key x-portkey-config helicone-auth ocp-apim-subscription-key x-my-auth-token"""


def test_a_reroute_takes_no_credential_along() -> None:
    sent = {"authorization": "Bearer secret", **dict.fromkeys(CREDENTIALS.split(), "secret")}
    moved = policy("moved", "rules: [{name: go, reroute: {upstream: backup}}]")
    with stack({"moved.yaml": moved}) as up:
        ask(up, tuple(sent.items()), "/v1/chat/completions?n=1&key=secret&X-Amz-Signature=secret&b=2")
        (call,) = upstream_calls(up, "backup")
        log = (up.folder / "envoy.log").read_text() + (up.folder / "policyd.log").read_text()
        records = json.dumps(up.records())

    assert not [header for header in call.headers if "secret" in header[1]]
    assert call.path == "/v1/chat/completions?n=1&b=2"
    assert "secret" not in log + records


def test_a_capture_holds_no_credential(tmp_path: Any) -> None:
    with stack({"echo.yaml": policy("echo", ECHO)}, serve=("--capture", str(tmp_path))) as up:
        for caller in CALLERS:
            headers, path, body = caller.request(1)
            ask(up, headers, path, body)
        up.wait_until(lambda: sum(map(len, lines(tmp_path))) >= len(CALLERS), "the captures")

    text = "\n".join(line for found in lines(tmp_path) for line in found)
    assert text
    assert not [secret for secret in (KEY, ACCESS_KEY, "junk-") if secret in text]


def lines(folder: Any) -> list[list[str]]:
    return [file.read_text().splitlines() for file in folder.glob("*.jsonl")]
