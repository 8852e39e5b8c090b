"""What can be wrong, as values.

Messages are lower case, without a full stop, and name what the reader wrote, never a type of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much an issue matters: an error refuses the policy set, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a file; line and column count from 1, in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with what an author wrote: where, what, and what to do about it."""

    span: Span
    code: str
    severity: Severity
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.span}: {self.severity} {self.code}: {self.message}{hint}"


class PolicyError(Exception):
    """A policy set that cannot be put in force; carries every issue found, not only the first."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = issues


class Malformed(Exception):  # noqa: N818 - the peer's fault, an ordinary value to us
    """Bytes that do not follow their own format; `reason` is safe to record (it quotes no content)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutOfOrder(Exception):  # noqa: N818
    """An event that the state of the exchange does not allow."""
