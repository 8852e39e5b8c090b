"""What OpenAI's dialects share: paths, prompts, where a stream of choices stands, usage and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.model.tokens import Asked
from policyd.core.stream.dialects import UNMARKED, Body, Ending, Path
from policyd.core.stream.dialects.shared import Bill, flag, input_estimate, mapping
from policyd.core.stream.json_strict import dumps

DONE = b"data: [DONE]\n\n"
UNKNOWN_PROVIDER = "unknown"
_DEPLOYMENT = re.compile(r"/(?:deployments|engines)/([^/]+)/", re.IGNORECASE)

# Their streams tell usage unasked, and some refuse to be asked.
_TELLS_USAGE = frozenset(
    {"mistral", "groq", "together", "fireworks", "perplexity", "xai", "cerebras", "moonshot", "openrouter", "cohere"}
)
_API_VERSION = re.compile(r"(?:^|&)api-version=(\d{4}-\d\d-\d\d)")
_KNOWS_STREAM_OPTIONS = "2024-09-01"  # the first version of Azure's that does


def read_usage_wish(document: dict[str, object], facts: RequestFacts) -> None:
    """Whether usage was asked for, and whether it could be. Raises Malformed."""
    options = document.get("stream_options")
    wanted = mapping(options, "stream_options").get("include_usage") if options is not None else None
    facts.wants_usage = flag(wanted, "stream_options.include_usage") or False
    version = _API_VERSION.search(facts.query)
    old = facts.provider == "azure" and version is not None and version[1] < _KNOWS_STREAM_OPTIONS
    told = facts.provider in _TELLS_USAGE or old
    facts.usage_on_request = bool(facts.stream) and not facts.wants_usage and not told


def deployment(path: str) -> str | None:
    """The deployment that Azure names in the path: it serves, whatever the body says."""
    found = _DEPLOYMENT.search(path)
    return found[1] if found else None


def provider_of_path(path: str) -> str:
    """Who is meant when the host does not tell: only Azure has paths of its own. The rest is served by many."""
    return "azure" if path.startswith(("/openai/deployments/", "/openai/responses")) else UNKNOWN_PROVIDER


def prompts_of(prompt: object, what: str) -> tuple[list[tuple[Path, str]], list[int]]:
    """The texts of a prompt and where they stand; the lengths of what is token ids. Raises Malformed."""
    if prompt is None:
        return [], []
    if isinstance(prompt, str):
        return [((what,), prompt)], []
    if not isinstance(prompt, list):
        raise Malformed(f"{what} is neither text nor a list")
    if prompt and all(type(one) is int for one in prompt):
        return [], [len(prompt)]
    texts: list[tuple[Path, str]] = []
    tokens: list[int] = []
    for place, one in enumerate(prompt):
        if isinstance(one, str):
            texts.append(((what, place), one))
        elif isinstance(one, list) and all(type(token) is int for token in one):
            tokens.append(len(one))
        else:
            raise Malformed(f"{what} holds what is neither text nor token ids")
    return texts, tokens


def estimate_input(
    facts: RequestFacts, texts: Sequence[str], messages: int, parts: int, tools: Sequence[object], *, ids: int = 0
) -> None:
    """The estimate of a request's input, and what a tokenizer can count of it."""
    facts.input_tokens = input_estimate(texts, messages, parts, tools) + ids
    facts.asked = Asked(texts, messages, tools, ids, whole=not parts)


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


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
    """An error in OpenAI's shape."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    said = {"error": end.marked({"message": message, "type": kind, "param": None, "code": reason})}
    return Body("application/json", dumps(said).encode())
