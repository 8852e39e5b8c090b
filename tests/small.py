"""Small self-made recordings: one call each, read through the whole path that `policyd replay` takes.

A stream is read whole, byte by byte and cut at random; all must say the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording
from policyd.cli.dry_run import DryRun, Played
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.deployment import UNDECLARED, Deployment
from policyd.core.model.options import Options
from tests.driving import policy
from tests.streams import cuts

DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
PRICES = load_prices()
READS = (
    "counters: [{name: spend, key: session.id, charge: Cost, window: {lifetime: 1h}}]\n"
    "rules: [{name: r, when: 'response.content.contains(\"zzqqzz\")', terminate: {}}]"
)


def call(
    host: str,
    path: str,
    body: object,
    answer: object,
    *,
    status: int = 200,
    kind: str = "",
    date: str = DATE,
    method: str = "POST",
    deployment: Deployment = UNDECLARED,
    headers: Sequence[tuple[str, str]] = (),
    sent: Sequence[tuple[str, str]] = (),
) -> Recording:
    """One recorded call; an answer of bytes is a stream unless `kind` says otherwise."""
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    kind = kind or ("text/event-stream" if isinstance(answer, bytes) else "application/json")
    return Recording(
        source="small.yaml#0",
        time=None,
        method=method,
        path=path,
        host=host,
        scheme="https",
        headers=(("content-type", "application/json"), *sent),
        body=b"" if body is None else json.dumps(body).encode(),
        status=status,
        response_headers=(("content-type", kind), *((("date", date),) if date else ()), *headers),
        chunks=((0.0, data),) if data else (),
        deployment=deployment,
    )


def play(*recordings: Recording, spec: str = READS) -> list[Played]:
    """These calls one after another through one run."""
    policies = compile_documents([("p.yaml", policy(spec))]).policy_set
    assert policies is not None
    run = DryRun(policies, PRICES, Options(observe_all=True))

    async def played() -> list[Played]:
        return [await run.play(one) for one in recordings]

    return asyncio.run(played())


def read(recording: Recording, spec: str = READS) -> Played:
    """One call, however its response is cut: every reading must be the same."""
    cut = [replace(recording, chunks=tuple((0.0, one) for one in pieces)) for pieces in _cut(recording)]
    first, *others = [play(one, spec=spec)[0] for one in cut]
    for other in others:
        assert told(other) == told(first)
    return first


def _cut(recording: Recording) -> list[list[bytes]]:
    data = b"".join(piece for _, piece in recording.chunks)
    streams = "json" not in dict(recording.response_headers)["content-type"]
    return list(cuts(data, 3)) if data and streams and len(data) < 20_000 else [[data] if data else []]


def told(played: Played) -> tuple[object, ...]:
    """What must not depend on how the body was cut."""
    record, response = played.record, played.facts.response
    calls = [(one.name, one.kind, one.arguments) for one in response.tool_calls]
    return (
        record.dialect,
        record.provider,
        record.inspection,
        record.inspection_reason,
        record.usage,
        record.cost_nano,
        record.cost_source,
        record.finish_reasons,
        response.all_text(),
        response.reasoning,
        calls,
    )
