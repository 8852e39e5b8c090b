"""How clients reach one serving process: plain, or over TLS with certificates that follow their files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policyd.adapters.envoy.tls import Door, credentials, guarded, renewing
from policyd.adapters.telemetry import Telemetry
from policyd.adapters.tls_files import Result, TlsWatch
from policyd.server.settings import Tls

log = logging.getLogger("policyd")

_MOST_TOLD = 100  # strangers that the log names


@dataclass(slots=True)
class Transport:
    """What TLS adds to a server; without it, nothing. `start` before all else."""

    tls: Tls | None
    telemetry: Telemetry
    _files: TlsWatch | None = field(init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._files = TlsWatch(self.tls.files, self._reloaded) if self.tls else None

    def start(self) -> None:
        """Read the certificates. Raises UnreadableInput."""
        if self._files is None:
            return
        self._files.start()
        self.telemetry.tls(self._expires)
        log.info("certificate %s is good until %s UTC", self._files.files.cert, self._until())

    async def watch(self) -> None:
        """Follow the files, for ever; without TLS there is nothing to follow."""
        if self._files is not None:
            await self._files.watch()

    @property
    def options(self) -> list[tuple[str, int]]:
        """What a server is to be made with."""
        return renewing(self.tls.renewed_s) if self.tls else []

    @property
    def credentials(self) -> Any:
        """What the port is to be opened with; None: plain."""
        return None if self._files is None else credentials(self._files)

    def guard(self, *services: Any) -> Sequence[Any]:
        """The services, for those only who may ask."""
        if self.tls is None or not self.tls.clients:
            return services
        door = Door(self.tls.clients, self._turned_away)
        return [guarded(one, door) for one in services]

    @property
    def words(self) -> list[str]:
        """How it is, for /readyz."""
        if self._files is None:
            return []
        told = [f"tls: certificate good until {self._until()} UTC"]
        return [*told, f"tls: changed files refused: {self._files.refused}"] if self._files.refused else told

    def _until(self) -> str:
        assert self._files is not None
        return f"{self._files.current.expires:%Y-%m-%d %H:%M}"

    def _expires(self) -> float:
        assert self._files is not None
        return self._files.current.expires.timestamp()

    def _reloaded(self, result: Result, words: str) -> None:
        self.telemetry.tls_reload(result)
        if result == "loaded":
            log.info("new certificate in use for new connections: %s", words)
        else:
            log.error("changed certificates refused, those before stay in use: %s", words)

    def _turned_away(self, who: str) -> None:
        self.telemetry.tls_refused()
        if who not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(who)
            log.warning("a client was refused: its certificate names %a, --tls-client-san does not", who)
