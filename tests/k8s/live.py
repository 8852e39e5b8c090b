"""What the long runs look at from outside: callers through Envoy, processes and their memory, the server's requests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from policyd.cli.stage import Stage
from tests.dying import started
from tests.envoy.harness import a_moment
from tests.k8s.server import Access

COMPLETIONS = "/v1/chat/completions"


def resident(pid: int | str = "self") -> float:
    """MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def seconds_until(true: Callable[[], object], what: str, patience_s: float = 10.0) -> float:
    """Wait until it is true, and tell for how many seconds."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience_s, f"after {patience_s} s still waiting for {what}"
        a_moment()
    return time.monotonic() - began


def call(client: httpx.Client, stage: Stage, model: str = "m") -> str:
    """What one live call gets: the reason of a refusal, or nothing."""
    asked = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    got = client.post(f"{stage.url}{COMPLETIONS}", json=asked)
    return "" if got.status_code == 200 else str(got.json()["error"].get("code") or got.text)


def nth(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


@dataclass(frozen=True, slots=True)
class Callers:
    """Somebody who calls without end, one call after another."""

    file: Path

    def since(self, began: float) -> list[float]:
        """How long each call took that ended since then; fails when one of them was no answer."""
        lines = [line.split() for line in self.file.read_text().split("\n")[:-1]]
        found = [(float(took), said) for ended, took, said in lines if float(ended) >= began]
        assert {said for _, said in found} == {"200"}
        return [took for took, _ in found]

    def words(self, began: float) -> str:
        took = self.since(began)
        parts = {"p50": 0.5, "p99": 0.99, "longest": 1.0}
        told = ", ".join(f"{name} {nth(took, part) * 1e3:.0f} ms" for name, part in parts.items())
        return f"{len(took)} calls: {told}"


@contextlib.contextmanager
def calling(stage: Stage, log: Path, model: str = "free", breath_s: float = 0.01) -> Iterator[Callers]:
    """Calls go on until the block is left."""
    script = str(Path(__file__).with_name("calling.py"))
    words = [script, "127.0.0.1", str(stage.listener), model, str(breath_s), str(log)]
    log.touch()
    with log.with_suffix(".err").open("ab") as said:
        running = started([sys.executable, *words], said)
    try:
        yield Callers(log)
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def process(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`policyd` with these words, until the block is left."""
    with log.open("ab") as said:
        running = started([sys.executable, "-m", "policyd", *words], said)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(20)


# ---- the server -----------------------------------------------------------------------------------------------------

_ASKED = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)", re.MULTILINE)


def asked(access: Access, **wanted: str) -> int:
    """How many requests with these labels the server has had."""
    with access.client() as client:
        page = client.get("/metrics").text
    labels = [f'{name}="{value}"' for name, value in wanted.items()]
    return sum(
        int(float(one["count"])) for one in _ASKED.finditer(page) if all(word in one["labels"] for word in labels)
    )


def statuses_written(access: Access) -> int:
    return asked(access, resource="llmpolicies", subresource="status", code="200")


def condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a served policy that is about its newest text; empty without."""
    generation = document["metadata"]["generation"]
    for ancestor in document.get("status", {}).get("ancestors", ()):
        for one in ancestor["conditions"]:
            if one["type"] == kind and one["observedGeneration"] == generation:
                return dict(one)
    return {}


def listed(access: Access) -> Iterator[dict[str, Any]]:
    """Every LLMPolicy, page by page."""
    more = ""
    with access.client() as client:
        while True:
            query = {"limit": "500", **({"continue": more} if more else {})}
            page = json.loads(client.get("/apis/policyd.dev/v1alpha1/llmpolicies", params=query).content)
            yield from page["items"]
            more = page["metadata"].get("continue") or ""
            if not more:
                return
