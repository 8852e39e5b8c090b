"""In which dialect a stored response was made, told by the place that it is fetched from."""

from __future__ import annotations

import re

_PLACES = (
    (re.compile(r"(?:^|/)responses/[^/]+$"), "openai.responses"),
    (re.compile(r"(?:^|/)responses/[^/]+/cancel$"), "openai.responses"),
    (re.compile(r"(?:^|/)chat/completions/[^/]+$"), "openai.chat"),
    (re.compile(r"(?:^|/)threads/[^/]+/runs/[^/]+(?:/cancel)?$"), "openai.runs"),
    (re.compile(r"/v\d+(?:alpha|beta)\d*/(?:.+/)?interactions/[^/]+$"), "google.interactions"),
    (re.compile(r"(?:^|/)(?:batches/[^/]+/results|files/[^/]+/(?:content|download))$"), "batch.results"),
    (re.compile(r"/(?:mcp|sse)$"), "mcp"),
)
STORING = frozenset({"openai.responses", "openai.chat"})
"""Dialects whose providers keep responses that can be fetched by their id."""
_ID = re.compile(r"(?:^|/)(responses|chat/completions|runs|interactions|batches|files)/([^/]+)")


def stored_as(path: str) -> str:
    """The dialect's name; empty where the response is no such thing."""
    return next((name for place, name in _PLACES if place.search(path)), "")


def stored_id(path: str) -> str:
    """The id of the stored response that a call is about; empty for none."""
    found = _ID.search(path)
    return found[2] if found else ""


def is_stored(document: object) -> bool:
    """Whether the provider may keep the response to this request: by default it does, or an account's settings say."""
    return not isinstance(document, dict) or document.get("store") is not False
