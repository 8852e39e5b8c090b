"""What one call holds, spends and owes, over every counter that its policies declare.

Rule 1: a call never spends past its grant without having asked: `stop_at` is the last output token that is covered.
Rule 2: a counter that refuses nothing (onExceeded: Continue, exempted, Monitor) still counts and says `exceeded`.
Rule 3: amounts are in store units (model/counters.py) until `refresh` turns them into CEL's doubles.
Rule 4: more is asked for when three quarters of a slice are spent, so that its answer is there when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from policyd.core.compile.policyset import CelFailure, CompiledCounter, CompiledPolicy, Program
from policyd.core.decide.evaluate import World
from policyd.core.decide.plan import Plan, charges_money
from policyd.core.decide.unknown import values_of
from policyd.core.exchange.estimating import Estimate
from policyd.core.exchange.gauge import FOREVER, Gauge, member_of
from policyd.core.exchange.missing import absent_in, is_absent
from policyd.core.model.counters import Charge, CounterId, Hold, Reading, Readings
from policyd.core.model.decision import Mode, lowest
from policyd.core.model.facts import CallerFacts, CounterFacts, ResponseFacts
from policyd.core.model.prices import Price, Usage

UNBILLED = Usage(source="provider")


def usage_of(response: ResponseFacts) -> Usage:
    """The answer's tokens so far as a bill."""
    if response.unbilled:
        return UNBILLED
    return Usage(
        input_tokens=response.input_tokens,
        output_tokens=response.output_tokens,
        cached_input_tokens=min(response.cached_input_tokens, response.input_tokens),
        cache_write_tokens=response.cache_write_tokens,
        reasoning_tokens=response.reasoning_tokens,
        source=response.usage_source,
        extra=response.extra,
        service_tier=response.service_tier,
        fee_nano=response.fee_nano,
        stated_nano=response.stated_nano,
        parts=response.parts,
    )


@dataclass(slots=True, eq=False)
class Meter:
    """Every counter of one call."""

    gauges: list[Gauge] = field(default_factory=list)
    price: Price | None = None
    slice_tokens: int = 512
    most_tokens: int = FOREVER  # that the answer may have, as the request says
    stop_at: int = FOREVER  # the last output token that every grant covers
    ask_at: int = FOREVER  # the output token after which more is asked for
    since: int = 0  # output tokens when the slice that is being spent began
    dry: bool = False  # the store refused to extend
    dry_index: int | None = None  # among `counted`: the one that had no room

    @property
    def counted(self) -> list[Gauge]:
        """The gauges that the store can be asked about, in the order it is asked."""
        return [gauge for gauge in self.gauges if gauge.id]

    def reprice(self, price: Price | None) -> None:
        """Count by another price from now on: the response names the model that serves."""
        self.price = price
        for gauge in self.gauges:
            if gauge.estimate is not None:
                gauge.estimate = replace(gauge.estimate, price=price)

    def holds(self, usage: Usage) -> tuple[Hold, ...]:
        return tuple(gauge.hold(usage, self.slice_tokens, self.price) for gauge in self.counted)

    def more(self, usage: Usage) -> tuple[Hold, ...]:
        return tuple(gauge.more(usage, self.slice_tokens, self.price) for gauge in self.counted)

    def observed(self, usage: Usage) -> tuple[int, ...]:
        return tuple(gauge.spent(usage, self.price) for gauge in self.counted)

    def take(self, readings: Readings, usage: Usage, *, held: bool) -> None:
        """What the store answered. `held`: first holds were asked for; it names one that does not fit, and every other
        one that would not fit either is `exceeded` too."""
        gauges = self.counted
        if readings.failure:
            for gauge in gauges:
                gauge.failure, gauge.reading = readings.failure, Reading(available=False)
            return
        short = held and readings.refused is not None
        for at, (gauge, reading) in enumerate(zip(gauges, readings.counters, strict=True)):
            gauge.reading = reading
            gauge.granted = reading.granted
            gauge.refused = short and at == readings.refused
            gauge.exceeded = gauge.refused or ((short or not gauge.refuses) and self._over(gauge, usage))
        self.since = usage.output_tokens
        self.aim(usage)

    def _over(self, gauge: Gauge, usage: Usage) -> bool:
        return gauge.over(0, gauge._amount(usage, max(1, usage.output_tokens), self.price))

    def extend(self, readings: Readings, usage: Usage) -> None:
        """What the store answered to an extension. A refusal alone is not `exceeded`: that comes when the granted slice
        is spent."""
        if readings.failure or readings.refused is not None:
            self.dry, self.dry_index = True, readings.refused
        self.take(readings, usage, held=False)

    def aim(self, usage: Usage) -> None:
        """How far the output may go before a grant is spent, or a limit that refuses nothing is passed."""
        stops = [(self._stop(gauge, usage), gauge.holds and gauge.refuses) for gauge in self.gauges]
        self.stop_at = min((stop for stop, _ in stops), default=FOREVER)
        end = min((stop for stop, refuses in stops if refuses), default=FOREVER)
        if end < self.most_tokens:
            end -= max(0, end - self.since) // 4
        self.ask_at = self.stop_at if self.dry else min(self.stop_at, end)

    def asked(self) -> None:
        """More has been asked for: what comes now is looked at when the grant is spent."""
        self.ask_at = self.stop_at

    def _stop(self, gauge: Gauge, usage: Usage) -> int:
        if gauge.exceeded or gauge.id is None or gauge.failure:
            return FOREVER
        if gauge.holds and gauge.refuses:
            return gauge.tokens_within(gauge.granted, usage, self.price)
        if gauge.limit is None:
            return FOREVER
        return gauge.tokens_within(gauge.limit - gauge.reading.value - gauge.reading.held, usage, self.price)

    def spent_out(self, usage: Usage) -> list[Gauge]:
        """The gauges whose grant, or whose limit, this usage has passed."""
        return [gauge for gauge in self.gauges if self._stop(gauge, usage) < usage.output_tokens]

    def run_dry(self, usage: Usage) -> None:
        """What is spent and gets no more is `exceeded`. An extension is all or nothing: what is spent beside the one
        that had no room may have room itself."""
        short = None if self.dry_index is None else self.counted[self.dry_index]
        for gauge in self.spent_out(usage):
            spent = gauge.spent(usage, self.price)
            gauge.exceeded = not gauge.refuses or gauge is short or gauge.over(spent, 0)
        self.aim(usage)

    def headroom_tokens(self, usage: Usage) -> int | None:
        """The output tokens that every clamping counter's limit still allows; None when none clamps. Whoever is exempt
        from a limit is not clamped by it either: past the limit that would be a refusal by another name."""
        allowed = [
            gauge.tokens_within(gauge.limit - gauge.reading.value - gauge.reading.held, usage, self.price)
            for gauge in self.gauges
            if gauge.counter.clamp and gauge.holds and gauge.limit is not None and not gauge.failure
            if gauge.refuses or not gauge.counter.denies
        ]
        return max(1, min(allowed)) if allowed else None

    def refresh(self, world: World, usage: Usage | None) -> None:
        """Put every counter's present state before the rules; `usage` None: the call has spent nothing yet."""
        for gauge in self.gauges:
            scale = gauge.counter.charge.scale
            spent = gauge.settled(usage, self.price) if usage else 0
            value = gauge.reading.value + spent
            limit = gauge.limit
            world.counters[gauge.ref] = CounterFacts(
                value=value / scale,
                held=gauge.reading.held / scale,
                limit=None if limit is None else limit / scale,
                remaining=None if limit is None else max(0, limit - value) / scale,
                used=value / limit if limit else 0.0,
                exceeded=gauge.exceeded,
                available=gauge.reading.available and not gauge.failure,
            )
            if gauge.failure:
                world.counter_failures[gauge.ref] = gauge.failure
            else:
                world.counter_failures.pop(gauge.ref, None)


def gauges_of(
    plan: Plan, policies: Iterable[CompiledPolicy], world: World, price: Price | None, process: Mode, model: str
) -> list[Gauge]:
    """The counters of this call: whose they are, how far they go, and why one cannot be counted. `price` may be a
    guess."""
    gauges = [Gauge(policy, counter) for policy in policies for counter in policy.counters]
    if not gauges:
        return gauges
    programs = [program for gauge in gauges for program in gauge.counter.key]
    programs += [limit.by for gauge in gauges if (limit := gauge.counter.limit) and limit.by]
    programs += [gauge.counter.value for gauge in gauges if gauge.counter.value]
    values = iter(values_of(plan, programs, world))
    keys = [[next(values) for _ in gauge.counter.key] for gauge in gauges]
    bys = [next(values) if (limit := gauge.counter.limit) and limit.by else None for gauge in gauges]
    members = [next(values) if gauge.counter.value else None for gauge in gauges]
    for gauge, key, by, member in zip(gauges, keys, bys, members, strict=True):
        _bind(gauge, key, by, world, process)
        _bind_member(gauge, member, world.facts.caller)
        if gauge.id is None:
            continue
        if not gauge.failure:
            _price(gauge, world, price, model)
        if gauge.skipped:
            continue
        if gauge.counter.amount and not gauge.failure:
            _estimate(gauge, Estimate(gauge.counter.amount, plan, world, price))
    return gauges


def _estimate(gauge: Gauge, estimate: Estimate) -> None:
    """INVARIANT: a charge that fails over the request alone fails now, when its limit can still be judged."""
    gauge.estimate = estimate
    if not estimate.grows:
        found = estimate.value(Usage(), 0)
        gauge.failure = f"charge: {found.reason}" if isinstance(found, CelFailure) else ""


def _bind(gauge: Gauge, key: list[object], by: object, world: World, process: Mode) -> None:
    counter, policy = gauge.counter, gauge.policy
    parts, failure = _key_parts(gauge, key)
    gauge.failure = failure or _bind_limit(gauge, by)
    if failure or not _identified(gauge, parts, key):
        return
    monitor = lowest(policy.mode, process) is Mode.MONITOR
    gauge.id = CounterId(
        policy=policy.qualified,
        name=counter.name,
        key=parts,
        charge=counter.counts,
        window=counter.window,
        tenant="default" if counter.scope == "Global" else world.facts.caller.partition,
        scope=counter.scope,
        life="monitor" if monitor else "live",
        owner=_owner(counter, world.facts.caller),
    )
    gauge.holds = not monitor
    gauge.refuses = gauge.holds and counter.denies and gauge.limit is not None


def _bind_member(gauge: Gauge, value: object, caller: CallerFacts) -> None:
    """Name the value that a counter of different values is to count. INVARIANT: without one it counts nothing, and the
    same session id of two callers is two values."""
    program = gauge.counter.value
    if program is None or gauge.id is None:
        return
    if isinstance(value, CelFailure):
        gauge.failure = value.reason if value.missing else f"distinct: {value.reason}"
    else:
        owner = caller.session_owner(everywhere=gauge.counter.scope == "Global") if _reads_session(program) else ""
        gauge.id = replace(gauge.id, member=member_of(value, owner))
        return
    gauge.id, gauge.holds, gauge.refuses = None, False, False


def _reads_session(program: Program) -> bool:
    return not program.reads.isdisjoint({"session", "session.id"})


def _owner(counter: CompiledCounter, caller: CallerFacts) -> str:
    """Whose session the key names; empty where it names none."""
    if not counter.keyed_by_session:
        return ""
    return caller.session_owner(everywhere=counter.scope == "Global")


def _key_parts(gauge: Gauge, key: list[object]) -> tuple[tuple[str, ...], str]:
    """The parts of the key, and why they cannot be told. A part that the call does not name is empty."""
    parts: list[str] = []
    for program, value in zip(gauge.counter.key, key, strict=True):
        if isinstance(value, CelFailure) and value.missing:
            return (), value.reason
        if isinstance(value, list) and value:
            parts += map(str, value)
        elif is_absent(program, value):
            parts.append("")
        elif isinstance(value, CelFailure):
            return (), f"key: {value.reason}"
        else:
            parts.append(str(value))
    return tuple(parts), ""


def _identified(gauge: Gauge, parts: tuple[str, ...], key: list[object]) -> bool:
    """Whether the call is counted under these parts. An empty part means what the counter's `onMissing` says."""
    if all(parts) or gauge.counter.on_missing == "Share":
        return True
    match gauge.counter.on_missing:
        case "Skip":
            gauge.skipped = True
        case "Refuse":
            gauge.missing = absent_in(gauge.counter.key, key)
        case _:
            gauge.failure = f"missing identity: a part of the key of counter {gauge.counter.name} is empty"
    return False


def _bind_limit(gauge: Gauge, by: object) -> str:
    limit = gauge.counter.limit
    if limit is None:
        return ""
    gauge.limit = limit.default
    if limit.by is None:
        return ""
    if not isinstance(by, str):
        return f"limit: {by.reason if isinstance(by, CelFailure) else 'its key is no string'}"
    gauge.limit = (limit.values or {}).get(by, limit.default)
    return ""


def _price(gauge: Gauge, world: World, price: Price | None, model: str) -> None:
    """Say why this counter cannot be charged, or that it does not apply to a model without a price."""
    if gauge.counter.charge.per_call:
        return
    if world.facts.unreadable_request:
        gauge.failure = f"request not readable: {world.facts.unreadable_request}"
        return
    known = price is not None and (not price.guess or gauge.counter.on_unpriced == "Estimate")
    if known or not charges_money(gauge.counter):
        return
    if gauge.counter.on_unpriced == "Skip":
        gauge.id, gauge.skipped, gauge.holds, gauge.refuses = None, True, False, False
    elif gauge.counter.charge is Charge.COST or gauge.counter.on_unpriced == "Refuse":
        unpriced = f"no price is known for model {model[:100]!r}"
        gauge.failure = unpriced if model else "the request names no model to price"
