"""Globs and SQL patterns, as CEL says them."""

from __future__ import annotations

import re

from policyd.core.compile.cel_literals import quoted

_ANY = re.compile(r"[*%]+")


def glob_fix(subject: str, text: str) -> str:
    """`request.model.startsWith("gpt-4")` for `gpt-4*`."""
    parts = _ANY.split(text)
    plain = [part for part in parts if part]
    if len(plain) == 1 and not re.search(r"[?\[]", plain[0]):
        match parts:
            case [first, ""] if first:
                return f"{subject}.startsWith({quoted(first)})"
            case ["", last] if last:
                return f"{subject}.endsWith({quoted(last)})"
            case ["", middle, ""]:
                return f"{subject}.contains({quoted(middle)})"
            case _:
                return f"{subject} == {quoted(plain[0])}"
    pattern = ".*".join(re.escape(part).replace("\\-", "-").replace("\\?", ".") for part in parts)
    return f"{subject}.matches({raw(f'^{pattern}$')})"


def raw(text: str) -> str:
    """A text with its backslashes as they are."""
    return f'r"{text}"' if "\\" in text and '"' not in text else quoted(text)
