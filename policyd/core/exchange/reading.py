"""The request's body: whether it is asked for, and what is read in it."""

from __future__ import annotations

from policyd.core.decide.evaluate import may_apply
from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.opening import header_map, unreadable_body
from policyd.core.model.steps import RequestBody, RequestHeaders
from policyd.core.stream import json_text
from policyd.core.stream.dialects.content import misspelled, odd_names
from policyd.core.stream.dialects.request_fields import request_structure
from policyd.core.stream.encodings import codings_of, decode


def wants_body(call: Call, event: RequestHeaders) -> bool:
    """Whether the body is asked for; where it is needed and cannot be read, why."""
    needed = call.options.observe_all or call.ground.plans.session_readers or _reads_body(call)
    if call.dialect is None or not needed:
        return False
    call.facts.unreadable_request = unreadable_body(header_map(event.headers), event.end, call.options.max_request)
    return not call.facts.unreadable_request


def _reads_body(call: Call) -> bool:
    """Whether a policy that may concern this call reads its body: a condition over headers is judged first."""
    plan = call.ground.plans.of(call.policies_for(None))
    return plan.needs_request_body and call.ground.plans.of(may_apply(plan, call.world)).needs_request_body


def read_body(call: Call, event: RequestBody) -> None:
    """Facts from the body, or why there are none."""
    assert call.dialect is not None
    most, codings = call.options.max_request, codings_of(call.facts.request.headers.get("content-encoding", ""))
    try:
        if event.truncated or len(event.data) > most:
            raise Malformed("the request's body is too large")
        call.body, call.decoded = decode(event.data, codings, most) if codings else event.data, bool(codings)
        names: set[str] = set()
        call.document = json_text.loads_request(call.body, names)
        _refuse_misspelled(call, names)
        call.dialect.read_request(call.document, call.facts.request)
        call.was_read()
    except Malformed as failure:
        call.document = None
        call.facts.unreadable_request = failure.reason


def _refuse_misspelled(call: Call, names: set[str]) -> None:
    """Raises Malformed where a field is written in another case than the dialect writes it."""
    structure = request_structure(call.facts.request.dialect)
    if odd_names(names, structure) and misspelled(call.document, structure):
        raise Malformed("a json key differs from a known one only in its case")
