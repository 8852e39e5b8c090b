"""Which replicas live: those whose reports have changed lately, by the operator's own clock.

Rule 1: the times in reports are never compared with ours: clocks differ by minutes.
Rule 2: only time in which reports could be seen counts: after an outage, or while we were stopped, nobody has lapsed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from policyd.adapters.policies_kube.mirror import Key
from policyd.operator.status import Replica

LASTS_S = 30.0  # without a change a replica is taken for gone
LONGEST_LOOK_S = 10.0  # between two looks; after a longer time we were stopped


@dataclass(slots=True)
class Liveness:
    """Looks at the reports again and again."""

    clock: Callable[[], float] = time.monotonic  # seconds
    _seen: dict[Key, tuple[str, float]] = field(default_factory=dict)  # what was renewed last, and when that was seen
    _since: float = float("-inf")  # from when on reports have been seen without a break
    _looked: float = float("-inf")

    def living(self, reports: Mapping[Key, Replica], *, in_step: bool) -> list[Replica]:
        """The replicas that live. `in_step`: whether the reports are those of now."""
        now = self.clock()
        if not in_step or now - self._looked > LONGEST_LOOK_S:
            self._since = now
        self._looked = now
        before, self._seen = self._seen, {}
        for key, replica in reports.items():
            known = before.get(key)
            self._seen[key] = known if known is not None and known[0] == replica.renewed else (replica.renewed, now)
        return [one for key, one in reports.items() if now - max(self._seen[key][1], self._since) <= LASTS_S]
