"""How far a call has come."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a call is."""

    OPEN = "open"  # nothing has come
    BODY = "body"  # waiting for the request's body
    ADMITTING = "admitting"  # waiting for readings
    SENT = "sent"  # the request has left
    ANSWERING = "answering"  # the answer is being read, or passes by
    DONE = "done"  # nothing more will be decided
