"""Values as CEL literals, and integer literals as doubles.

Rule 1: a parameter is inlined as a typed literal; a map's keys are strings, and nothing is null.
"""

from __future__ import annotations

from collections.abc import Mapping

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
INT64 = range(-(2**63), 2**63)


class NoLiteral(Exception):  # noqa: N818
    """A value that CEL has no literal for."""


def literal(value: object, *, doubles: bool = False) -> str:
    """The value as CEL text; `doubles` writes its integers as doubles."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return _integer(value, doubles)
        case float():
            return _signed(_double(value))
        case str():
            return quoted(value)
        case list() | tuple():
            return "[" + ", ".join(literal(item, doubles=doubles) for item in value) + "]"
        case Mapping():
            return "{" + ", ".join(_entry(key, item, doubles) for key, item in value.items()) + "}"
        case None:
            raise NoLiteral("a parameter cannot be null")
        case _:
            raise NoLiteral(f"a parameter cannot be a {type(value).__name__}")


def quoted(text: str) -> str:
    """A CEL string literal."""
    return '"' + "".join(_ESCAPES.get(char, char) if char.isprintable() else _escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        raise NoLiteral("a parameter cannot hold half of a surrogate pair")
    return f"\\U{code:08x}"


def _entry(key: object, value: object, doubles: bool) -> str:
    if not isinstance(key, str):
        raise NoLiteral("the keys of a map parameter must be strings")
    return f"{quoted(key)}: {literal(value, doubles=doubles)}"


def _integer(value: int, doubles: bool) -> str:
    if value not in INT64:
        raise NoLiteral("an integer parameter must fit into 64 bits")
    return _signed(_double(float(value)) if doubles else str(value))


def _double(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise NoLiteral("a number parameter must be finite")
    text = repr(value)
    return text if "." in text or "e" in text else text + ".0"


def _signed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def as_double(token: str) -> str:
    """An integer literal's text as a double's."""
    return f"{int(token, 16)}.0" if token.startswith("0x") else f"{token}.0"
