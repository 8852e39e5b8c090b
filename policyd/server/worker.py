"""A worker: one data plane, started and looked after by the supervisor (`python -m policyd.server.worker FD`).

Rule 1: without its supervisor it drains and ends: nothing would replace it, and nobody could stop it.
Rule 2: it logs with its number, and ends with the exit code that `policyd serve` alone would have.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from http import HTTPStatus

from policyd.adapters.admin import read, text
from policyd.adapters.errors import Known, told
from policyd.server.link import DRAIN, HURRY, READY, Order, answered, take_order
from policyd.server.plane import DataPlane, run

log = logging.getLogger("policyd")

LOG_FORMAT = "%(asctime)s %(levelname)s worker {number}: %(message)s"


async def work(order: Order, line: socket.socket) -> None:
    """Serve until told to stop. Raises as DataPlane.run does."""
    plane = DataPlane(order.settings)
    reader, writer = await asyncio.open_connection(sock=line)
    sides = (asyncio.create_task(_attend(plane, reader, writer)), asyncio.create_task(_tell_ready(plane, writer)))
    try:
        await plane.run()
    finally:
        for side in sides:
            side.cancel()
        await asyncio.wait(sides)
        writer.close()


async def _tell_ready(plane: DataPlane, writer: asyncio.StreamWriter) -> None:
    await plane.ready.wait()
    writer.write(READY)


async def _attend(plane: DataPlane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the supervisor says, one line after another."""
    try:
        while line := await reader.readline():
            word = line.decode().strip()
            if word == HURRY or (word == DRAIN and not plane.stopping.is_set()):
                plane.stop()  # a signal may have said so already: said twice it would cut the calls
            elif word != DRAIN:
                writer.write(await _page(plane, word))
    except ConnectionError:
        pass
    if not plane.stopping.is_set():
        log.error("the supervisor is gone")
        plane.stop()


async def _page(plane: DataPlane, asked: str) -> bytes:
    number, path = asked.split(" ", 1)
    page = plane.pages.get(path)
    return answered(int(number), await read(page) if page else text(HTTPStatus.NOT_FOUND, "no such page"))


def main(descriptor: int) -> int:
    """Run the worker whose line has this file descriptor; gives its exit code."""
    with socket.socket(fileno=descriptor) as line:
        order = take_order(line)
        form = LOG_FORMAT.format(number=order.number)
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)
        try:
            run(work(order, line))
        except Known as error:
            code, lines = told(error)
            for words in lines:
                log.error("%s", words.removeprefix("policyd: "))
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
