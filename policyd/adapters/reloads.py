"""What came of a look at changed policies, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue, Severity

Documents = list[tuple[str, str]]
"""(file name as the user would write it, its text)"""


class Compilation(Protocol):
    """What compiling gives: a set, or None and the errors that forbid one."""

    @property
    def policy_set(self) -> PolicySet | None: ...
    @property
    def issues(self) -> Sequence[Issue]: ...


Compile = Callable[[Documents], Compilation]


@dataclass(frozen=True, slots=True)
class Reload:
    """What one look at changed policies came to. `digest` names the set in force afterwards."""

    result: str  # loaded | unchanged | refused
    digest: str
    issues: tuple[Issue, ...] = ()
    failure: str = ""  # why they could not even be read
    lost: bool = False  # there are no policies any more; the last good set stays in force


def forbids(issues: Sequence[Issue]) -> bool:
    """Whether any of them is an error."""
    return any(issue.severity is Severity.ERROR for issue in issues)
