"""Runs cases: each on its own clock and its own counters, through the enforcer that serves.

Rule 1: a case knows nothing of another one.
Rule 2: what is expected is compared with what came; what is not expected is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.recordings import Recording
from policyd.cli.cases.checking import counters_named
from policyd.cli.cases.making import merged, recording
from policyd.cli.cases.model import CallSpec, CaseSpec, CounterStart, PriceSpec, RequestSpec, ResponseSpec, Words
from policyd.cli.cases.reading import Suite, mode_of
from policyd.cli.cases.seeing import Came, Difference, Seen, differences, readable
from policyd.cli.cases.words import START, moment, pause
from policyd.cli.dry_run import DryRun, caller_of
from policyd.core.compile.limits import amount
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import PolicySet
from policyd.core.compile.select import glob_matches
from policyd.core.model.counters import CounterId, Readings
from policyd.core.model.decision import Mode, RuleResult
from policyd.core.model.options import Options
from policyd.core.model.prices import Price, PriceTable, Tier
from policyd.core.model.steps import Extend, Read, Reserve, Settle

NANO_PER_MTOK = 1000  # nano-dollars a token in one USD per million tokens


class Store:
    """Counters in memory that a case can take away. What is owed meanwhile is charged, as `serve` does later."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.memory = MemoryCounters(clock)
        self.down = False

    async def read(self, need: Read) -> Readings:
        return self._away() or self.memory.read_now(need)

    async def reserve(self, need: Reserve) -> Readings:
        return self._away() or self.memory.reserve_now(need)

    async def extend(self, need: Extend) -> Readings:
        return self._away() or self.memory.extend_now(need)

    async def settle(self, step: Settle) -> Readings:
        return self.memory.settle_now(step)

    def _away(self) -> Readings | None:
        return Readings(failure="unavailable") if self.down else None


@dataclass(frozen=True, slots=True)
class CasePrices:
    """The prices that a test file names, and for every other model the built-in ones."""

    own: Sequence[tuple[Callable[[str], object], Price]]
    rest: PriceTable

    @property
    def digest(self) -> str:
        return self.rest.digest

    def dearest(self, provider: str, at: float) -> Price | None:
        return self.rest.dearest(provider, at)

    def price(self, provider: str, model: str, at: float) -> Price | None:
        named = next((price for matches, price in self.own if matches(model.lower())), None)
        return named or self.rest.price(provider, model, at)


def prices_of(suite: Suite, rest: PriceTable) -> PriceTable:
    """The prices by which a suite's calls are counted."""
    own = [(glob_matches(model.lower()), _price(model, spec)) for model, spec in suite.spec.prices.items()]
    return CasePrices(own, rest) if own else rest


def _price(model: str, spec: PriceSpec) -> Price:
    each = [Fraction(str(rate)) * NANO_PER_MTOK for rate in (spec.input, spec.output)]
    return Price(model, (Tier(0, each[0], each[1], each[0], each[0]),), source="the test file")


@dataclass(frozen=True, slots=True)
class CallResult:
    """One call of a case, as it was judged."""

    number: int  # of the case's calls, from 1
    name: str
    verdict: str
    rules: tuple[RuleResult, ...]
    differences: tuple[Difference, ...]


@dataclass(slots=True)
class CaseResult:
    """One case."""

    suite: Suite
    at: int  # of the suite's cases
    calls: list[CallResult] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def spec(self) -> CaseSpec:
        return self.suite.spec.cases[self.at]

    @property
    def passed(self) -> bool:
        return not any(call.differences for call in self.calls)


async def run_case(suite: Suite, at: int, prices: PriceTable) -> CaseResult:
    """Every call of one case in a row, to the end also where one is not as expected."""
    result = CaseResult(suite, at)
    began = time.perf_counter()
    playing = _Playing(suite, suite.spec.cases[at], prices)
    for index, call in enumerate(result.spec.calls):
        for _ in range(call.times):
            path = ("cases", at, "calls", index)
            result.calls.append(await playing.call(call, path, len(result.calls) + 1))
            if result.calls[-1].differences:
                break  # the next ones of the same kind would only say it again
    result.seconds = time.perf_counter() - began
    return result


class _Playing:
    """One case under way."""

    def __init__(self, suite: Suite, case: CaseSpec, prices: PriceTable) -> None:
        self.suite, self.case = suite, case
        self.policies: PolicySet = suite.policies(mode_of(suite.spec, case.mode))
        stores: list[Store] = []

        def store(clock: Callable[[], float]) -> Store:
            stores.append(Store(clock))
            return stores[0]

        self.run = DryRun(self.policies, prices, Options(), counters=store)
        self.store = stores[0]
        start = case.start or suite.spec.start
        self.start = START if start is None else moment(start)
        self._charge_first()
        self.run.clock.to(self.start)

    def _charge_first(self) -> None:
        """What stood in the counters before, the oldest first: the clock never goes back."""
        for number, start in enumerate(sorted(self.case.counters, key=lambda one: -pause(one.age, 0))):
            self.run.clock.to(self.start - pause(start.age, 0))
            charges = tuple(self._started(start))
            op = f"start:{number}"
            self.store.memory.settle_now(Settle(op, op, charges))

    def _started(self, start: CounterStart) -> Iterator[tuple[CounterId, int]]:
        """A session belongs to its caller: one that is named here is that of each caller of the case."""
        policy, counter = counters_named(self.policies.policies, start.name, start.policy)[0]
        tenant = "default" if counter.scope == "Global" else start.tenant or "default"
        life = "monitor" if policy.mode is Mode.MONITOR else "live"
        key = _listed(start.key)
        value = amount(start.value, counter.charge)
        for owner in self._owners(everywhere=counter.scope == "Global") if counter.keyed_by_session else ("",):
            id = CounterId(
                policy.qualified, counter.name, key, counter.counts, counter.window, tenant, counter.scope, life, owner
            )
            yield id, value

    def _owners(self, *, everywhere: bool) -> tuple[str, ...]:
        callers = (caller_of(self._recorded(call, 0.0, 0)) for call in self.case.calls)
        return tuple(dict.fromkeys(caller.session_owner(everywhere=everywhere) for caller in callers))

    def _recorded(self, spec: CallSpec, at: float, number: int) -> Recording:
        given = self.suite.spec
        request = merged(merged(given.request, self.case.request), spec.request) or RequestSpec()
        response = merged(merged(given.response, self.case.response), spec.response) or ResponseSpec()
        return recording(f"{self.suite.document.file}#{number}", at, request, response)

    async def call(self, spec: CallSpec, path: Path, number: int) -> CallResult:
        clock = self.run.clock
        at = moment(spec.at) if spec.at is not None else clock.now + pause(spec.after, 0)
        recorded = self._recorded(spec, at, number)
        self.store.down = spec.store == "down"
        seen = Seen(recorded)
        played = await self.run.play(recorded, seen)
        text = ""
        if spec.expect is not None and spec.expect.text is not None:
            text = await readable(played, seen)
        came = Came(played.record, seen, text, self.store.memory.snapshot(), self.policies)
        found = tuple(differences(spec.expect, came, (*path, "expect"))) if spec.expect else ()
        return CallResult(number, spec.name or "", played.record.verdict.value, played.record.rules, found)


def _listed(words: Words) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def cases_of(suites: Sequence[Suite]) -> Iterator[tuple[Suite, int]]:
    """Every case, in the order of the files."""
    return ((suite, at) for suite in suites for at in range(len(suite.spec.cases)))
