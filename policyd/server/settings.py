"""What `policyd serve` was told. Light to import: the supervisor reads it, and does not serve itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policyd.adapters.envoy.config import Address
from policyd.adapters.envoy.names import Name
from policyd.adapters.tls_files import TlsFiles
from policyd.core.model.options import Options

DRAIN_S = 30.0
RENEWED_S = 600.0
KUBE = "kube:"  # policies from Kubernetes: `kube:`, or `kube:CONTEXT` of a kubeconfig


@dataclass(frozen=True, slots=True)
class Tls:
    """How clients are met on a TCP port."""

    files: TlsFiles
    clients: tuple[Name, ...] = ()  # who may ask; nobody named: whoever the authority has certified
    renewed_s: float = RENEWED_S  # so long a connection goes on by the certificates that it began with


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `policyd serve` can be told."""

    policies: tuple[Path, ...]
    listen: Address
    options: Options
    records: Path | None = None
    capture: Path | None = None
    prices: Path | None = None
    admin: Address | None = None
    drain_s: float = DRAIN_S
    redis: str | None = None  # where counters live; None: in this process
    state: Path | None = None  # what Redis could not take is kept there
    workers: int = 1  # processes, each with its own address
    tls: Tls | None = None  # None: plain gRPC
    memory: int | None = (
        None  # bytes that calls in flight may take, of all workers together; None: half of what there is
    )
    allow_empty: bool = False  # serve without policies, when there are none
