"""Paths, as a server would read them.

Rule 1: what a dialect reads from a path it reads from the resolved one, whose cases stay as they were sent.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote


@lru_cache(maxsize=1024)
def resolve(path: str) -> str:
    """The path as a server would resolve it, without its query."""
    path = path.partition("?")[0].partition("#")[0]
    for _ in range(3):  # decoded more than once by servers in a row
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    out: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        step = part.partition(";")[0].strip()
        if step == "..":
            del out[-1:]
        elif step not in ("", "."):
            out.append(step)
    return "/" + "/".join(out)
