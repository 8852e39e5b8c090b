"""What Bedrock's doors share: the bill as AWS meters it, and errors.

Rule 1: AWS counts beside its input what a cache gave or took; ours is all input.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.stream.dialects import UNMARKED, Body, Ending
from policyd.core.stream.dialects.billing import classes
from policyd.core.stream.dialects.shared import Bill, listing, mapping, tokens
from policyd.core.stream.json_strict import dumps

METRICS = "amazon-bedrock-invocationMetrics"
TRACE = "amazon-bedrock-trace"
_HEADER = "x-amzn-bedrock-{}-token-count"


def bill_of(usage: object) -> Bill | None:
    """The numbers of a usage, or of invocation metrics; None where one of the two sums is missing. Raises Malformed."""
    if not usage:
        return None
    said = mapping(usage, "usage")

    def number(name: str) -> int | None:
        values = [tokens(said.get(field), field) for field in (f"{name}Tokens", f"{name}TokenCount")]
        return next((value for value in values if value is not None), None)

    bill = _sum(number("input"), number("output"), number("cacheReadInput"), number("cacheWriteInput"))
    if bill is not None and (details := said.get("cacheDetails")) is not None:
        bill.extra = classes(cache_write_1h=_hour(details))
    return bill


def _hour(details: object) -> int:
    """What was written to be kept for an hour. Raises Malformed."""
    written = [mapping(one, "a cache detail") for one in listing(details, "cacheDetails")]
    return sum(tokens(one.get("inputTokens"), "inputTokens") or 0 for one in written if one.get("ttl") == "1h")


def header_bill(headers: Mapping[str, str]) -> Bill | None:
    """The numbers that the headers of an answer in one piece name."""

    def number(name: str) -> int | None:
        value = headers.get(_HEADER.format(name), "")
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 16 else None

    return _sum(number("input"), number("output"), number("cache-read-input"), number("cache-write-input"))


def _sum(given: int | None, made: int | None, read: int | None, written: int | None) -> Bill | None:
    if given is None or made is None:
        return None
    return Bill(given + (read or 0) + (written or 0), made, read or 0, written or 0)


def is_exception(name: str) -> bool:
    """Whether an event of this name is an error."""
    return name == "error" or name.endswith(("Exception", "Error"))


_TYPES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
    """An error in AWS' shape; `reason`, which AWS does not have, carries the reason."""
    kind = _TYPES.get(status, "InternalServerException" if status >= 500 else "ValidationException")
    data = dumps(end.marked({"message": message, "reason": reason})).encode()
    return Body("application/json", data, (("x-amzn-errortype", kind),))
