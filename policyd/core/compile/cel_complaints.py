"""What the checker says, taken apart: its errors, their places, the types and operators in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from policyd.core.compile.cel_facts import PACKAGE, ROOTS
from policyd.core.compile.cel_tokens import offset_of


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of the checker: an offset in the text it saw, and its message."""

    offset: int
    message: str


_BLOCK = re.compile(r"^(?:[A-Z_]+: )?ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?: \[[A-Z_]+\])?$", re.MULTILINE)


def complaints(text: str, words: str) -> list[Complaint]:
    """Every error in the checker's answer, with its place."""
    found = [Complaint(offset_of(text, int(match[1]), int(match[2])), match[3]) for match in _BLOCK.finditer(words)]
    return list(dict.fromkeys(found)) or [Complaint(0, words.partition("\n")[0])]


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"


def split_types(text: str) -> list[str]:
    """The types of a signature: `double, map(string, int)` are two."""
    parts, level, start = [], 0, 0
    for index, char in enumerate(text):
        level += (char == "(") - (char == ")")
        if char == "," and level == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def type_name(name: str) -> str:
    name = name.replace(f"{PACKAGE}.", "").replace("google.protobuf.", "").replace("optional_type(", "optional(")
    return name.lower() if name in (*(root.title() for root in ROOTS), "Counter") else name


def spaced(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def operator(function: str) -> str | None:
    """How an operator is written; None for a function."""
    known = {"_?_:_": "?:", "_[_]": "[]", "@in": "in", "_[?_]": "[?]", "_?._": ".?", "!_": "!", "-_": "-"}
    match = re.fullmatch(r"_(\W+)_", function)
    return known.get(function) or (match[1] if match else None)


def plain(message: str) -> str:
    """The checker's sentence as one of ours."""
    text = message.removeprefix("Syntax error: ").replace(f"{PACKAGE}.", "").strip().rstrip(".")
    return text[:1].lower() + text[1:]
