"""One connection to one Redis server, on which the commands of many callers lie behind one another.

Rule 1: commands that are asked in one turn of the loop leave in one write. (Measured beside redis-py's connections,
        one a caller: a third of the CPU a call, twice the calls a second.)
Rule 2: answers come in the order of the commands. A caller that has gone leaves its place in the line.
Rule 3: only what our scripts answer is understood: strings, integers, errors. Anything else ends the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast

Word = str | bytes

_BULK, _SIMPLE, _ERROR, _INTEGER = b"$+-:"


class Unavailable(Exception):  # noqa: N818 - a state, told by its name
    """No command can be sent now, and this one was not. `reason`: why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Lost(Exception):  # noqa: N818
    """The connection ended before the answer came: the command may have been done."""


_REASONS = {
    "LOADING": "redis is loading",
    "OOM": "redis is out of memory",
    "READONLY": "redis is read-only",
    "MASTERDOWN": "redis has no master",
    "NOREPLICAS": "redis has too few replicas",
    "MISCONF": "redis cannot write to its disk",
    "BUSY": "redis is busy",
    "CLUSTERDOWN": "the redis cluster is down",
    "TRYAGAIN": "the redis cluster is moving",
    "NOAUTH": "redis wants a password",
    "WRONGPASS": "redis does not take this user and password",
    "ERR AUTH": "redis does not take a password",
    "NOPERM": "redis does not allow it",
}


class Refused(Exception):  # noqa: N818
    """Redis answered with an error. `code`: its first word; `reason`: for people.

    A script that may not write says so within an error of its own: `ERR ... -OOM command not allowed ...`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]
        known = (reason for code, reason in _REASONS.items() if text.startswith(code) or f"-{code}" in text)
        self.reason = next(known, f"redis refuses: {self.code}")


class Wire(asyncio.Protocol):
    """A connection. Times are those of the loop, seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, asyncio.Future[bytes]]] = deque()
        self._outgoing: list[bytes] = []
        self._rest = b""
        self.closed = asyncio.Event()

    def ask(self, words: Sequence[Word]) -> asyncio.Future[bytes]:
        """Send a command; its answer comes in the future, or Refused, or Lost."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            answer.set_exception(Lost())
            return answer
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(command(words))
        self._waiting.append((self._loop.time(), answer))
        return answer

    @property
    def waiting_s(self) -> float:
        """For how long the oldest command has been waiting for its answer."""
        return self._loop.time() - self._waiting[0][0] if self._waiting else 0.0

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of that class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        waiting, self._waiting = self._waiting, deque()
        self._outgoing.clear()
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(Lost())
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        while at < len(data):
            try:
                end = self._answer(data, at)
            except (ValueError, IndexError):
                self.abort()
                return
            if end is None:
                break
            at = end
        self._rest = data[at:]

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None:
            self._transport.write(b"".join(outgoing))

    def _answer(self, data: bytes, at: int) -> int | None:
        """Hand out the answer that begins here; gives where it ends, None when it is not all there."""
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        kind, value, end = data[at], data[at + 1 : line], line + 2
        if kind == _BULK and (size := int(value)) >= 0:
            end += size + 2
            if end > len(data):
                return None
            value = data[line + 2 : end - 2]
        elif kind not in (_BULK, _SIMPLE, _ERROR, _INTEGER):
            raise ValueError("an answer of a kind that was not asked for")
        _, answer = self._waiting.popleft()
        if answer.done():
            return end
        if kind == _ERROR:
            answer.set_exception(Refused(value.decode("utf-8", "replace")))
        else:
            answer.set_result(value)
        return end


def command(words: Sequence[Word]) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        written = word if isinstance(word, bytes) else word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(written), written))
    return b"".join(parts)
