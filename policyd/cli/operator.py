"""`policyd operator`: says in each policy's status what became of it. It enforces nothing: the data plane does."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.envoy.config import Address, BadSetting, parse_address
from policyd.adapters.tls_files import TlsFiles


def _tcp(text: str) -> Address:
    try:
        address = parse_address(text)
    except BadSetting as error:
        raise typer.BadParameter(str(error)) from None
    if address.path:
        raise typer.BadParameter("write HOST:PORT")
    return address


def operator(
    context: Annotated[str, typer.Option(metavar="NAME", help="Of the kubeconfig, where it runs in no pod.")] = "",
    admin: Annotated[
        Address | None, typer.Option(metavar="HOST:PORT", parser=_tcp, help="/healthz and /readyz.")
    ] = None,
    webhook: Annotated[
        Address | None, typer.Option(metavar="HOST:PORT", parser=_tcp, help="Refuse wrong policies at apply time.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The webhook's certificate, PEM. Without: it makes its own.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")] = None,
) -> None:
    """Write the status of LLMPolicy and ClusterLLMPolicy; of several operators one leads."""
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and webhook is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together, and with --webhook")
    files = TlsFiles(tls_cert, tls_key) if tls_cert and tls_key else None
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_operate(context, admin, webhook, files))


async def _operate(context: str, admin: Address | None, webhook: Address | None, files: TlsFiles | None) -> None:
    from policyd.adapters.policies_kube.access import find_access
    from policyd.operator.operate import Operator

    one = Operator(find_access(context), f"{socket.gethostname()}-{secrets.token_hex(4)}", admin, webhook, files)
    one.stop_on_signals()
    await one.run()
