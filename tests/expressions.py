"""Expressions for tests: a scope with counters and parameters, and what compiling in it gives."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.cel import CelProblem, CompiledProgram, Scope, Want

POLICY = "agents/breaker"
PARAMS: dict[str, object] = {
    "cheap": "gpt-4o-mini",
    "dear": ["gpt-4o", "o3"],
    "most": 2,
    "least": -3,
    "limits": {"research": 5, "sales": 7},
    "odd": 'é"\\\n\t\0',
    "nothing": None,
}


def scope(*variables: tuple[str, str], params: dict[str, object] | None = None) -> Scope:
    known = PARAMS if params is None else params
    return Scope(policy=POLICY, counters=["spend", "requests"], params=known, variables=variables)


def compiled(source: str, want: Want = Want.BOOL, into: Scope | None = None) -> CompiledProgram:
    program = (into or scope()).compile(source, want)
    assert isinstance(program, CompiledProgram), program
    return program


def problems(source: str, want: Want = Want.BOOL, into: Scope | None = None) -> Sequence[CelProblem]:
    found = (into or scope()).compile(source, want)
    assert isinstance(found, tuple), f"{source} compiled"
    return found
