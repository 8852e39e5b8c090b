"""Syntax errors of an expression, in words; and the tokens that every explanation looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from policyd.core.compile.cel_operands import Operands
from policyd.core.compile.cel_tokens import Token, tokenize

MAX_DEPTH = 32  # of the parser: not ours to change


@dataclass(frozen=True, slots=True)
class Explained:
    """A complaint in the author's words; the offset is still one of the checked text."""

    offset: int
    code: str
    message: str
    hint: str = ""


class TextExplainer:
    """Explains what is wrong with the text itself."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._operands = Operands(text, self._tokens)
        self._index = {token.start: index for index, token in enumerate(self._tokens)}

    # ---- text ------------------------------------------------------------------------------------------------------

    def _reserved(self, offset: int, match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL001", f"`{match[1]}` is a reserved word of CEL", "use another name")

    def _deep(self, _offset: int, _match: re.Match[str]) -> Explained:
        hint = "parentheses, ternaries and each + or - of a chain count; split it, or move parts into variables"
        return Explained(0, "CEL006", f"nested deeper than {MAX_DEPTH} levels", hint)

    def _unrecognised(self, offset: int, _match: re.Match[str]) -> Explained:
        char = self._text[offset : offset + 1]
        label = "a text that does not end" if char in ("'", '"') else f"`{char}` has no meaning here"
        return Explained(offset, "CEL001", label, f"close it with {char}" if char in ("'", '"') else "")

    def _ended(self, _offset: int, _match: re.Match[str]) -> Explained:
        hint = "something is missing after this: a value, or a closing bracket"
        return Explained(len(self._text), "CEL001", "the expression ends too early", hint)

    def _unexpected(self, offset: int, match: re.Match[str]) -> Explained:
        word = match[1]
        if word.startswith("`"):
            return Explained(offset, "CEL001", f"{word} is no text", f'text needs straight quotes: "{word.strip("`")}"')
        if word in (")", "]", "}"):
            return Explained(
                offset, "CEL001", f"unexpected `{word}`", "remove it, or add what opens it, or a value before it"
            )
        before = self._token(self._index.get(offset, 0) - 1)
        token = self._at(offset)
        if before is not None and before.kind == "string" and token is not None and token.kind == "string":
            return Explained(offset, "CEL001", f"unexpected `{word}`", "a comma is missing before it")
        if before is not None and before.text not in ("(", "[", ",") and token is not None and token.kind != "mark":
            return Explained(
                offset, "CEL001", f"unexpected `{word}`", "an operator is missing before it: &&, ||, ==, in …"
            )
        return Explained(offset, "CEL001", f"unexpected `{word}`", "a value is missing before it")

    def _missing(self, offset: int, match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL001", f"missing `{match[1]}`", f"add `{match[1]}`")

    def _has(self, offset: int, _match: re.Match[str]) -> Explained:
        before = self._operands.left(self._index.get(offset, -1))
        bracket = self._token(self._index.get(offset, -3) + 1)
        if before and bracket is not None and bracket.kind == "string":
            hint = f"write `{bracket.text} in {self._operands.text(before)}`"
            return Explained(offset, "CEL010", "has() takes a field, not an entry in brackets", hint)
        hint = 'write `has(request.max_tokens)`, or `"name" in request.headers` of a map'
        return Explained(offset, "CEL010", "has() takes a field, as in has(request.max_tokens)", hint)

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def _token(self, index: int) -> Token | None:
        return self._operands.token(index)

    def _at(self, offset: int) -> Token | None:
        index = self._index.get(offset)
        return None if index is None else self._tokens[index]

    def _after(self, offset: int) -> int:
        index = self._index.get(offset, -2) + 1
        return self._tokens[index].start if 0 < index < len(self._tokens) else offset

    def _name_before(self, offset: int) -> int:
        index = self._index.get(offset, 0)
        return self._tokens[index - 1].start if index and self._tokens[index].text == "(" else offset
