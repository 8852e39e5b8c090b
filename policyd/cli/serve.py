"""`policyd serve`: the data plane, as its options say."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import typer

from policyd.adapters.envoy.config import DEFAULT_EXTPROC, MAX_REQUEST
from policyd.cli import serve_options as options
from policyd.cli.serve_options import bounds_from, refuse_clashes, tls_of
from policyd.core.model.decision import Mode
from policyd.core.model.identity import parse_identity
from policyd.core.model.options import Options
from policyd.server.settings import DRAIN_S, KUBE, RENEWED_S, Settings

_LEASE_S = 15.0  # how long a hold in Redis outlives a process that died


def serve(
    policies: options.Policies,
    listen: options.Listen = DEFAULT_EXTPROC,  # type: ignore[assignment] # parsed as if it had been written
    mode: options.Highest = Mode.FULL,
    identity: options.Identity = "headers",
    namespace: options.Namespace = None,
    records: options.Records = None,
    capture: options.Captures = None,
    prices: options.Prices = None,
    max_request: options.MaxRequest = MAX_REQUEST,
    bound: options.BoundValues = None,
    memory_budget: options.MemoryBudget = None,
    admin: options.Admin = None,
    drain_seconds: options.DrainSeconds = DRAIN_S,
    redis: options.Redis = None,
    workers: options.Workers = 1,
    state: options.State = None,
    allow_empty: options.AllowEmpty = False,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    tls_client_san: options.TlsClientSan = None,
    tls_renew_seconds: options.TlsRenewSeconds = RENEWED_S,
    config: options.Config = None,  # noqa: ARG001 - read before all others
) -> None:
    """Run the ext_proc server beside Envoy."""
    refuse_clashes(listen, admin, workers, redis)
    _refuse_company(policies)
    asked = Options(
        mode=mode,
        identity=identity,
        namespace=namespace,
        max_request=max_request,
        observe_all=capture is not None,
        bounds=bounds_from(bound),
    )
    settings = Settings(
        policies=tuple(policies),
        listen=listen,
        options=replace(asked, lease_s=_LEASE_S) if redis else asked,
        records=records,
        capture=capture,
        prices=prices,
        admin=admin,
        drain_s=drain_seconds,
        redis=redis,
        state=state,
        workers=workers,
        memory=memory_budget,
        allow_empty=allow_empty,
        tls=tls_of(listen, tls_cert, tls_key, tls_client_ca, tls_client_san, tls_renew_seconds),
    )
    _begin_log(settings)
    raise typer.Exit(_run(settings))


def _run(settings: Settings) -> int:
    if settings.workers > 1:
        from policyd.server.supervisor import supervise

        return supervise(settings)
    from policyd.server.plane import serve as run

    run(settings)
    return 0


def _refuse_company(policies: list[Path]) -> None:
    asked = [place for place in map(str, policies) if place.startswith(KUBE)]
    if asked and len(policies) > 1:
        raise typer.BadParameter(f"{asked[0]} stands alone", param_hint="--policies")


def _begin_log(settings: Settings) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for words in _doubts(settings):
        logging.getLogger("policyd").warning("%s", words)


def _doubts(settings: Settings) -> list[str]:
    """What a user should know who has written this."""
    from_kube = any(str(place).startswith(KUBE) for place in settings.policies)
    idle_state = settings.state is not None and settings.redis is None and not from_kube
    headers = not parse_identity(settings.options.identity).namespace
    return [
        *(
            ["identity is read from request headers: make sure that untrusted clients cannot set them"]
            if headers
            else ()
        ),
        *(["--state: nothing is kept there as long as counters live in this process"] if idle_state else ()),
        *_open_doors(settings),
    ]


def _open_doors(settings: Settings) -> list[str]:
    if settings.listen.private:
        return []
    if settings.tls is None:
        needed = "--tls-cert, --tls-key and --tls-client-ca, or a unix socket"
        return [f"--listen {settings.listen}: whoever reaches it is answered, and may read along: {needed}"]
    if settings.tls.files.client_ca is None:
        return [f"--listen {settings.listen}: whoever reaches it is answered: --tls-client-ca says whose clients are"]
    if not settings.tls.clients:
        return ["--tls-client-ca: every certificate of that authority is let in: --tls-client-san names those that may"]
    return []
