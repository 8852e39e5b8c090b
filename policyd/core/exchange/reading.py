"""The request's body: whether it is asked for, and what is read in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from policyd.core.decide.evaluate import may_apply
from policyd.core.errors import Malformed
from policyd.core.exchange.bounded import check_facts, check_lists
from policyd.core.exchange.call import Call
from policyd.core.exchange.opening import header_map, unreadable_body
from policyd.core.model.bounds import MEMORY
from policyd.core.model.steps import RequestBody, RequestHeaders
from policyd.core.stream import json_text
from policyd.core.stream.dialects import registry
from policyd.core.stream.dialects.content import misspelled, odd_names, said_within
from policyd.core.stream.dialects.generic import UNKNOWN, is_generic, is_tool_call
from policyd.core.stream.dialects.models import models_of
from policyd.core.stream.dialects.request_fields import request_structure
from policyd.core.stream.encodings import codings_of, decode

_JSON = re.compile(r"[/+]json\b", re.IGNORECASE)


def wants_body(call: Call, event: RequestHeaders) -> bool:
    """Whether the body is asked for; where it is needed and cannot be read, why."""
    unknown = call.dialect is UNKNOWN
    always = not unknown and (call.options.observe_all or call.ground.plans.session_readers)
    headers = header_map(event.headers)
    if call.dialect is None or not (always or _reads_body(call) or (unknown and _may_call_tools(call, headers))):
        return False
    if event.end and is_generic(call.dialect):
        call.facts.unreadable_request = "the request is a connection of messages" if registry.upgrades(headers) else ""
        call.bodiless = not call.facts.unreadable_request
        return False
    if event.crowded:
        call.facts.unreadable_request = MEMORY
        return False
    call.facts.unreadable_request = unreadable_body(headers, event.end, call.options.max_request)
    return not call.facts.unreadable_request


def _reads_body(call: Call, operation: str = "") -> bool:
    """Whether a policy that may concern this call reads its body: a condition over headers is judged first."""
    plan = call.ground.plans.of(call.policies_for(None, operation))
    return plan.needs_request_body and call.ground.plans.of(may_apply(plan, call.world)).needs_request_body


def _may_call_tools(call: Call, headers: Mapping[str, str]) -> bool:
    """Whether a call that nobody knows could be JSON-RPC that a policy is about."""
    request = call.facts.request
    return (
        request.method == "POST"
        and bool(_JSON.search(headers.get("content-type", "")))
        and _reads_body(call, "tool_call")
    )


def read_body(call: Call, event: RequestBody) -> None:
    """Facts from the body, or why there are none."""
    assert call.dialect is not None
    most, codings = call.options.max_request, codings_of(call.facts.request.headers.get("content-encoding", ""))
    try:
        if event.unread:
            raise Malformed(event.unread)
        if event.truncated or len(event.data) > most:
            raise Malformed("the request's body is too large")
        call.body, call.decoded = decode(event.data, codings, most) if codings else event.data, bool(codings)
        if not call.body.strip() and is_generic(call.dialect):
            call.bodiless = True
            return
        names: set[str] = set()
        call.document = json_text.loads_request(call.body, names, call.options.bounds)
        if call.dialect is UNKNOWN:
            _recognise(call)
        _refuse_misspelled(call, names)
        check_lists(call.document, call.options.bounds)
        call.dialect.read_request(call.document, call.facts.request)
        _decode_results(call)
        check_facts(call.facts.request, call.options.bounds)
        call.facts.request.models = models_of(call.document, call.facts.request)
        call.was_read()
    except Malformed as failure:
        call.document = None
        call.facts.unreadable_request = failure.reason


def _decode_results(call: Call) -> None:
    """What a tool gave back, with what it says decoded: JSON text, and base64 that holds text."""
    request = call.facts.request
    request.tool_results = [
        replace(one, text="\n".join([one.text, *within])) if (within := list(said_within(one.text))) else one
        for one in request.tool_results
    ]


def _refuse_misspelled(call: Call, names: set[str]) -> None:
    """Raises Malformed where a field is written in another case than the dialect writes it."""
    structure = request_structure(call.facts.request.dialect)
    if odd_names(names, structure) and misspelled(call.document, structure):
        raise Malformed("a json key differs from a known one only in its case")


def _recognise(call: Call) -> None:
    """A body of JSON-RPC messages that call a tool is MCP, wherever it is sent."""
    request = call.facts.request
    permitted = call.deployment.dialects
    if request.method == "POST" and is_tool_call(call.document) and (not permitted or registry.MCP.name in permitted):
        call.dialect, request.dialect, request.operation = registry.MCP, registry.MCP.name, "tool_call"
        request.provider = request.provider or registry.MCP.name
