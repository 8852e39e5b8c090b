"""What an Envoy beside policyd is to look like, as the user says it: addresses, upstreams, limits.

Rule 1: this module stays light. bootstrap.py makes Envoy's own messages of it, which take half a second to import.
Rule 2: sizes are bytes, an address is `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from policyd.adapters.envoy.names import BadSetting as BadSetting
from policyd.adapters.envoy.names import Name, parse_name
from policyd.adapters.envoy.names import is_ip as is_ip
from policyd.core.model.identity import BadIdentity, parse_identity

PROCESS_METHOD = "Process"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
NAMESPACE = "policyd"  # of dynamic metadata, and of the access log
EXTPROC_CLUSTER = "policyd_extproc"
UPSTREAM_HEADER = "x-policyd-upstream"  # set by a reroute, read by the route, taken off before the upstream sees it
UPSTREAMS_METADATA = "x-policyd-upstreams"  # of a stream: the names that Envoy routes by, with commas between
CATALOG_METADATA = "x-policyd-deployments"  # of a stream: what each of these upstreams declares, as JSON
CATALOG_MOST = 16_000  # characters; Envoy takes no longer value
PREFIX = "x-policyd-"
AUTHENTICATED = ("envoy.filters.http.jwt_authn", "envoy.filters.http.ext_authz")  # `serve --identity metadata:…`
ROUTE_ATTRIBUTE = "xds.route_metadata"  # which HTTPRoute a call came by
HOST_ATTRIBUTE = "xds.virtual_host_metadata"  # and through which Gateway
CLUSTER_ATTRIBUTE = "xds.cluster_name"  # which upstream the route names
SILENCE_S = 900  # a model may think this long between two bytes
UPLOAD_S = 300  # a request must have arrived whole by then
MESSAGE_S = 2  # Envoy waits this long for the answer to a message
JUDGING_S = 0.6  # policyd answers by then, judged or not; the rest is for the counter store and for a busy machine
MAX_REQUEST = 32 << 20
MAX_WORKERS = 256
HEADROOM = 1 << 20  # bytes of a message besides its body
GRPC_LARGEST = (1 << 31) - 1  # an int of C's
STREAM_CHUNK = 64 << 10  # Envoy asks for no more in one streamed body answer
DEFAULT_LISTENER = "127.0.0.1:10000"
DEFAULT_EXTPROC = "unix:./policyd.sock"
DEFAULT_UPSTREAM = "openai=https://api.openai.com"

_LAST_PORT = 65535
_ANY_HOST = ("0.0.0.0", "::")
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?")
_DECLARED = re.compile(r"[a-z0-9][a-z0-9_.,-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens: a host and port, or a unix socket's path."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def literal(self) -> bool:
        """Whether no name has to be resolved to reach it."""
        return bool(self.path) or is_ip(self.host)

    @property
    def private(self) -> bool:
        """Whether only processes of this machine reach it, as far as its name says."""
        if self.path or self.host == "localhost":
            return True
        return is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    def clashes(self, other: Address) -> bool:
        """Whether two that listen there are in each other's way, as far as that can be seen without asking."""
        if self.path or other.path:
            return self.path == other.path
        same_host = self.host == other.host or not {self.host, other.host}.isdisjoint(_ANY_HOST)
        return self.port == other.port and same_host

    def worker(self, number: int) -> Address:
        """The address of the n-th worker: PATH, PATH.1 …; PORT, PORT+1 …"""
        if number == 0:
            return self
        if self.path:
            return Address(path=f"{self.path}.{number}")
        return Address(self.host, self.port + number)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider, by the name that `reroute: {upstream: NAME}` uses."""

    name: str
    host: str
    port: int
    tls: bool
    provider: str = ""  # empty: its host tells
    region: str = ""
    dialects: tuple[str, ...] = ()  # those that calls to it may speak; empty: all

    @property
    def authority(self) -> str:
        """What its Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ExtprocTls:
    """How Envoy speaks TLS to policyd. Files are paths where Envoy runs, and are not looked at here."""

    ca: str  # whose certificate policyd must have
    cert: str = ""  # our own, and its key; "": policyd does not ask for one
    key: str = ""
    names: tuple[Name, ...] = ()  # any of them must stand in policyd's; none: its host's
    sds: str = ""  # a folder of SDS files, so that changes are followed; "": each file is read once

    def __post_init__(self) -> None:
        if bool(self.cert) is not bool(self.key):
            raise BadSetting("a certificate and its key go together: give --extproc-cert and --extproc-key")
        if not self.ca:
            raise BadSetting("TLS to policyd needs --extproc-ca: whose certificate it must have")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `policyd envoy bootstrap` can be told. `max_request` is bytes."""

    listener: Address
    upstreams: tuple[Upstream, ...]  # the first is the default
    extproc: Address
    workers: int = 1
    max_request: int = MAX_REQUEST
    fail_open: bool = False
    admin: Address | None = None
    ca_file: str = _CA_FILES[0]
    extproc_tls: ExtprocTls | None = None
    identity: str = ""  # the namespace of metadata that `serve --identity` reads; "": none but the usual ones

    def __post_init__(self) -> None:
        if not self.upstreams:
            raise BadSetting("no upstream: give at least one NAME=[https://]HOST[:PORT]")
        names = [upstream.name for upstream in self.upstreams]
        if EXTPROC_CLUSTER in names:
            raise BadSetting(f"`{EXTPROC_CLUSTER}` is policyd's own name: call the upstream otherwise")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadSetting(f"upstream `{twice[0]}` is given twice")
        if not 1024 <= self.max_request <= 1 << 30:
            raise BadSetting(f"a request limit of {self.max_request} bytes is outside 1024 to 1073741824")
        if self.extproc_tls is not None and self.extproc.path:
            raise BadSetting(f"`{self.extproc}`: a unix socket has no TLS: leave --extproc-ca out")
        _ = self.processors

    @property
    def namespaces(self) -> list[str]:
        """The namespaces of dynamic metadata that policyd is sent."""
        return [*dict.fromkeys((*AUTHENTICATED, *filter(None, (self.identity,))))]

    @property
    def processors(self) -> tuple[Address, ...]:
        """Where policyd's workers listen."""
        return addresses(self.extproc, self.workers)


def addresses(first: Address, workers: int) -> tuple[Address, ...]:
    """Where so many workers listen: `serve` and Envoy's endpoints are told by the same. Raises BadSetting."""
    if not 1 <= workers <= MAX_WORKERS:
        raise BadSetting(f"{workers} workers: between 1 and {MAX_WORKERS} can be had")
    last = first.port + workers - 1
    if last > _LAST_PORT:
        raise BadSetting(f"`{first}`: {workers} workers would need the ports up to {last}; the last is {_LAST_PORT}")
    return tuple(first.worker(number) for number in range(workers))


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; raises BadSetting."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise BadSetting(f"`{text}` names no socket: write unix:PATH")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise BadSetting(f"`{text}` is no address: write HOST:PORT or unix:PATH")
    return Address(_host(host, text), _port(port, text))


def parse_upstream(text: str) -> Upstream:
    """`NAME=[https://]HOST[:PORT][;provider=P][;region=R][;dialects=D,D]`; plain HTTP without the https; raises
    BadSetting."""
    name, equals, whole = text.partition("=")
    place, *declared = whole.split(";")
    if not equals or not _NAME.fullmatch(name):
        raise BadSetting(f"`{text}` is no upstream: write NAME=[https://]HOST[:PORT], NAME in lower case")
    scheme, _, rest = place.rpartition("://")
    if scheme not in ("", "http", "https"):
        raise BadSetting(f"`{text}`: `{scheme}://` is not supported, only http and https")
    host, port = _host_and_port(rest.removesuffix("/"), text)
    tls = scheme == "https"
    return _declared(Upstream(name, host, port or (443 if tls else 80), tls), declared, text)


def _declared(upstream: Upstream, declared: Sequence[str], whole: str) -> Upstream:
    for one in declared:
        field, _, value = one.strip().partition("=")
        if not _DECLARED.fullmatch(value):
            raise BadSetting(f"`{whole}`: `{one}` declares nothing")
        match field:
            case "provider":
                upstream = replace(upstream, provider=value)
            case "region":
                upstream = replace(upstream, region=value)
            case "dialects":
                upstream = replace(upstream, dialects=tuple(value.split(",")))
            case _:
                raise BadSetting(f"`{whole}`: `{field}` cannot be declared: there are provider, region and dialects")
    return upstream


def settings(
    *,
    listener: str = DEFAULT_LISTENER,
    upstreams: Sequence[str] = (),
    extproc: str = DEFAULT_EXTPROC,
    workers: int = 1,
    max_request: int = MAX_REQUEST,
    fail_open: bool = False,
    admin: str = "",
    extproc_tls: ExtprocTls | None = None,
    identity: str = "headers",
) -> Settings:
    """The settings that these words say; raises BadSetting."""
    return Settings(
        listener=_tcp(listener, "listener"),
        upstreams=tuple(map(parse_upstream, upstreams or (DEFAULT_UPSTREAM,))),
        extproc=parse_address(extproc),
        workers=workers,
        max_request=max_request,
        fail_open=fail_open,
        admin=_tcp(admin, "admin") if admin else None,
        ca_file=system_ca_file(),
        extproc_tls=extproc_tls,
        identity=_namespace(identity),
    )


def _namespace(identity: str) -> str:
    try:
        return parse_identity(identity).namespace
    except BadIdentity as error:
        raise BadSetting(str(error)) from None


def tls_to_policyd(
    ca: str = "", cert: str = "", key: str = "", sans: Sequence[str] = (), sds: str = ""
) -> ExtprocTls | None:
    """What these words say of TLS to policyd; None where they say nothing. Raises BadSetting."""
    if not (ca or cert or key or sans or sds):
        return None
    return ExtprocTls(ca, cert, key, tuple(map(parse_name, sans)), sds.rstrip("/") if sds != "/" else sds)


def system_ca_file() -> str:
    """The file of certificate authorities that this system trusts."""
    return next((name for name in _CA_FILES if Path(name).exists()), _CA_FILES[0])


def _tcp(text: str, what: str) -> Address:
    address = parse_address(text)
    if address.path:
        raise BadSetting(f"the {what} cannot be a unix socket: write HOST:PORT")
    return address


def _host_and_port(text: str, whole: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, port = text.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise BadSetting(f"`{whole}`: write an IPv6 address as [ADDRESS]:PORT")
        return _host(host + "]", whole), _port(port[1:], whole) if port else 0
    host, colon, port = text.partition(":")
    return _host(host, whole), _port(port, whole) if colon else 0


def _host(text: str, whole: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_ip(bare) or _HOST.fullmatch(bare):
        return bare
    raise BadSetting(f"`{whole}`: `{text}` is no host")


def _port(text: str | int, whole: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if 1 <= port <= _LAST_PORT:
        return port
    raise BadSetting(f"`{whole}`: `{text}` is no port (1 to {_LAST_PORT})")


def largest_message(max_request: int) -> int:
    """The bytes that gRPC must take. Envoy makes us: its buffer is full only after another read's worth of bytes, and
    a message refused by gRPC would fail open where the filter does."""
    return min(2 * max_request + HEADROOM, GRPC_LARGEST)
