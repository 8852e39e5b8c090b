"""Slips of syntax that other languages leave in an expression, found in its tokens before the parser's words are used.

Rule 1: it is only asked where an expression does not compile: what is found here is the likely cause, not a proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policyd.core.compile.amounts import plain_number, seconds_text
from policyd.core.compile.cel_functions import FUNCTIONS, meant_function
from policyd.core.compile.cel_operands import Operands
from policyd.core.compile.cel_tokens import Token
from policyd.core.compile.globs_text import glob_fix


@dataclass(frozen=True, slots=True)
class Slip:
    """Where something stands that is no CEL, what it is, and what to write."""

    start: int
    end: int
    message: str
    hint: str


_WORDS = {"and": "&&", "or": "||", "AND": "&&", "OR": "||", "And": "&&", "Or": "||", "is": "==", "eq": "==", "ne": "!=",
          "gt": ">", "lt": "<", "gte": ">=", "ge": ">=", "lte": "<=", "le": "<=", "equals": "==", "IN": "in",
          "xor": "!="}  # fmt: skip
_SIGNS = (
    ("!==", "!="), ("===", "=="), ("=~", "matches"), ("!~", "!matches"), ("~=", "matches"), ("<>", "!="), (":=", "=="),
    ("=>", "arrow"), ("->", "arrow"), ("??", "or"), ("=<", "<="), ("=!", "!="),
)  # fmt: skip
_QUOTES = "“”„‟«»‘’‚`´"
_UNITS = re.compile(r"(?:ms|s|sec|seconds?|m|min|minutes?|h|hr|hours?|d|days?|w|weeks?)", re.IGNORECASE)
_UNKNOWN_ESCAPE = re.compile(r"""(?<!\\)(?:\\\\)*\\[^abfnrtv\\'"`?xXuU0-3]""")
_MAPS = ("headers", "tags", "labels")


def slips(text: str, tokens: Sequence[Token]) -> Iterator[Slip]:
    """Every slip, in the order of the text."""
    finder = _Finder(text, tokens)
    for at in range(len(tokens)):
        found = finder.at(at)
        if found:
            yield found


class _Finder:
    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self._text, self._tokens = text, tokens
        self._operands = Operands(text, tokens)

    def at(self, at: int) -> Slip | None:
        token = self._tokens[at]
        if token.kind == "name":
            return self._dashes(at) or self._word(at) or self._unit(at)
        if token.kind == "mark":
            return self._sign(at) or self._mark(at)
        return self._escape(at) or self._thousands(at) or self._unquoted_number(at)

    def _escape(self, at: int) -> Slip | None:
        """`"\\d"`: CEL takes a backslash in a text for the beginning of an escape that it knows."""
        token = self._tokens[at]
        if token.kind != "string" or token.text[:1] in "rR" or not _UNKNOWN_ESCAPE.search(token.text):
            return None
        hint = f"write a raw text, in which a backslash is itself: `r{token.text}`"
        return self._made(at, at, "the text holds a backslash that CEL does not know", hint)

    def _thousands(self, at: int) -> Slip | None:
        """`1,000` outside of a list."""
        token, after = self._tokens[at], self._token(at + 2)
        if token.kind != "int" or after is None or after.kind != "int" or len(after.text) != len("000"):
            return None
        if not self._is(at + 1, ",") or not self._touch(at, 2):
            return None
        words = f"{token.text},{after.text}"
        return self._made(at, at + 2, f"`{words}` is no number", f"write {token.text}{after.text}")

    def _token(self, at: int) -> Token | None:
        return self._operands.token(at)

    def _is(self, at: int, *texts: str) -> bool:
        token = self._token(at)
        return token is not None and token.kind in ("mark", "name") and token.text in texts

    def _value_before(self, at: int) -> bool:
        """Whether what stands before is the end of a value, so that an operator has to follow."""
        token = self._token(at - 1)
        if token is None:
            return False
        return token.kind != "mark" or token.text in (")", "]", "}")

    def _made(self, first: int, last: int, message: str, hint: str) -> Slip:
        return Slip(self._tokens[first].start, self._tokens[last].end, message, hint)

    # ---- words -----------------------------------------------------------------------------------------------------

    def _word(self, at: int) -> Slip | None:
        word, after = self._tokens[at].text, self._token(at + 1)
        if self._is(at - 1, ".") or (
            self._is(at + 1, ".") and self._value_before(at) is False and word not in ("not", "NOT")
        ):
            return None
        if word in ("not", "NOT", "Not") and self._value_before(at) and self._is(at + 1, "in", "IN"):
            return self._not_in(at)
        if word in ("not", "NOT", "Not") and not self._value_before(at) and after is not None and after.text != "(":
            return self._made(at, at, f"`{word}` is no word of CEL", "write `!` before what must not hold")
        if word == "not" and self._is(at + 1, "("):
            return self._made(at, at, "`not` is no word of CEL", "write `!(…)`")
        if word in ("if", "unless"):
            return self._made(
                at, at, f"`{word}` is no word of CEL", "write `condition ? a : b`, or the condition alone"
            )
        if word == "for" and self._value_before(at):
            hint = "write `list.exists(x, …)`, `list.all(x, …)`, `list.filter(x, …)` or `list.map(x, …)`"
            return self._made(at, at, "`for` is no word of CEL", hint)
        if not self._value_before(at) or self._is(at - 1, "in"):
            return None
        if word in ("is", "IS") and self._is(at + 1, "not", "NOT"):
            return self._made(at, at + 1, "`is not` is no operator of CEL", "write `!=`")
        if word in _WORDS and self._infix(at):
            sign = _WORDS[word]
            return self._made(at, at, f"`{word}` is no operator of CEL", f"write {sign}")
        if word.lower() in ("like", "glob", "between") or (self._infix(at) and meant_function(word)):
            return self._infix_function(at)
        return None

    def _infix(self, at: int) -> bool:
        after = self._token(at + 1)
        return after is not None and (after.kind != "mark" or after.text in ("(", "[", "!", "-", "{"))

    def _not_in(self, at: int) -> Slip:
        left = self._operands.text(self._operands.left(at))
        right = self._operands.text(self._operands.right(at + 1))
        return self._made(at, at + 1, "`not in` is no operator of CEL", f"write `!({left} in {right})`")

    def _infix_function(self, at: int) -> Slip | None:
        word = self._tokens[at].text
        left = self._operands.text(self._operands.left(at))
        right = self._operands.text(self._operands.right(at))
        if word.lower() == "between":
            return self._made(at, at, "`between` is no operator of CEL", f"write `{left} >= … && {left} <= …`")
        if word.lower() in ("like", "glob") and right[:1] in ("'", '"'):
            return self._made(at, at, f"`{word}` is no operator of CEL", f"write `{glob_fix(left, right[1:-1])}`")
        name = meant_function(word) or "contains"
        if word.lower() == "in":
            return None
        if name not in FUNCTIONS or left == "…" or right == "…":
            return None
        return self._made(at, at, f"`{word}` is no operator of CEL", f"write `{left}.{name}({right.strip('()')})`")

    # ---- names with dashes -----------------------------------------------------------------------------------------

    def _dashes(self, at: int) -> Slip | None:
        """`request.headers.x-team-id`, `counters.my-spend`, `gpt-4o` without quotes: a dash is a minus to CEL."""
        if self._is(at - 1, ".") or (at and self._is(at - 1, "-") and self._touches(at - 1)):
            return None
        last = at
        dashes = 0
        while True:
            if self._is(last + 1, ".") and self._kind(last + 2) in ("name", "double", "int") and self._touch(last, 2):
                last += 2
            elif self._is(last + 1, "-") and self._kind(last + 2) in ("name", "int", "double") and self._touch(last, 2):
                last, dashes = last + 2, dashes + 1
            elif dashes and self._kind(last + 1) in ("name", "int", "double") and self._touch(last, 1):
                last += 1
            else:
                break
        if not dashes:
            return None
        return self._dashed(at, last)

    def _dashed(self, at: int, last: int) -> Slip | None:
        words = self._text[self._tokens[at].start : self._tokens[last].end]
        root, _, rest = words.partition(".")
        field, _, key = rest.partition(".")
        if root in ("request", "response", "caller") and field in _MAPS:
            fix = f'{root}.{field}[?"{key.lower() if field == "headers" else key}"].orValue("")'
            return self._made(at, last, f"`{words}` is a subtraction to CEL", f"write `{fix}`")
        if root in ("counters", "variables", "params") and "-" in rest:
            fixed = f"{root}.{rest.replace('-', '_')}"
            return self._made(at, last, f"`{words}` is a subtraction to CEL", f"rename it: `{fixed}`, without dashes")
        if root in ("request", "response", "caller", "session", "now"):
            return None
        compared = self._is(at - 1, "=", "[", ",", "(", "in") or self._is(at - 1, "==", "!=")
        return self._made(at, last, f"`{words}` is no name", f'text needs quotes: "{words}"') if compared else None

    def _kind(self, at: int) -> str:
        token = self._token(at)
        return token.kind if token else ""

    def _touches(self, at: int) -> bool:
        before, token = self._token(at - 1), self._token(at)
        return before is not None and token is not None and before.end == token.start

    def _touch(self, at: int, count: int) -> bool:
        return all(self._touches(at + 1 + step) for step in range(count))

    # ---- numbers with units ----------------------------------------------------------------------------------------

    def _unit(self, at: int) -> Slip | None:
        """`1h`, `10k`, `1_000`, `5 USD`, `30 minutes`: the name right after a number."""
        before, token = self._token(at - 1), self._tokens[at]
        if before is None or before.kind not in ("int", "double") or token.text == "in":
            return None
        words = self._text[before.start : token.end]
        if token.text.startswith("_") or token.text.lower() in ("k", "mio", "b", "bn", "million", "thousand"):
            scaled = words.replace("thousand", "k").replace("million", "mio")
            return self._made(at - 1, at, f"`{words}` is no number", f"write {plain_number(scaled)}")
        if token.text.upper() in ("USD", "EUR", "DOLLARS", "CENTS", "TOKENS", "TOKEN", "REQUESTS", "CALLS", "PERCENT"):
            number = f"{float(before.text) / 100:g}" if token.text.upper() in ("PERCENT", "CENTS") else before.text
            return self._made(at - 1, at, f"`{words}` has a unit", f"a number in CEL has none: write {number}")
        if _UNITS.fullmatch(token.text):
            hint = f'write `duration("{seconds_text(words)}")`'
            return self._made(at - 1, at, f"`{words}` is no duration", hint)
        return None

    def _unquoted_number(self, at: int) -> Slip | None:
        """`1,000` cannot be told from two values; `08:00` can."""
        token = self._tokens[at]
        if token.kind == "int" and self._is(at + 1, ":") and self._kind(at + 2) == "int" and self._touch(at, 2):
            words = f"{token.text}:{self._tokens[at + 2].text}"
            return self._made(at, at + 2, f"`{words}` is no time", f"write `now.getHours() >= {int(token.text)}`")
        return None

    # ---- signs -----------------------------------------------------------------------------------------------------

    def _sign(self, at: int) -> Slip | None:
        here = self._tokens[at].start
        if at and self._tokens[at - 1].end == here and self._is(at - 1, "=", "!", "<", ">", "~", "-", "?", ":"):
            return None  # told of with the one before
        words = next((one for one in _SIGNS if self._text.startswith(one[0], here)), None)
        if words is None:
            return self._single(at)
        sign, meant = words
        last = at + len(sign) - 1
        if meant == "arrow":
            return self._made(at, last, f"`{sign}` is no operator of CEL", self._arrow(at, last))
        left = self._operands.text(self._operands.left(at))
        right = self._operands.text(self._operands.right(last))
        match meant:
            case "matches" | "!matches":
                bang = "!" if meant.startswith("!") else ""
                hint = f"write `{bang}{left}.matches({right})`"
            case "or":
                hint = f'write `{left}.orValue({right})` on an optional, as in `request.tags[?"x"].orValue({right})`'
            case _:
                hint = f"write {meant}"
        return self._made(at, last, f"`{sign}` is no operator of CEL", hint)

    def _arrow(self, at: int, last: int) -> str:
        """`list.any(x => test)` is `list.exists(x, test)`."""
        opening = at - 2 if self._is(at - 2, "(") else at - 3
        variable = self._token(at - 1) if opening == at - 2 else self._token(at - 2)
        name, dot = self._token(opening - 1), self._is(opening - 2, ".")
        if variable is None or name is None or not dot or variable.kind != "name":
            return 'write `list.exists(x, x.name == "…")`'
        macro = meant_function(name.text) or "exists"
        target = self._operands.text(self._operands.left(opening - 2))
        body = self._operands.text((last + 1, self._operands.closing(opening)))
        return f"write `{target}.{macro}({variable.text}, {body})`"

    def _single(self, at: int) -> Slip | None:
        text = self._tokens[at].text
        twice = self._is(at + 1, text) and self._touches(at + 1)
        before = self._is(at - 1, text, "!", "<", ">", "=") and self._touches(at)
        if text == "=" and not twice and not before:
            return self._made(at, at, "`=` has no meaning here", "equality is written `==`")
        if text in "&|" and not twice and not before:
            return self._made(at, at, f"`{text}` has no meaning here", f"write {text * 2}")
        if text == "~" and not before:
            left = self._operands.text(self._operands.left(at))
            right = self._operands.text(self._operands.right(at))
            return self._made(at, at, "`~` is no operator of CEL", f"write `{left}.matches({right})`")
        return None

    def _mark(self, at: int) -> Slip | None:
        token, after = self._tokens[at], self._token(at + 1)
        if token.text in _QUOTES:
            return self._made(at, at, f"`{token.text}` is no quotation mark of CEL", 'write straight quotes: "text"')
        if (
            token.text == "%"
            and self._kind(at - 1) in ("int", "double")
            and (after is None or not self._operand(at + 1))
        ):
            return self._percent(at)
        if token.text == "$":
            return self._made(at, at, "`$` has no meaning here", self._dollar(at))
        if token.text == "{" and self._is(at + 1, "{") and not self._value_before(at):
            return self._made(at, at, "`{{` has no meaning here", "write the expression without braces")
        if token.text == "@":
            return self._made(at, at, "`@` has no meaning here", "write the name without it")
        if token.text == ";":
            return self._made(at, at, "`;` has no meaning here", "write one expression; parts are joined with && or ||")
        if token.text == "/" and not self._value_before(at):
            return self._made(at, at, "`/…/` is no regular expression of CEL", 'write it as text: matches("…")')
        if token.text == "?" and self._is(at + 1, ".") and self._touches(at + 1):
            return self._made(at, at + 1, "`?.` is no operator of CEL", "write `.`: what was not sent reads as empty")
        if token.text == "#":
            return self._made(at, at, "`#` has no meaning here", "a comment in CEL begins with //; text needs quotes")
        if token.text == "*" and self._is(at - 1, "[") and self._is(at + 1, "]"):
            list_ = self._operands.text(self._operands.left(at - 1))
            field = self._token(at + 3)
            name = field.text if field is not None and field.kind == "name" else "name"
            return self._made(at, at, "`[*]` is no index of CEL", f"write `{list_}.exists(x, x.{name} == …)`")
        if token.text == "(" and self._is(at - 1, "in") and self._kind(at + 1) == "string":
            return self._made(at, at, "a list is written in brackets", 'write `in ["a", "b"]`')
        if token.text in "\"'":
            return self._broken_text(at)
        return None

    def _percent(self, at: int) -> Slip:
        """`x > 80%`: of a share, of a counter's limit, or of something that is not said."""
        number = float(self._tokens[at - 1].text) / 100
        sign = at - 2 if not self._is(at - 3, "<", ">", "=", "!") else at - 3
        left = self._operands.text(self._operands.left(sign))
        counter, _, field = left.rpartition(".")
        hint = f"a share is a number from 0 to 1: write {number:g}"
        if left.startswith("counters.") and field in ("value", "remaining", "held"):
            fix = f"{counter}.used > {1 - number if field == 'remaining' else number:g}"
            hint = f"write `{fix}`: `used` is the share of the limit"
        elif left.endswith(("tokens", "_usd", "_ms", "calls", "size()")):
            hint = f"a share of what? Write it out: `{left} > {number:g} * …`"
        return self._made(at, at, "`%` after a number is no percentage", hint)

    def _operand(self, at: int) -> bool:
        token = self._token(at)
        return token is not None and (token.kind != "mark" or token.text in ("(", "[", "-"))

    def _dollar(self, at: int) -> str:
        if self._kind(at + 1) in ("int", "double"):
            return f"a number in CEL has no unit: write {self._tokens[at + 1].text}"
        if self._is(at + 1, "{"):
            return "write the fact by itself, as in `request.model`; text with facts is joined with +"
        return "write the name without it"

    def _broken_text(self, at: int) -> Slip:
        start = self._tokens[at].start
        rest = self._text[start:]
        if found := re.match(r"""(["'])((?:(?!\1)[^\n])*\\[^\n]*?)\1""", rest):
            hint = "write a raw text, in which a backslash is itself: " + f"`r{found[1]}{found[2]}{found[1]}`"
            return Slip(start, len(self._text), "the text holds a backslash that CEL does not know", hint)
        return Slip(start, len(self._text), "a text that does not end", f"close it with {rest[0]}")
