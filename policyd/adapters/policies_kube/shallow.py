"""JSON of any depth from the API server, which takes ten thousand levels, as data that nothing here stumbles over.

Rule 1: what is nested deeper than any policy may be is cut off below that; what is left is still too deep for a
        policy, so the compiler refuses that one object, and its neighbours in the same list are read.
"""

from __future__ import annotations

import re
from typing import Any

import jiter

DEEPEST = 160  # levels that are kept; the compiler takes 64 of a policy, the parser 200 of anything
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def loads(data: bytes) -> Any:
    """The data. Raises ValueError where it is no JSON."""
    try:
        return jiter.from_json(data)
    except ValueError as error:
        if "recursion limit" not in str(error):
            raise
    return jiter.from_json(_cut(data))


def _cut(data: bytes) -> bytes:
    """The same without what stands below `DEEPEST` levels: lists and objects there are null."""
    kept: list[bytes] = []
    level = begun = 0
    for found in _MARKS.finditer(data):
        match found[0]:
            case b"[" | b"{":
                level += 1
                if level == DEEPEST + 1:
                    kept += [data[begun : found.start()], b"null"]
            case b"]" | b"}":
                if level == DEEPEST + 1:
                    begun = found.end()
                level -= 1
            case _:
                pass
    return b"".join((*kept, data[begun:]))
