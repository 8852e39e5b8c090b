"""Which of Envoy's messages may come when, in one call.

Rule 1: what is out of order is told, never repaired: the exchange judges it as a failure.
Rule 2: an answer may begin while the request's body is still awaited: Envoy itself refused the request then.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyd.adapters.envoy.codec import Kind
from policyd.core.model.steps import BodyMode


@dataclass(slots=True)
class Order:
    """How far a call has come, by the messages seen and the answers given."""

    begun: bool = False
    awaiting_body: bool = False
    answered: bool = False  # the response's headers have come
    mode: BodyMode = BodyMode.NONE  # of the response's body
    held: bool = False  # nobody reads it, and it may yet be broken off
    body_over: bool = False
    trailers_over: bool = False

    @property
    def streaming(self) -> bool:
        """Whether more of a streamed answer may come now."""
        return self.mode is BodyMode.STREAM and not self.body_over and not self.trailers_over

    @property
    def passed_by(self) -> bool:
        """Whether the answer has begun and nobody reads on."""
        return self.answered and self.mode is BodyMode.NONE

    def take(self, kind: Kind, *, end: bool) -> bool:
        """Whether this message may come now. `end`: it says that nothing of its body follows."""
        match kind:
            case Kind.REQUEST_HEADERS:
                return self._begin()
            case Kind.REQUEST_BODY:
                expected, self.awaiting_body = self.awaiting_body and not self.answered, False
                return expected
            case Kind.REQUEST_TRAILERS:
                return self.begun and not self.answered
            case Kind.RESPONSE_HEADERS:
                expected, self.answered = self.begun and not self.answered, True
                return expected
            case Kind.RESPONSE_BODY:
                return self._body(end)
            case Kind.RESPONSE_TRAILERS:
                expected, self.trailers_over = self.answered and not self.trailers_over, True
                return expected
            case Kind.NOTHING:
                return False

    def _begin(self) -> bool:
        expected, self.begun = not self.begun, True
        return expected

    def _body(self, end: bool) -> bool:
        expected = self.mode is not BodyMode.NONE and not self.body_over and not self.trailers_over
        self.body_over = self.body_over or end or self.mode is BodyMode.WHOLE
        return expected
