"""The request as it leaves: every obligation carried out on the bytes that were judged, and on nothing else.

Rule 1: what is forwarded is what was judged, except for the edits; no other byte of the body changes. A body that came
        encoded leaves as it was read: another decoder could read other bytes in it.
Rule 2: an obligation that cannot be carried out refuses the call: it never leaves as if there were none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policyd.core.compile.policyset import Phase
from policyd.core.decide.plan import enforceable
from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.judging import may_change_answer
from policyd.core.exchange.place import PATH, mismatch, moved_path
from policyd.core.model.credentials import is_credential
from policyd.core.model.headers import HeaderEdit, Headers
from policyd.core.model.prices import Usage
from policyd.core.stream import json_text
from policyd.core.stream.dialects import Dialect, Edit, Rename, RequestChange
from policyd.core.stream.dialects.asking import at
from policyd.core.stream.dialects.generic import fitting
from policyd.core.stream.dialects.models import with_model, without_fallbacks
from policyd.core.stream.dialects.redact_content import ContentRedactor
from policyd.core.stream.dialects.request_fields import request_structure
from policyd.core.stream.holdback import finds_of
from policyd.core.stream.redactor import Redactor, redactors

CLAMP_WHEN_ABSENT = 32_768  # output tokens: a headroom beyond any model's own ceiling needs no max_tokens
LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
SPENT = frozenset(
    f"response.{read}"
    for read in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_usd")
)
UPSTREAM_HEADER = "x-policyd-upstream"
ENCODING = "content-encoding"


def request_change(call: Call) -> RequestChange:
    """What the decision asks of the body, in policyd's words."""
    obligations = call.decision.obligations
    reroute = call.decision.reroute
    caps = dict(obligations.caps)
    if (clamp := _clamp(call)) is not None:
        caps["max_tokens"] = min(clamp, caps.get("max_tokens", clamp))
    return RequestChange(
        model=reroute.model if reroute else "",
        caps=tuple(caps.items()),
        sets=tuple((path, value) for path, value in obligations.sets if not (reroute and path == ("model",))),
        tools_allow=obligations.tools_allow,
        tools_deny=obligations.tools_deny,
        inject_system=obligations.inject_system,
        include_usage=needs_usage(call),
    )


def needs_usage(call: Call) -> bool:
    """Whether the stream's usage is asked for in the caller's place: something that is enforced counts by it."""
    if not call.facts.request.usage_on_request or call.document is None or not may_change_answer(call):
        return False
    if any(gauge.holds and not gauge.counter.charge.per_call for gauge in call.meter.gauges):
        return True
    mode = call.options.mode
    return any(bound.rule.reads & SPENT and enforceable(bound.rule, mode) for bound in call.rules_of(Phase.RESPONSE))


def _clamp(call: Call) -> int | None:
    headroom = call.meter.headroom_tokens(Usage(input_tokens=call.facts.request.input_tokens))
    if headroom is None:
        return None
    each = max(1, headroom // max(1, call.facts.request.choices))
    # What leaves is lowered, not what was asked: a `set` may have named another number.
    named = call.facts.request.max_tokens is not None or any(
        path[0] in LIMITS for path, _ in call.decision.obligations.sets
    )
    return each if named or each < CLAMP_WHEN_ABSENT else None


def depart(call: Call) -> bytes | None:
    """The body as it leaves; None when it leaves as it came. Raises Malformed when an obligation cannot be met."""
    if why := mismatch(call, call.decision.reroute):
        raise Malformed(why)
    change = request_change(call)
    call.asked_usage = change.include_usage
    search = redactors([one for one in call.decision.obligations.redactions if one.in_request])
    as_read = call.body if call.decoded and call.document is not None and call.plan and call.plan.enforces else None
    if (change == RequestChange() and not search) or call.bodiless:
        return as_read
    if call.body is None or call.dialect is None or call.document is None:
        raise Malformed("a change was asked of a request whose body could not be read")
    edits: list[Edit] = []
    if search:
        edits += ContentRedactor(search).edits(call.document, request_structure(call.dialect.name))
        _count(call, edits, search)
    data = json_text.splice(call.body, edits) if edits else call.body
    document = json_text.loads_request(data) if edits else call.document
    more = _edits(call, change, call.dialect, document)
    if more:
        data = json_text.splice(data, more, document)
        json_text.loads_request(data)  # INVARIANT: what leaves can be read by the rules that judged what came
    return data if data != call.body else as_read


def _count(call: Call, edits: Sequence[Edit], search: Sequence[Redactor]) -> None:
    """Count by detector what is taken out of the request."""
    for one in edits:
        text = one.path[-1] if isinstance(one.value, Rename) else at(call.document, one.path)
        call.redacted["request"].update(finds_of(str(text), search))


def _edits(call: Call, change: RequestChange, dialect: Dialect, document: object) -> list[Edit]:
    """The change, and where another model is to serve, no way to a third one. Raises Malformed."""
    alone = without_fallbacks(document) if change.model else []
    if change.model and with_model(call.sent_path, change.model):
        named = isinstance(document, dict) and isinstance(document.get("model"), str)
        change = change if named and dialect.name.startswith("openai.") else replace(change, model="")
    return [*dialect.edits(document, fitting(change, call.facts.request.operation, document)), *alone]


def plain(call: Call, edit: HeaderEdit) -> HeaderEdit:
    """The headers of a request whose body does not leave as it came: the encoding that it had is undone."""
    if not call.decoded:
        return edit
    kept = tuple((name, value) for name, value in edit.set if name != ENCODING)
    return HeaderEdit(kept, tuple(sorted({*edit.remove, ENCODING})))


def header_edit(call: Call, *, narrow: bool) -> HeaderEdit:
    """The request's headers as they leave. `narrow`: the answer must be readable, so it may not be encoded."""
    obligations, reroute = call.decision.obligations, call.decision.reroute
    sets: dict[str, str] = dict(obligations.request_headers.set)
    removes = set(obligations.request_headers.remove)
    if reroute:
        sets.update(reroute.headers.set)
        removes.update(reroute.headers.remove)
        if (path := moved_path(call, reroute)) != call.sent_path:
            sets[PATH] = path
        if reroute.upstream:
            sets[UPSTREAM_HEADER] = reroute.upstream
            if not reroute.keep_credentials:
                removes.update(_credentials(call) - {name for name, _ in reroute.headers.set})
    if narrow:
        sets["accept-encoding"] = "identity"
    headers: Headers = tuple(sets.items())
    return HeaderEdit(headers, tuple(sorted(removes - sets.keys())))


def _credentials(call: Call) -> set[str]:
    """The caller's credentials, which another upstream must not see: every header that is one by its name."""
    return {name for name in call.facts.request.headers if is_credential(name)}
