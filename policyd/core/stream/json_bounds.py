"""How much one JSON document holds, told from its bytes before it is parsed: a parsed value takes up to a hundred times
the bytes that write it.

Rule 1: linear, and at most one copy of the document. A document shorter than the bounds is not looked at.
"""

from __future__ import annotations

import re

from policyd.core.errors import Malformed
from policyd.core.model.bounds import DEEPEST, Bounds

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # one that nothing ends reaches to the end
_USUAL = Bounds()
_BYTES = 8  # a number of so many bytes takes less memory than allowed for them


def check_size(data: bytes, bounds: Bounds) -> None:
    """Raises Malformed if the document holds more values than the bounds allow."""
    size, nodes = len(data), bounds.json_nodes
    numbers = max(bounds.json_numbers, size // _BYTES)
    if size <= min(nodes, numbers):
        return
    opens = data.count(b"{") + data.count(b"[")
    if opens + data.count(b'"') // 2 <= nodes and data.count(b",") < numbers:
        return
    strings = at = 0
    rest = bytearray()  # what stands between strings
    for found in _STRING.finditer(data):
        strings += 1
        if strings > nodes:
            raise Malformed(bounds.over("json_nodes"))
        rest += data[at : found.start()]
        at = found.end()
    rest += data[at:]
    bounds.check("json_nodes", strings + rest.count(b"{") + rest.count(b"["))
    if rest.count(b",") + 1 + rest.count(b":") - strings > numbers:
        raise Malformed(bounds.over("json_numbers"))


def check_text(text: str, bounds: Bounds = _USUAL) -> None:
    """As `check_size`, of JSON text within a string or an event."""
    if len(text) > bounds.json_nodes or len(text) > bounds.json_numbers:
        check_size(text.encode("utf-8", "surrogatepass"), bounds)


def check_depth(document: object, bounds: Bounds) -> None:
    """Raises Malformed if the document nests deeper than the bound, where that is lower than the parser's own."""
    if bounds.json_depth >= DEEPEST:
        return
    level: list[object] = [document]
    for _ in range(bounds.json_depth + 1):
        below = [one for one in level if isinstance(one, dict | list)]
        if not below:
            return
        level = [value for one in below for value in (one.values() if isinstance(one, dict) else one)]
    raise Malformed(bounds.over("json_depth"))
