"""How a call begins: from its headers to who is calling, in which session, in which dialect.

Rule 1: who is calling is identity.py's; what is written down about a credential is its pseudonym.
"""

from __future__ import annotations

import re

from policyd.core.errors import Malformed
from policyd.core.exchange.identity import Groups, counting_places, identify, sent_once
from policyd.core.model.deployment import Deployment
from policyd.core.model.facts import Facts, RequestFacts
from policyd.core.model.identity import parse_identity
from policyd.core.model.paths import normal_path
from policyd.core.model.steps import Headers, RequestHeaders
from policyd.core.stream.dialects import Dialect, registry
from policyd.core.stream.dialects.endpoints import is_billed
from policyd.core.stream.dialects.models import model_in_query
from policyd.core.stream.dialects.providers import place_of, provider_for
from policyd.core.stream.encodings import codings_of

OWN_PREFIX = "x-policyd-"


def header_map(headers: Headers) -> dict[str, str]:
    """Headers as a map; one sent several times is joined with commas, as HTTP allows."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def open_call(event: RequestHeaders, identity: str) -> tuple[Facts, Dialect | None]:
    """The facts that the headers alone tell, and the dialect that the call speaks."""
    headers = header_map(event.headers)
    sent = headers.get(":path", "")
    path, _, query = sent.partition("?")
    method, host = headers.get(":method", ""), headers.get(":authority", headers.get("host", ""))
    deployment = event.deployment
    dialect, operation, provider = registry.choose(method, sent, host, headers, deployment, body=not event.end)
    own = dialect.provider("", normal_path(path).judged.lower(), headers) if dialect else ""
    place, region = place_of(deployment, host)
    once = sent_once(event.headers)
    request = RequestFacts(
        method=method,
        path=normal_path(path).judged,
        query=query,
        headers={name: value for name, value in headers.items() if not name.startswith((":", OWN_PREFIX))},
        tags={name[6:]: value for name, value in once.items() if name.startswith("x-tag-")},
        operation=operation,
        dialect=dialect.name if dialect else "",
        provider=provider,
        host=place,
        region=region,
        upstream=deployment.upstream,
        model=model_in_query(query) or None if operation == "realtime" else None,
        stream=True if operation == "retrieval" and "stream=true" in query.lower() else None,
    )
    groups = _choices(request, own, deployment)
    caller, session = identify(event.headers, once, query, event.metadata, parse_identity(identity), groups)
    facts = Facts(request=request, caller=caller, session=session, now=event.wall)
    request.models = [request.model] if request.model else []
    facts.response.unbilled = not is_billed(operation, request.path)
    return facts, registry.dialect_of(dialect, operation)


def _choices(request: RequestFacts, own: str, deployment: Deployment) -> tuple[Groups, ...]:
    """Where the credential is looked for: where the provider does that the deployment and the path tell, and only then
    where one does that the caller's Host header names, which counts where nobody declares the upstream."""
    known = provider_for(deployment, "", own)
    first = counting_places(request.dialect, known, request.path)
    if known == request.provider:
        return (first,)
    return (first, counting_places(request.dialect, request.provider, request.path))


_CHARSET = re.compile(r"charset(\*?[\d*]*)\s*=\s*[\"']?([^\s\"';,]*)", re.IGNORECASE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


# In these, too, the characters of ASCII are what they are in UTF-8; error pages of web servers are declared so.
RESPONSE_CHARSETS = _CHARSETS | {"iso-8859-1", "latin-1", "latin1", "windows-1252"}


def other_charset(headers: dict[str, str], known: frozenset[str]) -> bool:
    """Whether a body is declared to be in a character set that is none of these."""
    found = _CHARSET.findall(headers.get("content-type", ""))
    return any(extended or charset.lower() not in known for extended, charset in found)


def unreadable_body(headers: dict[str, str], end: bool, most: int) -> str:
    """Why a request's body cannot be read, as far as its headers tell."""
    if end:
        return "the request has no body"
    if other_charset(headers, _CHARSETS):
        return "the request's body is not declared as UTF-8"
    try:
        codings_of(headers.get("content-encoding", ""))
    except Malformed as failure:
        return failure.reason
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        return "the request's body is too large"
    return ""
