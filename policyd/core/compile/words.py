"""Words for issues: quoting what an author wrote, and guessing what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_QUOTED = 60  # characters
MAX_LISTED = 12


def quoted(value: object) -> str:
    """What was written, in backticks, short, and with nothing in it that could forge a line of a log."""
    text = str(value)
    text = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
    return f"`{printable(text)}`"


def printable(text: str) -> str:
    """The same on one line, with nothing in it that a terminal obeys or that turns the direction of writing."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def listed(names: Iterable[str]) -> str:
    """Names as a list that stays readable."""
    every = list(names)
    more = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return ", ".join(every[:MAX_LISTED]) + more


def nearest(written: object, names: Iterable[str]) -> str | None:
    """The name that was probably meant, if any is near."""
    every = list(names)
    text = str(written)[:MAX_QUOTED]
    for name in every:
        if name.lower() == text.lower().replace("_", "").replace("-", ""):
            return name
    near = get_close_matches(text, every, n=1, cutoff=0.6)
    return near[0] if near else None


def suggestion(written: object, names: Iterable[str], otherwise: str = "one of") -> str:
    """A hint: what was probably meant, or else what there is."""
    every = list(names)
    near = nearest(written, every)
    return f"did you mean `{near}`?" if near else f"{otherwise}: {listed(every)}"
