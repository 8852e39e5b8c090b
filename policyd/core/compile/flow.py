"""Values of a document as YAML on one line, as a hint shows them."""

from __future__ import annotations

import json
import re

MAX_SHOWN = 80  # characters
_PLAIN = re.compile(r"[A-Za-z0-9$./][A-Za-z0-9 $_./%+-]*")
_OTHER = re.compile(r"true|false|null|yes|no|on|off|~|[-+]?[0-9.]+(?:e[0-9]+)?", re.IGNORECASE)


def flow(value: object) -> str:
    """The value in flow style; what is long is left out."""
    text = _flow(value)
    return text if len(text) <= MAX_SHOWN else "…"


def _flow(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(_flow(item) for item in value) + "]"
        case None | bool():
            return json.dumps(value)
        case str():
            plain = _PLAIN.fullmatch(value) and not _OTHER.fullmatch(value) and not value.endswith(" ")
            return value if plain else json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
