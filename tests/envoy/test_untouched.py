"""Where no rule reads the bodies not one message about them reaches policyd: Envoy's own ext_proc stats say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from policyd.cli.stage import Stage
from tests.envoy.asking import DIALECTS, OPENAI, VERSION_SPOKEN, Dialect, caller, check_ended, steering
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import policy, stack, upstream_calls

pytestmark = pytest.mark.envoy

HEADERS_ONLY = 2  # messages of a call: its request's headers, its answer's headers
EVENTS = 40

READ_EVERYTHING = """\
counters:
  - {name: spend, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 5 USD}
rules:
  - {name: mask, constrain: {redact: {detectors: [email], in: [request, response]}}}
  - {name: text, when: 'request.text.contains("launch") || response.text.contains("launch")', terminate: {}}
"""
POLICIES = {
    "headers.yaml": policy(
        "headers",
        """\
        counters:
          - {name: calls, key: caller.team, charge: Requests, window: {lifetime: 1h}, limit: 100000 requests}
        rules:
          - {name: mark, constrain: {headers: {request: {set: {x-marked: "1"}}, response: {set: {x-marked: "2"}}}}}
          - {name: no, when: 'request.path.startsWith("/forbidden")', terminate: {}}
          - {name: late, when: response.status == 418, terminate: {}}
        """,
    ),
    "another-teams.yaml": policy("another-teams", READ_EVERYTHING, team="another"),
    "another-path.yaml": policy("another-path", 'match: {paths: ["/v2/*"]}\n' + READ_EVERYTHING),
    "another-operation.yaml": policy("another-operation", "match: {operations: [embedding]}\n" + READ_EVERYTHING),
    "request.yaml": policy(
        "request", 'rules: [{name: r, when: request.text.contains("launch"), terminate: {}}]', team="request"
    ),
    "answer.yaml": policy("answer", "rules: [{name: r, when: response.events > 1000, terminate: {}}]", team="answer"),
    "both.yaml": policy("both", READ_EVERYTHING, team="both"),
}
STATS = ("streams_started", "stream_msgs_sent", "stream_msgs_received")


@dataclass(frozen=True, slots=True)
class Messages:
    """What went between Envoy and policyd."""

    streams: int
    sent: int
    received: int

    def since(self, before: Messages) -> tuple[int, int, int]:
        return self.streams - before.streams, self.sent - before.sent, self.received - before.received


@pytest.fixture(scope="module", params=(VERSIONS[0], VERSIONS[-1]))
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stack(POLICIES, version=request.param) as stage:
        yield stage


def messages(up: Stage) -> Messages:
    names = [f"http.policyd.ext_proc.{name}" for name in STATS]
    found = up.envoy_stats(r"^http\.policyd\.ext_proc\.stream")
    return Messages(*(found[name] for name in names))


def ask(up: Stage, dialect: Dialect, protocol: str, team: str, *, stream: bool) -> httpx.Response:
    with caller(up, protocol) as client:
        headers = steering(team, events=EVENTS, interval_ms=1)
        answer = client.post(dialect.path, content=dialect.body(stream=stream), headers=headers)
    assert answer.status_code == 200
    if stream:
        check_ended(dialect, answer.content)
    return answer


each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=str)
each_protocol = pytest.mark.parametrize("protocol", VERSION_SPOKEN)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@each_dialect
@each_protocol
@each_way
def test_a_call_that_no_rule_reads_costs_two_messages(up: Stage, dialect: Dialect, protocol: str, stream: bool) -> None:
    before = messages(up)
    answer = ask(up, dialect, protocol, "anybody", stream=stream)
    assert messages(up).since(before) == (1, HEADERS_ONLY, HEADERS_ONLY)
    assert answer.headers["x-marked"] == "2", "the rules over headers were not in force"
    assert upstream_calls(up)[-1].header("x-marked") == "1"


@each_protocol
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_call_to_no_model_costs_two_messages(up: Stage, protocol: str, method: str) -> None:
    before = messages(up)
    with caller(up, protocol) as client:
        client.request(method, "/v1/files/7")
    assert messages(up).since(before) == (1, HEADERS_ONLY, HEADERS_ONLY)


def test_many_calls_cost_two_messages_each(up: Stage) -> None:
    before = messages(up)
    for _ in range(8):
        ask(up, OPENAI, "http1", "anybody", stream=True)
    assert messages(up).since(before) == (8, 8 * HEADERS_ONLY, 8 * HEADERS_ONLY)


@each_way
@pytest.mark.parametrize(("team", "more"), [("request", 1), ("answer", 2), ("both", 2)])
def test_each_body_that_is_read_is_seen_in_the_stats(up: Stage, team: str, more: int, stream: bool) -> None:
    """What would be seen if bodies were sent: one message for the request's, one for each event of the answer's."""
    before = messages(up)
    ask(up, OPENAI, "http1", team, stream=stream)
    sent = messages(up).since(before)[1]
    whole = HEADERS_ONLY + more
    # Envoy puts events that have come by the time it looks into one message, so of a stream there are some.
    assert sent > whole if stream and team != "request" else sent == whole
