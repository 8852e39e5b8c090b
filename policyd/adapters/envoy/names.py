"""Names in certificates (SAN), as options say them: a URI (SPIFFE's too), a DNS name or an IP address.

Rule 1: a `*` stands for exactly one whole segment of a URI's path or label of a DNS name, never for a part of one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s*/]+(/[^\s*/]+|/\*)*/?")
_DNS = re.compile(r"(\*(?=\.)|[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.IGNORECASE)


class BadSetting(ValueError):  # noqa: N818 - the user's words, shown to the user
    """An option that says nothing that Envoy could be told; the message names what was written."""


class Kind(StrEnum):
    """The kinds of names that certificates hold, as Envoy calls them."""

    URI = "URI"
    DNS = "DNS"
    IP = "IP_ADDRESS"


@dataclass(frozen=True, slots=True)
class Name:
    """One name, or a pattern of names."""

    kind: Kind
    text: str

    def matches(self, names: Iterable[str]) -> bool:
        """Whether any of a certificate's names of this kind is meant."""
        return any(self._is(name) for name in names)

    def _is(self, name: str) -> bool:
        ours, theirs = self._segments(self.text), self._segments(name)
        return len(ours) == len(theirs) and all(
            one == other or (one == "*" and other != "") for one, other in zip(ours, theirs, strict=True)
        )

    def _segments(self, name: str) -> list[str]:
        match self.kind:
            case Kind.URI:
                return name.split("/")
            case Kind.DNS:
                return name.lower().split(".")
            case Kind.IP:
                return [name]


def parse_name(text: str, *, patterns: bool = False) -> Name:
    """The name that is written, a pattern where those are allowed. Raises BadSetting."""
    name = _parsed(text)
    if name is None:
        raise BadSetting(f"`{text}` is no name in a certificate: write spiffe://…, another URI, or a DNS name")
    if "*" in name.text and not patterns:
        raise BadSetting(f"`{text}`: write the whole name: Envoy is to know whom it speaks to")
    return name


def host_name(host: str) -> Name:
    """The name by which a certificate is to know a host."""
    return Name(Kind.IP if is_ip(host) else Kind.DNS, host)


def _parsed(text: str) -> Name | None:
    if is_ip(text):
        return Name(Kind.IP, text)
    if _URI.fullmatch(text):
        return Name(Kind.URI, text)
    return Name(Kind.DNS, text.lower()) if _DNS.fullmatch(text) else None


def is_ip(host: str) -> bool:
    """Whether a host is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
