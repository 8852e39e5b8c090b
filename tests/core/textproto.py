"""Just enough of protobuf's text format to read conformance cases without their descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<url>\[[\w.]+/[\w.]+\])
    |(?P<word>[-+]?[\w.+-]+)
    |(?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


@dataclass(slots=True)
class Text:
    """A message: its fields in order, values being words, bytes (quoted text) or messages."""

    fields: list[tuple[str, str | bytes | Text]] = field(default_factory=list)

    def all(self, name: str) -> list[str | bytes | Text]:
        return [value for key, value in self.fields if key == name]

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    def messages(self, name: str) -> list[Text]:
        return [value for value in self.all(name) if isinstance(value, Text)]

    def message(self, name: str) -> Text:
        return next(iter(self.messages(name)), Text())

    def word(self, name: str, default: str = "") -> str:
        value = next(iter(self.all(name)), default)
        return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else default


def parse(text: str) -> Text:
    tokens = [(match.lastgroup, match[match.lastgroup]) for match in _TOKEN.finditer(text) if match.lastgroup]
    return _message(iter([*tokens, ("mark", "}")]))


def _message(tokens: Iterator[tuple[str, str]]) -> Text:
    made = Text()
    pending: list[tuple[str, str]] = []

    def take() -> tuple[str, str]:
        return pending.pop() if pending else next(tokens)

    while True:
        kind, name = take()
        if (kind, name) in (("mark", "}"), ("mark", ">")):
            return made
        if kind == "mark":
            continue
        following = take()
        if following == ("mark", ":"):
            following = take()
        if following in (("mark", "{"), ("mark", "<")):
            made.fields.append((name, _message(tokens)))
        elif following == ("mark", "["):
            made.fields += [(name, item) for item in _list(tokens)]
        elif following[0] == "string":
            value = _unescaped(following[1])
            following = take()
            while following[0] == "string":
                value += _unescaped(following[1])
                following = take()
            pending.append(following)
            made.fields.append((name, value))
        else:
            made.fields.append((name, following[1]))


def _list(tokens: Iterator[tuple[str, str]]) -> Iterator[str | bytes | Text]:
    for kind, text in tokens:
        match kind, text:
            case "mark", "]":
                return
            case "mark", "{":
                yield _message(tokens)
            case "string", _:
                yield _unescaped(text)
            case "word", _:
                yield text


def _unescaped(literal: str) -> bytes:
    return _ESCAPE.sub(_replaced, literal[1:-1].encode())


def _replaced(match: re.Match[bytes]) -> bytes:
    hexadecimal, octal, short, long, char = match.groups()
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if octal:
        return bytes([int(octal, 8) & 255])
    if short or long:
        return chr(int(short or long, 16)).encode()
    return _SIMPLE.get(char, char)
