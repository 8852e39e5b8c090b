"""Recorded traffic as one noun, whatever wrote it down: our exchange JSONL, HAR 1.2, or a VCR cassette.

Rule 1: the format is told by content, never by a file's name.
Rule 2: an exchange file is read in constant memory, a line at a time; a HAR or a cassette is one document, read whole,
        and therefore bounded.
Rule 3: what cannot be read raises UnreadableInput with its position; nothing is skipped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from policyd.adapters.errors import Place, UnreadableInput, reason_of
from policyd.adapters.recordings.opening import opened
from policyd.core.model.deployment import UNDECLARED, Deployment
from policyd.core.model.estimate import Rate

Headers = tuple[tuple[str, str], ...]

MAX_LINE = 512 * 1024 * 1024  # bytes of one exchange: two bodies of what `--max-request` may reasonably be, in base64
MAX_DOCUMENT = 256 * 1024 * 1024  # bytes of a HAR or a cassette: parsed, it takes many times as much memory
_LONGEST_SNIFF = 64 * 1024
_EXPECTED = "expected exchange JSONL, a HAR or a VCR cassette"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded call. Header names are lower case; `chunks` are (milliseconds since `time`, bytes)."""

    source: str  # file#N, N counting from 0
    time: float | None  # seconds since 1970, UTC; None: it follows the one before
    method: str
    path: str  # with its query
    host: str
    scheme: str
    headers: Headers
    body: bytes
    status: int  # 0: no answer was recorded
    response_headers: Headers = ()
    chunks: tuple[tuple[float, bytes], ...] = ()
    rates: Mapping[str, Rate] | None = None  # by model: how it was estimated; None: nothing is said of it
    deployment: Deployment = UNDECLARED  # where it went, as that deployment declared it
    tenant: str = ""  # an authenticated one, which has counters of its own
    decision: str = ""  # the decision id that the call had when it was captured
    encoded: str = ""  # the content encoding that could not be undone: the bytes are as they were sent


Seen = Callable[[int], object]
"""Is told how many bytes of a file have been read so far."""


def read_recordings(path: Path | str, seen: Seen = lambda _: None) -> Iterator[Recording]:
    """The exchanges of one file, in its order. Raises UnreadableInput."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UnreadableInput(path, "is a folder; name the files in it")
        with opened(path) as file:
            yield from _read(str(path), file, seen)
    except OSError as error:
        raise UnreadableInput(path, reason_of(error)) from None


def _read(name: str, file: BinaryIO, seen: Seen) -> Iterator[Recording]:
    start = _first_bytes(file)
    if not start:
        raise UnreadableInput(name, f"is empty; {_EXPECTED}")
    if b"\0" in start:
        raise UnreadableInput(name, f"is not text; {_EXPECTED}")
    file.seek(0)
    if start[:1] not in b"{[":
        from policyd.adapters.recordings.cassette import read_yaml

        return read_yaml(name, _whole(name, file))
    return _read_json(name, file, seen)


def _first_bytes(file: BinaryIO) -> bytes:
    """The first bytes that are not blank, a byte order mark left out."""
    start = file.read(_LONGEST_SNIFF).removeprefix(b"\xef\xbb\xbf").lstrip()
    while not start and (more := file.read(_LONGEST_SNIFF)):
        start = more.lstrip()
    return start


def _whole(name: str, file: BinaryIO) -> bytes:
    data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise UnreadableInput(
            name, f"is one document of more than {MAX_DOCUMENT} bytes; split it, or use exchange JSONL"
        )
    return data


def _read_json(name: str, file: BinaryIO, seen: Seen) -> Iterator[Recording]:
    """A document whose first line is a whole JSON object of an exchange is JSONL; anything else is one document."""
    from policyd.adapters.recordings import exchange_jsonl

    line = _first_line(name, file)
    first = _try_json(line)
    file.seek(0)
    if "request" in first if isinstance(first, dict) else b'"request"' in line:
        return exchange_jsonl.read(name, file, seen)
    document = parse_json(name, _whole(name, file))
    kind = _document_kind(document)
    if kind == "har":
        from policyd.adapters.recordings.har import read_har

        return read_har(name, document)
    if kind == "cassette":
        from policyd.adapters.recordings.cassette import read_cassette

        return read_cassette(name, document)
    if isinstance(document, dict) and "request" in document:
        return iter([exchange_jsonl.recording(Place(name, 1), f"{name}#0", document)])
    raise UnreadableInput(Place(name, 1, 1), f"neither `log` (HAR), `interactions` (VCR) nor `request`; {_EXPECTED}")


def _first_line(name: str, file: BinaryIO) -> bytes:
    """The first line that is not blank."""
    line = b""
    while not line.strip(b"\xef\xbb\xbf \t\r\n"):
        line = file.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise UnreadableInput(name, f"a line of it is longer than {MAX_LINE} bytes")
    return line


def _document_kind(document: object) -> str:
    if not isinstance(document, dict):
        return ""
    if isinstance(document.get("log"), dict):
        return "har"
    return "cassette" if "interactions" in document or "http_interactions" in document else ""


def _try_json(data: bytes) -> object:
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None


def parse_json(name: str, data: bytes, line: int = 1) -> object:
    """One JSON document that begins at `line` of a file. Raises UnreadableInput with its position."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = Place(name, line + error.lineno - 1, error.colno)
        raise UnreadableInput(place, f"broken JSON: {error.msg.lower()}") from None
    except UnicodeDecodeError as error:
        place = Place(name, line + data.count(b"\n", 0, error.start), error.start - data.rfind(b"\n", 0, error.start))
        raise UnreadableInput(place, f"not UTF-8: byte 0x{data[error.start]:02x}") from None
    except RecursionError:
        raise UnreadableInput(Place(name, line), "broken JSON: nested too deep") from None
    except ValueError:  # an integer of more digits than the interpreter converts
        raise UnreadableInput(Place(name, line), "broken JSON: a number is too long") from None


__all__ = ["MAX_LINE", "Recording", "parse_json", "read_recordings"]
