"""The line between the supervisor and one worker: a socket pair, and what is said on it.

Rule 1: the supervisor says one line each: `DRAIN`, `HURRY`, or `NUMBER PATH`, which asks for a page of the worker's.
        The worker answers with a line `NUMBER STATUS LENGTH TYPE` and a body. Number 0 is what it says unasked: READY.
Rule 2: an answer that nobody waits for any more is dropped; a worker that hangs costs its asker `PATIENCE_S`.
Rule 3: the line is the life line: its end tells each side that the other is gone.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import TypeAdapter

from policyd.adapters.admin import Answer, text
from policyd.server.settings import Settings

DRAIN, HURRY = "drain", "hurry"
PATIENCE_S = 1.0
_UNASKED = 0
_SIZE = 4  # bytes of the length before the order


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told before anything else."""

    number: int  # from 0
    settings: Settings  # its own: its address, no admin


_ORDER = TypeAdapter(Order)


def send_order(line: socket.socket, order: Order) -> None:
    """Give a worker its order. It goes over the line: a command line would show the password of Redis to everyone."""
    data = _ORDER.dump_json(order)
    line.sendall(len(data).to_bytes(_SIZE, "big") + data)


def take_order(line: socket.socket) -> Order:
    """Read it. Raises EOFError when nobody is there any more to give one."""
    return _ORDER.validate_json(_exactly(line, int.from_bytes(_exactly(line, _SIZE), "big")))


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def answered(number: int, answer: Answer) -> bytes:
    """An answer as it goes over the line."""
    head = f"{number} {int(answer.status)} {len(answer.body)} {answer.content_type}\n"
    return head.encode("latin-1") + answer.body


READY = answered(_UNASKED, text(HTTPStatus.OK, "ready"))


@dataclass(slots=True)
class Link:
    """The supervisor's end. `listen` runs as long as the worker does."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    _count: int = _UNASKED

    def say(self, word: str) -> None:
        """Tell the worker, as far as it is there to be told."""
        if not self.writer.is_closing():
            self.writer.write(f"{word}\n".encode())

    async def page(self, path: str) -> Answer | None:
        """One of the worker's pages; None when it does not answer."""
        if self.writer.is_closing():
            return None
        self._count += 1
        number, answer = self._count, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.say(f"{number} {path}")
        done, _ = await asyncio.wait((answer,), timeout=PATIENCE_S)
        del self._asked[number]
        return answer.result() if done and not answer.cancelled() else None

    async def listen(self) -> None:
        """Hand out the answers, until the worker is gone."""
        try:
            while head := await self.reader.readline():
                number, status, length, kind = head.decode("latin-1").rstrip("\n").split(" ", 3)
                body = await self.reader.readexactly(int(length))
                self._hand_out(int(number), Answer(int(status), body, kind))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for answer in self._asked.values():
                answer.cancel()
            self.writer.close()

    def _hand_out(self, number: int, answer: Answer) -> None:
        if number == _UNASKED:
            self.ready.set()
        waiting = self._asked.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
