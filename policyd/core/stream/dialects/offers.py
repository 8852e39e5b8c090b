"""Ways to tools that a request offers, and how the ones that are not permitted are taken out of it.

Rule 1: a tool that goes takes its list with it when nothing is left there.
Rule 2: a way to a tool that cannot be taken out refuses the call, and so does an MCP server at an ambiguous place where
        a rule is about places.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policyd.core.errors import Malformed
from policyd.core.model.facts import Tool
from policyd.core.model.mcp_places import host_of, place_of
from policyd.core.model.tools import FUNCTION, HOSTED, MCP, Identity, decidable, kind_of, permitted, unversioned
from policyd.core.stream.dialects import Edit, Path, RequestChange
from policyd.core.stream.dialects.asking import at
from policyd.core.stream.dialects.shared import listing, mapping, text


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What the definition of an MCP server says beside where the server is.
_NO_PLACE = _words(
    """type serverlabel name mcpservername serverdescription description title authorization authorizationtoken headers
    allowedtools requireapproval toolconfiguration defaultconfig configs cachecontrol allowedcallers deferloading
    timeout ssereadtimeout"""
)
_OFF = (None, False, "", "off", "none", "disabled", "false", "never")
# Fields that make a model search, as their names are without underscores and case.
_SEARCHES = re.compile(
    r"(?:enable|use|force)?(?:web|live|online|internet)search(?:options|enabled|enhancement)?|(?:enable|use|force)search(?:enhancement)?"
)
# Objects whose members some gateways read as if they stood at the top.
_WRAPPERS = _words(
    """extrabody additionalmodelrequestfields provideroptions extraparams litellmparams optionalparams modelkwargs
    veniceparameters"""
)
_DEPTH = 4  # of objects in a wrapper


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to a tool. `path`: what goes with it; None: it cannot be taken out. `holder`: what goes with the last of
    the offers in it."""

    tool: Tool
    identity: Identity
    path: Path | None
    holder: Path | None = None


def function(name: str, path: Path | None, *more: str, holder: Path | None = None) -> Offer:
    """A function that the caller carries out; `more`: other names that a server may read as its name."""
    ids = tuple(dict.fromkeys((name, *more)))
    return Offer(Tool(name), Identity(FUNCTION, ids), path, holder)


def hosted(
    type_: str, path: Path | None, *more: str, name: str = "", holder: Path | None = None, kind: str = ""
) -> Offer:
    """A tool that the provider defines."""
    kind = kind or kind_of(type_)
    kind = HOSTED if kind in (FUNCTION, MCP) else kind
    aliases = tuple(one for one in (unversioned(type_), name, *more) if one and one != type_)
    return Offer(Tool(name or type_, kind), Identity(kind, (type_,), aliases), path, holder)


def mcp_server(item: Mapping[str, object], path: Path | None) -> Offer:
    """An MCP server: allowed by where it is, be it called what it may. Every way to it counts, also an unknown one."""
    labels = [said for field in ("server_label", "name", "mcp_server_name") if (said := _string(item, field))]
    urls = list(_ways(item))
    places = [place_of(url) for url in urls]
    ids = tuple(dict.fromkeys(place or "" for place in places)) or ("",)
    hosts = [host for place in places if place and (host := host_of(place))]
    name = next((one for one in (*labels, *ids) if one), _string(item, "type"))
    identity = Identity(MCP, ids, (*labels, *urls, *hosts), ambiguous=None in places)
    return Offer(Tool(name, MCP), identity, path)


def _ways(item: Mapping[str, object]) -> Iterator[str]:
    """Every string of a server's definition that may say where it is."""
    for field, value in item.items():
        if field.replace("_", "").casefold() not in _NO_PLACE:
            yield from ((value,) if value else ()) if isinstance(value, str) else _nested(value)


def _nested(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _ways(value)
    elif isinstance(value, list):
        for one in value:
            yield from (one,) if isinstance(one, str) and one else _nested(one)


def _string(item: Mapping[str, object], field: str) -> str:
    return text(item.get(field), field) or ""


# ---- tools as OpenAI and many others write them ----------------------------------------------------------------------


def openai_tool(tool: object, path: Path, holder: Path | None = None) -> Offer:
    """One element of `tools`: a function by its name, any other by its type."""
    item = mapping(tool, "a tool")
    kind = _string(item, "type")
    if kind == "mcp":
        return mcp_server(item, path)
    inner = [mapping(item[field], "a tool") for field in ("function", "custom") if item.get(field) is not None]
    names = [_string(one, "name") for one in (*inner, item) if one.get("name") is not None]
    if kind == "builtin_function" and names:  # Moonshot's: the provider's own tool, which goes by a name
        return hosted(names[0], path, kind, *names[1:], name=names[0], holder=holder)
    if kind == "" and not names and item:  # Google's: `{"google_search": {}}`
        first, *others = sorted(item, key=lambda field: kind_of(field) in (HOSTED, FUNCTION))
        return hosted(first, path, *others, holder=holder)
    if kind in ("", "function", "custom"):
        return function(names[0] if names else kind, path, *names[1:], holder=holder)
    return hosted(kind, path, *names, name=names[0] if names else "", holder=holder)


def openai_tools(document: Mapping[str, object], *fields: str, below: Path = ()) -> list[Offer]:
    """The elements of these lists."""
    return [
        openai_tool(tool, (*below, field, place))
        for field in fields
        for place, tool in enumerate(listing(document.get(field), field))
    ]


def side_doors(document: Mapping[str, object], below: Path = ()) -> Iterator[Offer]:
    """Ways to tools beside the list of tools, of whichever provider: an unknown one ignores them."""
    for field, value in document.items():
        plain = field.replace("_", "").casefold()
        if plain == "searchparameters" and not _is_off(value):
            yield hosted("live_search", (*below, field), field)
        elif _SEARCHES.fullmatch(plain) and not _is_off(value):
            yield hosted("web_search", (*below, field), field)
        elif plain in _WRAPPERS and isinstance(value, dict):
            yield from _wrapped(value, (*below, field))
    for field, name in (("plugins", "id"), ("connectors", "id"), ("data_sources", "type")):
        for place, item in enumerate(listing(document.get(field), field)):
            yield from _plugin(item, name, (*below, field, place))
    for place, item in enumerate(listing(document.get("mcp_servers"), "mcp_servers")):
        yield mcp_server(mapping(item, "an MCP server"), (*below, "mcp_servers", place))
    if any(map(_is_online, _models(document))):  # OpenRouter's: no edit of a list takes it away
        yield hosted("web_search", None, "online", ":online")
    if (compound := document.get("compound_custom")) is not None:
        # Without it the model has all of its tools: no edit leaves it fewer.
        enabled = listing(at(compound, ("tools", "enabled_tools")), "enabled_tools")
        for one in enabled or [None]:
            yield hosted(text(one, "a tool") or "compound_custom", None, "compound_custom")


def _is_off(value: object) -> bool:
    """Whether a field that could make a model search says that it shall not."""
    if isinstance(value, dict):
        return any(field in value and _is_off(value[field]) for field in ("mode", "enable", "enabled"))
    return isinstance(value, str | bool | None) and (value.casefold() if isinstance(value, str) else value) in _OFF


def _plugin(item: object, name: str, path: Path) -> Iterator[Offer]:
    """A plugin, a connector or a source of data."""
    field = str(path[-2])
    type_ = item if isinstance(item, str) else _string(mapping(item, "a plugin"), name)
    searches = field == "plugins" and type_.casefold() in ("web", "exa", "browser")
    yield hosted(type_ or field, path, field, kind="search" if searches else "")


def _models(document: Mapping[str, object]) -> Iterator[str]:
    for field in ("model", "models", "fallbacks", "fallback_models"):
        value = document.get(field)
        for one in value if isinstance(value, list) else [value]:
            named = one.get("model") if isinstance(one, dict) else one
            if isinstance(named, str):
                yield named


def _is_online(model: str) -> bool:
    """Whether the model's name asks for a web search beside it."""
    return "online" in (part.strip() for part in model.casefold().split(":")[1:])


def _wrapped(document: Mapping[str, object], below: Path, depth: int = _DEPTH) -> Iterator[Offer]:
    """What a wrapper, or an object in it, offers."""
    try:
        found = [*openai_tools(document, "tools", "functions", below=below), *side_doors(document, below)]
    except Malformed:  # what is called so here is something else, or written otherwise
        found = [hosted(str(below[0]), None)]
    yield from found
    for field, value in document.items():
        if isinstance(value, dict) and depth and field.replace("_", "").casefold() not in _WRAPPERS:
            yield from _wrapped(value, (*below, field), depth - 1)


# ---- taking away -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Removal:
    """What `tools` takes out of a request. `gone`: the names of what goes; `stay`: the offers that stay."""

    edits: Sequence[Edit] = ()
    gone: frozenset[str] = frozenset()
    stay: Sequence[Offer] = ()
    emptied: frozenset[Path] = frozenset()  # lists that go as a whole

    def left(self, *fields: str) -> bool:
        """Whether a tool stays in one of these fields."""
        return any(one.path is not None and one.path[0] in fields for one in self.stay)


def removal(document: object, offers: Sequence[Offer], change: RequestChange, *, keep: str = "") -> Removal:
    """The edits that leave only permitted tools. `keep`: lists in this field stay when they are empty. Raises Malformed
    where one cannot be taken out."""
    if not change.tools_allow and not change.tools_deny:
        return Removal(stay=offers)
    if not all(decidable(one.identity, change.tools_allow, change.tools_deny) for one in offers):
        raise Malformed("the url of an MCP server can be read in more than one way")
    verdicts = [permitted(one.identity, change.tools_allow, change.tools_deny) for one in offers]
    stay = [one for one, may in zip(offers, verdicts, strict=True) if may]
    gone = [one for one, may in zip(offers, verdicts, strict=True) if not may]
    if any(one.path is None for one in gone):
        raise Malformed("a tool that is not allowed cannot be taken out of this request")
    held = {one.holder for one in stay}
    drop = {one.holder if one.holder and one.holder not in held else one.path for one in gone}
    emptied = _emptied(document, {path for path in drop if path is not None}, keep)
    paths = {path for path in drop if path is not None and path[:-1] not in emptied} | emptied
    edits = [Edit(path, remove=True) for path in sorted(paths, key=_order, reverse=True)]
    names = frozenset(name for one in gone for name in (one.tool.name, *one.identity.names))
    return Removal(edits, names, stay, emptied)


def _emptied(document: object, drop: set[Path], keep: str) -> frozenset[Path]:
    """The lists whose every element goes."""
    counts = Counter(path[:-1] for path in drop if isinstance(path[-1], int) and path[0] != keep)
    return frozenset(path for path, count in counts.items() if len(listing(at(document, path), "a list")) == count)


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    """The last element of a list is taken away first, so that no index moves before it is used."""
    return tuple((step, "") if isinstance(step, int) else (0, step) for step in path)


def without_tools(
    document: object, offers: Sequence[Offer], change: RequestChange, *, field: str = "tools", choice: str = ""
) -> list[Edit]:
    """The edits, for a dialect that keeps its tools in one list; with the last of them, the choice goes too."""
    took = removal(document, offers, change)
    gone = choice and took.gone and not took.left(field)
    return [*took.edits, *([Edit((choice,), remove=True)] if gone else [])]
