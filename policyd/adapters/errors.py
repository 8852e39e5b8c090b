"""What keeps an adapter from doing its work, as errors that the command line turns into exit codes.

Messages follow core/errors.py: lower case, without a full stop, in the user's words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policyd.core.errors import PolicyError

OK, FINDINGS, USAGE, UNAVAILABLE = 0, 1, 2, 3  # exit codes


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an input file; `line` and `column` count from 1, 0 when unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class UnreadableInput(Exception):  # noqa: N818 - the user's input, an ordinary value to us
    """An input that cannot be read: missing, of another format, or broken. Exit code 2."""

    def __init__(self, place: Place | Path | str, message: str) -> None:
        self.place = place if isinstance(place, Place) else Place(str(place))
        self.message = message
        super().__init__(f"{self.place}: {message}")


class NoPolicies(UnreadableInput):
    """The place of the policies is missing, cannot be listed, or holds none."""


class NotAvailable(Exception):  # noqa: N818
    """Something needed is not there: a port in use, a service that is down, a part not built yet. Exit code 3."""


Known = PolicyError, UnreadableInput, NotAvailable
"""What ends a command with words and an exit code."""


def told(error: PolicyError | UnreadableInput | NotAvailable) -> tuple[int, list[str]]:
    """The exit code, and the lines for stderr."""
    match error:
        case PolicyError():
            return FINDINGS, [str(issue) for issue in error.issues]
        case UnreadableInput():
            return USAGE, [f"policyd: {error}"]
        case NotAvailable():
            return UNAVAILABLE, [f"policyd: {error}"]


def read_text(file: Path) -> str:
    """The text of a user's file, without a byte order mark. Raises UnreadableInput."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    except UnicodeDecodeError as error:
        raise UnreadableInput(file, f"not UTF-8: byte {error.start + 1}") from None


def reason_of(error: OSError) -> str:
    """The system's own words for an error, without the path that `str(error)` would repeat."""
    return (error.strerror or type(error).__name__).lower()
