"""Whole exchanges, written down for a later dry run. Off unless asked for: what it writes is prompts and answers.

Rule 1: no credential is written: each becomes the pseudonym that `caller.key` reads, so callers stay apart.
Rule 2: what is captured is what came, not what policyd made of it: a dry run judges it as `serve` did.
Rule 3: a call that grows past its bound is dropped whole and counted, never cut short in silence.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import unquote

from policyd.core.exchange.identity import credential_name, verified_keys
from policyd.core.exchange.opening import OWN_PREFIX
from policyd.core.model.credentials import (
    AWS_CREDENTIAL,
    CREDENTIAL_HEADERS,
    access_key,
    credentials_in,
    is_credential,
    is_credential_parameter,
    key_id,
)
from policyd.core.model.deployment import UNDECLARED
from policyd.core.model.estimate import Rate
from policyd.core.model.steps import (
    Ended,
    Event,
    Headers,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
)

MAX_CALL = 128 * 1024 * 1024  # bytes of one call
_REMOVED = "[removed]"


class Lines(Protocol):
    """Where lines go: jsonlines.LineFile. Never blocks."""

    def put(self, line: Callable[[], bytes], size: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Capture:
    """Begins one tap a call."""

    lines: Lines
    max_call: int = MAX_CALL
    on_dropped: Callable[[int], None] = lambda _: None

    def begin(self, event: RequestHeaders) -> Tap:
        return Tap(self, event)


@dataclass(slots=True)
class Tap:
    """What one call's events say, until `end` hands it over. `see` takes every event in order."""

    capture: Capture
    begun: RequestHeaders
    _body: bytes = b""
    _answer: ResponseHeaders | None = None
    _chunks: list[tuple[float, bytes]] = field(default_factory=list)
    _whole: bool = False  # the answer has come to its own end
    _size: int = 0
    _done: bool = False
    _rates: Mapping[str, Rate] = field(default_factory=dict)
    _decision: str = ""

    def see(self, event: Event) -> None:
        """Take one event of the call, before or after it was judged."""
        match event:
            case RequestBody(data=data):
                self.request_body(data)
            case ResponseHeaders():
                self.response_headers(event)
            case ResponseChunk(data=data, now=now, end=end):
                self.chunk(data, now, end=end)
            case ResponseTrailers():
                self._whole = True
            case Ended(now=now):
                self.end(now)
            case _:
                pass

    def estimated_by(self, rates: Mapping[str, Rate], decision: str = "") -> None:
        """What was known of the call's models: a dry run estimates by it too, and so cuts where this one did. And the
        decision id, which a terminated response names."""
        self._rates, self._decision = dict(rates), decision

    def request_body(self, data: bytes) -> None:
        self._body = data
        self._grow(len(data))

    def response_headers(self, event: ResponseHeaders) -> None:
        self._answer = event
        self._whole = event.end

    def chunk(self, data: bytes, now: float, *, end: bool = False) -> None:
        self._whole = end
        if data and self._size <= self.capture.max_call:
            self._chunks.append((now, data))
        self._grow(len(data))

    def end(self, now: float) -> None:
        """Hand the call over to be written. Later events of it are not seen."""
        if self._done:
            return
        self._done = True
        if self._answer is not None and not self._whole:
            self._chunks.append((now, b""))  # how long it was silent before it was cut or left
        if self._size > self.capture.max_call:
            self.capture.on_dropped(1)
            return
        self.capture.lines.put(self.line, self._size)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self.capture.max_call:
            self._body = b""
            self._chunks.clear()

    def line(self) -> bytes:
        """The exchange as one line of JSON, without its end."""
        return json.dumps(self._exchange(), separators=(",", ":"), ensure_ascii=True).encode()

    def _exchange(self) -> dict[str, object]:
        pseudo = {name: value for name, value in self.begun.headers if name.startswith(":")}
        headers = self.begun.headers
        if "host" not in dict(headers) and pseudo.get(":authority"):
            headers = (("host", pseudo[":authority"]), *headers)
        request: dict[str, object] = {
            "method": pseudo.get(":method", ""),
            "path": _path(pseudo.get(":path", "")),
            "headers": _headers(headers, verified_keys(self.begun.metadata)),
            **_data("body", self._body),
        }
        if self.begun.deployment != UNDECLARED:
            request["deployment"] = {name: value for name, value in asdict(self.begun.deployment).items() if value}
        time = datetime.fromtimestamp(self.begun.wall, UTC).isoformat(timespec="microseconds")
        return {
            "time": time.replace("+00:00", "Z"),
            **({"decision": self._decision} if self._decision else {}),
            "request": request,
            "response": self._response(),
            "estimate": {model: asdict(rate) for model, rate in self._rates.items()},
        }

    def _response(self) -> dict[str, object] | None:
        if self._answer is None:
            return None
        status = dict(self._answer.headers).get(":status", "0")
        return {
            "status": int(status) if status.isdecimal() else 0,
            "headers": _headers(self._answer.headers),
            "chunks": [{"ms": self._ms(now), **_data("data", data)} for now, data in self._chunks],
        }

    def _ms(self, now: float) -> float:
        return round(max(0.0, now - self.begun.now) * 1000, 3)


def _headers(headers: Headers, verified: Sequence[str] = ()) -> dict[str, object]:
    """Name to value, or to values where a header came more than once."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith((":", OWN_PREFIX)):
            found.setdefault(name, []).append(_without_secret(name, value, verified))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _without_secret(name: str, value: str, verified: Sequence[str]) -> str:
    if not is_credential(name) or not value:
        return value
    if name not in CREDENTIAL_HEADERS or not value.strip():
        return _REMOVED
    shown = ", ".join(credential_name(one, verified) for one in credentials_in(value, name)) or _REMOVED
    return f"Bearer {shown}" if value.strip()[:7].lower() == "bearer " else shown


def _path(path: str) -> str:
    """The path, with a pseudonym for each credential in its query."""
    place, mark, query = path.partition("?")
    return place + mark + "&".join(map(_hide, query.split("&")))


def _hide(part: str) -> str:
    name, equals, value = part.partition("=")
    if not value or not is_credential_parameter(name):
        return part
    plain = unquote(value)
    return f"{name}{equals}{key_id(access_key(plain) if unquote(name).lower() == AWS_CREDENTIAL else plain.strip())}"


def _data(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
