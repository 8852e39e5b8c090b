"""What a refusal says about limits, in the headers that providers use: when to come back, and how much was left.

Rule 1: every number is the store's. What is not known is not said: no header stands for it.
Rule 2: only refusals over a limit say anything. On an answer that passes such headers are the provider's own, about an
        account that is not the caller's limit, and stay as they are.
Rule 3: of several counters of one kind the one that has the least left speaks, as with providers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from policyd.core.decide.evaluate import Judged
from policyd.core.exchange.call import Call
from policyd.core.exchange.gauge import Gauge
from policyd.core.model.counters import Charge
from policyd.core.model.decision import Outcome, Verdict
from policyd.core.model.headers import Headers

_OPENAI = {Charge.REQUESTS: "requests", Charge.TOTAL_TOKENS: "tokens"}
_ANTHROPIC = {**_OPENAI, Charge.INPUT_TOKENS: "input-tokens", Charge.OUTPUT_TOKENS: "output-tokens"}


def wait_s(call: Call, winner: Judged) -> float | None:
    """Seconds until no limit that refuses this call does so any more; None: waiting cannot help, or nobody knows."""
    gauges = _in_the_way(call, winner)
    if not any(gauge.refused for gauge in gauges) or any(gauge.never for gauge in gauges):
        return None
    waits = [gauge.reading.retry_after_s for gauge in gauges if gauge.refused or gauge.reading.retry_after_s]
    known = [wait for wait in waits if wait is not None]
    return max(known) if len(known) == len(waits) else None


def _in_the_way(call: Call, winner: Judged) -> Sequence[Gauge]:
    """The counters over which this call is refused: by the rule that won, and by others that would have refused."""
    refusing = {
        (result.namespace, result.policy, result.rule)
        for result in call.decision.results
        if result.enforced and result.outcome is Outcome.MATCHED and result.action is Verdict.TERMINATE
    }
    rules = (
        [b for b in call.plan.rules if (b.rule.namespace, b.rule.policy, b.rule.name) in refusing] if call.plan else []
    )
    bounds = [winner.bound, *rules]
    return [g for g in call.meter.gauges if g.refuses and g.exceeded and any(g.read_by(bound) for bound in bounds)]


def limit_headers(call: Call, winner: Judged) -> Headers:
    """The limits of the caller, in the headers of the dialect's provider; none where the provider has none."""
    dialect = call.dialect.name if call.dialect else ""
    if not winner.bound.rule.reads_exceeded or winner.outcome is not Outcome.MATCHED:
        return ()
    if dialect.startswith("openai."):
        return tuple(_written(call, _OPENAI, "x-ratelimit-{1}-{0}", _span))
    if dialect.startswith("anthropic."):
        return tuple(_written(call, _ANTHROPIC, "anthropic-ratelimit-{0}-{1}", lambda after: _moment(call, after)))
    return ()


def _written(
    call: Call, kinds: dict[Charge, str], pattern: str, when: Callable[[float], str]
) -> Iterable[tuple[str, str]]:
    for charge, kind in kinds.items():
        known = [g for g in call.meter.gauges if g.counter.charge is charge and g.refuses and g.reading.available]
        if not known:
            continue
        gauge = min(known, key=lambda g: (_left(g), -(g.reading.resets_s or 0.0)))
        yield pattern.format(kind, "limit"), str(gauge.limit)
        yield pattern.format(kind, "remaining"), str(_left(gauge))
        if gauge.reading.resets_s is not None:
            yield pattern.format(kind, "reset"), when(gauge.reading.resets_s)


def _left(gauge: Gauge) -> int:
    return max(0, (gauge.limit or 0) - gauge.reading.value - gauge.reading.held)


def _span(seconds: float) -> str:
    """As OpenAI writes it: 1h0m5s."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _moment(call: Call, seconds: float) -> str:
    """As Anthropic writes it: RFC 3339."""
    at = datetime.fromtimestamp(math.ceil(call.facts.now + seconds), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
