"""Counters as written, to counters as they count, and the rule that each limit implies."""

from __future__ import annotations

from dataclasses import replace

from policyd.core.compile.cel import CompiledProgram, Want
from policyd.core.compile.expressions import ANSWERED, FORGEABLE, STATIC, Expressions, is_below
from policyd.core.compile.findings import Findings
from policyd.core.compile.limits import CLAMPABLE, Mistake, amount, window
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledCounter, CompiledRule, Limit, Phase
from policyd.core.compile.words import listed
from policyd.core.model.counters import Charge, Window, WindowKind
from policyd.core.model.decision import FailurePolicy, Mode, RuleSeverity, Terminate
from policyd.core.model.policy import CounterSpec, ExpressionCharge, LimitBySpec, PolicyDocument

EXCEEDED_STATUS = 429


def counter_of(
    document: PolicyDocument, at: int, expressions: Expressions, findings: Findings
) -> CompiledCounter | None:
    """One counter, or None with what is wrong with it reported."""
    spec, path = document.spec.counters[at], ("spec", "counters", at)
    charge = _charge(spec, (*path, "charge"), findings)
    key = _key(spec, (*path, "key"), expressions)
    limit = _limit(spec, charge, path, expressions, findings)
    amount_ = _amount(spec, (*path, "charge", "expression"), expressions)
    span = _window(spec, (*path, "window"), findings)
    _check_clamp(spec, charge, path, findings)
    if key is None or span is None:
        return None
    return CompiledCounter(
        name=spec.name,
        key=key,
        charge=charge,
        amount=amount_,
        window=span,
        limit=limit,
        clamp=spec.clamp is not None,
        denies=limit is not None and spec.on_exceeded == "Terminate",
        scope=spec.scope,
        keyed_by_session=any(is_below(read, ("session",)) for one in key for read in one.reads),
        value=_value(spec, (*path, "charge", "distinct"), expressions),
        on_missing=_on_missing(spec),
        on_unpriced=spec.on_unpriced,
        missing=missing_rule(document, spec, len(document.spec.rules) + at),
    )


def _charge(spec: CounterSpec, path: Path, findings: Findings) -> Charge:
    if not isinstance(spec.charge, ExpressionCharge):
        return Charge(spec.charge)
    if (spec.charge.expression is None) == (spec.charge.distinct is None) and not findings.spoilt(path):
        hint = "write {expression: a CEL number} or {distinct: a CEL value}"
        findings.error(path, "POL010", "a charge is exactly one of expression and distinct", hint)
    return Charge.DISTINCT if spec.charge.distinct is not None else Charge.EXPRESSION


def _on_missing(spec: CounterSpec) -> str:
    """A counter that blocks nothing refuses a call without identity only where its author says so."""
    said = "on_missing" in spec.model_fields_set or spec.on_exceeded == "Terminate"
    return spec.on_missing if said else ""


def missing_rule(document: PolicyDocument, spec: CounterSpec, position: int) -> CompiledRule | None:
    """The rule by which a counter refuses a call that does not name what its key reads."""
    if _on_missing(spec) != "Refuse":
        return None
    action = Terminate(403, "missing_identity", f"Counter {spec.name} has no key for this call.", "")
    return _own_rule(document, position, f"{spec.name}.missing", action, Phase.REQUEST)


def _own_rule(document: PolicyDocument, position: int, name: str, action: Terminate, phase: Phase) -> CompiledRule:
    """A rule that a counter has of its own."""
    return CompiledRule(
        policy=document.metadata.name,
        namespace=document.namespace,
        cluster=document.cluster,
        name=name,
        position=position,
        severity=RuleSeverity.CRITICAL,
        mode=Mode(document.spec.mode),
        own_mode=Mode.FULL,
        failure_policy=FailurePolicy(document.spec.failure_policy),
        action=action,
        when=None,
        phase=phase,
        reads=frozenset(),
        reads_exceeded=frozenset(),
    )


def implied_rule(spec: CounterSpec, document: PolicyDocument, position: int) -> CompiledRule | None:
    """The rule by which a limit denies by itself."""
    if spec.limit is None or spec.on_exceeded == "Continue":
        return None
    reason = f"{spec.name}_exceeded"
    action = Terminate(EXCEEDED_STATUS, reason, _sentence(spec, document))
    rule = _own_rule(document, position, f"{spec.name}.exceeded", action, Phase.RESERVED)
    return replace(
        rule,
        reads=frozenset((f"counters.{spec.name}.exceeded",)),
        reads_exceeded=frozenset((spec.name,)),
        implied=spec.name,
        monotone=True,
    )


def _sentence(spec: CounterSpec, document: PolicyDocument) -> str:
    """What a caller is told who has reached a limit."""
    limit = f" of {spec.limit}" if isinstance(spec.limit, str) else ""
    name = document.metadata.name if document.cluster else f"{document.namespace}/{document.metadata.name}"
    return f"The limit{limit} of counter {spec.name} in policy {name} has been reached."


def _key(spec: CounterSpec, path: Path, expressions: Expressions) -> tuple[CompiledProgram, ...] | None:
    who = "a counter's key"
    if isinstance(spec.key, str):
        one = expressions.limited(spec.key, path, Want.KEYS, STATIC, who)
        return None if one is None else (one,)
    parts = [
        expressions.limited(source, (*path, index), Want.STRING, STATIC, who) for index, source in enumerate(spec.key)
    ]
    whole = tuple(part for part in parts if part is not None)
    return whole if len(whole) == len(parts) else None


def _amount(spec: CounterSpec, path: Path, expressions: Expressions) -> CompiledProgram | None:
    if not isinstance(spec.charge, ExpressionCharge) or spec.charge.expression is None:
        return None
    return expressions.limited(spec.charge.expression, path, Want.NUMBER, ANSWERED, "a charge")


def _value(spec: CounterSpec, path: Path, expressions: Expressions) -> CompiledProgram | None:
    if not isinstance(spec.charge, ExpressionCharge) or spec.charge.distinct is None:
        return None
    return expressions.limited(spec.charge.distinct, path, Want.SCALAR, STATIC, "a value that is counted")


def _window(spec: CounterSpec, path: Path, findings: Findings) -> Window | None:
    if findings.spoilt(path):
        return Window(WindowKind.LIFETIME, 1.0)
    try:
        return window(spec.window)
    except Mistake as mistake:
        at = (*path, mistake.field) if mistake.field else path
        findings.error(at, "POL010", mistake.message, mistake.hint, key=not mistake.field)
        return None


def _check_clamp(spec: CounterSpec, charge: Charge, path: Path, findings: Findings) -> None:
    if spec.clamp is None:
        return
    at = (*path, "clamp")
    if charge not in CLAMPABLE and not findings.spoilt((*path, "charge")):
        hint = f"it can where output tokens are charged: {listed(sorted(CLAMPABLE))}"
        findings.error(at, "POL010", f"lowering max_tokens cannot keep a counter of {charge} within its limit", hint)
    if spec.limit is None:
        findings.error(
            at, "POL010", "`clamp` without a limit has nothing to keep to", "add `limit:`, or remove `clamp`"
        )


# ---- limits -------------------------------------------------------------------------------------------------------


def _limit(spec: CounterSpec, charge: Charge, path: Path, expressions: Expressions, findings: Findings) -> Limit | None:
    at = (*path, "limit")
    if spec.limit is None:
        return None
    if isinstance(spec.limit, str):
        return Limit(_units(spec.limit, charge, at, path, findings))
    return _limit_by(spec.limit, charge, path, expressions, findings)


def _limit_by(spec: LimitBySpec, charge: Charge, path: Path, expressions: Expressions, findings: Findings) -> Limit:
    at = (*path, "limit")
    values = {key: _units(text, charge, (*at, "values", key), path, findings) or 0 for key, text in spec.values.items()}
    if spec.default is None:
        hint = "add `default:`; without it a key that is not listed has no limit at all"
        findings.warn(at, "POL107", "a limit without a default holds for the listed keys only", hint, key=True)
    default = None if spec.default is None else _units(spec.default, charge, (*at, "default"), path, findings)
    by = expressions.limited(spec.by, (*at, "by"), Want.STRING, STATIC, "a limit's key")
    if by is not None:
        warn_forgeable(by.reads, (*at, "by"), "a limit", findings)
    return Limit(default, by, values)


def _units(text: str, charge: Charge, at: Path, counter: Path, findings: Findings) -> int | None:
    if findings.spoilt((*counter, "charge")):
        return None  # its unit is not known
    try:
        return amount(text, charge)
    except Mistake as mistake:
        findings.error(at, "POL010", mistake.message, mistake.hint)
        return None


def warn_forgeable(reads: frozenset[str], path: Path, who: str, findings: Findings) -> None:
    """Says where something that loosens rests on what any client can write into a header."""
    trusted = sorted(read for read in reads if is_below(read, FORGEABLE))
    if trusted:
        hint = "let Envoy authenticate it and serve with --identity metadata:NAMESPACE, or use caller.key"
        message = f"{who} trusts `{listed(trusted)}`, which a client's own header can forge"
        findings.warn(path, "POL104", message, hint)
