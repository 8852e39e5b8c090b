"""A folder with policies and recordings, and the commands that play them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyd.cli import main as root

WORDS = ["The ", "quick ", "brown ", "fox ", "é jumps"]

RULES = {
    "nothing": "{name: never, when: 'request.model == \"none\"', terminate: {}}",
    "cut": "{name: cut, severity: Critical, when: response.events >= 3, terminate: {fallback: enough}}",
    "slow": "{name: slow, when: response.elapsed_ms > 1000.0, terminate: {fallback: late}}",
    "model": "{name: model, when: 'request.model == \"gpt-4o\"', terminate: {status: 403}}",
}

POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: p, namespace: agents}
spec:
  mode: Full
  match: {operations: [chat, unknown]}
  COUNTERS
  rules:
    - RULE
"""


LIMITED = "counters: [{name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 2 requests}]"


def event(delta: dict[str, object], finish: str | None = None) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    return sse({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def sse(data: object) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def stream() -> list[bytes]:
    """Eight events and `[DONE]`: role, five of text, the finish, the usage."""
    usage = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": word}) for word in WORDS),
        event({}, "stop"),
        sse(
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "gpt-4o",
                "choices": [],
                "usage": usage,
            }
        ),
        b"data: [DONE]\n\n",
    ]


def exchange(chunks: list[tuple[float, bytes]] | None = None, **top: object) -> dict[str, object]:
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
    given = [(10.0 * index, data) for index, data in enumerate(stream())] if chunks is None else chunks
    return {
        "request": {
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": {"host": "api.openai.com", "content-type": "application/json", "x-session-id": "s"},
            "body": json.dumps(body),
        },
        "response": {
            "status": 200,
            "headers": {"content-type": "text/event-stream"},
            "chunks": [{"ms": ms, "data": data.decode()} for ms, data in given],
        },
        **top,
    }


class Desk:
    """A folder with policies and recordings, and `policyd replay` run on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.policies, self.recorded = folder / "policy.yaml", folder / "recorded.jsonl"
        self.policy("nothing")
        self.record(exchange())

    def policy(self, rule: str, counters: str = "") -> None:
        self.policies.write_text(POLICY.replace("RULE", RULES[rule]).replace("COUNTERS", counters))

    def record(self, *exchanges: dict[str, object]) -> None:
        self.recorded.write_text("".join(json.dumps(one) + "\n" for one in exchanges))

    def run(self, *args: object, files: list[Path] | None = None) -> tuple[object, str, str]:
        names = [self.recorded] if files is None else files
        return self.command("replay", "--policies", self.policies, *args, *names)

    def command(self, *args: object) -> tuple[object, str, str]:
        """The exit code, stdout and stderr of a command."""
        with pytest.raises(SystemExit) as left:
            root.main([str(one) for one in args])
        out, err = self.capsys.readouterr()
        return left.value.code, out, err

    def json(self, *args: object, files: list[Path] | None = None) -> dict[str, Any]:
        code, out, err = self.run("--format", "json", *args, files=files)
        assert code == 0, err
        read = json.loads(out)
        assert isinstance(read, dict)
        return read


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)
