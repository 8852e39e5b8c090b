"""Texts that are taken as they are, and look as if they should have been evaluated; and what a policy leaves unsaid.

Rule 1: warnings only: a text may well hold braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyd.core.compile.cel_facts import FACTS
from policyd.core.compile.cel_vocabulary import provider_meant
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.words import listed, quoted
from policyd.core.model.policy import CounterSpec, PolicyDocument, RuleSpec
from policyd.core.model.providers import PROVIDER_NAMES

_FACT = r"(?:request|response|caller|session|counters|params|variables)\.[A-Za-z_][\w.]*"
_PLACEHOLDER = re.compile(rf"\$?\{{\{{?\s*({_FACT})[^}}]*\}}\}}?|\$\(?({_FACT})\)?|%\{{({_FACT})\}}")
_WHOLE = re.compile(_FACT + r"(?:\[.*\])?")
_EXPRESSIONS = {"message": "messageExpression", "fallback": "fallbackExpression"}
_KEYS = {
    "caller.user": "x-user-id",
    "caller.team": "x-team-id",
    "caller.key": "",
}
_OR_EMPTY = re.compile(r"""(?:request\.(?:headers|tags)|caller\.labels)\[\?["']([^"']+)["']\]\.orValue\((?:""|'')\)""")


def warn_plain_texts(document: PolicyDocument, findings: Findings) -> None:
    """Reports texts of rules that look like expressions."""
    for index, rule in enumerate(document.spec.rules):
        for path, text in _texts(rule):
            _warn(text, ("spec", "rules", index, *path), findings)
    for part in ("models", "providers", "paths", "operations"):
        for index, text in enumerate(getattr(document.spec.match, part)):
            _warn(text, ("spec", "match", part, index), findings)


def _texts(rule: RuleSpec) -> Iterator[tuple[Path, str]]:
    if rule.terminate is not None:
        for name in ("message", "fallback", "reason"):
            yield ("terminate", name), getattr(rule.terminate, name) or ""
    if rule.reroute is not None:
        for name in ("model", "upstream"):
            yield ("reroute", name), getattr(rule.reroute, name) or ""
    change = rule.constrain
    if change is None:
        return
    if change.inject is not None:
        yield ("constrain", "inject", "system"), change.inject.system
    if change.redact is not None:
        yield ("constrain", "redact", "replacement"), change.redact.replacement
    for side in ("request", "response"):
        edit = getattr(change.headers, side) if change.headers else None
        for name, value in edit.set.items() if edit else ():
            yield ("constrain", "headers", side, "set", name), value


def _warn(text: str, path: Path, findings: Findings) -> None:
    found = _PLACEHOLDER.search(text)
    fact = next((one for one in found.groups() if one), "") if found else ""
    if not fact and _WHOLE.fullmatch(text):
        fact = text
    if not fact:
        return
    findings.warn(
        path,
        "POL122",
        f"`{path[-1]}` is plain text: {quoted(fact)} in it is not evaluated",
        _fix(text, fact, path, found),
    )


def _fix(text: str, fact: str, path: Path, found: re.Match[str] | None) -> str:
    name = str(path[-1])
    if name in _EXPRESSIONS and path[-2] == "terminate":
        if found is None:
            return f"write `{_EXPRESSIONS[name]}: {fact}`"
        before, after = text[: found.start()], text[found.end() :]
        parts = [f'"{before}"' if before else "", _as_text(fact), f'"{after}"' if after else ""]
        return f"write `{_EXPRESSIONS[name]}: '{' + '.join(part for part in parts if part)}'`"
    if name == "model":
        return "write the model's name; a reroute has a fixed target, so write one rule for each"
    if "match" in path:
        return "write names or globs; what depends on the call belongs into a rule's `when`"
    return "write fixed text: nothing is evaluated here"


def _as_text(fact: str) -> str:
    known = FACTS.get(fact)
    number = fact.startswith("counters.") or (known is not None and known.type in ("int", "double", "bool"))
    return f"string({fact})" if number else fact


# ---- keys that are empty for calls without a header ---------------------------------------------------------------


def warn_empty_keys(document: PolicyDocument, findings: Findings) -> None:
    """Reports counters whose key is empty for some calls, where the author does not say what becomes of them."""
    for index, counter in enumerate(document.spec.counters):
        if "on_missing" in counter.model_fields_set:
            continue
        for path, expression in _keys(counter, ("spec", "counters", index, "key")):
            missing = _missing(expression.strip())
            if missing:
                _warn_empty(counter, missing, path, findings)


def _keys(counter: CounterSpec, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(counter.key, str):
        yield path, counter.key
        return
    for index, one in enumerate(counter.key):
        yield (*path, index), one


def _missing(expression: str) -> str:
    """What a call without a key lacks; empty where the key is always there."""
    if expression in _KEYS:
        header = _KEYS[expression]
        return f"`{expression}` (under `--identity headers`: the header {header})" if header else "a credential"
    found = _OR_EMPTY.fullmatch(expression)
    return quoted(found[1]) if found else ""


def _warn_empty(counter: CounterSpec, missing: str, path: Path, findings: Findings) -> None:
    refused = counter.on_exceeded == "Terminate"
    then = "is refused with 403" if refused else "makes the rules that read the counter fail"
    message = f"the key of counter {quoted(counter.name)} is empty for a call without {missing}, which {then}"
    hint = (
        "say what is meant: `onMissing: Refuse`, `Share` (such calls count together) or `Skip` (they are not counted)"
    )
    findings.warn(path, "POL123", message, hint)


# ---- the policy as a whole ----------------------------------------------------------------------------------------


def warn_without_rules(document: PolicyDocument, findings: Findings) -> None:
    """Reports a policy that has nothing to say."""
    if not document.spec.rules and not document.spec.counters and not findings.broken:
        hint = "add `rules:`, as in `rules: [{name: no-streams, when: request.stream, terminate: {}}]`"
        findings.warn(("metadata", "name"), "POL124", "this policy has neither rules nor counters", hint)


def warn_providers(document: PolicyDocument, findings: Findings) -> None:
    """Reports providers in `match` that no call has."""
    for index, written in enumerate(document.spec.match.providers):
        if "*" in written or "?" in written or written in (*PROVIDER_NAMES, "unknown"):
            continue
        near = provider_meant(written)
        hint = (
            f"did you mean `{near}`?"
            if near
            else f"known are {listed(PROVIDER_NAMES)}; a deployment may declare others"
        )
        path = ("spec", "match", "providers", index)
        findings.warn(path, "POL106", f"no provider that policyd knows is called {quoted(written)}", hint)
