"""The text of an expression: its tokens, and edits that remember where everything stood.

Rule 1: offsets count code points from 0; nothing in here knows what an expression means.
Rule 2: an edit never moves a position for the reader: whatever is reported inside it points at its beginning.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>[\t\n\f\r ]+|//[^\n]*)
  | (?P<string>(?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n\r]*"|'[^'\n\r]*')
             |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
  | (?P<double>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
  | (?P<uint>0x[0-9a-fA-F]+[uU]|[0-9]+[uU])
  | (?P<int>0x[0-9a-fA-F]+|[0-9]+)
  | (?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
  | `(?P<quoted>[^`\n]+)`
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `kind` is string, double, uint, int, name or mark."""

    kind: str
    text: str
    start: int
    end: int


def tokenize(source: str) -> list[Token]:
    """Every token but space and comments. Never fails: what is no token is a mark of one character."""
    return [_token(match) for match in _TOKEN.finditer(source) if match.lastgroup != "space"]


def _token(match: re.Match[str]) -> Token:
    kind = match.lastgroup or "mark"
    text = match.group(kind)
    return Token("name" if kind == "quoted" else kind, text, match.start(), match.end())


@dataclass(frozen=True, slots=True)
class Reference:
    """A use of `root.name`, or of a bare root (`name` empty); `call` when has(root.name) asks for it directly."""

    root: str
    name: str
    start: int
    end: int
    in_has: bool = False


def references(tokens: Sequence[Token], roots: frozenset[str]) -> Iterator[Reference]:
    """Every use of these roots, in order."""
    for index, token in enumerate(tokens):
        if token.kind != "name" or token.text not in roots or _is(tokens, index - 1, "."):
            continue
        if _is(tokens, index + 1, ".") and index + 2 < len(tokens) and tokens[index + 2].kind == "name":
            last = tokens[index + 2]
            yield Reference(token.text, last.text, token.start, last.end, _in_has(tokens, index))
        else:
            yield Reference(token.text, "", token.start, token.end)


def _is(tokens: Sequence[Token], index: int, mark: str) -> bool:
    return 0 <= index < len(tokens) and tokens[index].kind == "mark" and tokens[index].text == mark


def _in_has(tokens: Sequence[Token], index: int) -> bool:
    asks = _is(tokens, index - 1, "(") and index >= 2 and tokens[index - 2].text == "has"
    return asks and _is(tokens, index + 3, ")")


def dotted_before(tokens: Sequence[Token], dot: int) -> tuple[str, int] | None:
    """The dotted name that ends before the token `dot`, and where it begins: `request.tools` in `request.tools.nme`."""
    index, names = dot - 1, []
    while index >= 0 and tokens[index].kind == "name":
        names.append(tokens[index].text)
        if not _is(tokens, index - 1, "."):
            return ".".join(reversed(names)), tokens[index].start
        index -= 2
    return None


class Rewritten:
    """A source with some spans replaced, and the way back from the new text's offsets to the author's."""

    __slots__ = ("_new", "_old", "source", "text")

    def __init__(self, source: str, edits: Mapping[tuple[int, int], str]) -> None:
        """`edits`: (start, end) of the author's text -> what stands there instead; spans do not overlap."""
        self.source = source
        self._new, self._old = [0], [(0, True)]  # starts of runs in the new text; (author's offset, copied as it is)
        pieces, at, length = [], 0, 0
        for (start, end), replacement in sorted(edits.items()):
            pieces += [source[at:start], replacement]
            self._new += [length + start - at, length + start - at + len(replacement)]
            self._old += [(start, False), (end, True)]
            length, at = self._new[-1], end
        self.text = "".join([*pieces, source[at:]])

    def origin(self, offset: int) -> int:
        """The author's offset of an offset in `text`."""
        run = bisect_right(self._new, offset) - 1
        old, copied = self._old[run]
        return min(old + (offset - self._new[run] if copied else 0), len(self.source))


def offset_of(text: str, line: int, column: int) -> int:
    """The offset of a 1-based line and column; the end of the text when there is no such place."""
    if line < 1 or column < 1:
        return 0
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
        if start == 0:
            return len(text)
    return min(start + column - 1, len(text))


def place(source: str, offset: int) -> tuple[int, int]:
    """The 1-based line and column of an offset."""
    before = source[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")
