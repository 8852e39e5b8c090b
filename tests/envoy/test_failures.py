"""What callers see on real Envoys when something is too large, goes away or is killed: an error, or a broken answer,
and never a byte that nobody has judged.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from policyd.cli.emulator import RawAnswer
from policyd.cli.stage import Stage
from tests.driving import answer_of
from tests.envoy.asking import OPENAI, caller, check_ended, steering
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import policy, stack, upstream_calls, wait_for_end

pytestmark = pytest.mark.envoy

MOST = 64 << 10  # bytes that may be read
SECRET = "launch"
TEXT = "one two three four five six seven eight nine ten launch"  # what is forbidden comes last

READ_REQUEST = "rules: [{name: r, when: request.model == 'nobody', terminate: {}}]"
READ_ANSWER = f"rules: [{{name: r, when: response.text.contains('{SECRET}'), terminate: {{fallback: no}}}}]"
TEAMS = {"fail": ("Full", "Fail"), "ignore": ("Full", "Ignore"), "monitor": ("Monitor", "Fail")}
POLICIES = {
    f"{team}-{name}.yaml": policy(
        f"{team}-{name}", f"failurePolicy: {failure}\n{spec}", team=f"{team}-{name}", mode=mode
    )
    for team, (mode, failure) in TEAMS.items()
    for name, spec in (("request", READ_REQUEST), ("answer", READ_ANSWER))
}
TOO_LATE = "rules: [{name: r, when: response.elapsed_ms > 100, terminate: {}}]"
each_team = pytest.mark.parametrize("team", TEAMS)
each_way = pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])


@pytest.fixture(scope="module", params=VERSIONS)
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    most = ("--max-request", str(MOST))
    with stack(POLICIES, version=request.param, serve=most, bootstrap=most) as stage:
        yield stage


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 10_000] for at in range(0, len(data), 10_000))


def newest_record(stage: Stage, answer: httpx.Response | None = None) -> dict[str, Any]:
    """The record of the call that was just made."""
    before = stage.records()
    if answer is not None and (id := answer.headers.get("x-policyd-decision")):
        stage.wait_until(lambda: any(record["id"] == id for record in stage.records()), f"the record of {id}")
        return next(record for record in stage.records() if record["id"] == id)
    return before[-1] if before else stage.wait_for_records(1)[-1]


# ---- too large -------------------------------------------------------------------------------------------------------


def is_refusal(answer: httpx.Response) -> bool:
    """A refusal that an OpenAI client understands."""
    return answer.status_code == 503 and bool(answer.json()["error"]["code"] == "policy_error")


@each_way
@each_team
def test_a_request_that_is_too_large(up: Stage, team: str, sized: bool) -> None:
    """Sized, its length says so; chunked, Envoy brings its beginning, and the rest follows where it may pass."""
    body = OPENAI.body(stream=False, user="x" * 3 * MOST)
    reached = len(upstream_calls(up))
    with caller(up) as client:
        content = body if sized else pieces(body)
        answer = client.post(OPENAI.path, content=content, headers=steering(f"{team}-request", events=2))
    calls = upstream_calls(up)[reached:]
    if team == "fail":
        assert is_refusal(answer)
        assert calls == []
    else:
        assert answer.status_code == 200
        assert [call.body for call in calls] == [body]
    if team == "monitor":
        assert "x-policyd-decision" not in answer.headers
        return
    record = newest_record(up, answer)
    assert record["inspection_reason"] == "the request's body is too large"
    assert (record["reason"], record["degraded"]) == (("policy_error", False) if team == "fail" else ("", True))


@each_way
@each_team
def test_an_answer_that_is_too_large(up: Stage, team: str, sized: bool) -> None:
    """Envoy that was told to buffer it would wait for ever where it does not say how long it is."""
    body = answer_of("x" * 40 * MOST)
    up.providers[0].raw["large"] = RawAnswer(
        200, (("content-type", "application/json"),), tuple(pieces(body)), stream=not sized
    )
    with caller(up) as client:
        content = OPENAI.body(stream=False)
        answer = client.post(OPENAI.path, content=content, headers=steering(f"{team}-answer", raw="large"))
    if team == "fail":
        assert is_refusal(answer)
        assert newest_record(up, answer)["inspection_reason"] == "the answer is too large"
    else:
        assert (answer.status_code, answer.content) == (200, body)
    if team == "ignore":
        assert newest_record(up, answer)["degraded"] is True


# ---- a caller that goes away, or is slow -----------------------------------------------------------------------------


def open_calls(stage: Stage) -> float:
    line = next(line for line in stage.metrics().splitlines() if line.startswith("policyd_open_calls"))
    return float(line.split()[1])


def cancelled(stage: Stage) -> int:
    return sum(record["ended"] == "cancelled" for record in stage.records())


@pytest.mark.parametrize("phase", ["sending", "waiting", "reading"])
def test_a_caller_that_goes_away_ends_its_call(up: Stage, phase: str) -> None:
    before, reached, body = cancelled(up), len(upstream_calls(up)), OPENAI.body()
    wishes = steering("fail-answer", events=400, interval_ms=20, **({"silent_after": 0} if phase == "waiting" else {}))
    lines = [f"POST {OPENAI.path} HTTP/1.1", "host: a", f"content-length: {len(body)}"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in wishes.items()), "", ""]).encode()
    with socket.create_connection(("127.0.0.1", up.listener)) as peer:
        peer.sendall(head + (body[:20] if phase == "sending" else body))
        if phase == "reading":
            assert peer.recv(1).startswith(b"H")
        up.wait_until(lambda: open_calls(up) == 1, "policyd to have the call")
        up.wait_until(lambda: phase == "sending" or len(upstream_calls(up)) > reached, "the upstream to have it")
    up.wait_until(lambda: cancelled(up) == before + 1, "the record of it")
    assert open_calls(up) == 0
    calls = upstream_calls(up)[reached:]
    assert [wait_for_end(up, call).closed_early for call in calls] == ([] if phase == "sending" else [True])


def test_a_caller_that_stops_reading_gets_everything_later(up: Stage) -> None:
    """What it does not take waits; nothing is lost, and its call ends like any other."""
    wish = {"text": "x" * 2000, "token_chars": 100, "batch": 4}
    with (
        caller(up) as client,
        client.stream("POST", OPENAI.path, content=OPENAI.body(), headers=steering("fail-answer", **wish)) as answer,
    ):
        call = wait_for_end(up, upstream_calls(up)[-1])  # everything was sent, and nothing read
        body = answer.read()
    assert not call.closed_early
    assert check_ended(OPENAI, body) == "stop"
    assert newest_record(up, answer)["ended"] == "complete"


# ---- policyd is killed -----------------------------------------------------------------------------------------------


@dataclass
class Running:
    """One call whose answer has begun."""

    answer: httpx.Response
    chunks: Iterator[bytes]
    seen: bytes = b""

    def finish(self) -> bytes:
        for chunk in self.chunks:
            self.seen += chunk
        return self.seen


@contextlib.contextmanager
def running(stage: Stage, team: str, **wishes: object) -> Iterator[Running]:
    with (
        caller(stage) as client,
        client.stream("POST", OPENAI.path, content=OPENAI.body(), headers=steering(team, **wishes)) as answer,
    ):
        call = Running(answer, answer.iter_raw())
        while call.seen.count(b"\n\n") < 3:
            call.seen += next(call.chunks)
        yield call


def process(stage: Stage) -> subprocess.Popen[bytes]:
    assert stage.policyd is not None
    return stage.policyd


def gone(stage: Stage, number: signal.Signals) -> int:
    """Tells policyd, and waits until it has ended."""
    process(stage).send_signal(number)
    return process(stage).wait(20)


def killed_mid_stream(stage: Stage, *, fail_open: bool) -> None:
    wishes = {"text": TEXT, "interval_ms": 60}
    with running(stage, "fail-answer", **wishes) as read, running(stage, "nobody", **wishes) as unread:
        gone(stage, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            read.finish()
        assert SECRET.encode() not in read.seen
        assert check_ended(OPENAI, unread.finish()) == "stop"
        assert SECRET.encode() in unread.seen
    new_call_without_policyd(stage, fail_open=fail_open)


def new_call_without_policyd(stage: Stage, *, fail_open: bool) -> None:
    """It follows `failure_mode_allow`; what only policyd may say is taken off the caller's request all the same."""
    reached = [len(provider.calls) for provider in stage.providers]
    headers = {**steering("fail-answer", events=2), "x-policyd-upstream": "backup", "X-Policyd-Other": "1"}
    with caller(stage) as client:
        answer = client.post(OPENAI.path, content=OPENAI.body(), headers=headers)
    new = [len(provider.calls) - count for provider, count in zip(stage.providers, reached, strict=True)]
    assert (answer.status_code, new) == ((200, [1, 0]) if fail_open else (503, [0, 0]))
    if fail_open:
        assert not [name for name, _ in upstream_calls(stage)[-1].headers if name.startswith("x-policyd")]


# ---- policyd is told to stop -----------------------------------------------------------------------------------------


def test_policyd_drains() -> None:
    """Running calls are judged to their end, new ones find nobody, and every record is there."""
    with (
        stack(POLICIES) as stage,
        running(stage, "fail-answer", text=TEXT, interval_ms=60) as cut,
        running(stage, "ignore-answer", events=14, interval_ms=60) as whole,
    ):
        process(stage).send_signal(signal.SIGTERM)
        stage.wait_until(lambda: "draining" in (stage.folder / "policyd.log").read_text(), "policyd to drain")
        new_call_without_policyd(stage, fail_open=False)
        assert check_ended(OPENAI, whole.finish()) == "stop"
        assert check_ended(OPENAI, cut.finish()) == "content_filter"
        assert SECRET.encode() not in cut.seen
        assert process(stage).wait(20) == 0
        assert sorted(str(record["ended"]) for record in stage.records()) == ["complete", "cut"]


# ---- and at last -----------------------------------------------------------------------------------------------------


def test_policyd_is_killed_mid_stream_where_new_calls_may_pass() -> None:
    """Failing open is for calls that have not begun: one that was read breaks all the same."""
    policies = {**POLICIES, "late.yaml": policy("late", TOO_LATE, team="late")}
    with stack(policies, bootstrap=("--fail-open",)) as stage:
        cut_before_its_first_byte(stage)
        killed_mid_stream(stage, fail_open=True)


def cut_before_its_first_byte(stage: Stage) -> None:
    """Envoy hears nothing between the headers and the body, and where it fails open lets pass what comes after."""
    headers = steering("late", events=2, silent_after=0)
    with caller(stage) as client, pytest.raises(httpx.RemoteProtocolError):
        client.post(OPENAI.path, content=OPENAI.body(stream=True), headers=headers)
    assert wait_for_end(stage, upstream_calls(stage)[-1]).closed_early
    assert newest_record(stage)["ended"] == "cut"


def test_policyd_is_killed_mid_stream(up: Stage) -> None:
    """The last of all: nobody gets `up` after it."""
    killed_mid_stream(up, fail_open=False)
