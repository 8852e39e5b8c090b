"""YAML as plain data: what stands under a tag of Python's or Ruby's is read as the text, list or mapping that it is.

Rule 1: no object is ever constructed and nothing is imported: a tag only says how plain data was written down.
Rule 2: a text that looks like a date stays a text.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import yaml

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BINARY = ("!binary", "tag:yaml.org,2002:python/bytes")
_PICKLED = ("dictitems", "listitems", "state", "args")  # where pickled objects keep their data, the fullest first
_PAIRED = ("OrderedDict", "defaultdict", "Counter")


class PlainLoader(_BASE):  # type: ignore[misc]
    """A safe loader that refuses no tag."""


def _scalar(loader: Any, node: Any) -> object:
    text = loader.construct_scalar(node)
    if node.tag not in _BINARY:
        return text
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise yaml.constructor.ConstructorError(None, None, "broken base64", node.start_mark) from None


def _plain(loader: Any, node: Any) -> object:
    """The data of a node whose tag nobody constructs."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node)
    if isinstance(node, yaml.SequenceNode):
        return _unpacked(node.tag, loader.construct_sequence(node, deep=True))
    mapping: dict[object, object] = loader.construct_mapping(node, deep=True)
    if "python/object" in node.tag and mapping.keys() <= {*_PICKLED, "kwds"}:
        held = next((mapping[name] for name in _PICKLED if mapping.get(name)), {})
        return _unpacked(node.tag, held) if isinstance(held, list) else held
    return mapping


def _unpacked(tag: str, items: list[object]) -> object:
    """The arguments of a pickled mapping, which is built of pairs, as that mapping; of a wrapper of one value, that."""
    if not tag.startswith("tag:yaml.org,2002:python/object"):
        return items
    if len(items) == 1 and isinstance(items[0], list | dict | str | bytes):
        items = items[0]  # type: ignore[assignment]
    if tag.endswith(_PAIRED) and isinstance(items, list):
        pairs = [pair for pair in items if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)]
        if len(pairs) == len(items):
            return {str(name): value for name, value in pairs}
    return items


PlainLoader.add_constructor(None, _plain)
for _tag in _BINARY:
    PlainLoader.add_constructor(_tag, _scalar)
PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _scalar)
PlainLoader.add_constructor("tag:yaml.org,2002:value", _scalar)
