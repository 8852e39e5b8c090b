"""How policyd says no: in the provider's own words, so that the caller's SDK raises its own error.

Rule 1: a refusal that waiting can cure says when; one that waiting cannot cure says not to retry.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

from policyd.core.decide.combine import CANNOT_JUDGE, acting
from policyd.core.decide.evaluate import Judged
from policyd.core.decide.unknown import values_of
from policyd.core.exchange.call import Call
from policyd.core.exchange.ratelimits import limit_headers, wait_s
from policyd.core.model.bounds import MEMORY, bound_in
from policyd.core.model.decision import Outcome, Terminate
from policyd.core.model.steps import Break, Headers, Reject, Step, WakeAt
from policyd.core.stream.dialects import Body, Ending
from policyd.core.stream.dialects.generic import is_generic

PATIENCE_S = 60  # seconds: longer than SDKs are willing to sleep before they retry
STORE_RETRY_S = 1  # seconds until a counter store that is down, or memory that is used up, is worth asking again
_CROWDED = "The policy service evaluates as many calls as its memory allows. Try again later."
OVERLOADED = Terminate(503, "overloaded", _CROWDED, _CROWDED)
MAX_TEXT = 4096  # characters of a message or fallback that an expression made


def texts(call: Call, winner: Judged) -> Terminate:
    """What the winning rule says, its expressions evaluated; one that fails leaves the plain text."""
    action = acting(winner)
    if not isinstance(action, Terminate):
        return CANNOT_JUDGE
    if action is CANNOT_JUDGE and _crowded(call):
        return OVERLOADED
    rule = winner.bound.rule
    plain = action.message or _sentence(winner)
    asked = [program for program in (rule.message_expression, rule.fallback_expression) if program]
    if not asked or action is CANNOT_JUDGE or call.plan is None:
        return replace(action, message=plain, fallback=_fallback(action, plain))
    values = iter(values_of(call.plan, asked, call.world))
    message = _text(next(values), plain) if rule.message_expression else plain
    fallback = _fallback(action, message)
    fallback = _text(next(values), fallback) if rule.fallback_expression else fallback
    return replace(action, message=message, fallback=fallback)


def not_evaluated(why: str = "") -> str:
    """What a caller is told whose call no rule could be judged on."""
    return f"The call could not be evaluated, so it was stopped{': ' if why else ''}{why}."


def _crowded(call: Call) -> bool:
    """Whether it is for want of memory that the call cannot be judged."""
    return MEMORY in (call.facts.unreadable_request, call.facts.unreadable_response)


def _sentence(winner: Judged) -> str:
    """What a caller is told where the author wrote no message."""
    rule = winner.bound.rule
    if acting(winner) is CANNOT_JUDGE:
        said = f"Rule {rule.name} of policy {rule.qualified_policy} could not be evaluated, so the call was stopped"
        why = winner.reason.rpartition(": ")[2]
        return f"{said}: {why}." if bound_in(why) else f"{said}."
    return f"The call was stopped by rule {rule.name} of policy {rule.qualified_policy}."


def _fallback(action: Terminate, message: str) -> str:
    return "" if action.silent else action.fallback or message


def ending(call: Call, said: Terminate, text: str) -> Ending:
    """The end of a call that policyd terminates: its last text, and where the decision comes from."""
    winner = call.decision.winner
    origin = {"decision": call.id}
    if winner is not None:
        origin |= {"policy": winner.bound.rule.policy, "rule": winner.bound.rule.name}
    return Ending(text, said.finish, {**origin, "reason": said.reason})


def _text(value: object, plain: str) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) and value else plain


def refuse(call: Call, winner: Judged) -> Reject:
    """The answer in the upstream's place."""
    said = texts(call, winner)
    return _reject(call, said, (*_retry(call, winner), *limit_headers(call, winner)))


def refuse_as(call: Call, said: Terminate, message: str) -> Reject:
    """As `refuse`, where it is no rule that refuses but what could not be done for one."""
    call.failed_closed = True
    return _reject(call, Terminate(said.status, said.reason, message, message), (("x-should-retry", "false"),))


def ambiguous(call: Call) -> Terminate | None:
    """The refusal of a call whose credentials contradict each other, where a policy could enforce something: whoever
    sends several could choose which one is counted."""
    conflict = call.facts.caller.conflict
    if not conflict or not call.ground.plans.of(call.policies_for(None)).enforces:
        return None
    message = f"{conflict[0].upper()}{conflict[1:]}. Send one of them."
    return Terminate(400, "ambiguous_credentials", message, message)


def break_off(call: Call) -> list[Step]:
    """An answer that runs can only be broken off: it passes by, or has left so that nothing of ours could follow."""
    winner = call.decision.winner
    assert winner is not None
    said = texts(call, winner)
    call.reason, call.message, call.phase = said.reason, said.message, "response"
    return [Break(said.reason, refused=True), WakeAt(None)]


def _reject(call: Call, said: Terminate, retry: Headers) -> Reject:
    call.reason, call.message = said.reason, said.message
    body = _body(call, said)
    call.status = said.status if body is not None else 403
    body = body or _plain(call, said)
    own = ("x-policyd-decision", call.id)
    return Reject(call.status, (("content-type", body.content_type), *body.headers, *retry, own), body.data)


def _body(call: Call, said: Terminate) -> Body | None:
    """None: a completion was asked for in a format that policyd cannot write."""
    if call.dialect is None or not call.understood:
        return None if said.status == 200 else _plain(call, said)
    if said.status == 200 and is_generic(call.dialect):
        return None
    end = ending(call, said, said.fallback)
    if said.status == 200:
        return call.dialect.completion(call.facts.request, end, call.id)
    return call.dialect.error(said.status, said.reason, said.message, end)


def _plain(call: Call, said: Terminate) -> Body:
    inner = {"message": said.message, "type": "policy_refusal", "code": said.reason}
    error = {"error": ending(call, said, "").marked(inner)}
    return Body("application/json", json.dumps(error, ensure_ascii=False).encode("utf-8", "replace"))


def _retry(call: Call, winner: Judged) -> Headers:
    wait = _wait_s(call, winner)
    if wait is None:
        return (("x-should-retry", "false"),)
    after = ("retry-after", str(max(1, math.ceil(wait))))
    return (after,) if wait <= PATIENCE_S else (after, ("x-should-retry", "false"))


def _wait_s(call: Call, winner: Judged) -> float | None:
    if winner.outcome is Outcome.ERRORED:
        down = any(not gauge.reading.available for gauge in call.meter.gauges) or bool(call.world.session_failure)
        return STORE_RETRY_S if down or _crowded(call) else None
    return wait_s(call, winner)
