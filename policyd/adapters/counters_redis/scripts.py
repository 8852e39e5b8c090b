"""The scripts that ship in this package, and the name that Redis gives each."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script; Redis knows it by the SHA-1 of its text."""

    name: str
    text: str
    sha: str


def _load(name: str) -> Script:
    folder = files(__package__)
    text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("lib", name))
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = {name: _load(name) for name in ("hold", "settle", "read", "undo")}
