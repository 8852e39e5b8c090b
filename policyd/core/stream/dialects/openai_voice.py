"""What OpenAI's dialects say alike: where a stream of choices stands, its last event, usage and errors."""

from __future__ import annotations

from typing import NamedTuple

from policyd.core.stream.dialects import Body
from policyd.core.stream.dialects.shared import Bill
from policyd.core.stream.json_strict import dumps

DONE = b"data: [DONE]\n\n"


class Stand(NamedTuple):
    """Where a stream stands: what its client knows of it."""

    id: str = ""
    created: int = 0  # seconds since 1970, as the provider says
    model: str = ""
    begun: tuple[int, ...] = ()  # choices, in order of appearance
    finished: frozenset[int] = frozenset()
    usage: bool = False  # the provider's numbers have been sent
    done: bool = False  # [DONE] has been sent
    failed: bool = False  # an error event has been sent


def usage(bill: Bill) -> dict[str, object]:
    """A bill in the words of chat and completions."""
    return {
        "prompt_tokens": bill.input,
        "completion_tokens": bill.output,
        "total_tokens": bill.input + bill.output,
        "prompt_tokens_details": {"cached_tokens": bill.cached},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning},
    }


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def error(status: int, reason: str, message: str) -> Body:
    """An error in OpenAI's shape."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    said = {"error": {"message": message, "type": kind, "param": None, "code": reason}}
    return Body("application/json", dumps(said).encode())
