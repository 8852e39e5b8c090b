"""Looks into Redis behind the store's back: what every call and every counter record says, at one moment."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import redis

# The records are the scripts' own (lib.lua): counters {kind, span, held, running, ...}, stakes {has, observed, ...}.
_LOOK = """
local function records(pattern)
  local found = {}
  for _, key in ipairs(redis.call('KEYS', pattern)) do found[key] = cmsgpack.unpack(redis.call('GET', key)) end
  return found
end
return cjson.encode({records('pd:*:c:*'), records('pd:*:k:*')})
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """`counters`: held, running and settled by key; `stakes`: what each call has in each, by their keys."""

    counters: dict[str, tuple[int, int, int]]
    stakes: dict[str, dict[str, tuple[int, int, bool, int]]]  # has, observed, lapsed, charged
    settled: dict[str, str]

    def unbalanced(self) -> list[str]:
        """Every counter whose holds are not the sum of the leases in it. Empty: all is well."""
        held: dict[str, int] = defaultdict(int)
        running: dict[str, int] = defaultdict(int)
        for stakes in self.stakes.values():
            for key, (has, _, lapsed, _) in stakes.items():
                if not lapsed:
                    held[key] += has
                    running[key] += 1
        return [
            f"{key}: holds {self.counters.get(key)}, its leases say {held[key]} in {running[key]}"
            for key in {*held, *self.counters}
            if (held[key], running[key]) != self.counters.get(key, (0, 0, 0))[:2]
        ]


def look(client: redis.Redis) -> Audit:
    """What there is, in one atomic look."""
    found: Any = client.eval(_LOOK, 0)
    counters, calls = json.loads(found)
    return Audit(
        {key: (int(one[2]), int(one[3]), int(one[6])) for key, one in dict(counters or {}).items()},
        {
            key: {at: (int(s[0]), int(s[1]), bool(s[2]), int(s[3])) for at, s in dict(one[0] or {}).items()}
            for key, one in dict(calls or {}).items()
        },
        {key: one[4] for key, one in dict(calls or {}).items() if one[4]},
    )
