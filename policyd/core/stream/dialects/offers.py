"""Ways to tools that a request offers, and how the ones that are not permitted are taken out of it.

Rule 1: a tool that goes takes its list with it when nothing is left there.
Rule 2: a way to a tool that cannot be taken out refuses the call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from policyd.core.errors import Malformed
from policyd.core.model.facts import Tool
from policyd.core.model.tools import FUNCTION, HOSTED, MCP, Identity, kind_of, permitted, unversioned
from policyd.core.stream.dialects import Edit, Path, RequestChange
from policyd.core.stream.dialects.asking import at
from policyd.core.stream.dialects.shared import listing, mapping, text


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


def hosted(type_: str, path: Path | None, *more: str, name: str = "", holder: Path | None = None) -> Offer:
    """A tool that the provider defines."""
    kind = kind_of(type_)
    kind = HOSTED if kind in (FUNCTION, MCP) else kind
    aliases = tuple(one for one in (unversioned(type_), name, *more) if one and one != type_)
    return Offer(Tool(name or type_, kind), Identity(kind, (type_,), aliases), path, holder)


def mcp_server(item: Mapping[str, object], path: Path | None) -> Offer:
    """An MCP server: allowed by where it is, be it called what it may."""
    labels = [said for field in ("server_label", "name", "mcp_server_name") if (said := _string(item, field))]
    places = [said for field in ("server_url", "url", "connector_id") if (said := _string(item, field))]
    ids = tuple(place_of(one) for one in places) or ("",)
    aliases = (*labels, *places, *(host for one in places if (host := _host(one))))
    name = next((one for one in (*labels, *ids) if one), _string(item, "type"))
    return Offer(Tool(name, MCP), Identity(MCP, ids, aliases), path)


def place_of(url: str) -> str:
    """The host and path of a URL, as `mcp:` entries match them; what is no URL as it is."""
    parts = urlsplit(url if "//" in url else f"//{url}") if "." in url or "//" in url else None
    if parts is None:
        return url
    if "@" in parts.netloc or "\\" in url:
        return ""  # two readers could see two hosts
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _host(url: str) -> str:
    return place_of(url).partition("/")[0].partition(":")[0]


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
    for field, type_ in (("web_search_options", "web_search"), ("search_parameters", "live_search")):
        if (said := document.get(field)) is not None and not (isinstance(said, dict) and said.get("mode") == "off"):
            yield hosted(type_, (*below, field), field)
    if document.get("enable_search") not in (None, False):
        yield hosted("web_search", (*below, "enable_search"), "enable_search")
    for field, name in (("plugins", "id"), ("connectors", "id"), ("data_sources", "type")):
        for place, item in enumerate(listing(document.get(field), field)):
            yield hosted(_string(mapping(item, "a plugin"), name) or field, (*below, field, place), field)
    for place, item in enumerate(listing(document.get("mcp_servers"), "mcp_servers")):
        yield mcp_server(mapping(item, "an MCP server"), (*below, "mcp_servers", place))
    if (compound := document.get("compound_custom")) is not None:
        # Without it the model has all of its tools: no edit leaves it fewer.
        enabled = listing(at(compound, ("tools", "enabled_tools")), "enabled_tools")
        for one in enabled or [None]:
            yield hosted(text(one, "a tool") or "compound_custom", None, "compound_custom")


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
