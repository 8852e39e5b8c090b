"""Actions as written, to actions as they are carried out; and whether they still can be when the rule is judged.

Rule 1: an action that is impossible once the rule's inputs are known is an error, never silently less than was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import Phase
from policyd.core.compile.words import listed, nearest, quoted, suggestion
from policyd.core.model.decision import Action, Allow, Constrain, Redaction, Reroute, Terminate
from policyd.core.model.detectors import DETECTOR_NAMES
from policyd.core.model.policy import (
    CAPS,
    ConstrainSpec,
    HeaderEditSpec,
    RedactSpec,
    RerouteSpec,
    RuleSpec,
    TerminateSpec,
)
from policyd.core.model.reach import bound_hint, compiled, reach
from policyd.core.model.steps import HeaderEdit

UNTOUCHABLE = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_SET = {
    "model": "a call goes to another model by `reroute: {model: …}`",
    "stream": "whether an answer streams is the caller's choice; there is no other way",
}
_REQUEST = "a request can only be changed before it leaves"
_WHEN = {
    Phase.REQUEST: "before the request leaves",
    Phase.RESERVED: "before the request leaves",
    Phase.RESPONSE_HEADERS: "when the answer begins",
    Phase.RESPONSE: "while the answer runs",
}


def action_of(rule: RuleSpec, path: Path, phase: Phase, findings: Findings) -> Action | None:
    """The one action of a rule; what is wrong with it goes to the findings."""
    if rule.allow is not None:
        return Allow(frozenset(rule.allow.rules))
    if rule.reroute is not None:
        return _reroute(rule.reroute, (*path, "reroute"), phase, findings)
    if rule.constrain is not None:
        return _constrain(rule.constrain, (*path, "constrain"), phase, findings)
    if rule.terminate is not None:
        return _terminate(rule.terminate, rule.name, (*path, "terminate"), findings)
    return None


def _terminate(spec: TerminateSpec, name: str, path: Path, findings: Findings) -> Terminate:
    status = 403 if spec.status is None else spec.status
    if status != 200 and not 400 <= status <= 599:
        hint = "200 answers with the fallback, 400 to 599 with an error"
        findings.error((*path, "status"), "POL005", f"`status: {status}` is no way to refuse a call", hint)
    reason = spec.reason or name
    silent = spec.fallback == ""
    return Terminate(status, reason, spec.message or "", spec.fallback or "", spec.finish or "refusal", silent)


def _reroute(spec: RerouteSpec, path: Path, phase: Phase, findings: Findings) -> Reroute:
    if spec.model is None and spec.upstream is None:
        hint = "for example `reroute: {model: gpt-4o-mini}`"
        findings.error(path, "POL005", "`reroute` says neither `model` nor `upstream`", hint, key=True)
    _known_by(phase, Phase.RESERVED, path, "a call can only be rerouted before it leaves", findings)
    edit = _headers(spec.headers, (*path, "headers"), findings)
    return Reroute(spec.model or "", spec.upstream or "", edit, spec.keep_credentials)


def _known_by(phase: Phase, latest: Phase, path: Path, what: str, findings: Findings) -> None:
    """Reports an action whose time is over when its rule can be judged."""
    if phase <= latest:
        return
    message = f"{what}, but this rule is judged {_WHEN[phase]}"
    hint = f"let `when` read nothing of the {_too_late(latest)}"
    if phase is Phase.RESPONSE:
        hint += "; a response that runs can be ended (`terminate`) or redacted (`constrain: {redact: …}`)"
    findings.error(path, "POL009", message, hint, key=True)


def _too_late(latest: Phase) -> str:
    return "response" if latest < Phase.RESPONSE_HEADERS else "response but its status and headers"


# ---- constrain ----------------------------------------------------------------------------------------------------


def _constrain(spec: ConstrainSpec, path: Path, phase: Phase, findings: Findings) -> Constrain:
    for part in ("set", "cap", "tools", "inject"):
        if getattr(spec, part) is not None:
            _known_by(phase, Phase.RESERVED, (*path, part), _REQUEST, findings)
    request, response = _both_headers(spec, path, phase, findings)
    allow, deny = _tools(spec, (*path, "tools"), findings)
    change = Constrain(
        set=_sets(spec.set or {}, (*path, "set"), findings),
        cap=_caps(spec.cap or {}, (*path, "cap"), findings),
        tools_allow=allow,
        tools_deny=deny,
        inject_system=spec.inject.system if spec.inject else "",
        request_headers=request,
        response_headers=response,
        redact=_redaction(spec.redact, (*path, "redact"), phase, findings) if spec.redact else None,
        pace=spec.pace.tokens_per_second if spec.pace else None,
    )
    if change == Constrain():
        hint = "for example `constrain: {cap: {max_tokens: 256}}`"
        findings.error(path, "POL005", "`constrain` changes nothing", hint, key=True)
    return change


def _sets(
    values: dict[str, object] | object, path: Path, findings: Findings
) -> tuple[tuple[tuple[str, ...], object], ...]:
    assert isinstance(values, dict)
    sets: list[tuple[tuple[str, ...], object]] = []
    for dotted, value in values.items():
        steps = tuple(dotted.split("."))
        if "" in steps:
            hint = "write it like temperature or response_format.type"
            findings.error((*path, dotted), "POL005", f"{quoted(dotted)} is not a dotted path", hint, key=True)
        elif steps[0] in _NOT_SET:
            message = f"{quoted(dotted)} cannot be set"
            findings.error((*path, dotted), "POL005", message, _NOT_SET[steps[0]], key=True)
        elif clash := _clash(steps, (other for other, _ in sets)):
            message = f"{quoted(dotted)} and {quoted('.'.join(clash))} set the same place"
            findings.error((*path, dotted), "POL005", message, "keep one of the two", key=True)
        sets.append((steps, value))
    return tuple(sets)


def _clash(steps: tuple[str, ...], others: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    return next((o for o in others if steps[: len(o)] == o or o[: len(steps)] == steps), None)


def _caps(caps: dict[str, int], path: Path, findings: Findings) -> tuple[tuple[str, int], ...]:
    for name in caps:
        if name not in CAPS:
            near = nearest(name, CAPS)
            hint = f"did you mean `{near}`?" if near else f"{listed(CAPS)} alone; others are set: `set: {{{name}: …}}`"
            findings.error((*path, name), "POL005", f"{quoted(name)} cannot be capped", hint, key=True)
    return tuple(sorted(caps.items()))


def _tools(spec: ConstrainSpec, path: Path, findings: Findings) -> tuple[frozenset[str] | None, frozenset[str]]:
    if spec.tools is None:
        return None, frozenset()
    if (spec.tools.allow is None) == (spec.tools.deny is None):
        message = "`tools` takes exactly one of `allow` and `deny`"
        findings.error(path, "POL005", message, "write {allow: [...]} or {deny: [...]}", key=True)
    allow = None if spec.tools.allow is None else frozenset(spec.tools.allow)
    return allow, frozenset(spec.tools.deny or ())


def _both_headers(spec: ConstrainSpec, path: Path, phase: Phase, findings: Findings) -> tuple[HeaderEdit, HeaderEdit]:
    if spec.headers is None:
        return HeaderEdit(), HeaderEdit()
    path = (*path, "headers")
    if spec.headers.request:
        _known_by(phase, Phase.RESERVED, (*path, "request"), _REQUEST, findings)
    if spec.headers.response:
        what = "an answer's headers can only be changed before they leave"
        _known_by(phase, Phase.RESPONSE_HEADERS, (*path, "response"), what, findings)
    return (
        _headers(spec.headers.request, (*path, "request"), findings),
        _headers(spec.headers.response, (*path, "response"), findings),
    )


def _headers(spec: HeaderEditSpec | None, path: Path, findings: Findings) -> HeaderEdit:
    if spec is None:
        return HeaderEdit()
    seen: set[str] = set()
    for name, at in _header_names(spec, path):
        lower = name.lower()
        if lower in UNTOUCHABLE or lower.startswith("x-policyd-"):
            hint = "policyd and Envoy keep the framing and the x-policyd- headers to themselves"
            findings.error(at, "POL012", f"header {quoted(name)} cannot be changed", hint, key=True)
        elif lower in seen:
            hint = "header names are the same in lower and upper case; keep one"
            findings.error(at, "POL012", f"header {quoted(name)} is named twice", hint, key=True)
        seen.add(lower)
    edit = tuple((name.lower(), value) for name, value in spec.set.items())
    return HeaderEdit(edit, tuple(name.lower() for name in spec.remove))


def _header_names(spec: HeaderEditSpec, path: Path) -> list[tuple[str, Path]]:
    set_ = [(name, (*path, "set", name)) for name in spec.set]
    return set_ + [(name, (*path, "remove", index)) for index, name in enumerate(spec.remove)]


# ---- redaction ----------------------------------------------------------------------------------------------------


def _redaction(spec: RedactSpec, path: Path, phase: Phase, findings: Findings) -> Redaction:
    if not spec.detectors and not spec.patterns:
        hint = f"name detectors ({listed(DETECTOR_NAMES)}) or patterns"
        findings.error(path, "POL011", "`redact` has nothing to look for", hint, key=True)
    for index, name in enumerate(spec.detectors):
        if name not in DETECTOR_NAMES:
            hint = suggestion(name, DETECTOR_NAMES)
            findings.error((*path, "detectors", index), "POL011", f"no detector is called {quoted(name)}", hint)
    for index, pattern in enumerate(spec.patterns):
        _check_pattern(pattern, (*path, "patterns", index), findings)
    sides = _sides(spec.in_, phase)
    if "request" in sides:
        _known_by(phase, Phase.RESERVED, (*path, "in"), _REQUEST, findings)
    return Redaction(
        tuple(dict.fromkeys(spec.detectors)),
        tuple(dict.fromkeys(spec.patterns)),
        in_request="request" in sides,
        in_response="response" in sides,
        replacement=spec.replacement,
    )


def _sides(written: Sequence[str] | None, phase: Phase) -> tuple[str, ...]:
    """Where to redact; unsaid, wherever it is still possible."""
    if written is not None:
        return tuple(written)
    return ("request", "response") if phase <= Phase.RESERVED else ("response",)


def _check_pattern(pattern: str, path: Path, findings: Findings) -> None:
    try:
        width = reach(pattern)
        empty = compiled(pattern).search("") is not None
    except ValueError as error:
        hint = "patterns are RE2: no look-around, no back-references"
        findings.error(path, "POL011", f"not a pattern: {error}", hint)
        return
    if width is None:
        message = f"{quoted(pattern)} can match without end, so nothing could leave before the answer is over"
        findings.error(path, "POL011", message, bound_hint(pattern) or "bound every repetition, as in `\\d{1,32}`")
    elif empty:
        findings.error(
            path, "POL011", f"{quoted(pattern)} matches the empty text", "let it match at least one character"
        )
