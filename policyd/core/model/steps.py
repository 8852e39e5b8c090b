"""What happens to a call (events), what is to be done with its bytes (steps), and what the core lacks (needs).

Rule 1: a Decision is about policy; a Step is about bytes.
Rule 2: times are monotonic seconds; `wall` is seconds since 1970, UTC.
Rule 3: headers are (name, value) pairs in order; names are lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from policyd.core.model.counters import CounterId, Hold, Readings, SessionCharge, SessionId
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.deployment import UNDECLARED, Deployment, Deployments
from policyd.core.model.headers import HeaderEdit, Headers
from policyd.core.model.route import Route

# ---- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The call begins. `headers` carries the pseudo-headers (:method, :path, :authority) too."""

    headers: Headers
    end: bool
    now: float
    wall: float
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # namespace -> authenticated facts
    route: Route | None = None  # as Envoy's own configuration names it; None where it is not told
    deployment: Deployment = UNDECLARED  # where the call goes, as Envoy's configuration declares it
    upstreams: Deployments = field(default_factory=dict)  # where it could be sent instead, by name
    crowded: bool = False  # there is no memory for its body


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The whole request body. `truncated`: it was larger than what may be read. `unread`: why it cannot be judged,
    whatever it holds."""

    data: bytes
    now: float
    truncated: bool = False
    unread: str = ""


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """The answer begins; `headers` carries :status."""

    headers: Headers
    end: bool
    now: float


@dataclass(frozen=True, slots=True)
class ResponseChunk:
    """Bytes of the answer, cut as the network cut them; `end` with the last of them. `truncated`: of an answer that was
    to be brought whole, and is larger than what may be read. `unread`: why such an answer cannot be judged, whatever it
    holds."""

    data: bytes
    end: bool
    now: float
    truncated: bool = False
    unread: str = ""


@dataclass(frozen=True, slots=True)
class ResponseTrailers:
    """The answer ends with trailers."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that a `WakeAt` asked for has come."""

    now: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Something around the call failed: an overrun deadline, a message that makes no sense."""

    reason: str  # deadline, out_of_order, internal, ...
    now: float
    wall: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """No more events will come: the call is over, or its peer is gone. `unsent`: the last thing that was to be done did
    not reach the peer, so that a request that was passed on has not left."""

    now: float
    cancelled: bool = False
    unsent: bool = False


Event = RequestHeaders | RequestBody | ResponseHeaders | ResponseChunk | ResponseTrailers | Tick | Failed | Ended


# ---- needs: what the core asks its caller to bring -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Bring the readings of these counters, and of the session when asked."""

    counters: tuple[CounterId, ...]
    session: SessionId | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hold all or nothing. `lease_s`: after this long without a sign of life the hold is charged as `observed`."""

    op: str  # idempotency key
    call: str  # the decision id that the holds belong to
    holds: tuple[Hold, ...]
    lease_s: float = 15.0
    session: SessionId | None = None  # bring its reading too


@dataclass(frozen=True, slots=True)
class Extend:
    """Hold more, all or nothing, for a call that already holds; renews its lease.

    `observed`: what the call has spent so far of each counter, in the same order: what is charged if the holder dies.
    As a step it is not waited for.
    """

    op: str
    call: str
    holds: tuple[Hold, ...]
    observed: tuple[int, ...]
    lease_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Settle:
    """Charge what the call really used and drop its holds; amounts in store units, once a call.

    As a step it is not waited for.
    """

    op: str
    call: str
    charges: tuple[tuple[CounterId, int], ...]
    session: SessionCharge | None = None


Need = Read | Reserve | Extend | Settle
"""Each is answered with `Readings` (never an exception: a failure is `Readings(failure=...)`)."""


# ---- steps: what the caller does ----------------------------------------------------------------------------------


class BodyMode(StrEnum):
    """How much of a response body the caller is to bring."""

    NONE = "none"  # nothing: it passes by
    STREAM = "stream"  # every chunk; what leaves is what `Release` says
    WHOLE = "whole"  # all of it at once, headers waiting


@dataclass(frozen=True, slots=True)
class PassRequestHeaders:
    """Let the request's headers go on, or, with `want_body`, bring the body first."""

    edit: HeaderEdit = HeaderEdit()
    want_body: bool = False
    # Nobody has said how long that body is: it may be more than may be read, and then its beginning is brought. Envoy
    # makes us say no where the call might be sent elsewhere: what comes so keeps the route that it had.
    unsized: bool = False
    reroute: bool = False  # compute the route anew


@dataclass(frozen=True, slots=True)
class PassRequestBody:
    """Let the request go; `data` None means as it came."""

    data: bytes | None = None
    edit: HeaderEdit = HeaderEdit()
    reroute: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer in the upstream's place. Allowed until the response's headers have left."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class PassResponseHeaders:
    """Let the response's headers go on, and bring the body as `mode` says (WHOLE keeps the headers waiting)."""

    edit: HeaderEdit = HeaderEdit()
    mode: BodyMode = BodyMode.NONE
    unsized: bool = False  # nobody has said how long the body is
    held: bool = False  # in NONE mode: the caller keeps listening, for the answer may yet have to be broken off


@dataclass(frozen=True, slots=True)
class PassResponseBody:
    """In WHOLE mode: let the answer go; `data` None means as it came."""

    data: bytes | None = None
    edit: HeaderEdit = HeaderEdit()


@dataclass(frozen=True, slots=True)
class Release:
    """In STREAM mode: these bytes may leave now, or not before `at`. `end` ends the answer, and with it the call
    to the upstream. INVARIANT: an `end` always rides on at least one byte unless the answer was empty.
    `hurry`: nor does what waits for its time before it wait any longer."""

    data: bytes
    end: bool = False
    at: float | None = None
    hurry: bool = False


@dataclass(frozen=True, slots=True)
class PassTrailers:
    """Let the response's trailers go on."""


@dataclass(frozen=True, slots=True)
class Break:
    """Break the call so that its client sees a broken answer: nothing else is left that would not be unjudged bytes.
    `refused`: a policy ends it, so that it breaks also where what fails is to pass."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Bring a `Tick` at this time. The newest one counts; `None` calls it off."""

    at: float | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell whoever logs the call what was decided by now: its record is written only when it ends."""

    record: DecisionRecord


@dataclass(frozen=True, slots=True)
class Record:
    """Write down what was decided."""

    record: DecisionRecord


Step = (
    PassRequestHeaders
    | PassRequestBody
    | Reject
    | PassResponseHeaders
    | PassResponseBody
    | Release
    | PassTrailers
    | Break
    | WakeAt
    | Settle
    | Extend
    | Tell
    | Record
)

__all__ = [
    "BodyMode",
    "Break",
    "Ended",
    "Event",
    "Extend",
    "Failed",
    "HeaderEdit",
    "Headers",
    "Need",
    "PassRequestBody",
    "PassRequestHeaders",
    "PassResponseBody",
    "PassResponseHeaders",
    "PassTrailers",
    "Read",
    "Readings",
    "Record",
    "Reject",
    "Release",
    "RequestBody",
    "RequestHeaders",
    "Reserve",
    "ResponseChunk",
    "ResponseHeaders",
    "ResponseTrailers",
    "Settle",
    "Step",
    "Tell",
    "Tick",
    "WakeAt",
]
