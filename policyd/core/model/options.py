"""What the process decides for every call, and no policy can change."""

from __future__ import annotations

from dataclasses import dataclass, field

from policyd.core.model.bounds import Bounds
from policyd.core.model.decision import Mode

MAX_REQUEST = 32 * 1024 * 1024  # bytes: request bodies that are read, and answers that are judged whole


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the data plane that the core needs."""

    mode: Mode = Mode.FULL  # the process's own ceiling
    identity: str = "headers"  # what `--identity` takes, see identity.py
    namespace: str | None = None  # narrows namespaced policies
    home: str | None = None  # the namespace of calls whose route is not told; None: routes are no part of it
    max_request: int = MAX_REQUEST  # bytes
    observe_all: bool = False  # read every body for its usage, changing nothing: dry runs
    slice_tokens: int = 512  # output tokens that one hold of a stream covers
    whole_tokens: int = 4096  # the same for an answer in one piece whose request names no max_tokens
    tick_s: float = 0.1  # how often rules on elapsed_ms are judged while nothing arrives, seconds
    lease_s: float = 86_400.0  # seconds that a hold outlives its holder; in one process no holder dies alone
    also_reads: frozenset[str] = frozenset()  # facts that are read of calls that are over, beside what policies read
    bounds: Bounds = field(default_factory=Bounds)
