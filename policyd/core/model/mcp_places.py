"""Where an MCP server is: the place that `mcp:` entries of a tools rule match.

Rule 1: a place is a host, its port unless it is the default one, and a path. A connector is its own id.
Rule 2: a URL that two parsers could read as two hosts or two paths is ambiguous: it has no place, and a rule that names
        MCP servers by their place refuses it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

_URL = re.compile(
    r"(https?)://([a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?(?:(/[!$&'()*+,./:=@\w~%-]*)([?#][!-\[\]-~]*)?)?",
    re.ASCII | re.IGNORECASE,
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
# Dot segments, empty segments, and characters that are encoded without need or that some servers decode early.
_TWO_PATHS = re.compile(
    r"//|/\.\.?(?:/|$)|%(?![0-9a-f]{2})|%(?:2d|2e|2f|3b|5c|5f|7e|7f|[01].|3[0-9]|[46][1-9a-f]|[57][0-9a])", re.I
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def place_of(url: str) -> str | None:
    """The host and path of a URL, or the id of a connector; None: it is ambiguous."""
    if _ID.fullmatch(url):
        return url
    found = _URL.fullmatch(url)
    if found is None:
        return None
    scheme, host, port, path = found[1].lower(), found[2].lower(), found[3] or "", found[4] or ""
    if not _is_one_host(host) or int(port or 1) > 65_535 or _TWO_PATHS.search(path):
        return None
    port = "" if port in ("", _DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{host}{port}{path.rstrip('/')}"


def host_of(place: str) -> str:
    """The host of a place, without its port."""
    host = place.partition("/")[0]
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _is_one_host(host: str) -> bool:
    """Whether every parser reads this host alike: numbers are addresses to some, in many notations."""
    address = host[1:-1] if host.startswith("[") else host
    labels = host.split(".")
    if address == host and not _NUMERIC.fullmatch(labels[-1]):
        return all(map(_LABEL.fullmatch, labels))
    try:
        return str(ip_address(address)) == address and (":" in address) == (address != host)
    except ValueError:
        return False
