r"""How far a pattern can see: the finite reach that redaction and text rules in a running stream stand on.

Rule 1: reach counts characters (code points), never bytes; RE2 folds case one to one, so `(?i)` never widens.
Rule 2: whatever RE2 refuses is refused here too, in RE2's words; what it accepts is read here exactly as it reads it.
Rule 3: a pattern that looks at the character after its match (`\b`, `\B`, `$`, `\z`) reaches one further.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import re2

MAX_PATTERN = 2_000  # characters
_MAX_DEPTH = 100  # groups in groups; RE2 itself goes to 1,000
_MAX_REPEAT = 1_000  # RE2's own limit; a larger number in braces is read as plain text
_MEMORY = 8 << 20  # bytes a pattern may take, and RE2's cache of its states: RE2's own default
# With all detectors in one pattern 8 MiB leave no room for that cache; RE2 then searches 2,000 times slower. What is
# not used is not taken.
_OWN_MEMORY = 64 << 20
_BOUND = 32  # what a hint proposes in the place of "without end"

_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*)?)?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]*)?([:)])")
_NAMED = re.compile(r"\(\?P?<[^>]*>")
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|..)|[0-7]{1,3}|.)", re.DOTALL)


VIEWS = ("text", "content", "reasoning")
"""The facts of a response that are texts which grow: response.text, response.content and response.reasoning."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A condition on response text that is matched as the text grows, outside CEL, and handed in as its truth.

    `reach`: how many characters a match can span, so how many must be kept back until judged; None when unbounded.
    `of`: the fact of the response that it looks at, one of VIEWS.
    """

    kind: str  # contains | matches
    pattern: str
    reach: int | None
    of: str = "text"


# ---- a pattern, read ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class One:
    """Exactly one character: a literal, an escape, a class. `text` stands alone, flags and all."""

    text: str


@dataclass(frozen=True, slots=True)
class Edge:
    r"""No character at all, only a look at its neighbours: ^ $ \A \z \b \B."""

    text: str


@dataclass(frozen=True, slots=True)
class Cat:
    """One after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of these."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` between `low` and `high` times (None: without end); `written` is its source, operator last."""

    item: Node
    low: int
    high: int | None
    written: tuple[str, str]


Node = One | Edge | Cat | Alt | Repeat


@dataclass(slots=True)
class _Reader:
    """Reads a pattern that RE2 has accepted; so it need not look for mistakes."""

    pattern: str
    at: int = 0
    flags: str = ""
    depth: int = 0

    def alternatives(self) -> Node:
        branches = [self.sequence()]
        while self.pattern.startswith("|", self.at):
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def sequence(self) -> Node:
        items: list[tuple[Node, int]] = []  # with where each began
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            began = self.at
            repeat = self.repetition()
            if repeat is None:
                items.extend((node, began) for node in self.atom())
            elif items:
                node, began = items.pop()
                items.append((self.repeated(node, began, *repeat), began))
        return Cat(tuple(node for node, _ in items))

    def repetition(self) -> tuple[int, int | None, int] | None:
        """Low, high and end of the repetition operator that stands here, if one does."""
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self.pattern[self.at])
        if simple is not None:
            return (*simple, self.at + 1)
        found = _REPEAT.match(self.pattern, self.at)
        if found is None:
            return None
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else None
        # RE2 reads a number that it cannot hold as plain text, and refuses all others above its limit.
        return None if max(low, high or 0) > _MAX_REPEAT else (low, high, found.end())

    def repeated(self, node: Node, began: int, low: int, high: int | None, end: int) -> Node:
        written = self.pattern[began : self.at], self.pattern[self.at : end]
        self.at = end + self.pattern.startswith("?", end)
        return Repeat(node, low, high, written)

    def atom(self) -> list[Node]:
        match self.pattern[self.at]:
            case "(":
                return self.group()
            case "[":
                return [self.leaf(self.class_end())]
            case "\\":
                return self.escape()
            case "^" | "$":
                return [self.edge(self.at + 1)]
            case _:
                return [self.leaf(self.at + 1)]

    def leaf(self, end: int) -> Node:
        return One(self.flagged(end))

    def edge(self, end: int) -> Node:
        return Edge(self.flagged(end))

    def flagged(self, end: int) -> str:
        text, self.at = self.pattern[self.at : end], end
        return f"(?{self.flags}:{text})" if self.flags else text

    def group(self) -> list[Node]:
        outer = self.flags
        flags = _FLAGS.match(self.pattern, self.at)
        if flags is not None:
            self.flags = _flagged(self.flags, flags[1], flags[2] or "")
            self.at = flags.end()
            if flags[3] == ")":
                return []  # from here to the end of the group around it
        else:
            named = _NAMED.match(self.pattern, self.at)
            self.at = named.end() if named else self.at + 1
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"groups nest deeper than {_MAX_DEPTH}")
        inner = self.alternatives()
        self.depth -= 1
        self.at += 1
        self.flags = outer
        return [inner]

    def class_end(self) -> int:
        at = self.at + 1 + self.pattern.startswith("^", self.at + 1)
        at += self.pattern.startswith("]", at)  # first in the class it is a plain character
        while self.pattern[at] != "]":
            named = self.pattern.find(":]", at) if self.pattern.startswith("[:", at) else -1
            at = named + 2 if named >= 0 else at + 1 + (self.pattern[at] == "\\")
        return at + 1

    def escape(self) -> list[Node]:
        kind = self.pattern[self.at + 1]
        if kind == "Q":
            return self.quoted()
        if kind == "C":
            raise ValueError("`\\C` matches half a character; write `.` instead")
        found = _ESCAPE.match(self.pattern, self.at)
        end = found.end() if found else self.at + 2
        return [self.edge(end) if kind in "bBAz" else self.leaf(end)]

    def quoted(self) -> list[Node]:
        end = self.pattern.find("\\E", self.at)
        text = self.pattern[self.at + 2 : end if end >= 0 else None]
        self.at = end + 2 if end >= 0 else len(self.pattern)
        around = (f"(?{self.flags}:", ")") if self.flags else ("", "")
        return [One(re2.escape(character).join(around)) for character in text]


def _flagged(flags: str, on: str, off: str) -> str:
    """Flags after `(?on-off)`; greediness (U) changes which match is found, never how long one can be."""
    kept = (set(flags) | set(on)) - set(off) - {"U"}
    return "".join(sorted(kept))


# ---- what others ask ------------------------------------------------------------------------------------------------


def compiled(pattern: str) -> re2._Regexp:
    """The pattern, ready to search with. Raises ValueError where RE2 refuses it, in RE2's words."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern is {len(pattern)} characters long, at most {MAX_PATTERN} are allowed")
    return _compiled(pattern, _MEMORY)


def compiled_unlimited(pattern: str) -> re2._Regexp:
    """As `compiled`, for patterns of our own making, which may be longer."""
    return _compiled(pattern, _OWN_MEMORY)


@functools.lru_cache(maxsize=1024)  # RE2's own memory of them is smaller than what a few policies need
def _compiled(pattern: str, memory: int) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False  # RE2 would write to stderr
    options.max_mem = memory
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(_refusal(error)) from None
    except UnicodeEncodeError:
        raise ValueError("the pattern holds half of a surrogate pair") from None


def _refusal(error: Exception) -> str:
    said = error.args[0] if error.args else b""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if text.startswith(("invalid perl operator: (?=", "invalid perl operator: (?!", "invalid perl operator: (?<")):
        return f"look-around is not part of RE2 ({text})"
    return text


@functools.lru_cache(maxsize=512)
def read(pattern: str) -> Node:
    """The pattern as a tree. Raises ValueError where it is refused."""
    compiled(pattern)
    return _Reader(pattern).alternatives()


def reach(pattern: str) -> int | None:
    r"""The most characters that a match can span, and one more where it looks past its end; None when unbounded.

    Raises ValueError, with the reason, for a pattern that RE2 refuses or that is longer than 2,000 characters.
    """
    tree = read(pattern)
    width = _width(tree)
    return None if width is None else width + looks_right(tree)


def _width(node: Node) -> int | None:
    match node:
        case One():
            return 1
        case Edge():
            return 0
        case Cat(items):
            widths = [_width(item) for item in items]
            return None if None in widths else sum(width or 0 for width in widths)
        case Alt(items):
            widths = [_width(item) for item in items]
            return None if None in widths else max(width or 0 for width in widths)
        case Repeat(item, _, high):
            return _times(_width(item), high)


def _times(width: int | None, high: int | None) -> int | None:
    if width == 0 or high == 0:
        return 0
    return None if width is None or high is None else width * high


def looks_right(node: Node) -> bool:
    """Whether a match can depend on the character after it."""
    match node:
        case One():
            return False
        case Edge(text):
            return not text.rstrip(")").endswith(("^", "\\A"))
        case Cat(items) | Alt(items):
            return any(looks_right(item) for item in items)
        case Repeat(item):
            return looks_right(item)


def bound_hint(pattern: str) -> str:
    r"""What to write so that the reach is finite: "write `\d{1,32}` instead of `\d+`"; empty when it already is."""
    endless = _endless(read(pattern))
    if endless is None:
        return ""
    item, operator = endless.written
    high = max(_BOUND, endless.low)
    return f"write `{item}{{{endless.low},{high}}}` instead of `{item}{operator}`"


def _endless(node: Node) -> Repeat | None:
    match node:
        case One() | Edge():
            return None
        case Cat(items) | Alt(items):
            return next((found for item in items if (found := _endless(item))), None)
        case Repeat(item, _, high):
            inner = None if high == 0 else _endless(item)
            return inner or (node if high is None and _width(item) else None)
