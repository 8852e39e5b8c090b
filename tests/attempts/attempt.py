"""One attempt to get past a policy through a real Envoy, and how it is judged.

An attempt is a crafted request, the response of its upstream, and a check. The check sees the bytes that reached the
upstream and the bytes that reached the caller. It returns an empty string if the policy held, else what went wrong.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyd.cli.emulator import Call, RawAnswer
from policyd.cli.stage import Stage

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request: what the caller received, and what reached the upstream."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    calls: Sequence[Call]
    broken: bool = False

    @property
    def rejected(self) -> bool:
        """Whether the request was rejected before it reached an upstream."""
        return not self.calls and self.status >= 400

    def upstream_has(self, marker: str) -> bool:
        """Whether the marker reached the upstream, in its body or its path, plainly or escaped."""
        return any(holds(call.body, marker) or marker in call.path for call in self.calls)

    def caller_has(self, marker: str) -> bool:
        """Whether the marker reached the caller, plainly or escaped."""
        return holds(self.body, marker) or any(marker in value for value in self.headers.values())


Check = Callable[[list[Outcome]], str]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a caller."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    team: str = ""  # which of the policies apply
    reply: RawAnswer | None = None

    @staticmethod
    def json(path: str, document: object, **more: Any) -> Request:
        return Request(path, json.dumps(document).encode(), **more)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A named member of a class, tried against a policy that must hold."""

    klass: str
    name: str
    requests: Sequence[Request]
    check: Check

    def __str__(self) -> str:
        return f"{self.klass}: {self.name}"


_PAYLOAD = re.compile(rb'"bytes":\s*"([A-Za-z0-9+/]+={0,2})"')


def holds(data: bytes, marker: str) -> bool:
    """Whether a reader of these bytes could read the marker: as it stands, or with JSON's escapes or Bedrock's base64
    undone."""
    if any(holds(base64.b64decode(one), marker) for one in _PAYLOAD.findall(data)):
        return True
    text = data.decode("utf-8", "replace")
    if marker in text:
        return True
    decoded = text
    for _ in range(3):
        before, decoded = decoded, _unescaped(decoded)
        if marker in decoded:
            return True
        if before == decoded:
            break
    return False


def _unescaped(text: str) -> str:
    out: list[str] = []
    at = 0
    while (found := text.find("\\", at)) >= 0:
        out.append(text[at:found])
        if text[found + 1 : found + 2] == "u" and len(text) >= found + 6:
            try:
                out.append(chr(int(text[found + 2 : found + 6], 16)))
                at = found + 6
                continue
            except ValueError:
                pass
        out.append({"n": "\n", "t": "\t", "r": "\r"}.get(text[found + 1 : found + 2], text[found + 1 : found + 2]))
        at = found + 2
    return "".join([*out, text[at:]])


# ---- running ---------------------------------------------------------------------------------------------------------

_NUMBERS = itertools.count()
OK = RawAnswer(200, (("content-type", JSON_TYPE),), (b"{}",), stream=False)


def run(stage: Stage, attempt: Attempt) -> str:
    """What went wrong; empty when the policy held."""
    return attempt.check([_sent(stage, request) for request in attempt.requests])


def _sent(stage: Stage, request: Request) -> Outcome:
    name = f"/attempt-{next(_NUMBERS)}"
    for provider in stage.providers:
        provider.raw[name] = request.reply or OK
    before = {provider.name: len(provider.calls) for provider in stage.providers}
    status, headers, body, broken = _exchanged(stage.listener, request, name)
    calls = [call for provider in stage.providers for call in provider.calls[before[provider.name] :]]
    return Outcome(status, body, headers, calls, broken)


def _exchanged(port: int, request: Request, name: str) -> tuple[int, dict[str, str], bytes, bool]:
    """One call over a connection of its own. Nothing of the request is normalised on its way."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = _headers(request, name)
        connection.putrequest(request.method, request.path, skip_host="host" in headers, skip_accept_encoding=True)
        for key, value in headers.items():
            connection.putheader(key, value)
        connection.endheaders(request.body or None)
        response = connection.getresponse()
        try:
            return response.status, dict(response.getheaders()), response.read(), False
        except http.client.IncompleteRead as failure:
            return response.status, dict(response.getheaders()), failure.partial, True
    except (http.client.HTTPException, OSError):
        return 0, {}, b"", True
    finally:
        connection.close()


def _headers(request: Request, name: str) -> dict[str, str]:
    headers = {"x-emulate-raw": name, **request.headers}
    if request.team:
        headers["x-team-id"] = request.team
    if request.body:
        headers.setdefault("content-type", JSON_TYPE)
        headers["content-length"] = str(len(request.body))
    return headers


# ---- checks ----------------------------------------------------------------------------------------------------------


def rejected(outcomes: Iterable[Outcome]) -> str:
    """Every request was rejected before it left."""
    return "; ".join(f"status {one.status}, {len(one.calls)} upstream calls" for one in outcomes if not one.rejected)


def served(outcomes: Iterable[Outcome]) -> str:
    """Every request was served: what is ordinary must pass."""
    return "; ".join(f"status {one.status}: {one.body[:200]!r}" for one in outcomes if not one.calls or one.broken)


def kept_from_upstream(marker: str) -> Check:
    """The marker did not reach the upstream, whether the call was changed or rejected."""
    return lambda outcomes: "the marker reached the upstream" if any(o.upstream_has(marker) for o in outcomes) else ""


def kept_from_caller(marker: str) -> Check:
    """The marker did not reach the caller, whether the response was changed, cut or rejected."""
    return lambda outcomes: "the marker reached the caller" if any(o.caller_has(marker) for o in outcomes) else ""


def passes(most: int) -> Check:
    """At most so many of the requests reached an upstream."""

    def check(outcomes: list[Outcome]) -> str:
        passed = sum(bool(one.calls) for one in outcomes)
        return "" if passed <= most else f"{passed} of {len(outcomes)} passed, at most {most} may"

    return check


def whole(document: object, status: int = 200, kind: str = JSON_TYPE) -> RawAnswer:
    """A response in one piece."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return RawAnswer(status, (("content-type", kind),), (data,), stream=False)


def streamed(*events: bytes, kind: str = SSE_TYPE) -> RawAnswer:
    """A streamed response, one write an event."""
    return RawAnswer(200, (("content-type", kind),), events)
