"""Rules as written, to rules as they are judged."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.actions import action_of
from policyd.core.compile.cel import CompiledProgram, Want
from policyd.core.compile.counting import warn_forgeable
from policyd.core.compile.expressions import STATIC, Expressions, exceeded_in, is_below, phase_of
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledRule, Phase, Watcher
from policyd.core.compile.rollout import rollout_of
from policyd.core.compile.words import listed, quoted
from policyd.core.model.decision import Action, FailurePolicy, Mode, RuleSeverity, Terminate, lowest
from policyd.core.model.policy import ACTIONS, PolicyDocument, RuleSpec
from policyd.core.model.reach import VIEWS, bound_hint

_TEXT = ("response.delta", "response.detections", *(f"response.{view}" for view in VIEWS))


def rule_of(
    spec: RuleSpec, position: int, document: PolicyDocument, expressions: Expressions, findings: Findings
) -> CompiledRule | None:
    """One rule, or None with what is wrong with it reported."""
    path: Path = ("spec", "rules", position)
    _check_one_action(path, findings)
    when = None if spec.when is None else expressions.compile(spec.when, (*path, "when"), Want.BOOL)
    reads = when.reads if when else frozenset()
    phase = phase_of(reads)
    action = action_of(spec, path, phase, findings)
    texts = _texts(spec, path, phase, expressions, findings)
    _check_exemption(spec, path, reads, expressions, findings)
    if action is None or (when is None) != (spec.when is None):
        return None
    early = frozenset(
        read for text in texts if text for read in text.reads if phase_of((read,)) <= max(phase, Phase.RESERVED)
    )
    return CompiledRule(
        policy=document.metadata.name,
        namespace=document.namespace,
        cluster=document.cluster,
        name=spec.name,
        position=position,
        severity=RuleSeverity(spec.severity),
        mode=lowest(Mode(document.spec.mode), Mode(spec.mode or document.spec.mode)),
        own_mode=Mode(spec.mode or Mode.FULL),
        failure_policy=FailurePolicy(document.spec.failure_policy),
        action=action,
        when=when,
        phase=phase,
        reads=reads | early,
        reads_exceeded=exceeded_in(reads),
        monotone=when.monotone if when else True,
        hold_back=_hold_back(spec, path, action, when, findings),
        message_expression=texts[0],
        fallback_expression=texts[1],
        rollout=rollout_of(spec.rollout, spec.mode or document.spec.mode, (*path, "rollout"), expressions, findings),
    )


def _check_one_action(path: Path, findings: Findings) -> None:
    written = findings.document.value
    rule = written["spec"]["rules"][path[-1]] if isinstance(written, dict) else {}
    if not isinstance(rule, dict):
        return
    named = [name for name in rule if name in (*ACTIONS, "escalate")]
    if len(named) > 1:
        hint = "split the rule in two"
        message = f"a rule has exactly one action, this one has {listed(named)}"
        findings.error((*path, named[1]), "POL008", message, hint, key=True)
    elif not named:
        findings.error(path, "POL008", f"rule {_name(rule)} has no action", f"add one of {listed(ACTIONS)}")
    elif rule[named[0]] is None:
        hint = f"write `{named[0]}: {{}}`" if named[0] == "terminate" else f"say what to {named[0]}"
        findings.error((*path, named[0]), "POL008", f"`{named[0]}` is empty", hint, key=True)


def _name(rule: dict[str, object]) -> str:
    return quoted(rule.get("name", "?"))


def _texts(
    spec: RuleSpec, path: Path, phase: Phase, expressions: Expressions, findings: Findings
) -> tuple[CompiledProgram | None, CompiledProgram | None]:
    if spec.terminate is None:
        return None, None
    written = (
        ("messageExpression", spec.terminate.message_expression),
        ("fallbackExpression", spec.terminate.fallback_expression),
    )
    message, fallback = (
        _text(source, (*path, "terminate", name), phase, expressions, findings) for name, source in written
    )
    return message, fallback


def _text(
    source: str | None, path: Path, phase: Phase, expressions: Expressions, findings: Findings
) -> CompiledProgram | None:
    program = None if source is None else expressions.compile(source, path, Want.STRING)
    late = sorted(read for read in program.reads if phase_of((read,)) > max(phase, Phase.RESERVED)) if program else []
    if late:
        message = f"`{path[-1]}` reads `{listed(late)}`, which may be empty when this rule acts"
        findings.warn(path, "POL109", message, "let `when` read it too, or leave it out of the text")
    return program


def _check_exemption(
    spec: RuleSpec, path: Path, reads: frozenset[str], expressions: Expressions, findings: Findings
) -> None:
    if spec.allow is None:
        return
    expressions.check_reads(reads, (*path, "when"), STATIC, "an exemption")
    warn_forgeable(reads, (*path, "when"), "an exemption", findings)


# ---- hold-back ----------------------------------------------------------------------------------------------------


def _hold_back(spec: RuleSpec, path: Path, action: Action, when: CompiledProgram | None, findings: Findings) -> int:
    """Characters kept back: what the author says, else one less than the longest match."""
    if spec.hold_back is not None:
        if not any(is_below(read, _TEXT) for read in (when.reads if when else ())):
            message = "`holdBack` on a rule that reads no response.text keeps nothing back"
            findings.error((*path, "holdBack"), "POL014", message, "remove it", key=True)
        return spec.hold_back
    if when is None or not isinstance(action, Terminate):
        return 0
    for watcher in when.watchers:
        if watcher.reach is None:
            _warn_endless(watcher, (*path, "when"), findings)
    return _derived((*when.watchers, *when.sought))


def _derived(watchers: Sequence[Watcher]) -> int:
    return max((watcher.reach - 1 for watcher in watchers if watcher.reach), default=0)


def _warn_endless(watcher: Watcher, path: Path, findings: Findings) -> None:
    bound = _bound(watcher.pattern) if watcher.kind == "matches" else ""
    message = f"{quoted(watcher.pattern)} can match without end: the beginning of a match may leave before it is judged"
    findings.warn(path, "POL105", message, f"{bound or 'bound the pattern'}, or give the rule a `holdBack`")


def _bound(pattern: str) -> str:
    try:
        return bound_hint(pattern)
    except ValueError:
        return ""
