"""What the ext_proc service needs of the house: where calls begin, who counts, and who looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from policyd.core.model.options import Options
from policyd.core.model.steps import Event, RequestHeaders, Step


class OpenCall(Protocol):
    """One call being driven: enforcer.Call."""

    outstanding: asyncio.Future[Any] | None

    async def handle(self, event: Event) -> Sequence[Step]: ...
    async def deliver(self) -> Sequence[Step]: ...


class Calls(Protocol):
    """Where calls begin: enforcer.Enforcer."""

    clock: Callable[[], float]
    options: Options

    def open(self) -> OpenCall: ...


class Latencies(Protocol):
    """Who counts how long messages waited, seconds."""

    def message(self, seconds: float) -> None: ...


class Tap(Protocol):
    """Who sees a call's events besides the exchange."""

    def see(self, event: Event) -> None: ...


class Taps(Protocol):
    """Where taps begin."""

    def begin(self, event: RequestHeaders) -> Tap: ...
