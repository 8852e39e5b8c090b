"""Which constrains have changed anything: the verdict `constrain` means that something was changed.

Rule 1: a constrain that found nothing to change is recorded as matched, and neither decides nor counts as enforced.
Rule 2: what one rule does is asked of that rule alone; only several rules that may change one body are told apart.
"""

from __future__ import annotations

from dataclasses import replace

from policyd.core.decide.combine import Decision, acting, precedence
from policyd.core.decide.evaluate import Judged
from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.model.decision import Constrain, RuleResult, Verdict
from policyd.core.model.headers import HeaderEdit
from policyd.core.stream import json_text
from policyd.core.stream.dialects import RequestChange
from policyd.core.stream.dialects.generic import fitting
from policyd.core.stream.dialects.redact_content import ContentRedactor
from policyd.core.stream.dialects.request_fields import request_structure
from policyd.core.stream.redactor import redactors


def note_request(call: Call, data: bytes | None) -> None:
    """Notes which constrains changed the request that leaves; `data` is its body, None as it came."""
    edited = data is not None and data != call.body
    for one in call.decision.constrains:
        action = acting(one)
        if not isinstance(action, Constrain):
            continue
        headers = call.facts.request.headers
        if _edits(action.request_headers, headers) or (edited and _changes_body(call, action)):
            call.effects.add(one.bound.rule.id)


def _edits(edit: HeaderEdit, headers: dict[str, str]) -> bool:
    return any(headers.get(name) != value for name, value in edit.set) or any(name in headers for name in edit.remove)


def _changes_body(call: Call, action: Constrain) -> bool:
    """Whether this constrain by itself changes the body."""
    change = RequestChange(
        caps=action.cap,
        sets=action.set,
        tools_allow=() if action.tools_allow is None else (action.tools_allow,),
        tools_deny=action.tools_deny,
        inject_system=(action.inject_system,) if action.inject_system else (),
    )
    redacts = action.redact is not None and action.redact.in_request
    if change == RequestChange() and not redacts:
        return False
    if call.body is None or call.dialect is None or call.document is None:
        return True
    try:
        edits = list(call.dialect.edits(call.document, fitting(change, call.facts.request.operation, call.document)))
        if edits and json_text.splice(call.body, edits, call.document) != call.body:
            return True
    except Malformed:
        return True
    if action.redact is None or not redacts:
        return False
    search = redactors([action.redact])
    return bool(ContentRedactor(search).edits(call.document, request_structure(call.dialect.name)))


def note_response(call: Call, *, edited: bool) -> None:
    """Notes which constrains changed the response. `edited`: some text of it left changed."""
    response = call.facts.response
    for one in call.decision.constrains:
        action = acting(one)
        if not isinstance(action, Constrain):
            continue
        redacted = edited and action.redact is not None and action.redact.in_response
        paced = action.pace is not None and response.events > 0
        if redacted or paced or (response.status and _edits(action.response_headers, response.headers)):
            call.effects.add(one.bound.rule.id)


def settled(call: Call) -> Decision:
    """The decision, with constrains that changed nothing left out of what determined it."""
    decision = call.decision
    idle = [one for one in decision.constrains if one.bound.rule.id not in call.effects]
    if not idle or decision.verdict not in (Verdict.CONSTRAIN, Verdict.REROUTE):
        return decision
    results = tuple(_idle(result, idle) for result in decision.results)
    if decision.verdict is not Verdict.CONSTRAIN:
        return replace(decision, results=results)
    acted = [one for one in decision.constrains if one.bound.rule.id in call.effects]
    winner = min(acted, key=lambda one: precedence(one.bound.rule), default=None)
    verdict = Verdict.CONSTRAIN if winner else Verdict.ALLOW
    same = decision.would is Verdict.CONSTRAIN
    would, would_winner = (verdict, winner) if same else (decision.would, decision.would_winner)
    return replace(decision, verdict=verdict, winner=winner, would=would, would_winner=would_winner, results=results)


def _idle(result: RuleResult, idle: list[Judged]) -> RuleResult:
    rules = (one.bound.rule for one in idle)
    mine = any((r.namespace, r.policy, r.name) == (result.namespace, result.policy, result.rule) for r in rules)
    return replace(result, enforced=False) if mine else result
