"""Which models a request can make the provider run, and where in a path a model stands.

Rule 1: the model that serves is the one that the provider reads: a deployment or model in the path wins over the body.
Rule 2: every other place that names a model counts, too: fallback lists, routers, plugins, tools, the calls of a batch.
        Content is no such place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qsl

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.model.paths import quoted
from policyd.core.stream.dialects import Edit, Path

MOST = 256  # models of one request

_IN_PATH = (
    re.compile(r"(?:^|/)(?:deployments|engines)/(?P<model>[^/]+)/", re.IGNORECASE),
    re.compile(r"(?:^|/)model/(?P<model>.+)/(?:converse|invoke|count-tokens)[^/]*$", re.IGNORECASE),
    re.compile(r"/(?:models|tunedmodels|endpoints)/(?P<model>[^/]+?)(?::|%3A)[a-z]+$", re.IGNORECASE),
)
_IN_QUERY = ("model", "deployment")  # of realtime sessions

_ONE = frozenset({"model", "fallback_model", "fallbackmodel", "model_name", "modelid", "model_id"})
_MANY = frozenset(
    {
        "models",
        "fallbacks",
        "fallback_models",
        "default_fallbacks",
        "context_window_fallbacks",
        "content_policy_fallbacks",
        "context_window_fallback_dict",
        "allowed_models",
        "model_list",
        "route",
        "routes",
    }
)
_FALLBACKS = _MANY | (_ONE - {"model"})
_WAYS = frozenset({"fallback", "sort", "auto", "default", "latency", "cost"})  # of OpenRouter's `route`: no model
_CONTENT = frozenset(
    {
        "messages",
        "input",
        "inputs",
        "prompt",
        "system",
        "contents",
        "systeminstruction",
        "system_instruction",
        "content",
        "parts",
        "metadata",
        "parameters",
        "input_schema",
        "inputschema",
        "function",
        "functions",
        "response_format",
        "documents",
        "instructions",
        "arguments",
        "user",
    }
)


def model_in_path(path: str) -> str:
    """The model or deployment that a normal path names; empty where it names none."""
    return next((found["model"] for place in _IN_PATH if (found := place.search(path))), "")


def with_model(sent: str, model: str) -> str:
    """The path (in its normal encoding, with its query) with another model; empty where the path names none."""
    path, mark, query = sent.partition("?")
    for place in _IN_PATH:
        if found := place.search(path):
            start, end = found.span("model")
            return f"{path[:start]}{quoted(_bare(model)).replace(':', '%3A')}{path[end:]}{mark}{query}"
    return ""


def model_in_query(query: str) -> str:
    """The model that the query of a realtime session names."""
    named = dict(parse_qsl(query))
    return next((named[name] for name in _IN_QUERY if named.get(name)), "")


def models_of(document: object, facts: RequestFacts) -> list[str]:
    """Every model of a request, the one that serves first. Raises Malformed for too many."""
    if facts.dialect == "mcp":
        return []
    serving = facts.model or ""
    found = {serving: None} if serving else {}
    fixed = bool(model_in_path(facts.path))
    for path, name in _named(document):
        if not name or (fixed and path == ("model",)):  # the provider does not read it
            continue
        if _bare(name) != _bare(serving):
            found[_bare(name)] = None
        if len(found) > MOST:
            raise Malformed(f"the request names more than {MOST} models")
    return list(found)


def without_fallbacks(document: object) -> list[Edit]:
    """The edits that take every fallback list out of a request."""
    if not isinstance(document, dict):
        return []
    edits = [Edit((name,), remove=True) for name in document if name.lower() in _FALLBACKS]
    body = document.get("extra_body")
    if isinstance(body, dict):
        edits += [Edit(("extra_body", name), remove=True) for name in body if name.lower() in _FALLBACKS | _ONE]
    return edits


def models_after(document: object, facts: RequestFacts, model: str) -> list[str]:
    """Every model of a request that is rerouted to this model. Raises Malformed for too many."""
    if isinstance(document, dict):
        gone = _FALLBACKS | {"model", "extra_body"}
        document = {name: value for name, value in document.items() if name.lower() not in gone}
    return list(dict.fromkeys([model, *models_of(document, replace(facts, model=model))]))


def _bare(model: str) -> str:
    return model.removeprefix("models/")


def _named(document: object) -> Iterator[tuple[Path, str]]:
    """Every string that names a model, and where it stands."""
    stack: list[tuple[Path, object, bool]] = [((), document, False)]
    while stack:
        path, value, naming = stack.pop()
        if isinstance(value, str):
            if naming and value not in _WAYS:
                yield path, value
        elif isinstance(value, list):
            read = (str, list, dict) if naming else (list, dict)  # what else stands in a long list costs little
            places = [at for at, one in enumerate(value) if isinstance(one, read)]
            stack += [((*path, at), value[at], naming) for at in reversed(places)]
        elif isinstance(value, dict):
            stack += _members(path, value, naming=naming)


def _members(path: Path, document: dict[str, object], *, naming: bool) -> list[tuple[Path, object, bool]]:
    lows = {name: name.lower() for name in document}
    mapping = naming and _ONE.isdisjoint(lows.values())  # {"gpt-4o": ["o3"]}: who stands in for whom
    out = []
    for name in reversed(document):
        low, value = lows[name], document[name]
        if low in _CONTENT:
            continue
        names = mapping or low in _MANY or (low in _ONE and isinstance(value, str))
        out.append(((*path, name), value, names))
    return out
