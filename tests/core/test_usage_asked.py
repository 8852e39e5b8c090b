"""Usage of a stream, asked for in the caller's place where something enforced counts by it, and then withheld."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.decision import Mode
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import registry
from tests.driving import Bed, FlatPrices, Outcome, chat, delta, policy, sse

HOUR = "window: {lifetime: 1h}"
TOKENS = f"counters:\n- {{name: c, key: session.id, charge: TotalTokens, {HOUR}, limit: 1000 tokens}}"
MONEY = f"counters:\n- {{name: c, key: session.id, charge: Cost, {HOUR}, limit: 10 USD}}"
CALLS = f"counters:\n- {{name: c, key: session.id, charge: Requests, {HOUR}, limit: 10 requests}}"
READS = "rules:\n- {name: r, when: response.output_tokens > 900, terminate: {}}"
SPENDS = "rules:\n- {name: r, when: response.cost_usd > 900.0, terminate: {}}"
TEXT = "rules:\n- {name: r, when: 'response.text.contains(\"x\")', terminate: {}}"
EXTRA = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [],
         "usage": {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}}  # fmt: skip
ANSWER = [sse(delta("hello"), done=False), sse(delta("", "stop"), done=False), sse(EXTRA)]


def call(spec: str, body: bytes | None = None, how: str = "Full", mode: Mode = Mode.FULL, **more: Any) -> Outcome:
    bed = Bed(policy(spec, mode=how), mode=mode, prices=FlatPrices("gpt-4o"))
    return bed.call(body=body or chat(stream=True), chunks=ANSWER, **more)


def sent(out: Outcome) -> Any:
    assert out.sent is not None
    return json.loads(out.sent)


@pytest.mark.parametrize("spec", [TOKENS, MONEY, READS, SPENDS], ids=["tokens", "money", "reads", "spends"])
def test_usage_is_asked_for_where_a_budget_needs_it_and_withheld(spec: str) -> None:
    out = call(spec)
    assert sent(out) == {**json.loads(chat(stream=True)), "stream_options": {"include_usage": True}}
    assert out.body == b"".join(ANSWER).replace(sse(EXTRA, done=False), b"")
    usage = out.record.usage
    assert (usage["input_tokens"], usage["output_tokens"], usage["source"]) == (40, 60, "provider")


@pytest.mark.parametrize("spec", [CALLS, TEXT], ids=["calls", "text"])
def test_usage_is_not_asked_for_where_nothing_counts_by_it(spec: str) -> None:
    out = call(spec)
    assert out.sent in (b"", chat(stream=True))  # empty: its body was not even asked for
    assert out.body == b"".join(ANSWER)


@pytest.mark.parametrize(
    ("how", "mode"), [("Monitor", Mode.FULL), ("Full", Mode.MONITOR), ("Soft", Mode.MONITOR)], ids=str
)
@pytest.mark.parametrize("spec", [TOKENS, MONEY, READS], ids=["tokens", "money", "reads"])
def test_under_monitor_nothing_is_asked_and_nothing_withheld(spec: str, how: str, mode: Mode) -> None:
    out = call(spec, how=how, mode=mode)
    assert out.sent == chat(stream=True)
    assert out.body == b"".join(ANSWER)


def test_a_caller_who_asked_gets_what_was_asked_for() -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    out = call(TOKENS, body)
    assert (out.sent, out.body) == (body, b"".join(ANSWER))


def test_a_caller_who_said_no_is_not_told() -> None:
    out = call(TOKENS, chat(stream=True, stream_options={"include_usage": False, "include_obfuscation": False}))
    assert sent(out)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert sse(EXTRA, done=False) not in out.body


def test_what_does_not_stream_is_not_asked() -> None:
    assert call(TOKENS, chat()).sent == chat()


def test_usage_that_comes_with_a_choice_is_not_extra() -> None:
    last = {**delta("", "stop"), "usage": EXTRA["usage"]}
    chunks = [sse(delta("hello"), done=False), sse(last)]
    out = Bed(policy(TOKENS)).call(body=chat(stream=True), chunks=chunks)
    assert out.body == b"".join(chunks)


@pytest.mark.parametrize(
    ("host", "path", "asks"),
    [
        ("api.openai.com", "/v1/chat/completions", True),
        ("localhost:8000", "/v1/chat/completions", True),
        ("api.deepseek.com", "/v1/chat/completions", True),
        ("api.mistral.ai", "/v1/chat/completions", False),
        ("api.perplexity.ai", "/chat/completions", False),
        ("x.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2024-02-01", False),
        ("x.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2024-10-21", True),
        ("x.openai.azure.com", "/openai/v1/chat/completions?api-version=preview", True),
    ],
)
def test_who_tells_usage_anyway_or_cannot_be_asked_is_not(host: str, path: str, asks: bool) -> None:
    path, _, query = path.partition("?")
    dialect, _, provider = registry.choose("POST", path, host, {})
    assert dialect is not None
    facts = RequestFacts(path=path, query=query, provider=provider)
    dialect.read_request(json.loads(chat(stream=True)), facts)
    assert facts.usage_on_request is asks


def test_completions_are_asked_too() -> None:
    body = json.dumps({"model": "gpt-4o", "prompt": "hi", "stream": True}).encode()
    choice = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": None}
    head = {"id": "c", "object": "text_completion", "created": 1, "model": "gpt-4o"}
    chunks = [sse({**head, "choices": [choice]}, done=False), sse({**head, "choices": [], "usage": EXTRA["usage"]})]
    out = Bed(policy(TOKENS)).call(body=body, chunks=chunks, path="/v1/completions")
    assert sent(out)["stream_options"] == {"include_usage": True}
    assert out.body == chunks[0] + b"data: [DONE]\n\n"
    assert out.record.usage["output_tokens"] == 60


def test_a_cut_stream_tells_no_usage_that_nobody_asked_for() -> None:
    spec = f"{TOKENS}\nrules:\n- {{name: r, when: 'response.text.contains(\"x\")', terminate: {{fallback: no}}}}"
    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=[sse(delta("ok"), done=False), sse(delta("x"))])
    assert all(not (isinstance(one, dict) and one.get("usage")) for one in out.data)
    assert out.text == "ok\n\nno"


def test_the_event_that_is_withheld_counts() -> None:
    spec = f"{TOKENS}\nrules:\n- {{name: r, when: response.events > 2, terminate: {{fallback: no}}}}"
    assert Bed(policy(spec)).call(body=chat(stream=True), chunks=ANSWER).record.event == 2
