"""Many recorded chunks as one message, where that makes no difference: most of what an event costs is its own message.

Rule 1: how a body is cut changes no verdict, no event and no byte; what is left is the time. So chunks are gathered
        only where no rule looks at the answer's time, and where time changes no counter of this call meanwhile.
Rule 2: a call that is stopped ends at a time of its own: it is taken back, counters and all, and played as recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, PolicySet
from policyd.core.exchange.call import Call
from policyd.core.model.counters import Readings
from policyd.core.model.decision import Constrain
from policyd.core.model.estimate import Estimates
from policyd.core.model.steps import Extend, Need, Read, Reserve, Settle

log = logging.getLogger("policyd")

Chunks = Sequence[tuple[float, bytes]]
"""(milliseconds since the call's start, bytes)"""

_MOST = 64 * 1024  # bytes of one message
_TIMES = frozenset({"response", "response.elapsed_ms", "response.ttft_ms"})


class Undoable:
    """A CounterStore in this process whose newest call can be taken back, until `keep` or `undo` says what it is."""

    def __init__(self, memory: MemoryCounters) -> None:
        self._memory = memory
        self._kept: list[Settle] | None = None
        self._learned: tuple[Estimates, Estimates] | None = None  # what is known of models, and what was before

    async def read(self, need: Read) -> Readings:
        return self._memory.read_now(need)

    async def reserve(self, need: Reserve) -> Readings:
        return self._memory.reserve_now(need)

    async def extend(self, need: Extend) -> Readings:
        return self._memory.extend_now(need)

    async def settle(self, step: Settle) -> Readings:
        return self.at_once(step)

    def at_once(self, need: Need) -> Readings:
        if self._kept is None or not isinstance(need, Settle):
            return self._memory.at_once(need)
        self._kept.append(need)
        return Readings()

    def begin(self, estimates: Estimates) -> None:
        """From now on nothing is settled, and what is learned can be forgotten."""
        self._kept, self._learned = [], (estimates, estimates.copy())

    def keep(self) -> None:
        """Settle what was to be settled."""
        for step in self._taken():
            if failure := self._memory.settle_now(step).failure:
                log.error("a settlement failed: %s", failure)

    def undo(self) -> None:
        """Give back what was held, charge nothing, and have learned nothing."""
        if self._learned is not None:
            estimates, before = self._learned
            estimates.become(before)
        for step in self._taken():
            self._memory.settle_now(Settle(step.op, step.call, ()))
        # What the store remembers of the call has to be gone before the clock is set back: it comes again with its id.
        self._memory.read_now(Read(()))

    def _taken(self) -> list[Settle]:
        kept, self._kept = self._kept or [], None
        return kept

    def steady(self, call: Call, until: float) -> bool:
        """Whether time alone changes nothing that this call reads, until then."""
        counters = [gauge.id for gauge in call.meter.counted if gauge.id is not None]
        return self._memory.steady(counters, call.facts.session_id, until)


class Gathering:
    """Says which answers may be gathered."""

    def __init__(self, policies: PolicySet, store: Undoable, longest_s: float) -> None:
        """`longest_s`: a call as long as this may lose what it holds."""
        self.store = store
        self._longest_s = longest_s
        self._timed = frozenset(policy for policy in policies.policies if _looks_at_time(policy))

    def may(self, call: Call, chunks: Chunks, now: float, until: float) -> bool:
        """Whether these chunks may come as one. `now` and `until`: when the first and the last of them came."""
        if len(chunks) < 2 or call.plan is None or until - now >= self._longest_s:
            return False
        return self._timed.isdisjoint(call.plan.policies) and self.store.steady(call, until)


def gathered(chunks: Chunks) -> Iterator[tuple[float, bytes]]:
    """As few messages as their size allows, each at the time of its last chunk."""
    parts: list[bytes] = []
    size, at = 0, 0.0
    for at, data in chunks:
        parts.append(data)
        size += len(data)
        if size >= _MOST:
            yield at, b"".join(parts)
            parts, size = [], 0
    if parts:
        yield at, b"".join(parts)


def _looks_at_time(policy: CompiledPolicy) -> bool:
    amounts = (counter.amount.reads for counter in policy.counters if counter.amount is not None)
    return any(map(_paces, policy.rules)) or not _TIMES.isdisjoint(_all((*map(_reads, policy.rules), *amounts)))


def _all(reads: Iterable[frozenset[str]]) -> set[str]:
    return set().union(*reads)


def _reads(rule: CompiledRule) -> frozenset[str]:
    texts = (rule.message_expression, rule.fallback_expression)
    return rule.reads.union(*(text.reads for text in texts if text is not None))


def _paces(rule: CompiledRule) -> bool:
    return isinstance(rule.action, Constrain) and rule.action.pace is not None


def is_broken(chunks: Sequence[tuple[float, bytes]]) -> bool:
    """Whether the answer never came to its own end: then its last chunk is empty, and says until when nothing came."""
    return bool(chunks) and not chunks[-1][1]
