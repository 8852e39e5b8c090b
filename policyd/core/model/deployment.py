"""Where a call goes, as the deployment declares it. Nothing here comes from the caller's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream of the data plane. An empty field is not declared."""

    provider: str = ""
    upstream: str = ""
    host: str = ""
    region: str = ""
    dialects: tuple[str, ...] = ()  # the dialects that this route permits; empty: all


UNDECLARED = Deployment()
Deployments = Mapping[str, Deployment]
"""The known upstreams by name."""
