"""Kinds of tools, and which tools `tools: {allow, deny}` permits.

Rule 1: a function goes by its name, which the caller's own code carries out. A tool that the provider defines goes by
        its type, an MCP server by its URL or connector: their names are the caller's choice, and allow nothing.
Rule 2: an entry of `allow` without a kind is a glob over the names of functions, or the exact type of a hosted tool. An
        entry of `deny` without a kind is a glob over every name that a tool goes by.
Rule 3: an entry `KIND:GLOB` is about tools of that kind; `hosted:` means every tool but functions and MCP servers.
Rule 4: a server whose place is ambiguous cannot be decided by entries about places, be it to allow or to deny.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policyd.core.model.globs import glob_matches

FUNCTION, HOSTED, MCP = "function", "hosted", "mcp"
KINDS = (FUNCTION, HOSTED, MCP, "search", "shell", "computer", "editor")

_BY_TYPE = (
    ("mcp", MCP),
    ("shell", "shell"),
    ("bash", "shell"),
    ("computer", "computer"),
    ("search", "search"),
    ("retrieval", "search"),
    ("maps", "search"),
    ("editor", "editor"),
    ("apply_patch", "editor"),
)
_VERSION = re.compile(r"(?:_preview)?(?:_\d{8}|_\d{4}_\d\d_\d\d)?$")


def kind_of(type_: str) -> str:
    """The kind of a tool or a tool call, by the type that a provider gives it."""
    plain = type_.lower()
    if plain in ("", "function", "custom", "function_call", "custom_tool_call", "tool_use"):
        return FUNCTION
    return next((kind for part, kind in _BY_TYPE if part in plain), HOSTED)


def unversioned(type_: str) -> str:
    """A tool's type without its version: `web_search` of `web_search_20250305`."""
    return _VERSION.sub("", type_)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a tool goes by. `ids`: each must be allowed. `aliases`: further names that deny it. `ambiguous`: an MCP
    server whose place can be read in more than one way."""

    kind: str
    ids: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    ambiguous: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it goes by."""
        return (*self.ids, *self.aliases)


def permitted(tool: Identity, allow: Sequence[frozenset[str]], deny: Iterable[str]) -> bool:
    """Whether every one of these lists allows the tool, and none of these entries denies it."""
    if any(_denies(entry, tool) for entry in deny):
        return False
    return all(all(any(_allows(entry, tool, id_) for entry in listed) for id_ in tool.ids) for listed in allow)


def decidable(tool: Identity, allow: Iterable[frozenset[str]], deny: Iterable[str]) -> bool:
    """Whether these entries can decide about the tool: none is about places where its own is ambiguous."""
    if not tool.ambiguous:
        return True
    placed = any(_is_about_places(entry) for listed in allow for entry in listed)
    return not placed and not any(_is_about_places(entry) or _may_name_a_host(entry) for entry in deny)


def _is_about_places(entry: str) -> bool:
    kind, glob = _split(entry)
    return kind == MCP and glob != "*"


def _may_name_a_host(entry: str) -> bool:
    return not _split(entry)[0] and "." in entry


def _split(entry: str) -> tuple[str, str]:
    """(kind, glob) of an entry; no kind for one that names none."""
    kind, colon, glob = entry.partition(":")
    return (kind, glob) if colon and kind in KINDS else ("", entry)


def _is_of(tool: Identity, kind: str) -> bool:
    return tool.kind == kind or (kind == HOSTED and tool.kind not in (FUNCTION, MCP))


def _allows(entry: str, tool: Identity, id_: str) -> bool:
    kind, glob = _split(entry)
    if kind == MCP and "/" not in glob:
        id_ = id_.partition("/")[0]  # a server by its host, whatever the path
    if kind:
        return _is_of(tool, kind) and bool(glob_matches(glob)(id_))
    if tool.kind == FUNCTION:
        return bool(glob_matches(glob)(id_))
    return tool.kind != MCP and entry == id_


def _denies(entry: str, tool: Identity) -> bool:
    kind, glob = _split(entry)
    return (not kind or _is_of(tool, kind)) and any(glob_matches(glob)(name) for name in tool.names)
