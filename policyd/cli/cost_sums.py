"""What calls cost, by conversation and by feature.

Rule 1: a conversation is what its `x-session-id` says, else the file that it was recorded in.
Rule 2: memory grows with conversations and features, not with calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from policyd.adapters.records import decimal
from policyd.cli.thresholds import Threshold
from policyd.core.model.counters import NANO
from policyd.core.model.decision import DecisionRecord

ESTIMATES = frozenset({"estimate", "tokenizer"})
TOKENS = frozenset({"input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"})


@dataclass(slots=True)
class Costs:
    """Calls, tokens and nano-dollars. Input includes cached, output includes reasoning."""

    calls: int = 0  # in a dialect that policyd reads
    unread: int = 0  # the others: they cost what nobody knows
    estimated: int = 0  # calls whose tokens no provider counted
    unpriced: int = 0  # calls of models without a price: they are not in the money
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    nano: int = 0

    @classmethod
    def of(cls, record: DecisionRecord) -> Costs:
        """One call."""
        if not record.dialect:
            return cls(unread=1)
        # What is a part of another class, or no token at all (searches), is in the money alone.
        usage = {name: value for name, value in record.usage.items() if name in TOKENS and isinstance(value, int)}
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        estimated = tokens > 0 and record.usage.get("source") in ESTIMATES
        unpriced = tokens > 0 and record.cost_source == "unpriced"
        return cls(calls=1, estimated=estimated, unpriced=unpriced, nano=record.cost_nano, **usage)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def add(self, more: Costs) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(more, each.name))

    def told(self) -> dict[str, object]:
        """Without the nano-dollars: `cost_usd` is an exact decimal."""
        plain: dict[str, object] = {each.name: getattr(self, each.name) for each in fields(self)}
        del plain["nano"]
        return {**plain, "cost_usd": decimal(self.nano, NANO)}


@dataclass(slots=True)
class Bill:
    """Everything."""

    prices: str = ""  # digest of the price table
    total: Costs = field(default_factory=Costs)
    conversations: dict[str, Costs] = field(default_factory=dict)
    features: dict[str, Costs] = field(default_factory=dict)  # "": without the tag

    def add(self, conversation: str, feature: str, costs: Costs) -> None:
        self.total.add(costs)
        self.conversations.setdefault(conversation, Costs()).add(costs)
        self.features.setdefault(feature, Costs()).add(costs)


def failures(bill: Bill, baseline: Bill, most: Threshold) -> Iterator[str]:
    """What costs more than the baseline by more than that, in words. What is new counts in its feature and in all."""
    yield from _failure("everything", bill.total, baseline.total, most)
    yield from _failures("feature", bill.features, baseline.features, most)
    yield from _failures("conversation", bill.conversations, baseline.conversations, most)


def _failures(what: str, now: Mapping[str, Costs], before: Mapping[str, Costs], most: Threshold) -> Iterator[str]:
    for name, costs in now.items():
        if name in before:
            yield from _failure(f"{what} {name!r}" if name else f"without a {what}", costs, before[name], most)


def _failure(what: str, now: Costs, before: Costs, most: Threshold) -> Iterator[str]:
    if most.passed(before.nano, now.nano, NANO):
        rise = f"${decimal(before.nano, NANO)} -> ${decimal(now.nano, NANO)}"
        yield f"{what}: {rise}, more than {most.text} above the baseline"
    elif (now.unpriced or before.unpriced) and most.percent and most.passed(before.tokens, now.tokens):
        rise = f"{before.tokens} -> {now.tokens} tokens"
        yield f"{what}: {rise}, some without a price, more than {most.text} above the baseline"
