"""Globs over a whole string: `*` any run of characters, `?` one, all else itself, case-sensitive."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache


@lru_cache(16_384)  # a set of ten thousand policies is indexed anew with every change of one
def glob_matches(pattern: str) -> Callable[[str], object]:
    """A matcher of a whole string."""
    first, *others = [_literal(part) for part in pattern.split("*")]
    if not others:
        return re.compile(first, re.DOTALL).fullmatch
    *middle, last = others
    # Each middle part is taken where it first occurs and never again (an atomic group): a glob needs no more, and a
    # hostile one costs no more than its length times the text's.
    between = "".join(f"(?>.*?{part})" for part in middle if part)
    return re.compile(f"{first}{between}.*{last}", re.DOTALL).fullmatch


def _literal(part: str) -> str:
    return ".".join(re.escape(run) for run in part.split("?"))
