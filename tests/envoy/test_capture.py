"""What `serve --capture` wrote behind a real Envoy, played again: the same verdicts, events, counters, to the field."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import read_recordings
from policyd.adapters.records import fields
from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli.dry_run import DryRun, Rechunk
from policyd.cli.replay import compiled
from policyd.cli.stage import Stage
from policyd.core.model.credentials import key_id
from policyd.core.model.options import Options
from tests.envoy.stack import policy, stack

KNOWN, ALPHA, BETA = "sk-known", "sk-alpha", "sk-beta"

POLICIES = {
    "models.yaml": policy("models", 'rules: [{name: old, when: request.model == "gpt-3.5-turbo", terminate: {}}]'),
    "keys.yaml": policy(
        "keys", f'rules: [{{name: quarantine, when: caller.key == "{key_id(KNOWN)}", terminate: {{status: 401}}}}]'
    ),
    "silence.yaml": policy(
        "silence", "rules: [{name: slow, when: response.elapsed_ms > 700.0, terminate: {fallback: late}}]"
    ),
    "budget.yaml": policy(
        "budget",
        """
        counters: [{name: tokens, key: caller.key, charge: OutputTokens, window: {lifetime: 1h}, limit: 60 tokens}]
        rules: [{name: long, severity: Critical, when: response.events > 40, terminate: {fallback: enough}}]
        """,
    ),
}

STEERS: list[tuple[str, str, dict[str, object]]] = [  # credential, model, what the provider does
    (ALPHA, "gpt-4o", {"events": 10}),
    (ALPHA, "gpt-3.5-turbo", {"events": 5}),
    (KNOWN, "gpt-4o", {"events": 5}),
    (BETA, "gpt-4o", {"events": 70, "batch": 7}),
    (ALPHA, "gpt-4o", {"events": 20, "batch": 3}),
    (ALPHA, "gpt-4o", {"events": 35, "interval-ms": 2}),
    (ALPHA, "gpt-4o", {"events": 30}),
    ("sk-gamma", "gpt-4o", {"events": 9, "silent-after": 4}),
    ("sk-delta", "gpt-4o", {"events": 9, "status": 500}),
    ("sk-delta", "gpt-4o", {"tool": "get_weather"}),
]

VARYING = {"id", "time", "duration_ms"}


def ask(stage: Stage, credential: str, model: str, steer: dict[str, object]) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    headers = {"authorization": f"Bearer {credential}", "content-type": "application/json", "cookie": "a=secret-cookie"}
    headers |= {f"x-emulate-{name}": str(value) for name, value in steer.items()}
    request = urllib.request.Request(f"{stage.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


def captured(folder: Path) -> list[str]:
    return [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]


def replayed(policies: Path, capture: Path, rechunk: Rechunk | None) -> list[dict[str, object]]:
    run = DryRun(
        compiled([policies]), load_prices(None), Options(observe_all=True), rechunk, vocabularies=load_vocabularies()
    )

    async def play() -> list[dict[str, object]]:
        return [fields((await run.play(recording)).record) for recording in read_recordings(capture)]

    return asyncio.run(play())


def told(record: dict[str, object]) -> dict[str, object]:
    plain = json.loads(json.dumps(record))
    return {name: value for name, value in plain.items() if name not in VARYING}


@pytest.mark.envoy
def test_a_replay_of_a_capture_is_what_serve_did(tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    with stack(POLICIES, serve=["--capture", str(folder)]) as stage:
        for index, (credential, model, steer) in enumerate(STEERS):
            ask(stage, credential, model, steer)
            records = stage.wait_for_records(index + 1)  # calls that share a counter run one after another
        stage.wait_until(lambda: len(captured(folder)) == len(STEERS), "the captures")
    (file,) = folder.glob("*.jsonl")
    (tmp_path / "policies").mkdir()
    for name, text in POLICIES.items():
        (tmp_path / "policies" / name).write_text(text)
    served = [told(record) for record in records]
    reasons = [record["reason"] for record in served]
    assert reasons[:4] == ["", "old", "quarantine", "long"]
    assert reasons[6:8] == ["tokens_exceeded", "slow"]
    for rechunk in (None, Rechunk(1), Rechunk(50, 1)):
        again = [told(record) for record in replayed(tmp_path / "policies", file, rechunk)]
        assert again == served
    text = file.read_text()
    assert not [secret for secret in (KNOWN, ALPHA, BETA, "secret-cookie") if secret in text]
