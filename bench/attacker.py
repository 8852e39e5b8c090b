"""The attacker: one attack in a loop, each time with another key. `python -m bench.attacker PORT NAME`.

It says `ready` once its bytes are made. Each line `SECONDS` that it is sent is one run, answered with one line of JSON.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import re
import sys
import time

import uvloop

from bench.attack_list import ATTACKS, Attack, Manner

PATIENCE_S = 20.0
_SAID = re.compile(rb'"message": ?"([^"]{0,160})')
_numbers = itertools.count()


class Attacker:
    """One attack against one port."""

    def __init__(self, attack: Attack, port: int) -> None:
        self._attack, self._port, self._body = attack, port, attack.body()
        self.seen: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self.said = ""

    @property
    def size(self) -> int:
        """The largest body that is sent in either direction."""
        return max(len(self._body), len(self._attack.response()) if self._attack.response else 0)

    async def run(self, seconds: float) -> None:
        """Attack for so long; what has begun is given some seconds more."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._loop(until) for _ in range(self._attack.at_once)))

    async def _loop(self, until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    outcome = await self._call(until)
            except TimeoutError:
                outcome = "no response in time"
            except (OSError, asyncio.IncompleteReadError) as error:
                outcome = type(error).__name__
            self.seen[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def _call(self, until: float) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        try:
            writer.write(self._head())
            await (self._drip(writer, until) if self._attack.manner is Manner.SLOW else self._send(writer))
            if self._attack.manner is Manner.ABORT:
                return await self._leave(reader)
            return await self._read(reader)
        finally:
            writer.transport.abort()

    def _head(self) -> bytes:
        number = f"{os.getpid()}-{next(_numbers)}"
        headers = {
            "host": "api.openai.com",
            "content-type": "application/json",
            "authorization": f"Bearer sk-attack-{number}",
            "x-session-id": f"attack-{number}",
            "x-team-id": "attackers",
            "x-user-id": "mallory",
            "x-attack": self._attack.name,
            "content-length": str(len(self._body)),
            **dict(self._attack.headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self._attack.path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._body)
        with contextlib.suppress(OSError):  # a response that comes before all is sent is a response
            await writer.drain()

    async def _drip(self, writer: asyncio.StreamWriter, until: float) -> None:
        for at in range(len(self._body)):
            if time.monotonic() > until:
                return
            writer.write(self._body[at : at + 1])
            await asyncio.sleep(0.05)

    async def _leave(self, reader: asyncio.StreamReader) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)
        return "given up"

    async def _read(self, reader: asyncio.StreamReader) -> str:
        data = await reader.read(1 << 16)
        if not data:
            return "closed"
        status = data[9:12].decode(errors="replace")
        whole = data
        while data:
            data = await reader.read(1 << 18)
            whole = (whole + data)[-4096:]
        if status != "200" and (found := _SAID.search(whole)):
            self.said = found[1].decode(errors="replace")
        return status


async def main(port: int, name: str) -> None:
    """Do what stdin says."""
    attacker = Attacker(ATTACKS[name], port)
    print(json.dumps({"ready": attacker.size}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await attacker.run(float(line))
        print(
            json.dumps({"seen": attacker.seen, "slowest": attacker.slowest, "said": attacker.said}),
            flush=True,
        )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
