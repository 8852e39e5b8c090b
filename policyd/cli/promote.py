"""`policyd promote`: from Monitor to enforcement, when what it would have done says so.

Rule 1: the evidence is decision records of the very policy set that is to be promoted, unless told otherwise: a policy
        that has been edited since has no past.
Rule 2: nothing is written that does not compile, and nothing but the mode changes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.decisions import read_decisions
from policyd.adapters.errors import FINDINGS, UnreadableInput, read_text
from policyd.adapters.policies_dir import read_policies
from policyd.cli.mode_edit import with_mode
from policyd.cli.thresholds import Threshold, threshold
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import CompiledPolicy, PolicySet
from policyd.core.errors import PolicyError
from policyd.core.model.decision import Mode


class To(StrEnum):
    """What a policy is promoted to."""

    SOFT = "Soft"
    FULL = "Full"


class Format(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


@dataclass(slots=True)
class Evidence:
    """What a policy in Monitor has seen. `stopped`: by rule, the decisions that it would have ended."""

    calls: int = 0
    stopped: dict[str, list[str]] = field(default_factory=dict)
    unjudged: int = 0  # calls over which a rule of it could not be judged
    other_sets: int = 0  # calls of other policy sets, which do not count
    disputed: int = 0  # of those that it would have ended

    @property
    def would_stop(self) -> int:
        return sum(map(len, self.stopped.values()))


@dataclass(frozen=True, slots=True)
class Gate:
    """What must hold."""

    calls: int
    stops: Threshold | None
    disputed: Threshold

    def findings(self, seen: Evidence) -> list[str]:
        """What does not hold, in words."""
        found = []
        if seen.calls < self.calls:
            found.append(f"{seen.calls} calls seen, {self.calls} are wanted")
        if self.stops and self.stops.too_many(seen.would_stop, seen.calls):
            found.append(f"{seen.would_stop} of {seen.calls} calls would have been stopped, at most {self.stops.text}")
        if self.disputed.too_many(seen.disputed, seen.would_stop):
            found.append(f"{seen.disputed} of {seen.would_stop} stops are disputed, at most {self.disputed.text}")
        if seen.unjudged:
            found.append(f"{seen.unjudged} calls could not be judged")
        return found


def promote(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="The policy: NAME or NAMESPACE/NAME.")],
    policies: Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")],
    records: Annotated[Path, typer.Option(metavar="DIR", help="What `serve --records` wrote, or `replay --records`.")],
    to: Annotated[To, typer.Option(help="The mode it is to have.", case_sensitive=False)] = To.FULL,
    min_calls: Annotated[int, typer.Option(min=0, metavar="N", help="Calls that it must have seen.")] = 1000,
    max_would_stop: Annotated[
        str | None, typer.Option(metavar="N|N%", help="Calls that it may have wanted to stop.")
    ] = None,
    disputed: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Decision ids that people call wrong, one a line.")
    ] = None,
    max_disputed: Annotated[str, typer.Option(metavar="N|N%", help="Disputed stops that are still fine.")] = "0",
    any_set: Annotated[bool, typer.Option("--any-set", help="Count records of other policy sets, too.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Change the mode in the policy's file when it may.")] = False,
    format: Annotated[Format, typer.Option(help="Words for people, or one JSON document.")] = Format.TEXT,
) -> None:
    """Say whether a policy in Monitor may be enforced, by what it would have done, and change its mode.

    Exits with 1 when a gate is not met.
    """
    gate = Gate(min_calls, threshold(max_would_stop) if max_would_stop else None, threshold(max_disputed))
    documents = read_policies(policies)
    policy_set = _compiled(documents)
    chosen = _chosen(policy_set, policy)
    wrong = frozenset(read_text(disputed).split()) if disputed else frozenset()
    seen = gathered(records, chosen, "" if any_set else policy_set.digest, wrong)
    missed = gate.findings(seen)
    changed = _write(documents, chosen, to) if write and not missed else None
    (_print_json if format is Format.JSON else _print_text)(chosen, to, seen, missed, changed)
    raise typer.Exit(FINDINGS if missed else 0)


def gathered(folder: Path, policy: CompiledPolicy, digest: str, disputed: frozenset[str]) -> Evidence:
    """What the records of a folder say about a policy; `digest` empty: of any set. Raises UnreadableInput."""
    seen = Evidence()
    for record in read_decisions(folder):
        rules = [rule for rule in record.rules if (rule.policy, rule.namespace) == (policy.name, policy.namespace)]
        if not rules or any(rule.mode != Mode.MONITOR for rule in rules):
            continue
        if digest and record.digest != digest:
            seen.other_sets += 1
            continue
        seen.calls += 1
        seen.unjudged += any(rule.outcome == "errored" for rule in rules)
        for fate in record.shadow:
            if (fate.policy, fate.namespace) == (policy.name, policy.namespace):
                seen.stopped.setdefault(fate.rule, []).append(record.id)
                seen.disputed += record.id in disputed
    return seen


def _compiled(documents: list[tuple[str, str]]) -> PolicySet:
    compiled = compile_documents(documents)
    if compiled.policy_set is None:
        raise PolicyError(tuple(compiled.issues))
    return compiled.policy_set


def _chosen(policy_set: PolicySet, name: str) -> CompiledPolicy:
    found = [policy for policy in policy_set.policies if name in (policy.name, policy.qualified)]
    if len(found) == 1:
        policy = found[0]
        if policy.mode is not Mode.MONITOR:
            raise typer.BadParameter(f"{policy.qualified} is in {policy.mode.value} already", param_hint="POLICY")
        return policy
    known = ", ".join(policy.qualified for policy in found or policy_set.policies)
    what = f"{name} is one of several" if found else f"there is no policy {name}"
    raise typer.BadParameter(f"{what}; there are: {known}", param_hint="POLICY")


def _write(documents: list[tuple[str, str]], policy: CompiledPolicy, to: To) -> Path:
    """Changes the mode where it stands. Raises UnreadableInput where that cannot be done safely."""
    file, text = with_mode(documents, policy, to.value)
    path = Path(file)
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(path.stat().st_mode)
        fresh.replace(path)
    except OSError as error:
        raise UnreadableInput(path, f"cannot be written: {error.strerror}") from None
    return path


# ---- words -----------------------------------------------------------------------------------------------------------


def _print_text(policy: CompiledPolicy, to: To, seen: Evidence, missed: list[str], changed: Path | None) -> None:
    print(f"{policy.qualified}: {seen.calls} calls seen in Monitor, {seen.would_stop} would have been stopped")
    for rule, ids in sorted(seen.stopped.items(), key=lambda item: -len(item[1])):
        print(f"  {len(ids):6} by {rule}, for example {', '.join(ids[-3:])}")
    if seen.other_sets:
        print(f"  {seen.other_sets} calls were judged by other policy sets and do not count (--any-set)")
    for finding in missed:
        print(f"not met: {finding}")
    if changed:
        print(f"{changed}: mode is {to.value} now")
    elif not missed:
        print(f"it may go to {to.value}; --write changes its file")


def _print_json(policy: CompiledPolicy, to: To, seen: Evidence, missed: list[str], changed: Path | None) -> None:
    whole = {"policy": policy.qualified, "to": to.value, "met": not missed, "not_met": missed}
    json.dump({**whole, **asdict(seen), "would_stop": seen.would_stop, "written": str(changed or "")}, sys.stdout)
    print()
