"""The end of a call: what it owes, and the record of what was decided."""

from __future__ import annotations

from policyd.core.decide.combine import Decision
from policyd.core.exchange.background import bill, goes_on, keep_held, settle_fetched
from policyd.core.exchange.call import Call
from policyd.core.exchange.costing import STATED, confidence, cost_source, reprice
from policyd.core.exchange.counted import count_whole
from policyd.core.exchange.effects import settled
from policyd.core.exchange.gauge import Gauge
from policyd.core.exchange.learning import estimate_error
from policyd.core.exchange.owing import charged, final_usage
from policyd.core.model.counters import Hold, SessionCharge
from policyd.core.model.credentials import pseudonym
from policyd.core.model.decision import CounterResult, DecisionRecord, ShadowResult, Verdict
from policyd.core.model.prices import Usage, cost_of
from policyd.core.model.steps import Extend, Record, Settle


def settlement(call: Call, ended: str = "complete") -> list[Settle | Extend]:
    """What is to be charged; of a call that never left only that there was one, and that it was refused."""
    fetched = bill(call)
    if call.left:
        count_whole(call.facts, call.ground.vocabularies)
        reprice(call)
        if call.elsewhere:
            call.facts.response.stated_nano = None
    usage = final_usage(call)
    due = [(gauge, amount) for gauge in call.meter.counted if (amount := charged(call, gauge, usage)) is not None]
    used = [(gauge, amount) for gauge, amount in due if fetched and not gauge.counter.charge.per_call]
    charges = [(gauge.id, amount) for gauge, amount in due if gauge.id is not None and (gauge, amount) not in used]
    more = settle_fetched(call, used) if fetched else keep_held(call) if goes_on(call) else []
    session = _session(call, usage, ended) if call.left else None
    if not charges and session is None:
        return [*_given_back(call), *more]
    call.holding.discard(call.holder)
    return [*_given_back(call), Settle(f"{call.id}:settle", call.holder, tuple(charges), session), *more]


def _given_back(call: Call) -> list[Settle]:
    """Every hold that no charge drops."""
    for holder in sorted(call.holding):
        call.release(holder)
    return call.releases_now()


def _session(call: Call, usage: Usage, ended: str) -> SessionCharge | None:
    if not call.ground.plans.session_readers:
        return None
    cost = cost_of(call.price, usage)
    said = _said(call) if call.ground.plans.likeness_readers and ended == "complete" else ""
    return SessionCharge(call.facts.session_id, cost, usage.input_tokens + usage.output_tokens, said)


def _said(call: Call) -> str:
    """What a finished answer said: its text, and the tools that it calls, with what. Nothing where it is an error."""
    response = call.facts.response
    if response.is_error or not 200 <= response.status < 300:
        return ""
    tools = (part for tool in response.tool_calls for part in (tool.name, tool.arguments))
    return "\n".join((response.all_text(), *tools)).strip()


def record(call: Call, *, now: float, ended: str) -> Record:
    """What was decided, and why."""
    decision, facts, response = settled(call), call.facts, call.facts.response
    usage = final_usage(call)
    winner = decision.winner or decision.would_winner
    return Record(
        DecisionRecord(
            id=call.id,
            time=facts.now,
            digest=call.ground.policies.digest,
            verdict=Verdict.TERMINATE if call.failed_closed else _done(decision),
            would=Verdict.TERMINATE if call.failed_closed else decision.would,
            mode=decision.mode,
            enforced=call.failed_closed or decision.winner is not None,
            degraded=call.degraded or decision.degraded,
            reason=call.reason,
            determined_by=(f"{winner.bound.rule.policy}/{winner.bound.rule.name}",) if winner else (),
            rules=decision.results,
            counters=tuple(_counter(call, gauge, usage) for gauge in call.meter.gauges),
            event=call.event,
            phase=call.phase,
            operation=facts.request.operation,
            dialect=facts.request.dialect,
            provider=facts.request.provider,
            model=call.asked_model or facts.request.model or "",
            served_model=call.served_model or facts.request.model or "",
            stream=bool(facts.request.stream),
            inspection=_inspection(call),
            inspection_reason=facts.unreadable_request or facts.unreadable_response or response.partial_reason,
            status=call.status,
            usage=_usage(usage),
            cost_nano=cost_of(call.price, usage) if call.left else 0,
            cost_source=cost_source(call, usage),
            cost_confidence=confidence(call, usage),
            estimate_error=estimate_error(call),
            price_source=STATED if usage.stated_nano is not None else response.price_source,
            price_digest=response.price_digest,
            service_tier=usage.service_tier or facts.request.service_tier,
            finish_reasons=tuple(response.finish_reasons),
            tenant=pseudonym(facts.caller.tenant),
            session=pseudonym(facts.session.id),
            session_source=facts.session.source,
            caller_key=facts.caller.key,
            identity_missing=facts.caller.missing,
            events=response.events,
            duration_ms=max(0.0, call.elapsed_ms(now)),
            ended=ended,
            conflicts=decision.conflicts,
            detections=_detections(call),
            joined_digest=call.joined_digest,
            shadow=tuple(ShadowResult(f.policy.name, f.policy.namespace, f.rule, f.event) for f in call.fates.values()),
        )
    )


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        **usage.extra,
        "source": usage.source,
    }


def _detections(call: Call) -> dict[str, dict[str, int]]:
    """By detector: the finds in the bodies that could be read where an expression reads them, else those that were
    taken out."""
    facts, redacted = call.facts, call.redacted
    return {
        "request": {} if facts.unreadable_request else {**redacted["request"], **facts.request.detections},
        "response": {
            **redacted["response"],
            **({} if facts.unreadable_response else facts.response.detections),
        },
    }


def _done(decision: Decision) -> Verdict:
    """What was done; where nothing was enforced, what would have been."""
    return decision.verdict if decision.winner else decision.would


def _inspection(call: Call) -> str:
    """How much of the call was understood: `full` is every byte of it, the request's too."""
    if call.dialect is None:
        return "none"
    seen = call.facts.response.inspection
    return "partial" if seen == "full" and call.facts.unreadable_request else seen


def _counter(call: Call, gauge: Gauge, usage: Usage) -> CounterResult:
    counted = gauge.id is not None and not gauge.reading.seen
    spent = (charged(call, gauge, usage) or 0) if counted else 0
    return CounterResult(
        policy=gauge.policy.name,
        namespace=gauge.policy.namespace,
        name=gauge.counter.name,
        key=pseudonym(gauge.id.full_key) if gauge.id else "",
        charge=gauge.counter.charge.value,
        before=gauge.reading.value,
        spent=spent,
        limit=gauge.limit,
        exceeded=gauge.exceeded,
        available=gauge.reading.available and not gauge.failure,
    )


def renewal(call: Call) -> Extend | None:
    """What renews the lease of a call that left, and says what is to be charged if its holder dies before it settles.

    A renewal that fails leaves the lease to run out.
    """
    if call.holder not in call.holding:
        return None
    holds = tuple(Hold(gauge.id, 0, 0, gauge.limit) for gauge in call.meter.counted if gauge.id)
    observed = call.meter.observed(final_usage(call))
    return Extend(call.next_op("renew"), call.holder, holds, observed, call.options.lease_s)
