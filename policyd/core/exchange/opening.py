"""How a call begins: from its headers to who is calling, in which session, in which dialect.

Rule 1: who is calling is identity.py's; what is written down about a credential is its pseudonym.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.exchange.identity import Groups, counting_places, identify, sent_once
from policyd.core.model.facts import Facts, RequestFacts
from policyd.core.model.identity import parse_identity
from policyd.core.model.steps import Headers, RequestHeaders
from policyd.core.stream.dialects import Dialect, registry
from policyd.core.stream.dialects.paths import resolve
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
    path, _, query = headers.get(":path", "").partition("?")
    method, host = headers.get(":method", ""), headers.get(":authority", headers.get("host", ""))
    dialect, operation, provider = registry.choose(method, path, host, headers)
    own = dialect.provider("", resolve(path).lower(), headers) if dialect else ""
    once = sent_once(event.headers)
    request = RequestFacts(
        method=method,
        path=path,
        query=query,
        headers={name: value for name, value in headers.items() if not name.startswith((":", OWN_PREFIX))},
        tags={name[6:]: value for name, value in once.items() if name.startswith("x-tag-")},
        operation=operation,
        dialect=dialect.name if dialect else "",
        provider=provider,
    )
    caller, session = identify(event.headers, query, event.metadata, parse_identity(identity), _choices(request, own))
    return Facts(request=request, caller=caller, session=session, now=event.wall), dialect


def _choices(request: RequestFacts, own: str) -> tuple[Groups, ...]:
    """Where the credential is looked for: where the provider that the path tells does, and only then where one does
    that the caller's Host header names."""
    choices = (counting_places(request.dialect, name, request.path) for name in (own, request.provider))
    return tuple(dict.fromkeys(choices))


def unreadable_body(headers: dict[str, str], end: bool, most: int) -> str:
    """Why a request's body cannot be read, as far as its headers tell."""
    if end:
        return "the request has no body"
    try:
        codings_of(headers.get("content-encoding", ""))
    except Malformed as failure:
        return failure.reason
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        return "the request's body is too large"
    return ""
