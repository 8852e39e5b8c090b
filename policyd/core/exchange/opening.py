"""How a call begins: from its headers to who is calling, in which session, in which dialect.

Rule 1: an identity header sent twice is absent: whoever could add a second one must not be able to choose.
Rule 2: what is written down about a credential is the pseudonym that it becomes here; only rules see the header.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

from policyd.core.errors import Malformed
from policyd.core.model.facts import CallerFacts, Facts, RequestFacts, SessionFacts
from policyd.core.model.steps import Headers, RequestHeaders
from policyd.core.stream.dialects import Dialect, registry
from policyd.core.stream.encodings import codings_of

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
CREDENTIALS = frozenset({*CREDENTIAL_HEADERS, "cookie"})
OWN_PREFIX = "x-policyd-"
ANONYMOUS = "anonymous"  # the owner of sessions of callers without a credential or a name
RECORDED = "policyd.recorded"  # metadata of a dry run: what a recording says about its caller


def key_id(credential: str) -> str:
    """The stable pseudonym of a credential: what `caller.key` reads and `policyd key-id` prints."""
    return "key-" + hashlib.sha256(b"policyd key\0" + credential.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def pseudonym(text: str) -> str:
    """A stable short name for something that must not be written down; empty for empty."""
    if not text:
        return ""
    return hashlib.sha256(b"policyd name\0" + text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
    once = _sent_once(event.headers)
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
    caller = _caller(once, event.metadata, identity)
    session = _session(once, caller, event.metadata, identity)
    return Facts(request=request, caller=caller, session=session, now=event.wall), dialect


def _sent_once(headers: Headers) -> dict[str, str]:
    times = Counter(name for name, _ in headers)
    return {name: value for name, value in headers if times[name] == 1}


def _caller(once: Mapping[str, str], metadata: Mapping[str, Mapping[str, object]], identity: str) -> CallerFacts:
    key = _text(metadata.get(RECORDED, {}), "key") or _credential(once)
    caller = CallerFacts(source=identity.split(":", 1)[0], key=key)
    if identity == "headers":
        caller.user, caller.team = once.get("x-user-id", ""), once.get("x-team-id", "")
        caller.tenant = once.get("x-tenant-id", "")
        # INVARIANT: a tenant that any client can claim opens no counter space of its own; it only parts sessions.
        caller.partition = _text(metadata.get(RECORDED, {}), "tenant") or "default"
        caller.claimed = pseudonym(caller.tenant) if caller.tenant != caller.partition else ""
        caller.owner = "+".join(part for part in (caller.key, _named(caller.user)) if part) or ANONYMOUS
        return caller
    known = metadata.get(identity.removeprefix("metadata:"), {})
    caller.user = _text(known, "user") or _text(known, "sub")
    caller.team, caller.tenant = _text(known, "team"), _text(known, "tenant")
    labels = known.get("labels")
    if isinstance(labels, Mapping):
        caller.labels = {str(name): str(value) for name, value in labels.items()}
    caller.partition = caller.tenant or "default"
    caller.owner = _named(caller.user) or caller.key or ANONYMOUS
    return caller


def _named(user: str) -> str:
    return f"user:{pseudonym(user)}" if user else ""


def _text(known: Mapping[str, object], name: str) -> str:
    value = known.get(name)
    return value if isinstance(value, str) else ""


def _credential(once: Mapping[str, str]) -> str:
    for name in CREDENTIAL_HEADERS:
        if value := once.get(name, "").strip():
            return key_id(value[7:].strip() if value[:7].lower() == "bearer " else value)
    return ""


def _session(
    once: Mapping[str, str], caller: CallerFacts, metadata: Mapping[str, Mapping[str, object]], identity: str
) -> SessionFacts:
    """INVARIANT: a session's id is never empty; `source` says where it comes from."""
    if identity != "headers" and (sent := _text(metadata.get(identity.removeprefix("metadata:"), {}), "session")):
        return SessionFacts(id=sent, source="metadata")
    if sent := once.get("x-session-id", ""):
        return SessionFacts(id=sent, source="header")
    if caller.key:
        return SessionFacts(id=f"derived:{caller.key}", source="key")
    if caller.user:
        return SessionFacts(id=f"derived:user:{pseudonym(caller.user)}", source="user")
    return SessionFacts(id="derived:anonymous", source="anonymous")


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
