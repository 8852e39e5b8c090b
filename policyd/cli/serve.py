"""`policyd serve`: the options of the data plane, from the command line and from a file of the same options."""

from __future__ import annotations

import json
import logging
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from policyd.adapters.envoy.config import (
    DEFAULT_EXTPROC,
    MAX_REQUEST,
    MAX_WORKERS,
    Address,
    BadSetting,
    addresses,
    parse_address,
)
from policyd.adapters.errors import NotAvailable, UnreadableInput, reason_of
from policyd.core.model.decision import Mode
from policyd.core.model.options import Options
from policyd.server.settings import KUBE, Settings

_LIST = "policies"
_GRPC_LARGEST = 1 << 30  # bytes
_LEASE_S = 15.0  # how long a hold in Redis outlives a process that died


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
    if text == "headers" or re.fullmatch(r"metadata:\S+", text):
        return text
    raise typer.BadParameter("write headers or metadata:NAMESPACE")


def _from_file(ctx: typer.Context, file: Path | None) -> Path | None:
    """The file's options become defaults: the command line wins."""
    if file is not None:
        known = {parameter.name for parameter in ctx.command.params} - {"config", "help"}
        ctx.default_map = {**(ctx.default_map or {}), **_options_in(file, {str(name) for name in known})}
    return file


def serve(
    policies: Annotated[
        list[Path], typer.Option(metavar="PATH", help="A file or a folder, repeatable; or kube:[CONTEXT].")
    ],
    listen: Annotated[
        Address, typer.Option(metavar="unix:PATH|HOST:PORT", parser=_address, help="Where Envoy finds it.")
    ] = DEFAULT_EXTPROC,  # type: ignore[assignment]
    mode: Annotated[Mode, typer.Option(help="The highest mode of any rule.", case_sensitive=False)] = Mode.FULL,
    identity: Annotated[
        str, typer.Option(metavar="headers|metadata:NS", parser=_identity, help="Who says who is calling.")
    ] = "headers",
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")] = None,
    records: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one line a decision there.")] = None,
    capture: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write whole exchanges there: prompts and answers.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
    max_request: Annotated[
        int, typer.Option(metavar="BYTES", min=1024, max=_GRPC_LARGEST, help="The largest body that is read.")
    ] = MAX_REQUEST,
    admin: Annotated[
        Address | None, typer.Option(metavar="HOST:PORT", parser=_tcp, help="/metrics, /healthz and /readyz.")
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(metavar="S", min=0, max=86400, help="How long running calls may finish on SIGTERM.")
    ] = 30.0,
    redis: Annotated[str | None, typer.Option(metavar="URL", parser=_redis, help="Counters across processes.")] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_WORKERS, help="Processes; more than one need --redis.")
    ] = 1,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keeps what Redis is owed, and the last good policies of kube:.")
    ] = None,
    config: Annotated[  # noqa: ARG001 - read before all others
        Path | None,
        typer.Option(metavar="FILE", callback=_from_file, is_eager=True, help="The same options as YAML or TOML."),
    ] = None,
) -> None:
    """Run the ext_proc server beside Envoy."""
    _refuse_clashes(listen, admin, workers, redis)
    kube = _from_kube(policies)
    _begin_log(identity, idle_state=state is not None and redis is None and not kube)
    options = Options(
        mode=mode, identity=identity, namespace=namespace, max_request=max_request, observe_all=capture is not None
    )
    settings = Settings(
        policies=tuple(policies),
        listen=listen,
        options=replace(options, lease_s=_LEASE_S) if redis else options,
        records=records,
        capture=capture,
        prices=prices,
        admin=admin,
        drain_s=drain_seconds,
        redis=redis,
        state=state,
        workers=workers,
    )
    raise typer.Exit(_run(settings))


def _run(settings: Settings) -> int:
    if settings.workers > 1:
        from policyd.server.supervisor import supervise

        return supervise(settings)
    from policyd.server.plane import serve as run

    run(settings)
    return 0


def _begin_log(identity: str, *, idle_state: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    log = logging.getLogger("policyd")
    if identity == "headers":
        log.warning("who is calling is what headers say: let nobody reach Envoy who may lie")
    if idle_state:
        log.warning("--state: nothing is kept there as long as counters live in this process")


def _from_kube(policies: list[Path]) -> bool:
    asked = [place for place in map(str, policies) if place.startswith(KUBE)]
    if asked and len(policies) > 1:
        raise typer.BadParameter(f"{asked[0]} stands alone", param_hint="--policies")
    return bool(asked)


def _refuse_clashes(listen: Address, admin: Address | None, workers: int, redis: str | None) -> None:
    if workers > 1 and redis is None:
        raise NotAvailable("--workers: more than one needs --redis: the counters of one process are its own")
    try:
        places = addresses(listen, workers)
    except BadSetting as error:
        raise typer.BadParameter(str(error), param_hint="--workers") from None
    taken = next((place for place in places if admin is not None and place.clashes(admin)), None)
    if taken is not None:
        raise typer.BadParameter(f"{admin}: a worker listens on {taken}", param_hint="--admin")


# ---- the options file -----------------------------------------------------------------------------------------------


def _options_in(file: Path, known: set[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in _document(file).items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UnreadableInput(file, f"unknown option `{key}`; options are named as on the command line")
        options[name] = _value(file, name, value)
    return options


def _value(file: Path, name: str, value: object) -> object:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        raise UnreadableInput(file, f"`{name}`: expected a text or a number")
    if name == _LIST:
        return [str(one) for one in values]
    if isinstance(value, list):
        raise UnreadableInput(file, f"`{name}`: expected one value, not a list")
    return str(value)


def _document(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text("utf-8")
        document = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    except UnicodeDecodeError:
        raise UnreadableInput(file, "not UTF-8") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UnreadableInput(file, f"broken: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UnreadableInput(file, f"expected options by name, not {json.dumps(type(document).__name__)}")
    return document
