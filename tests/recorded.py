"""Every streamed answer that was recorded, and made ones in the dialects and providers of which none was.

The recorded ones lie beside this checkout, in ../shared; without them only the made ones are here.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.recordings import Recording, read_recordings
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Dialect, registry
from policyd.core.stream.dialects.generic import is_generic
from policyd.core.stream.framing import framing_of
from policyd.core.stream.json_text import loads
from tests.driving import Bed, FlatPrices, Outcome, policy
from tests.spoken import VOICES

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "recorded"
MISSING = f"the recorded corpus is not there: {CORPUS}"
TEXT = (
    "The quick brown fox says to OpenTelemetry: one or two of the dogs, perhaps 3, are lazy. “Ça alors 🦊!” said the "
    "other; so we count, over and over, to ten: 1 2 3 4 5 6 7 8 9 10. Call +1 (415) 555-0132 or a.b@example.com."
)


@dataclass(frozen=True)
class Stream:
    """One call whose answer streams."""

    name: str
    dialect: Dialect
    path: str  # with its query
    host: str
    body: bytes
    kind: str  # the answer's content type
    data: bytes
    status: int = 200

    def __repr__(self) -> str:
        return self.name


def _of(one: Recording) -> Stream | None:
    dialect, _, _ = registry.choose(one.method, one.path, one.host, {":authority": one.host, **dict(one.headers)})
    kind = dict(one.response_headers).get("content-type", "")
    if dialect is None or is_generic(dialect) or framing_of(kind, dialect.name, asked=_asked(one, dialect)) is None:
        return None
    data = b"".join(piece for _, piece in one.chunks)
    source = "/".join(Path(one.source).parts[-2:])
    return Stream(source, dialect, one.path, one.host, one.body, kind, data, one.status)


def _asked(one: Recording, dialect: Dialect) -> bool:
    path, _, query = one.path.partition("?")
    request = RequestFacts(path=path, query=query)
    dialect.read_request(loads(one.body), request)
    return bool(request.stream)


@cache
def recorded() -> tuple[Stream, ...]:
    """The streams of the corpus that are in a known dialect; of calls that are the same to the byte, one."""
    found: dict[tuple[bytes, bytes, str], Stream] = {}
    for file in sorted(CORPUS.rglob("*.yaml")):
        for one in read_recordings(file):
            if (stream := _of(one)) is not None:
                found.setdefault((stream.data, stream.body, stream.path), stream)
    return tuple(found.values())


@cache
def made() -> tuple[Stream, ...]:
    """Two streams of every voice: a text, and where it has tools a call of one."""
    rng = random.Random(4)
    out = []
    for name, voice in VOICES.items():
        body = json.dumps(voice.body).encode()
        arguments = json.dumps({"q": TEXT, "n": 5})
        said = {"says": voice.say(words(TEXT, rng))} | (
            {"calls": voice.call(words(arguments, rng))} if voice.call else {}
        )
        for verb, data in said.items():
            out.append(Stream(f"{name} {verb}", voice.dialect, voice.path, voice.host, body, voice.kind, data))
    return tuple(out)


def words(text: str, rng: random.Random) -> list[str]:
    """This text, in pieces as models send them."""
    out, at = [], 0
    while at < len(text):
        size = rng.choice((1, 2, 3, 4, 5, 9, 14))
        out.append(text[at : at + size])
        at += size
    return out


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """These bytes, cut at random: often small pieces, now and then large ones."""
    out, at = [], 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 7, 40, 300, 2000))
        out.append(data[at : at + size])
        at += size
    return out


class Everything(FlatPrices):
    """Every model has a price."""

    def __init__(self) -> None:
        super().__init__("any", output=1_000_000)

    def price(self, _provider: str, _model: str, _at: float):  # type: ignore[no-untyped-def]
        return self._prices["any"]


class Lab:
    """One policy, compiled once; every call begins with counters of its own, nothing learned, and the same id."""

    def __init__(self, spec: str, **options: object) -> None:
        self.bed = Bed(policy(spec), prices=Everything(), slice_tokens=16, **options)
        self.bed.enforcer.new_id = lambda: "call"

    def run(self, stream: Stream, chunks: list[bytes]) -> Outcome:
        """What becomes of this stream when it comes in these chunks."""
        bed = self.bed
        bed.enforcer.counters = bed.memory = MemoryCounters(bed.clock)
        bed.sink.records.clear()
        bed.enforcer.estimates.clear()
        return bed.call(
            body=stream.body,
            path=stream.path,
            host=stream.host,
            status=stream.status,
            chunks=chunks,
            response_headers=(("content-type", stream.kind),),
            step_s=0.0,
        )
