"""Operations of the endpoints that have no dialect of their own, told by method and normal path.

Rule 1: `other` is only what carries no content in either direction. An endpoint that is not listed here is `unknown`.
Rule 2: paths are matched behind any prefix, so that a gateway's own prefix does not hide an operation.
"""

from __future__ import annotations

import re
from functools import lru_cache

from policyd.core.model.operations import UNBILLED

READING = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})  # methods that carry no body
_WRITING = frozenset({"POST", "PUT", "PATCH"})

_ID = "[^/]+"
_STORES = (
    "files|uploads|assistants|threads|conversations|vector_stores|containers|prompts|skills|evals|graders|fine_tuning|agents"
    "|libraries|memory_stores|cachedcontents|corpora|filesearchstores|tunedmodels|batchpredictionjobs|rankingconfigs"
)
# Objects whose description holds no content.
_DESCRIBED = "files|uploads|vector_stores|batches|containers|fine_tuning|fine-tunes|batch"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:^|/)(?:{one})$" for one in patterns))


_FETCHED = _any(
    rf"responses/{_ID}(?:/input_items)?",
    rf"chat/completions(?:/{_ID}(?:/messages)?)?",
    rf"conversations/{_ID}/(?:items(?:/{_ID})?|history|messages)",
    rf"threads/{_ID}/(?:messages|runs)(?:/.+)?",
    rf"(?:messages/)?batches/{_ID}/results",
    rf"files/{_ID}(?:/(?:content|download|url)|:download)",
    rf"containers/{_ID}/files/{_ID}/content",
    rf"vector_stores/{_ID}/files/{_ID}/content",
    rf"skills/{_ID}(?:/versions/{_ID})?/content",
    rf"evals/{_ID}/runs/{_ID}/output_items(?:/{_ID})?",
    rf"videos(?:/{_ID}(?:/content)?)?",
    rf"v\d+(?:alpha|beta)\d*/(?:.+/)?(?:batches|operations|interactions)(?:/{_ID})?",
    rf"locations/{_ID}/operations/{_ID}",
    "fine_tuning/jobs/[^/]+/(?:events|checkpoints)",
)
_FETCHED_BY_POST = _any(
    rf"responses/{_ID}/cancel",
    rf"chat/completions/{_ID}",
    rf"vector_stores/{_ID}/search",
    rf"threads/{_ID}/runs/{_ID}/cancel",
    rf"interactions/{_ID}/cancel",
    rf"[^/]+:fetchpredictoperation|(?:corpora|documents)/{_ID}:query",
)
_LISTED = _any(
    rf"models(?:/.+)?|engines(?:/{_ID})?|deployments(?:/{_ID})?|foundation-models(?:/{_ID})?",
    rf"(?:{_DESCRIBED})(?:/{_ID})?|messages/batches(?:/{_ID})?|fine_tuning/(?:jobs|checkpoints)(?:/.+)?|batch/jobs(?:/{_ID})?",
    rf"vector_stores/{_ID}/(?:files(?:/{_ID})?|file_batches/{_ID}(?:/files)?)|containers/{_ID}/files(?:/{_ID})?",
    "organizations?(?:/.*)?",
    "api/(?:tags|ps|version)",
)
_ALIVE = re.compile(r"^/(?:health|healthz|livez|readyz|ready|ping|metrics|version)(?:/[a-z]+)?$")
_CANCELLED = _any(
    rf"(?:messages/)?batches/{_ID}(?:/|:)cancel",
    rf"batch/jobs/{_ID}/cancel",
    rf"uploads/{_ID}/cancel",
    rf"fine_tuning/(?:alpha/)?jobs/{_ID}/(?:cancel|pause|resume)",
    rf"vector_stores/{_ID}/file_batches/{_ID}/cancel",
)
# What runs a model below a place where content is kept.
_RUNS = _any(
    r"agents/.+/(?:text|invoke|invocations|query|run|runs|chat|completions|messages|sessions/.+)",
    r"agents/[^/]*:[^/]+",
)
# What keeps content and runs a model over it at once: it is `storage`, and billed.
_GRADES = _any(r"(?:fine_tuning/(?:[^/]+/)?)?graders/run", rf"evals/{_ID}/runs(?:/{_ID})?")

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "token_count",
        _any(
            "messages/count_tokens|responses/input_tokens|tokenize|detokenize|tokenizers?/[^/]+|apply-template",
            r"models/count-tokens(?:@[^:/]*)?:(?:raw|streamraw)predict",
            "model/.+/count-tokens",
            "[^/]+:(?:count|compute)tokens",
        ),
    ),
    ("moderation", _any("moderations|chat/moderations|classifications|chat/classifications|guardrail/.+/apply")),
    ("rerank", _any("rerank|reranking|score|rank", "[^/]+:rank")),
    (
        "batch",
        _any(
            "batches|batch/jobs|model-invocation-job|async-invoke|batchpredictionjobs",
            r"[^/]+:(?:batchgeneratecontent|asyncbatchembedcontent)",
        ),
    ),
    (
        "image",
        _any(
            "images/(?:generations|edits|variations|inpainting)",
            rf"videos(?:/{_ID}/remix|/edits|/extensions)?",
            r"models/(?:imagen|imagegeneration|imagetext|veo)[^/]*:(?:predict|predictlongrunning)",
            r"model/[^/]*(?:stability\.|titan-image|nova-canvas|nova-reel|luma\.)[^/]*/invoke",
        ),
    ),
    (
        "audio",
        _any(
            "audio/(?:speech|transcriptions|translations|voices|voice_consents)",
            r"text:synthesize|speech:(?:longrunning)?recognize|text-to-speech(?:/.+)?|speech-to-text",
        ),
    ),
    (
        "realtime",
        _any(
            "realtime(?:/.+)?",
            "model/.+/invoke-with-bidirectional-stream",
            r"ws/.+|[^/]+:bidigeneratecontent",
        ),
    ),
)
_STORED = _any(rf"(?:{_STORES})(?:/.+)?")
_STORED_GET = _any(rf"(?:{_STORES})(?:/.+)?", rf"threads/{_ID}", rf"conversations/{_ID}")
_DELETED = _any(
    rf"(?:{_STORES}|responses|chat/completions|batches|messages/batches|models|videos|operations|interactions"
    rf"|mcp|api/delete)(?:/.+)?"
)


@lru_cache(maxsize=2048)
def operation_of(method: str, path: str, provider: str) -> str:
    """The operation of a call without a body to judge by. `path`: normal and in lower case."""
    match method:
        case "GET":
            return _got(path)
        case "HEAD":
            return "other" if _got(path) != "unknown" else "unknown"
        case "OPTIONS":
            return "other"
        case "DELETE":
            return "other" if _DELETED.search(path) else "unknown"
        case _ if method in _WRITING:
            return _posted(path, provider)
        case _:
            return "realtime" if _KINDS[-1][1].search(path) else "unknown"


def _got(path: str) -> str:
    if _KINDS[-1][1].search(path):
        return "realtime"
    if _FETCHED.search(path) or path.endswith(("/mcp", "/sse")):
        return "retrieval"
    if path == "/" or _LISTED.search(path) or _ALIVE.search(path):
        return "other"
    return "storage" if _STORED_GET.search(path) else "unknown"


def _posted(path: str, provider: str) -> str:
    if provider == "mistral" and "/conversations" in path:
        return "unknown"  # with this provider a conversation runs a model
    for operation, pattern in _KINDS:
        if pattern.search(path):
            return operation
    if _RUNS.search(path):
        return "unknown"
    if _FETCHED_BY_POST.search(path):
        return "retrieval"
    if _CANCELLED.search(path) or _ALIVE.search(path):
        return "other"
    return "storage" if _STORED.search(path) else "unknown"


def is_billed(operation: str, path: str) -> bool:
    """Whether the provider bills a call by the token. `path`: normal."""
    return operation not in UNBILLED or (operation == "storage" and bool(_GRADES.search(path.lower())))
