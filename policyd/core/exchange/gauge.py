"""One counter of one call: what is asked of the store for it, and how far that goes.

Rule 1: a hold is what the call can charge: where that is known only afterwards, the best estimate.
Rule 2: amounts are in store units (model/counters.py), lengths of answers in output tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, CounterRef, Program
from policyd.core.decide.plan import BoundRule
from policyd.core.exchange.estimating import Estimate
from policyd.core.model.counters import Charge, CounterId, Hold, Reading
from policyd.core.model.prices import Price, Usage, cost_of

FOREVER = 1 << 62  # output tokens: never reached


def amount_of(charge: Charge, usage: Usage, price: Price | None) -> int:
    """What this usage charges, in store units; an expression's charge is known only at the end."""
    match charge:
        case Charge.COST:
            return cost_of(price, usage)
        case Charge.REQUESTS | Charge.ATTEMPTS:
            return 1
        case Charge.TOTAL_TOKENS:
            return usage.input_tokens + usage.output_tokens
        case Charge.INPUT_TOKENS:
            return usage.input_tokens
        case Charge.OUTPUT_TOKENS:
            return usage.output_tokens
        case Charge.CACHED_INPUT_TOKENS:
            return usage.cached_input_tokens
        case Charge.REASONING_TOKENS:
            return usage.reasoning_tokens
        case Charge.EXPRESSION | Charge.REFUSALS | Charge.DISTINCT:
            return 0


def member_of(value: object, owner: str = "") -> str:
    """A value as the digest by which it is told from others. Numbers that are equal in CEL are one value.

    `owner`: of the session that the value names.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    kind = "n" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    text = f"{kind}:{value}\0{owner}" if owner else f"{kind}:{value}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(slots=True, eq=False)
class Gauge:
    """One counter of one call."""

    policy: CompiledPolicy
    counter: CompiledCounter
    id: CounterId | None = None
    limit: int | None = None
    failure: str = ""
    skipped: bool = False  # the counter does not apply to this call
    missing: tuple[Program, ...] = ()  # parts of the key that are empty: the counter refuses the call
    holds: bool = False  # a live counter that takes part in reservations; else it only counts
    refuses: bool = False  # a hold that does not fit refuses the call
    least: int = 0  # what the first hold asks for at least
    estimate: Estimate | None = None  # of a charge by expression
    covering: int = 0  # output tokens that such a charge was last held for
    reading: Reading = field(default_factory=Reading)
    granted: int = 0
    exceeded: bool = False
    refused: bool = False  # by the store, in its last answer

    @property
    def ref(self) -> CounterRef:
        return (self.policy.qualified, self.counter.name)

    @property
    def never(self) -> bool:
        """Whether even an unused limit would not do."""
        return self.limit is not None and self.least > self.limit

    def read_by(self, bound: BoundRule) -> bool:
        """Whether this rule asks if it is exceeded."""
        return bound.policy is self.policy and self.counter.name in bound.rule.reads_exceeded

    def tokens_within(self, units: int, usage: Usage, price: Price | None) -> int:
        """The most output tokens of a call with this input that these units cover; -1 when not even the input fits."""
        without = amount_of(self.counter.charge, Usage(usage.input_tokens, 0, usage.cached_input_tokens), price)
        if units < without:
            return -1
        match self.counter.charge:
            case Charge.COST if price and (rate := price.tier(usage.input_tokens).output) > 0:
                return int((units - without) // rate)
            case Charge.TOTAL_TOKENS | Charge.OUTPUT_TOKENS:
                return units - without
            case Charge.EXPRESSION if self.refuses and self.estimate and self.estimate.grows:
                return self.estimate.within(units, usage, self.covering)
            case _:
                return FOREVER

    @property
    def counts_refused(self) -> bool:
        """Whether refused calls count towards its limit, too."""
        return self.limit is not None and self.counter.charge in (Charge.ATTEMPTS, Charge.REFUSALS)

    def probe(self) -> Hold:
        """What is asked for a call that is refused already: only whether there is room for one more of those."""
        assert self.id is not None
        if not (self.holds and self.counts_refused):
            return Hold(self.id, 0, 0, None)
        self.least = 1
        return Hold(self.id, 1, 0, self.limit if self.refuses else None)

    def hold(self, usage: Usage, slice_tokens: int, price: Price | None) -> Hold:
        """The first hold: the input and one slice of output, or what fits, at least one output token."""
        assert self.id is not None
        if not self.holds:
            return Hold(self.id, 0, 0, None)
        self.covering = max(1, slice_tokens)
        self.least = self._amount(usage, 1, price)
        if self.counter.charge is Charge.REFUSALS:  # room for one more is asked for, and not taken: few calls need it
            return Hold(self.id, self.least, 0, self.limit if self.refuses else None)
        most = max(self.least, self._most(usage, self.covering, price))
        return Hold(self.id, self.least, most, self.limit if self.refuses else None)

    def _most(self, usage: Usage, tokens: int, price: Price | None) -> int:
        """What an answer of so many tokens can charge; of cached and reasoning tokens nobody knows more in advance."""
        match self.counter.charge:
            case Charge.CACHED_INPUT_TOKENS:
                return usage.input_tokens
            case Charge.REASONING_TOKENS:
                return tokens
            case _:
                return self._amount(usage, tokens, price)

    def more(self, usage: Usage, slice_tokens: int, price: Price | None) -> Hold:
        """One more slice on top of what is granted, counted from what is spent when that is more."""
        assert self.id is not None
        if not self.holds:
            return Hold(self.id, 0, 0, None)
        covered = max(self.tokens_within(self.granted, usage, price), usage.output_tokens - 1)
        if covered >= FOREVER:
            return Hold(self.id, 0, 0, None)
        self.covering = covered + slice_tokens
        least, most = (
            max(0, self._amount(usage, tokens, price) - self.granted) for tokens in (covered + 1, self.covering)
        )
        return Hold(self.id, least, max(least, most), self.limit if self.refuses else None)

    def spent(self, usage: Usage, price: Price | None) -> int:
        """What this usage charges, in store units; of an expression the estimate."""
        if self.estimate:
            return self.estimate.amount(usage, usage.output_tokens)
        if self.counter.charge is Charge.DISTINCT:
            return 0 if self.reading.seen else 1
        return amount_of(self.counter.charge, usage, price)

    def settled(self, usage: Usage, price: Price | None) -> int:
        """What rules see of this call in the counter's value: of an expression nothing before the call is over."""
        return 0 if self.estimate else self.spent(usage, price)

    def _amount(self, usage: Usage, output: int, price: Price | None) -> int:
        if self.estimate:
            return max(1, self.estimate.amount(usage, output))
        charged = amount_of(
            self.counter.charge,
            Usage(usage.input_tokens, output, usage.cached_input_tokens, usage.cache_write_tokens),
            price,
        )
        return max(1, charged) if self.counter.charge is not Charge.COST else charged

    def over(self, spent: int, least: int) -> bool:
        """Whether a counter that refuses nothing is past its limit, this call included."""
        if self.counter.charge is Charge.DISTINCT and self.reading.seen:
            return False
        return self.limit is not None and self.reading.value + self.reading.held + max(spent, least) > self.limit
