"""Which server has a key: the one that we were told about or, in a Redis Cluster, the one that it names.

Rule 1: a cluster's layout is learned from its answers (MOVED), a slot at a time, and forgotten when a server goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.crc import key_slot

from policyd.adapters.counters_redis.lane import Lane, Patience, server_of
from policyd.adapters.counters_redis.wire import Lost, Refused, Unavailable, Word

_REDIRECTS = 4


class Shards:
    """Sends each command to the server of its key."""

    def __init__(self, url: str, patience: Patience) -> None:
        seed = server_of(url)
        self._patience = patience
        self._seed = Lane(seed, patience)
        self._lanes: dict[str, Lane] = {str(seed): self._seed}
        self._slots: dict[int, Lane] = {}

    async def ask(self, key: str, words: Sequence[Word]) -> bytes:
        """The answer to a command about this key. Raises Unavailable, Lost, Refused."""
        if not self._slots:
            try:
                return await self._seed.ask(words)
            except Refused as refused:
                if refused.code not in ("MOVED", "ASK"):
                    raise
        return await self._ask_cluster(key_slot(key.encode()), words)

    async def _ask_cluster(self, slot: int, words: Sequence[Word]) -> bytes:
        before: tuple[Sequence[Word], ...] = ()
        lane = self._slots.get(slot, self._seed)
        for _ in range(_REDIRECTS):
            try:
                return await lane.ask(*before, words)
            except Refused as refused:
                if refused.code not in ("MOVED", "ASK"):
                    raise
                lane = self._lane(str(refused).split()[2], lane)
                before = (("ASKING",),) if refused.code == "ASK" else ()
                if refused.code == "MOVED":
                    self._slots[slot] = lane
            except (Unavailable, Lost) as gone:
                self._slots.pop(slot, None)
                lane = self._another(lane, gone)
        raise Unavailable("cluster is moving")

    def _another(self, lane: Lane, gone: Unavailable | Lost) -> Lane:
        """Any other server, to say who has the key now. What was lost is asked again by who knows it is the same."""
        if isinstance(gone, Lost):
            raise gone
        others = [other for other in self._lanes.values() if other is not lane and other.up]
        if not others:
            raise gone
        return others[0]

    def _lane(self, address: str, told_by: Lane) -> Lane:
        host, _, port = address.rpartition(":")
        server = told_by.server.at(host, int(port))
        if str(server) not in self._lanes:
            self._lanes[str(server)] = Lane(server, self._patience)
        return self._lanes[str(server)]

    def state(self) -> str:
        """Which server cannot be asked, and why; empty when all can that we know to have keys."""
        lanes = set(self._slots.values()) or {self._seed}
        return "; ".join(f"{lane.server}: {why}" for lane in lanes if (why := lane.state()))

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
