"""The options of `policyd serve`: what each is called, takes and means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.envoy.config import MAX_WORKERS, Address, BadSetting, addresses, parse_address
from policyd.adapters.envoy.names import parse_name
from policyd.adapters.errors import NotAvailable
from policyd.adapters.tls_files import TlsFiles
from policyd.cli.options_file import from_file
from policyd.core.model.bounds import BadBound, Bounds, bounds_of
from policyd.core.model.decision import Mode
from policyd.core.model.identity import BadIdentity, parse_identity
from policyd.server.settings import Tls

_GRPC_LARGEST = 1 << 30  # bytes


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except BadSetting as error:
        raise typer.BadParameter(str(error)) from None


def _tcp(text: str) -> Address:
    address = _address(text)
    if address.path:
        raise typer.BadParameter("write HOST:PORT")
    return address


def _redis(text: str) -> str:
    from policyd.adapters.counters_redis import server_of  # half of a tenth of a second that only this option pays

    try:
        server_of(text)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"{error}; write redis://HOST:PORT, rediss://… or unix://PATH") from None
    return text


def _identity(text: str) -> str:
    try:
        parse_identity(text)
    except BadIdentity as error:
        raise typer.BadParameter(str(error)) from None
    return text.strip()


def _bounds(texts: list[str] | None) -> list[str]:
    bounds_from(texts)
    return texts or []


def bounds_from(texts: Sequence[str] | None) -> Bounds:
    """The bounds that these options set. Raises BadParameter."""
    try:
        return bounds_of(texts or ())
    except BadBound as error:
        raise typer.BadParameter(str(error)) from None


Policies = Annotated[
    list[Path], typer.Option(metavar="PATH", help="A file or a folder, repeatable; or kube:[CONTEXT].")
]
Listen = Annotated[Address, typer.Option(metavar="unix:PATH|HOST:PORT", parser=_address, help="Where Envoy finds it.")]
Highest = Annotated[Mode, typer.Option(help="The highest mode of any rule.", case_sensitive=False)]
Identity = Annotated[
    str,
    typer.Option(
        metavar="headers|metadata:NS[/PATH]",
        parser=_identity,
        help="Who says who is calling, and `,FIELD=NAME` where: user, team, tenant, session, labels.",
    ),
]
Namespace = Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")]
Records = Annotated[Path | None, typer.Option(metavar="DIR", help="Write one line a decision there.")]
Captures = Annotated[Path | None, typer.Option(metavar="DIR", help="Write whole exchanges there: prompts and answers.")]
Prices = Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")]
MaxRequest = Annotated[
    int, typer.Option(metavar="BYTES", min=1024, max=_GRPC_LARGEST, help="The largest body that is read.")
]
BoundValues = Annotated[
    list[str] | None,
    typer.Option(
        "--bound",
        metavar="NAME=VALUE",
        callback=_bounds,
        help="A bound of one call, repeatable: docs/LIMITS.md.",
    ),
]
MemoryBudget = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES",
        min=1 << 20,
        help="Memory that calls in flight may take. [default: half of the container's, or the machine's]",
        show_default=False,
    ),
]
Admin = Annotated[
    Address | None, typer.Option(metavar="HOST:PORT", parser=_tcp, help="/metrics, /healthz and /readyz.")
]
DrainSeconds = Annotated[
    float, typer.Option(metavar="S", min=0, max=86400, help="How long running calls may finish on SIGTERM.")
]
Redis = Annotated[str | None, typer.Option(metavar="URL", parser=_redis, help="Counters across processes.")]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=MAX_WORKERS, help="Processes; more than one need --redis.")
]
State = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keeps what Redis is owed, and the last good policies of kube:.")
]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="Serve without policies, at the start and after the last one is deleted.")
]
TlsCert = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Speak TLS: our certificate and its chain, PEM. Changes are followed."),
]
TlsKey = Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key, PEM.")]
TlsClientCa = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Clients need a certificate of this authority, PEM.")
]
TlsClientSan = Annotated[
    list[str] | None,
    typer.Option(metavar="URI|DNS", help="Only clients whose certificate names this; repeatable, * is one segment."),
]
TlsRenewSeconds = Annotated[
    float,
    typer.Option(metavar="S", min=0.1, max=86400, help="After that a connection takes no new calls."),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", callback=from_file, is_eager=True, help="The same options as YAML or TOML."),
]


def refuse_clashes(listen: Address, admin: Address | None, workers: int, redis: str | None) -> None:
    """What the options say together must be possible. Raises NotAvailable or BadParameter."""
    if workers > 1 and redis is None:
        raise NotAvailable("--workers: more than one needs --redis: the counters of one process are its own")
    try:
        places = addresses(listen, workers)
    except BadSetting as error:
        raise typer.BadParameter(str(error), param_hint="--workers") from None
    taken = next((place for place in places if admin is not None and place.clashes(admin)), None)
    if taken is not None:
        raise typer.BadParameter(f"{admin}: a worker listens on {taken}", param_hint="--admin")


def tls_of(
    listen: Address, cert: Path | None, key: Path | None, client_ca: Path | None, sans: list[str] | None, renew_s: float
) -> Tls | None:
    """What the options say together. Raises BadParameter."""
    if cert is None or key is None:
        given = {"--tls-cert": cert, "--tls-key": key, "--tls-client-ca": client_ca, "--tls-client-san": sans}
        for name, value in given.items():
            if value:
                raise typer.BadParameter("TLS needs --tls-cert and --tls-key", param_hint=name)
        return None
    if listen.path:
        raise typer.BadParameter("a unix socket has no TLS: its permissions say who may ask", param_hint="--tls-cert")
    if sans and client_ca is None:
        raise typer.BadParameter("names count only with --tls-client-ca: who signs them", param_hint="--tls-client-san")
    try:
        names = tuple(parse_name(san, patterns=True) for san in sans or ())
    except BadSetting as error:
        raise typer.BadParameter(str(error), param_hint="--tls-client-san") from None
    files = TlsFiles(cert.absolute(), key.absolute(), client_ca.absolute() if client_ca else None)
    return Tls(files, names, renew_s)
