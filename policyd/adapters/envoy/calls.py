"""What the ext_proc service needs of the house: where calls begin, who counts, and who looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from policyd.core.model.estimate import Rate
from policyd.core.model.options import Options
from policyd.core.model.steps import Event, RequestHeaders, Step


class OpenCall(Protocol):
    """One call being driven: enforcer.Call."""

    outstanding: asyncio.Future[Any] | None
    wake: Callable[[], None]  # called when `join` may have something to say

    @property
    def id(self) -> str: ...
    @property
    def rates(self) -> Mapping[str, Rate]: ...

    async def handle(self, event: Event) -> Sequence[Step]: ...
    def join(self) -> Sequence[Step]: ...
    async def deliver(self) -> Sequence[Step]: ...


class Calls(Protocol):
    """Where calls begin: enforcer.Enforcer."""

    clock: Callable[[], float]
    options: Options
    leaving: bool  # this process is about to end

    def open(self) -> OpenCall: ...


class Latencies(Protocol):
    """Who counts how long messages waited, seconds, and the calls that Envoy gave up waiting for."""

    def message(self, seconds: float) -> None: ...
    def given_up(self) -> None: ...


class Tap(Protocol):
    """Who sees a call's events besides the exchange."""

    def see(self, event: Event) -> None: ...

    def estimated_by(self, rates: Mapping[str, Rate], decision: str = "") -> None:
        """What was known of the call's models, when it began; told before its end."""
        ...


class Taps(Protocol):
    """Where taps begin."""

    def begin(self, event: RequestHeaders) -> Tap: ...
