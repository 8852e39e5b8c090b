"""One event with other data in it: every byte that is not data stays as it came."""

from __future__ import annotations

import re
from collections.abc import Sequence

from policyd.core.stream import json_text
from policyd.core.stream.dialects import Edit, Path

_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_DATA = re.compile(rb"((?:\xef\xbb\xbf)?data: ?)([^\r\n]*)(\r\n|\n|\r|\Z)")


def edit_event(raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
    """The raw bytes of one event whose data is a JSON document, with these texts at these paths.

    Raises Malformed when a path is not there.
    """
    lines = [line for line in _LINES.findall(raw) if line]
    found = [(index, parts) for index, line in enumerate(lines) if (parts := _DATA.fullmatch(line))]
    data = b"\n".join(parts[2] for _, parts in found)
    spliced = json_text.splice(data, [Edit(path, text) for path, text in edits]).split(b"\n")
    for place, (index, parts) in enumerate(found):
        lines[index] = parts[1] + spliced[place] + parts[3]
    return b"".join(lines)
