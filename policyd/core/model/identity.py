"""`--identity`: where a call's user, team, tenant, session and labels come from.

    headers                            x-user-id, x-team-id, x-tenant-id, x-session-id
    headers:team=x-team,user=x-user    the listed fields come from these headers, the others from the defaults
    metadata:NAMESPACE[/PATH]          Envoy's dynamic metadata: the claims user|sub, team, tenant, session, labels
    metadata:NAMESPACE/PATH,user=sub,team=groups.0,session=header:x-session-id

Rule 1: under metadata only fields whose mapping says `header:` are read from a header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from policyd.core.model.credentials import is_credential

FIELDS = ("user", "team", "tenant", "session", "labels")
_HEADER_DEFAULTS = {"user": "x-user-id", "team": "x-team-id", "tenant": "x-tenant-id", "session": "x-session-id"}
_CLAIM_DEFAULTS = {"user": "user|sub", "team": "team", "tenant": "tenant", "session": "session", "labels": "labels"}
_FROM_HEADER = "header:"
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_NAMESPACE = re.compile(r"[^\s,=/]+")
_LABEL = re.compile(r"labels\.[A-Za-z0-9_.-]{1,63}")
WRITE = "write headers, headers:FIELD=HEADER,… or metadata:NAMESPACE[/PATH][,FIELD=CLAIM,…]"


class BadIdentity(ValueError):  # noqa: N818
    """An identity that cannot be read; its text is for people."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place of a value: a header, or a path into the claims."""

    header: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Where each field comes from. A field without places is never filled."""

    places: Mapping[str, tuple[Place, ...]]
    namespace: str = ""  # of Envoy's dynamic metadata; empty: headers alone
    path: str = ""  # to the claims within it
    named: frozenset[str] = field(default_factory=frozenset)  # the fields that the mapping lists

    @property
    def source(self) -> str:
        """What `caller.source` reads."""
        return "metadata" if self.namespace else "headers"


@lru_cache(maxsize=64)
def parse_identity(text: str) -> Identity:
    """The identity that an option's value describes. Raises BadIdentity."""
    kind, colon, rest = text.strip().partition(":")
    if kind == "headers":
        return _headers(rest, colon=bool(colon))
    if kind == "metadata" and rest:
        return _metadata(rest)
    raise BadIdentity(f"{text!r} is no identity: {WRITE}")


def _headers(rest: str, *, colon: bool) -> Identity:
    if colon and not rest:
        raise BadIdentity("headers: names no field: write headers:team=x-team, or headers alone")
    own = {}
    for name, value in _pairs(rest.split(",") if rest else []):
        if name == "labels":
            raise BadIdentity("labels is no single header: name each one, as in labels.region=x-region")
        own[name] = tuple(Place(header=_header(one)) for one in _alternatives(value))
    defaults = {name: (Place(header=header),) for name, header in _HEADER_DEFAULTS.items()}
    return Identity({**defaults, **own}, named=frozenset(own))


def _metadata(rest: str) -> Identity:
    where, *pairs = rest.split(",")
    namespace, slash, path = where.strip().partition("/")
    if not _NAMESPACE.fullmatch(namespace) or "=" in path or (slash and not path):
        raise BadIdentity(f"{where.strip()!r} is no NAMESPACE[/PATH] of metadata: {WRITE}")
    own = {name: tuple(map(_place, _alternatives(value))) for name, value in _pairs(pairs)}
    defaults = {
        name: tuple(Place(claim=claim) for claim in claims.split("|")) for name, claims in _CLAIM_DEFAULTS.items()
    }
    return Identity({**defaults, **own}, namespace, path, frozenset(own))


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise BadIdentity(f"{text.strip()!r} is no FIELD=NAME: {WRITE}")
        if name not in FIELDS and not _LABEL.fullmatch(name):
            raise BadIdentity(f"{name!r} is no field of an identity: there are {', '.join(FIELDS)} and labels.NAME")
        if name in found:
            raise BadIdentity(f"{name!r} is mapped twice; write alternatives as {name}=ONE|OTHER")
        found[name] = value
    return [*found.items()]


def _alternatives(value: str) -> list[str]:
    """Nothing for an empty value: then the field is not read at all."""
    return [one.strip() for one in value.split("|")] if value else []


def _place(text: str) -> Place:
    if text.startswith(_FROM_HEADER):
        return Place(header=_header(text.removeprefix(_FROM_HEADER)))
    if not text:
        raise BadIdentity("a claim without a name: write FIELD=CLAIM, or FIELD=ONE|OTHER")
    return Place(claim=text)


def _header(text: str) -> str:
    name = text.strip().lower()
    if not _HEADER_NAME.fullmatch(name):
        raise BadIdentity(f"{text!r} is no name of a header")
    if is_credential(name):
        raise BadIdentity(f"the header {name} holds a credential, and a user, team, tenant or session is written down")
    return name


# ---- claims -------------------------------------------------------------------------------------------------------


def claim_at(claims: object, path: str) -> object:
    """The value at a dotted path; a number is an index into a list. A name may hold dots itself: the longest name that
    there is wins."""
    if not path:
        return claims
    if isinstance(claims, Mapping):
        return _in_mapping(claims, path)
    if isinstance(claims, list | tuple):
        index, _, rest = path.partition(".")
        return claim_at(claims[int(index)], rest) if index.isdecimal() and int(index[:9]) < len(claims) else None
    return None


def _in_mapping(claims: Mapping[str, object], path: str) -> object:
    end = len(path)
    while end > 0:
        if path[:end] in claims:
            found = claim_at(claims[path[:end]], path[end + 1 :])
            if found is not None:
                return found
        end = path.rfind(".", 0, end)
    return None


def text_of(value: object) -> str:
    """A claim as text; empty for what is no single value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else ""
