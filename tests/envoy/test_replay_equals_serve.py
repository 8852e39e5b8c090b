"""A long, mixed day of calls behind a real Envoy, played again: the same verdicts, cuts, counters and bytes.

Calls that share a counter run one after another, as a replay plays them; three tenants, who share none, run at once.
`POLICYD_REPLAY_CALLS=500` makes the day longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import read_recordings
from policyd.adapters.records import fields
from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli import main as root
from policyd.cli.dry_run import DryRun, Rechunk
from policyd.cli.replay import compiled
from policyd.cli.stage import Stage
from policyd.core.model.credentials import pseudonym
from policyd.core.model.options import Options
from tests.envoy.stack import policy, stack

CALLS = int(os.environ.get("POLICYD_REPLAY_CALLS", "120"))  # read here: no test sees such variables
TENANTS = ("acme", "globex", "initech")
VARYING = {"id", "time", "duration_ms"}

POLICIES = {
    "budget": f"""
        counters:
        - {{name: spend, key: caller.team, charge: Cost, window: {{lifetime: 24h}}, limit: {CALLS // 12 / 1e4} USD}}
        - name: calls
          key: [caller.key, request.model]
          charge: Requests
          window: {{sliding: 1h}}
          limit: 14 requests
        rules:
        - {{name: dear, when: counters.spend.used >= 0.3 && request.model == "gpt-4o", reroute: {{model: gpt-4o-mini}}}}
        - {{name: spent, severity: Critical, when: counters.spend.exceeded, terminate: {{status: 429}}}}
        """,
    "tokens": f"""
        counters:
        - {{name: out, key: session.id, charge: OutputTokens, window: {{idle: 1h}}, limit: {CALLS * 3 // 4} tokens}}
        """,
    "models": 'rules: [{name: old, when: request.model == "gpt-3.5-turbo", terminate: {status: 400}}]',
    "session": "rules: [{name: long, when: session.calls >= 9 && session.tokens > 300, terminate: {status: 429}}]",
    "text": """
        rules:
        - {name: secret, holdBack: 16, when: 'response.text.contains("over the circuit")', terminate: {fallback: no}}
        - {name: hidden, constrain: {redact: {patterns: ["circuit"], in: [response]}}}
        - {name: capped, when: request.max_tokens > 90, constrain: {cap: {max_tokens: 80}}}
        """,
    "tools": """
        rules: [{name: rm, when: 'response.tool_calls.exists(t, t.name == "rm")', terminate: {fallback: no tools}}]
        """,
    "silence": "rules: [{name: slow, when: response.elapsed_ms > 450.0, terminate: {fallback: late}}]",
}
SHADOW = """
counters: [{name: seen, key: session.id, charge: TotalTokens, window: {lifetime: 1h}, limit: 90 tokens}]
rules: [{name: wordy, when: response.output_tokens > 12, terminate: {}}]
"""

WISHES: list[tuple[int, dict[str, object]]] = [  # how often, what the provider is to do
    (8, {}),
    (4, {"events": 30, "batch": 4}),
    (3, {"events": 45, "interval-ms": 1}),
    (2, {"events": 40, "batch": 40, "token-chars": 7}),
    (2, {"tool": "get_weather"}),
    (1, {"tool": "rm"}),
    (1, {"status": 500}),
    (1, {"status": 429}),
    (1, {"events": 12, "malformed-at": 5}),
    (1, {"events": 12, "break-at": 6}),
    (3, {"events": 9, "cached-tokens": 5, "input-tokens": 40}),
]


@dataclass
class Asked:
    """One tenant's calls, and what came back for each."""

    tenant: str
    random: random.Random
    bodies: list[bytes] = field(default_factory=list)

    def requests(self, url: str, count: int) -> Iterator[urllib.request.Request]:
        silent = set(self.random.sample(range(count), max(1, count // 60)))
        for number in range(count):
            wish = {"events": 9, "silent-after": 4} if number in silent else self._wish()
            yield self._request(url, wish)

    def _wish(self) -> dict[str, object]:
        weights, wishes = zip(*WISHES, strict=True)
        return dict(self.random.choices(wishes, weights)[0])

    def _request(self, url: str, wish: dict[str, object]) -> urllib.request.Request:
        pick = self.random.choice
        model = pick(("gpt-4o", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-6", "gpt-3.5-turbo"))
        path = "/v1/messages" if model.startswith("claude") else "/v1/chat/completions"
        streams = pick((True, True, True, False))
        body: dict[str, Any] = {"model": model, "stream": streams, "max_tokens": pick((20, 60, 100))}
        if streams and path == "/v1/chat/completions" and pick((True, False)):
            body["stream_options"] = {"include_usage": True}
        body["messages"] = [{"role": "user", "content": pick(("hi", "tell me more", "é" * 20))}]
        # Tenants that headers claim share their counters, so each has teams and keys of its own.
        team = f"{self.tenant}-{pick(('red', 'blue'))}"
        who = {"x-tenant-id": self.tenant, "x-team-id": team, "x-session-id": pick("stuvw")}
        steer = {f"x-emulate-{name}": str(value) for name, value in wish.items()}
        key = {"authorization": f"Bearer sk-{self.tenant}-{pick('ab')}", "content-type": "application/json"}
        return urllib.request.Request(url + path, json.dumps(body).encode(), key | who | steer)

    def run(self, stage: Stage, count: int) -> None:
        """Each call when the one before is over and written down: only then is it settled for certain."""
        for number, request in enumerate(self.requests(stage.url, count)):
            self.bodies.append(_body(request))
            stage.wait_until(lambda least=number: len(told_of(stage.records(), self.tenant)) > least, "a record")  # type: ignore[misc]


def _body(request: urllib.request.Request) -> bytes:
    """What the caller gets, as far as it came."""
    got = b""
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            while piece := answer.read1():
                got += piece
    except urllib.error.HTTPError as error:
        with contextlib.suppress(OSError):
            got = error.read()
    except (OSError, ValueError, http.client.HTTPException):
        pass
    return got


def told_of(records: list[dict[str, Any]], tenant: str) -> list[dict[str, Any]]:
    """One tenant's records, in the order of its calls."""
    return sorted((one for one in records if one["tenant"] == pseudonym(tenant)), key=lambda one: one["time"])


def plain(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name not in VARYING} for one in records]


def played(policies: Path, capture: Path, rechunk: Rechunk | None) -> list[dict[str, Any]]:
    run = DryRun(
        compiled([policies]), load_prices(None), Options(observe_all=True), rechunk, vocabularies=load_vocabularies()
    )

    async def play() -> list[dict[str, Any]]:
        return [fields((await run.play(recording)).record) for recording in read_recordings(capture)]

    return [dict(json.loads(json.dumps(one))) for one in asyncio.run(play())]


@dataclass(frozen=True)
class Day:
    """What was served, what was captured of it, and what the callers got."""

    policies: Path
    capture: Path
    records: list[dict[str, Any]]
    asked: list[Asked]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    texts = {f"{name}.yaml": policy(name, spec) for name, spec in POLICIES.items()}
    texts["shadow.yaml"] = policy("shadow", SHADOW, mode="Monitor")
    asked = [Asked(tenant, random.Random(tenant)) for tenant in TENANTS]
    each = -(-CALLS // len(TENANTS))
    with stack(texts, serve=["--capture", str(folder / "capture")]) as stage:
        with ThreadPoolExecutor(len(asked)) as pool:
            list(pool.map(lambda one: one.run(stage, each), asked))
        records = stage.wait_for_records(each * len(asked))
        stage.wait_until(lambda: len(captured(folder)) == len(records), "the captures")
    (folder / "policies").mkdir()
    for name, text in texts.items():
        (folder / "policies" / name).write_text(text)
    (file,) = (folder / "capture").glob("*.jsonl")
    return Day(folder / "policies", file, [dict(one) for one in records], asked)


def captured(folder: Path) -> list[str]:
    return [line for file in (folder / "capture").glob("*.jsonl") for line in file.read_text().splitlines()]


@pytest.mark.envoy
@pytest.mark.timeout(600)
def test_the_day_had_something_of_everything(day: Day) -> None:
    """Or what follows would say little."""
    reasons = Counter(str(one["reason"]) for one in day.records)
    known = {"spent", "out_exceeded", "old", "secret", "slow", "rm"}
    assert len(known & reasons.keys()) >= 4, reasons  # whose budget goes first is a matter of milliseconds
    verdicts = Counter(str(one["verdict"]) for one in day.records)
    assert {"terminate", "constrain", "reroute"} <= verdicts.keys(), verdicts
    assert sum(one["event"] is not None and one["enforced"] for one in day.records) > CALLS // 12
    assert {"complete", "cut", "rejected"} <= {one["ended"] for one in day.records}
    assert {True, False} == {one["stream"] for one in day.records}


@pytest.mark.envoy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rechunk", [None, Rechunk(50, 1)], ids=["as recorded", "cut anew"])
def test_a_replay_is_what_serve_did(day: Day, rechunk: Rechunk | None) -> None:
    again = played(day.policies, day.capture, rechunk)
    for tenant in TENANTS:
        served, dry = plain(told_of(day.records, tenant)), plain(told_of(again, tenant))
        assert len(served) == len(dry) == -(-CALLS // len(TENANTS))
        for one, other in zip(served, dry, strict=True):
            assert one == other


@pytest.mark.envoy
@pytest.mark.timeout(600)
def test_the_command_says_the_same_to_the_byte(day: Day, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        root.main(["replay", "--policies", str(day.policies), "--format", "json", str(day.capture)])
    assert left.value.code == root.OK
    exchanges = json.loads(capsys.readouterr().out)["exchanges"]
    times = [json.loads(line)["time"] for line in day.capture.read_text().splitlines()]
    sent = [json.loads(line)["request"]["headers"]["x-tenant-id"] for line in day.capture.read_text().splitlines()]
    for asked in day.asked:
        own = sorted(
            (time, one) for time, name, one in zip(times, sent, exchanges, strict=True) if name == asked.tenant
        )
        served = told_of(day.records, asked.tenant)
        for body, record, (_, one) in zip(asked.bodies, served, own, strict=True):
            decision = one["decision"]
            for name in ("verdict", "would", "enforced", "event", "reason", "status", "counters", "determined_by"):
                assert decision[name] == record[name], name
            assert (one["usage"], one["cost"]["usd"]) == (record["usage"], record["cost_usd"])
            if record["ended"] != "cancelled":
                assert decision["output_sha256"] == sha256(body).hexdigest()
