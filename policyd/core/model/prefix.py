r"""What may still become a match: from a pattern, the pattern of all beginnings of its matches, at the end of a text.

Rule 1: it matches every text that some continuation turns into a match, and every match itself; a little more is
        allowed (what is held too long is released later), less never is.
Rule 2: RE2 runs a pattern that ends in `\z` backwards from the end, so asking costs what is held, not what was read.
"""

from __future__ import annotations

from policyd.core.model.reach import Alt, Cat, Edge, Node, One, Repeat, read

MAX_LENGTH = 50_000  # characters of a derived pattern; beyond it the plain reach serves


def beginnings(pattern: str) -> str | None:
    r"""A pattern (to be followed by `\z`) of everything that may begin a match; None when it would grow too long."""
    derived = _beginnings(read(pattern))
    return derived if len(derived) <= MAX_LENGTH else None


def _beginnings(node: Node) -> str:
    match node:
        case One(text):
            return f"{text}?"
        case Edge():
            return ""
        case Cat(items):
            return _of_sequence(items)
        case Alt(items):
            return f"(?:{'|'.join(_beginnings(item) for item in items)})"
        case Repeat():
            return _of_repeat(node)


def _of_sequence(items: tuple[Node, ...]) -> str:
    """Halved again and again, for a chain of one group in another would nest deeper than RE2 allows."""
    if len(items) <= 1:
        return _beginnings(items[0]) if items else ""
    half = len(items) // 2
    whole = "".join(_written(item) for item in items[:half])
    return f"(?:{_of_sequence(items[:half])}|{whole}{_of_sequence(items[half:])})"


def _of_repeat(node: Repeat) -> str:
    if node.high == 0:
        return ""
    if isinstance(node.item, One):
        return node.item.text + _times(0, node.high)
    last = _beginnings(node.item)
    if node.high == 1:
        return last
    return _written(node.item) + _times(0, None if node.high is None else node.high - 1) + last


def _written(node: Node) -> str:
    """The pattern itself, every repeated or alternative part in a group of its own."""
    match node:
        case One(text) | Edge(text):
            return text
        case Cat(items):
            return f"(?:{''.join(_written(item) for item in items)})"
        case Alt(items):
            return f"(?:{'|'.join(_written(item) for item in items)})"
        case Repeat(item, low, high):
            return f"(?:{_written(item)}{_times(low, high)})"


def _times(low: int, high: int | None) -> str:
    return f"{{{low},{'' if high is None else high}}}"
