"""A kill switch comes into force while calls run through a real Envoy: what their callers see, and how soon.

On the oldest and the newest Envoy; with POLICYD_EVERY_ENVOY on every one that is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from policyd.cli.emulator import Call, Emulator, RawAnswer
from policyd.cli.stage import Stage
from tests.driving import answer_of, cluster_policy
from tests.envoy.asking import DIALECTS, OPENAI, Dialect, caller, check_ended, steering, text_of
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import SDKS, Sdk, policy, stack, upstream_calls, wait_for_end
from tests.envoy.test_untouched import HEADERS_ONLY, messages

pytestmark = pytest.mark.envoy

SOON_S = 1.0  # from the change of a file to what its caller sees
NEVER = "rules: [{name: r, when: response.events > 100000, terminate: {}}]"
BASE = {
    "reads.yaml": policy("reads", NEVER, team="reads"),
    "watches.yaml": policy("watches", NEVER, team="watches", mode="Monitor"),
}
WAITING = policy("waiting", "rules: [{name: r, reroute: {upstream: silent}}]", team="waiting")
STANDBY = cluster_policy(
    'runningCalls: true\nrules: [{name: r, when: caller.team == "nobody", terminate: {}}]', "standby"
)
SLOW = {"events": 400, "interval_ms": 30}
RULES = "rules: [{name: stop, terminate: {status: 503, reason: stopped, message: no more, fallback: no more}}]"


def kill(team: str, *, mode: str = "Full") -> str:
    condition = f'matchConditions: [{{name: team, expression: caller.team == "{team}"}}]\n'
    return cluster_policy(f"runningCalls: true\n{condition}{RULES}", "kill", mode=mode)


class Silent(Emulator):
    """A provider that takes every call and answers none."""

    def _connect(self) -> Any:
        return Listener(self)


class Listener(asyncio.Protocol):
    def __init__(self, provider: Emulator) -> None:
        self.provider = provider
        self.call: Call | None = None

    def data_received(self, data: bytes) -> None:
        if self.call is None:
            self.call = Call(*data.decode("latin-1").split(" ")[:2], ())
            self.provider.calls.append(self.call)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's shape
        if self.call is not None:
            self.call.closed_early = True


@pytest.fixture(scope="module", params=VERSIONS if os.environ.get("POLICYD_EVERY_ENVOY") else VERSIONS[::2])
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    providers = (Emulator("openai"), Silent("silent"))
    with stack(
        {**BASE, "standby.yaml": STANDBY, "waiting.yaml": WAITING}, version=request.param, providers=providers
    ) as stage:
        yield stage


@contextlib.contextmanager
def killed(stage: Stage, team: str) -> Iterator[float]:
    """With the switch thrown, and taken back; when it was."""
    before = stage.digest()
    thrown = time.monotonic()
    stage.put_policy("kill.yaml", kill(team))
    try:
        yield thrown
    finally:
        (stage.policies / "kill.yaml").unlink()
        stage.wait_until(lambda: stage.digest() == before, "the switch to be taken back")


def newest_record(stage: Stage) -> dict[str, Any]:
    stage.wait_until(lambda: any(r["joined_policy_set"] for r in stage.records()), "a record of a call that was killed")
    return [record for record in stage.records() if record["joined_policy_set"]][-1]


class Caller(threading.Thread):
    """Somebody who calls in the background."""

    def __init__(self, call: Callable[[Caller], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.seen: Any = None
        self.error: Exception | None = None
        self.bytes = b""
        self.began = threading.Event()
        self.ended_at = 0.0

    def run(self) -> None:
        try:
            self.seen = self.call(self)
        except Exception as error:
            self.error = error
        self.ended_at = time.monotonic()
        self.began.set()

    def finish(self) -> Caller:
        self.join(20)
        assert not self.is_alive()
        return self


def streams(stage: Stage, team: str, dialect: Dialect = OPENAI, protocol: str = "http1", **wishes: object) -> Caller:
    """A caller whose answer streams, once some of it has come."""

    def call(self: Caller) -> int:
        headers = steering(team, **{**SLOW, **wishes})
        with (
            caller(stage, protocol) as client,
            client.stream("POST", dialect.path, content=dialect.body(), headers=headers) as answer,
        ):
            for data in answer.iter_raw():
                self.bytes += data
                if self.bytes.count(b"\n\n") > 3:
                    self.began.set()
            return answer.status_code

    one = Caller(call)
    one.start()
    assert one.began.wait(10)
    return one


each_protocol = pytest.mark.parametrize("protocol", ["http1", "http2"])


@pytest.mark.parametrize("team", ["reads", "watches"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_a_stream_that_is_read_gets_its_proper_ending(up: Stage, team: str, dialect: Dialect) -> None:
    one, base = streams(up, team, dialect), up.digest()
    with killed(up, team) as thrown:
        one.finish()
    assert one.error is None
    check_ended(dialect, one.bytes)
    assert text_of(dialect, one.bytes).endswith("no more")
    assert one.ended_at - thrown < SOON_S
    assert wait_for_end(up, upstream_calls(up)[-1]).closed_early
    record = newest_record(up)
    assert (record["policy_set"], record["ended"], record["reason"]) == (base, "cut", "stopped")
    assert record["joined_policy_set"] not in (base, None)


@each_protocol
def test_an_answer_that_passes_by_is_broken_off(up: Stage, protocol: str) -> None:
    one, base = streams(up, "unread", protocol=protocol), up.digest()
    with killed(up, "unread") as thrown:
        one.finish()
    assert isinstance(one.error, httpx.RemoteProtocolError)
    assert one.ended_at - thrown < SOON_S + 1.0  # Envoy closes an HTTP/1.1 connection with a second's delay
    assert wait_for_end(up, upstream_calls(up)[-1]).closed_early
    record = newest_record(up)
    assert (record["policy_set"], record["ended"], record["verdict"]) == (base, "broken", "terminate")


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_a_call_that_waits_for_its_answer_is_refused_in_its_language(up: Stage, dialect: Dialect) -> None:
    def call(_: Caller) -> httpx.Response:
        with caller(up) as client:
            return client.post(dialect.path, content=dialect.body(stream=False), headers=steering("waiting"))

    reached = len(upstream_calls(up, "silent"))
    one = Caller(call)
    one.start()
    up.wait_until(lambda: len(upstream_calls(up, "silent")) > reached, "the upstream to have the call")
    with killed(up, "waiting") as thrown:
        one.finish()
    assert one.ended_at - thrown < SOON_S
    assert isinstance(one.seen, httpx.Response)
    assert one.seen.status_code == 503
    assert one.seen.json()["error"]["message"] == "no more"
    assert wait_for_end(up, upstream_calls(up, "silent")[-1]).closed_early


def test_an_answer_in_one_piece_that_waits_in_envoy_is_refused(up: Stage) -> None:
    body = answer_of("x" * 2000)
    up.providers[0].raw["slow"] = RawAnswer(
        200, (("content-type", "application/json"),), tuple(body[at : at + 20] for at in range(0, len(body), 20))
    )

    def call(_: Caller) -> httpx.Response:
        headers = steering("reads", raw="slow", interval_ms=50)
        with caller(up) as client:
            return client.post(OPENAI.path, content=OPENAI.body(stream=False), headers=headers)

    reached = len(upstream_calls(up))
    one = Caller(call)
    one.start()
    up.wait_until(lambda: len(upstream_calls(up)) > reached and upstream_calls(up)[-1].events > 3, "some of it")
    with killed(up, "reads") as thrown:
        one.finish()
    assert one.error is None
    assert (one.seen.status_code, one.seen.json()["error"]["message"]) == (503, "no more")
    assert one.ended_at - thrown < SOON_S
    assert wait_for_end(up, upstream_calls(up)[-1]).closed_early


def test_an_answer_that_is_held_costs_two_messages_and_outlives_every_timeout(up: Stage) -> None:
    """It takes longer than Envoy waits for the answer to a message; nobody is asked for one."""
    before = messages(up)
    one = streams(up, "unread", events=50).finish()
    assert one.error is None
    assert check_ended(OPENAI, one.bytes) == "stop"
    assert messages(up).since(before) == (1, HEADERS_ONLY, HEADERS_ONLY)


def test_who_is_not_meant_goes_on(up: Stage) -> None:
    """Beside one that is killed: a stream of another team, and one whose policy is only watched."""
    others = [streams(up, team, events=30) for team in ("reads", "watches", "unread")]
    with killed(up, "nobody-else"):
        for other in others:
            assert other.finish().error is None
            assert check_ended(OPENAI, other.bytes) == "stop"


@pytest.mark.parametrize("sdk", SDKS, ids=str)
def test_an_sdk_sees_a_proper_ending(up: Stage, sdk: Sdk) -> None:
    one = Caller(lambda _: sdk.ask(up, "reads", stream=True, events="400", interval_ms="30"))
    reached = len(upstream_calls(up))
    one.start()
    up.wait_until(lambda: len(upstream_calls(up)) > reached and upstream_calls(up)[-1].events > 5, "some of it")
    with killed(up, "reads") as thrown:
        one.finish()
    assert one.error is None
    assert one.seen.text.endswith("no more")
    assert one.seen.stop is not None
    assert one.ended_at - thrown < SOON_S


# ---- policyd ends ----------------------------------------------------------------------------------------------------


def process(stage: Stage) -> Any:
    assert stage.policyd is not None
    return stage.policyd


def test_a_drain_neither_waits_for_an_answer_that_passes_by_nor_breaks_it() -> None:
    with stack({**BASE, "standby.yaml": STANDBY}) as stage:
        one = streams(stage, "unread", events=60)
        asked = time.monotonic()
        process(stage).send_signal(signal.SIGTERM)
        assert process(stage).wait(20) == 0
        assert time.monotonic() - asked < SOON_S
        assert one.finish().error is None
        assert check_ended(OPENAI, one.bytes) == "stop"
        assert [record["ended"] for record in stage.records()] == ["complete"]


def test_a_crash_breaks_an_answer_that_is_held_in_reach(up: Stage) -> None:
    """The price of being reachable, which only who has a kill switch stand by pays (test_failures.py has the others).
    The last of all: nobody gets `up` after it."""
    one = streams(up, "unread", events=60)
    process(up).kill()
    process(up).wait(20)
    assert isinstance(one.finish().error, httpx.RemoteProtocolError)
