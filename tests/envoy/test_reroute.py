"""A call is sent elsewhere: its body names the new model and is as long as it says, the route is computed anew, another
cluster answers, and the caller's credentials stay behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from policyd.cli.emulator import Call
from policyd.cli.stage import Stage
from tests.envoy.asking import DIALECTS, OPENAI, VERSION_SPOKEN, Dialect, caller, check_ended, steering, text_of
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import policy, stack, upstream_calls

pytestmark = pytest.mark.envoy

CREDENTIALS = {
    "authorization": "Bearer sk-the-callers",
    "x-api-key": "key-1",
    "api-key": "key-2",
    "x-goog-api-key": "key-3",
    "cookie": "session=of-the-caller",
}
SMALL = "a-small-model-of-quite-another-length"
NOTE = "é and 漢字: two spaces  here"

POLICIES = {
    "moved.yaml": policy(
        "moved", f"rules: [{{name: go, reroute: {{model: {SMALL}, upstream: backup}}}}]", team="moved"
    ),
    "kept.yaml": policy(
        "kept",
        f"rules: [{{name: go, reroute: {{model: {SMALL}, upstream: backup, keepCredentials: true}}}}]",
        team="kept",
    ),
    "given.yaml": policy(
        "given",
        """\
        rules:
          - name: go
            reroute: {upstream: backup, headers: {set: {authorization: "Bearer sk-the-houses"}, remove: [x-note]}}
        """,
        team="given",
    ),
    "by-headers.yaml": policy(
        "by-headers",
        """\
        rules:
          - name: go
            when: request.headers[?"x-far"].orValue("") == "yes"
            reroute: {upstream: backup}
        """,
        team="by-headers",
    ),
    "model.yaml": policy("model", f"rules: [{{name: go, reroute: {{model: {SMALL}}}}}]", team="model"),
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one call: its answer, and what reached each upstream."""

    answer: httpx.Response
    calls: dict[str, list[Call]] = field(default_factory=dict)

    def only(self, upstream: str) -> Call:
        """The call that reached this upstream; none reached another."""
        assert {name: len(calls) for name, calls in self.calls.items() if calls} == {upstream: 1}
        return self.calls[upstream][0]


@pytest.fixture(scope="module", params=(VERSIONS[0], VERSIONS[-1]))
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stack(POLICIES, version=request.param) as stage:
        yield stage


def send(up: Stage, content: bytes, team: str, dialect: Dialect = OPENAI, protocol: str = "http1", **more: str) -> Sent:
    before = {provider.name: len(provider.calls) for provider in up.providers}
    headers = {**steering(team, events=5), **CREDENTIALS, "x-note": "1", **more}
    with caller(up, protocol) as client:
        answer = client.post(dialect.path, content=content, headers=headers)
    assert answer.http_version == VERSION_SPOKEN[protocol]
    return Sent(answer, {name: upstream_calls(up, name)[count:] for name, count in before.items()})


def host(up: Stage, name: str) -> str:
    return next(provider.url.removeprefix("http://") for provider in up.providers if provider.name == name)


def check_length(call: Call) -> None:
    """The upstream reads as many bytes as it is told: more of them would be the next request's beginning."""
    assert call.header("content-length") == str(len(call.body))
    assert "transfer-encoding" not in dict(call.headers)


each_protocol = pytest.mark.parametrize("protocol", VERSION_SPOKEN)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=str)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@each_protocol
@each_dialect
@each_way
def test_another_model_and_another_upstream(up: Stage, dialect: Dialect, protocol: str, stream: bool) -> None:
    body = dialect.body(stream=stream, metadata={"user_id": NOTE})
    sent = send(up, body, "moved", dialect, protocol)
    call = sent.only("backup")
    was, now = json.loads(body), json.loads(call.body)
    assert now.pop("model") == SMALL
    assert was.pop("model") == dialect.model
    assert now == was
    check_length(call)
    assert call.credentials == []
    assert not [value for _, value in call.headers if value in CREDENTIALS.values()]
    assert call.header("host") == host(up, "backup")
    assert not [name for name, _ in call.headers if name.startswith("x-policyd-")]
    assert (sent.answer.status_code, sent.answer.headers["x-emulator"]) == (200, "backup")
    assert sent.answer.headers["x-policyd-decision"]
    if stream:
        check_ended(dialect, sent.answer.content)
        assert text_of(dialect, sent.answer.content)
    assert SMALL in sent.answer.text


@each_protocol
def test_credentials_go_along_where_the_policy_says_so(up: Stage, protocol: str) -> None:
    call = send(up, OPENAI.body(), "kept", protocol=protocol).only("backup")
    assert {name: call.header(name) for name in CREDENTIALS} == CREDENTIALS
    assert json.loads(call.body)["model"] == SMALL
    assert call.header("host") == host(up, "backup")
    check_length(call)


def test_the_houses_own_credentials_take_the_callers_place(up: Stage) -> None:
    call = send(up, OPENAI.body(), "given").only("backup")
    assert call.credentials == ["authorization"]
    assert call.header("authorization") == "Bearer sk-the-houses"
    assert call.header("x-note") == ""


@each_protocol
@pytest.mark.parametrize("far", ["yes", "no"])
def test_a_reroute_that_reads_no_body(up: Stage, protocol: str, far: str) -> None:
    """The body goes by policyd untouched, whatever it is, and still to the other upstream."""
    body = b'{"model": "gpt-4o",   "messages": [], "stream": true}'
    before = messages(up)
    call = send(up, body, "by-headers", protocol=protocol, **{"x-far": far}).only(
        "backup" if far == "yes" else "openai"
    )
    assert call.body == body
    assert call.credentials == ([] if far == "yes" else sorted(CREDENTIALS))
    assert call.header("host") == host(up, "backup" if far == "yes" else "openai")
    assert messages(up) == before + 2, "policyd was sent a body that no rule reads"


def test_another_model_at_the_same_upstream_keeps_credentials(up: Stage) -> None:
    call = send(up, OPENAI.body(), "model").only("openai")
    assert json.loads(call.body)["model"] == SMALL
    assert call.credentials == sorted(CREDENTIALS)
    check_length(call)


@each_protocol
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.05, 0.0), (0.0, 0.05)], ids=["at once", "late", "late end"])
def test_a_body_sent_in_chunks_goes_where_it_is_sent(up: Stage, protocol: str, gaps: tuple[float, float]) -> None:
    """However its pieces and its end come: before policyd has answered to the headers, or after."""
    body = OPENAI.body()

    def pieces() -> Iterator[bytes]:
        waiting = threading.Event()
        yield body[:10]
        waiting.wait(gaps[0])
        yield body[10:]
        waiting.wait(gaps[1])

    headers = {**steering("moved", events=3), **CREDENTIALS}
    for _ in range(3):
        before = len(upstream_calls(up, "backup"))
        with caller(up, protocol) as client:
            answer = client.post(OPENAI.path, content=pieces(), headers=headers)
        assert answer.status_code == 200, answer.text
        call = upstream_calls(up, "backup")[before]
        assert json.loads(call.body) == {**json.loads(body), "model": SMALL}
        assert call.credentials == []
        check_length(call)


def messages(up: Stage) -> int:
    """How many messages Envoy has sent to policyd."""
    name = "http.policyd.ext_proc.stream_msgs_sent"
    return up.envoy_stats(f"^{name}$")[name]
