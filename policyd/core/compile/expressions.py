"""The expressions of one policy: compiled in its scope, their problems placed in the file, their reads held to account.

Rule 1: `reads` decide when a rule can be judged; the author never writes a phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from policyd.core.compile.cel import CompiledProgram, Scope, Want
from policyd.core.compile.cel_problems import CelProblem
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import Phase
from policyd.core.compile.words import listed
from policyd.core.errors import Severity

STATIC = ("request", "caller", "session.id", "session.source", "params", "now")  # known once the request is, and fixed
ANSWERED = (*STATIC, "session", "response")  # what a call has when it is over
FORGEABLE = (
    "caller.user",
    "caller.team",
    "caller.tenant",
    "caller.labels",
    "request.headers",
    "request.tags",
    "session.id",
)
_EARLY = ("response.status", "response.headers")


def is_below(read: str, roots: Iterable[str]) -> bool:
    """Whether a read is one of these paths, or inside one."""
    return any(read == root or read.startswith(root + ".") for root in roots)


def reads_response(reads: Iterable[str]) -> bool:
    return any(is_below(read, ("response",)) for read in reads)


def exceeded_in(reads: Iterable[str]) -> frozenset[str]:
    """The counters whose `exceeded` is read, by name."""
    steps = (read.split(".") for read in reads)
    return frozenset(
        step[1] for step in steps if step[0] == "counters" and step[2:] in (["exceeded"], []) and len(step) > 1
    )


def phase_of(reads: Iterable[str]) -> Phase:
    """The earliest moment at which all of this is known."""
    every = tuple(reads)
    if any(is_below(read, ("response",)) and not is_below(read, _EARLY) for read in every):
        return Phase.RESPONSE
    if reads_response(every):
        return Phase.RESPONSE_HEADERS
    return Phase.RESERVED if exceeded_in(every) else Phase.REQUEST


class Expressions:
    """Compiles what one policy writes in CEL."""

    def __init__(
        self,
        findings: Findings,
        policy: str,
        counters: Sequence[str],
        params: Mapping[str, object],
        variables: Sequence[tuple[str, str]],
        refused: Iterable[str] = (),
    ) -> None:
        """`refused`: parameters that are written, but cannot be read."""
        self._findings = findings
        self._refused = tuple(refused)
        self.scope = Scope(policy=policy, counters=counters, params=params, variables=variables)
        # What is judged before the counters are bound sees neither them nor the variables, which may read them.
        self._bare = Scope(policy=policy, counters=(), params=params, variables=())

    def report_variables(self, paths: Mapping[str, Path]) -> None:
        """Reports what is wrong with the variables themselves."""
        for name, path in paths.items():
            self._report(path, self.scope.problems.get(name, ()))
            self._findings.problems(path, self.scope.warnings.get(name, ()), Severity.WARNING)

    def compile(self, source: str, path: Path, want: Want, *, bare: bool = False) -> CompiledProgram | None:
        """The program, or None with its problems reported. `bare`: without variables and counters."""
        if self._findings.spoilt(path):
            return None
        compiled = (self._bare if bare else self.scope).compile(source, want)
        if not isinstance(compiled, CompiledProgram) and bare:
            compiled = tuple(map(_seen_by_conditions, compiled))
        if isinstance(compiled, CompiledProgram):
            self._findings.problems(path, compiled.warnings, Severity.WARNING)
            return compiled
        # INVARIANT: an expression without a program is an issue, so that nothing of a policy is left out in silence.
        assert compiled, source
        self._report(path, compiled)
        return None

    def _report(self, path: Path, problems: Iterable[CelProblem]) -> None:
        """Reports what is wrong, but for what only follows from a parameter that is wrong itself."""
        follows = [f"`params.{name}`" for name in self._refused]
        own = [problem for problem in problems if not any(name in problem.message for name in follows)]
        self._findings.problems(path, own)

    def limited(
        self, source: str, path: Path, want: Want, allowed: Sequence[str], who: str, *, bare: bool = False
    ) -> CompiledProgram | None:
        """As `compile`, for a place that may read only some facts."""
        program = self.compile(source, path, want, bare=bare)
        if program is not None:
            self.check_reads(program.reads, path, allowed, who)
        return program

    def check_reads(self, reads: Iterable[str], path: Path, allowed: Sequence[str], who: str) -> None:
        refused = sorted(read for read in reads if not is_below(read, (*allowed, "variables")))
        if refused:
            message = f"{who} cannot read `{listed(refused)}`"
            self._findings.error(path, "POL013", message, f"it can read {listed(allowed)}")


def _seen_by_conditions(problem: CelProblem) -> CelProblem:
    """A name that the policy may well declare, but that is not seen here."""
    if "`variables." in problem.message or "`counters." in problem.message:
        return replace(problem, hint="match conditions see neither variables nor counters")
    return problem
