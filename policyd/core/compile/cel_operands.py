"""The operands of an operator, as the author wrote them: slices of the text, found by its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.cel_tokens import Token

MAX_SHOWN = 90  # characters
_CLOSING = {")": "(", "]": "[", "}": "{"}
_OPENING = frozenset(_CLOSING.values())
_VALUES = frozenset(("name", "string", "int", "uint", "double"))


class Operands:
    """Finds operands in one text."""

    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self._text, self._tokens = text, tokens
        self._index = {token.start: index for index, token in enumerate(tokens)}

    def index(self, offset: int) -> int:
        """The token that begins at an offset; -1 for none."""
        return self._index.get(offset, -1)

    def token(self, index: int) -> Token | None:
        return self._tokens[index] if 0 <= index < len(self._tokens) else None

    def left(self, index: int) -> tuple[int, int] | None:
        """The tokens (first, one after the last) of the value that ends before the token at `index`."""
        at = index - 1
        while (token := self.token(at)) is not None:
            if token.kind == "mark" and token.text in _CLOSING:
                at = self._opening(at)
                before = self.token(at - 1)
                if at >= 0 and before is not None and token.text != "}" and _goes_on(before):
                    at -= 1  # what is called, or read in brackets
                    continue
            elif token.kind not in _VALUES:
                return None
            before = self.token(at - 1)
            if at < 0 or before is None or before.kind != "mark" or before.text != ".":
                return (at, index) if at >= 0 else None
            at -= 2
        return None

    def _opening(self, at: int) -> int:
        level = 0
        for index in range(at, -1, -1):
            token = self._tokens[index]
            if token.kind == "mark":
                level += (token.text in _CLOSING) - (token.text in _OPENING)
                if level == 0:
                    return index
        return -1

    def closing(self, at: int) -> int:
        """The token that closes the bracket at `at`; the last one when none does."""
        level = 0
        for index in range(at, len(self._tokens)):
            token = self._tokens[index]
            if token.kind == "mark":
                level += (token.text in _OPENING) - (token.text in _CLOSING)
                if level == 0:
                    return index
        return len(self._tokens) - 1

    def right(self, index: int) -> tuple[int, int] | None:
        """The tokens of the value that begins after the token at `index`."""
        at = index + 1
        while (token := self.token(at)) is not None and token.text in ("-", "!") and token.kind == "mark":
            at += 1
        token = self.token(at)
        if token is None:
            return None
        if token.text in _OPENING and token.kind == "mark":
            return index + 1, self.postfix(self.closing(at) + 1)
        return (index + 1, self.postfix(at + 1)) if token.kind in _VALUES else None

    def postfix(self, at: int) -> int:
        """Where what goes on with dots, calls and brackets from the token at `at` ends."""
        while (token := self.token(at)) is not None and token.kind == "mark":
            following = self.token(at + 1)
            if token.text in ("(", "["):
                at = self.closing(at) + 1
            elif token.text == "." and following is not None and following.kind == "name":
                at += 2
            else:
                break
        return at

    def text(self, span: tuple[int, int] | None) -> str:
        """The text of a span of tokens, on one line; `…` where it is too long."""
        if span is None or span[0] >= span[1]:
            return "…"
        words = self._text[self._tokens[span[0]].start : self._tokens[span[1] - 1].end]
        words = " ".join(words.split())
        return words if len(words) <= MAX_SHOWN else "…"


def _goes_on(token: Token) -> bool:
    """Whether brackets after this token belong to it."""
    return (token.kind == "name" and token.text != "in") or (token.kind == "mark" and token.text in (")", "]"))
