"""Notices an `--identity` that finds nothing: a wrong name of a claim looks like a caller without an identity."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from policyd.core.model.decision import DecisionRecord
from policyd.core.model.identity import Identity

log = logging.getLogger("policyd")

IN_A_ROW = 100  # calls
_ANY = "any"


@dataclass(slots=True)
class IdentityWatch:
    """A sink of records that warns when a field has had no value in so many calls in a row."""

    identity: Identity
    _missed: dict[str, int] = field(default_factory=dict)  # by field: calls in a row

    def write(self, record: DecisionRecord) -> None:
        """Count one call."""
        if not record.identity_missing and not self._missed:
            return
        before, self._missed = self._missed, {}
        for name in record.identity_missing:
            self._missed[name] = before.get(name, 0) + 1
            if self._missed[name] == IN_A_ROW:
                log.warning("identity not found: %s", self._words(name))

    def _words(self, name: str) -> str:
        identity = self.identity
        where = f"{identity.namespace}/{identity.path}" if identity.path else identity.namespace
        if name == _ANY:
            hint = "is the namespace forwarded to ext_proc, and are the claims below it? jwt_authn puts them below the"
            return f"the last {IN_A_ROW} calls had no claim in metadata {where}: {hint} name in payload_in_metadata"
        places = " or ".join(place.claim or f"the header {place.header}" for place in identity.places[name])
        within = f" in metadata {where}" if where else ""
        return f"the last {IN_A_ROW} calls had no {name}: nothing at {places}{within}"
