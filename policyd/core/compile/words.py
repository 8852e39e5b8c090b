"""Words for issues: quoting what an author wrote, and guessing what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from policyd.core.compile.synonyms import FIELDS, VALUES, Words, nearest_of

MAX_QUOTED = 60  # characters
MAX_LISTED = 24
_ALIKE = 0.65
_SHORT = 4  # letters: two words that short are alike by chance, but for their first letter
_SHORT_ALIKE = 0.75


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


def close(written: str, names: Iterable[str]) -> str | None:
    """The name that is written almost like it: a slip of the fingers, not another word."""
    folded = {name.lower(): name for name in names}
    cutoff = _ALIKE
    if len(written) <= _SHORT:
        cutoff = _SHORT_ALIKE
        folded = {name: whole for name, whole in folded.items() if name[:1] == written[:1].lower()}
    near = get_close_matches(written.lower(), list(folded), n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def nearest(written: object, names: Iterable[str], words: Words = FIELDS) -> str | None:
    """The name that was probably meant, if any is near."""
    every = list(names)
    text = str(written)[:MAX_QUOTED]
    return nearest_of(text, every, words) or close(text, every)


def suggestion(written: object, names: Iterable[str], otherwise: str = "one of") -> str:
    """A hint about a value: what was probably meant, or else what there is."""
    every = list(names)
    near = nearest(written, every, VALUES)
    return f"did you mean `{near}`?" if near else f"{otherwise}: {listed(every)}"
