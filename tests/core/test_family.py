"""Those who speak OpenAI Chat Completions in ways of their own: what each adds, renames or repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import RequestChange
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.json_text import dumps, loads, splice
from tests.driving import Bed, chat, policy
from tests.streams import Read, cuts, read_json, read_stream, sse

DIALECT = OpenAIChat()


def chunk(delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {} if delta is None else {"index": 0, "delta": delta, "finish_reason": reason}
    extra = more.pop("choice", {})
    return {**head, "choices": [{**choice, **extra}] if choice else [], **more}


def used(prompt: int, output: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **more}


def so_far(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


STEP = {"thought": "Looking it up", "type": "web_search", "web_search": {"search_results": [{"url": "u"}]}}

# name: (events, text, reasons, input, output, cached, reasoning)
STREAMS: dict[str, tuple[list[Any], str, list[str], int, int, int, int]] = {
    "deepseek": ([
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}), chunk({"reasoning_content": "hm"}),
        chunk({"content": "a", "reasoning_content": None}),
        chunk({"content": "", "reasoning_content": None}, "stop", usage=used(
            9, 5, prompt_cache_hit_tokens=4, prompt_cache_miss_tokens=5,
            completion_tokens_details={"reasoning_tokens": 2})),
    ], "a", ["stop"], 9, 5, 4, 2),
    "groq": ([
        chunk({"role": "assistant", "content": ""}, x_groq={"id": "req"}), chunk({"reasoning": "hm"}),
        chunk({"content": "a"}), chunk({}, "stop", x_groq={"id": "req", "usage": used(7, 2, queue_time=0.1)}),
    ], "a", ["stop"], 7, 2, 0, 0),
    "mistral": ([
        chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}, p="abc"),
        chunk({"content": ""}, "model_length", usage=used(7, 2)),
    ], "a", ["model_length"], 7, 2, 0, 0),
    "mistral thinking": ([
        chunk({"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        chunk({"content": [{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}]}),
        chunk({"content": ""}, "stop", usage=used(7, 2)),
    ], "a", ["stop"], 7, 2, 0, 0),
    "xai": ([
        chunk({"role": "assistant", "reasoning_content": "hm"}), chunk({"content": "a"}),
        chunk({}, "stop", citations=["https://x"]),
        chunk(None, usage={**used(10, 3), "total_tokens": 53, "num_sources_used": 0,
                           "prompt_tokens_details": {"cached_tokens": 6, "text_tokens": 10},
                           "completion_tokens_details": {"reasoning_tokens": 40}}),
    ], "a", ["stop"], 10, 43, 6, 40),
    "together": ([
        chunk({"role": "assistant", "content": "a", "token_id": 5}, choice={"text": "a", "seed": None}),
        chunk({"content": ""}, "eos", choice={"text": "", "seed": 123}, usage={**used(7, 2), "cached_tokens": 3}),
    ], "a", ["eos"], 7, 2, 3, 0),
    "perplexity": ([
        chunk({"role": "assistant", "content": "a"}, choice=so_far("a"), citations=["https://x"],
              usage={**used(7, 1), "search_context_size": "low"}),
        chunk({"content": "b"}, choice=so_far("ab"), usage=used(7, 2), search_results=[{"title": "t", "url": "u"}]),
        chunk({"content": ""}, "stop", choice=so_far("ab"), usage={**used(7, 2), "cost": {"total_cost": 0.1}}),
    ], "ab", ["stop"], 7, 2, 0, 0),
    "perplexity in steps": ([
        {**chunk({"content": "", "reasoning_steps": [STEP]}, choice=so_far("")), "object": "chat.reasoning"},
        {**chunk({"content": ""}, choice={"message": {"content": "", "reasoning_steps": [STEP]}}),
         "object": "chat.reasoning.done"},
        chunk({"content": "a"}, choice=so_far("")),
        {**chunk({"content": ""}, "stop", choice=so_far("a"), usage=used(7, 1)), "object": "chat.completion.done"},
    ], "a", ["stop"], 7, 1, 0, 0),
    "perplexity in depth": ([
        chunk({"content": "a"}, "stop", choice=so_far("a"),
              usage={**used(33, 100), "citation_tokens": 20, "reasoning_tokens": 700, "num_search_queries": 3}),
    ], "a", ["stop"], 33, 800, 0, 700),
    "fireworks": ([
        chunk({"role": "assistant", "content": "a"}, choice={"raw_output": {"completion": "a"}}),
        chunk({}, "stop", usage={**used(7, 2), "prompt_tokens_details": {"cached_tokens": 5}}, perf_metrics={"x": "1"}),
    ], "a", ["stop"], 7, 2, 5, 0),
    "alibaba": ([
        chunk({"role": "assistant", "content": None, "reasoning_content": "hm"}), chunk({"content": "a"}),
        chunk({"content": ""}, "stop"),
        chunk(None, usage=used(9, 4, completion_tokens_details={"reasoning_tokens": 1},
                               prompt_tokens_details={"cached_tokens": 2, "cache_creation_input_tokens": 3})),
    ], "a", ["stop"], 9, 4, 2, 1),
    "moonshot": ([
        chunk({"role": "assistant", "content": "a"}),
        chunk({}, "stop", choice={"usage": {**used(9, 4), "cached_tokens": 8}}),
    ], "a", ["stop"], 9, 4, 8, 0),
    "cerebras": ([
        chunk({"role": "assistant", "reasoning": "hm"}), chunk({"content": "a"}),
        chunk({}, "stop", usage=used(9, 4), time_info={"queue_time": 0.1, "created": 1}),
    ], "a", ["stop"], 9, 4, 0, 0),
    "openrouter": ([
        chunk({"role": "assistant", "content": "", "reasoning": "hm",
               "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, provider="Z"),
        chunk({"role": "assistant", "content": "a"}, choice={"native_finish_reason": None, "logprobs": None}),
        chunk({"content": ""}, "stop", choice={"native_finish_reason": "STOP"}),
        chunk(None, usage={**used(9, 4), "cost": 0.1, "is_byok": False, "cost_details": {"upstream_inference_cost": 1},
                           "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0}}),
    ], "a", ["stop"], 9, 4, 1, 0),
    "vllm": ([
        chunk({"role": "assistant", "content": "", "reasoning_content": None}, prompt_token_ids=[1]),
        chunk({"content": "a"}, choice={"token_ids": [5], "logprobs": None, "stop_reason": None}, usage=used(9, 1)),
        chunk({"content": ""}, "stop", choice={"stop_reason": "</s>"}), chunk(None, usage=used(9, 1)),
    ], "a", ["stop"], 9, 1, 0, 0),
    "sglang": ([
        chunk({"role": "assistant", "content": "a"}), chunk({}, "stop", choice={"matched_stop": 2}),
        chunk(None, usage={**used(9, 4), "num_cached_tokens": 6, "prompt_tokens_details": None}),
    ], "a", ["stop"], 9, 4, 6, 0),
    "azure": ([
        {**chunk(None), "id": "", "object": "", "model": "",
         "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"severity": "safe"}}}]},
        chunk({"role": "assistant", "content": "a"}, choice={"content_filter_results": {"hate": {"severity": "safe"}}}),
        chunk({}, "stop", choice={"content_filter_results": {}}), chunk(None, usage=used(9, 4)),
    ], "a", ["stop"], 9, 4, 0, 0),
}  # fmt: skip


def read(events: list[Any], provider: str = "") -> Read:
    data = b": OPENROUTER PROCESSING\n\n" + sse(*events)
    whole = read_stream(DIALECT, [data], RequestFacts(stream=True, provider=provider))
    for chunks in cuts(data, 2):
        assert read_stream(DIALECT, chunks, RequestFacts(stream=True, provider=provider)).readings == whole.readings
    return whole


@pytest.mark.parametrize("name", STREAMS)
def test_a_dialect_of_the_family_is_understood_whole(name: str) -> None:
    events, text, reasons, given, made, cached, reasoning = STREAMS[name]
    got = read(events).response
    assert (got.inspection, got.partial_reason, got.usage_source) == ("full", "", "provider")
    assert (got.text(), got.finish_reasons) == (text, reasons)
    counted = (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.reasoning_tokens)
    assert counted == (given, made, cached, reasoning)


def test_what_nobody_knows_makes_a_choice_partial() -> None:
    assert read([chunk({"content": "a"}, "stop", choice={"invented": "text"})]).response.inspection == "partial"
    assert read([chunk({"content": "a"}, "stop", choice={"invented": 5})]).response.inspection == "full"
    assert read([chunk({"content": "a"}, "stop", choice=so_far("b"))]).response.inspection == "partial"


def test_a_choice_that_broke_off_is_an_error() -> None:
    broken = chunk({"content": ""}, "error", choice={"error": {"code": 502, "message": "upstream"}})
    assert read([chunk({"content": "a"}), broken]).response.is_error
    document = {
        "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "error", "error": {"code": 502}}]
    }
    assert read_json(DIALECT, document).response.is_error


SECRET = "KEY-12345678"


def test_a_secret_in_a_message_that_grows_beside_its_deltas_does_not_leave() -> None:
    spec = "rules:\n- {name: r, constrain: {redact: {patterns: ['KEY-[0-9]{8}'], in: [response], replacement: '#'}}}"
    said, events = "", []
    for piece in ["It is ", *SECRET, " so"]:
        said += piece
        events.append(chunk({"content": piece}, choice=so_far(said)))
    data = sse(*events, chunk({"content": ""}, "stop", choice=so_far(said)))
    outs = {
        Bed(policy(spec))
        .call(body=chat(stream=True), chunks=chunks, headers=((":authority", "api.perplexity.ai"),))
        .body
        for chunks in cuts(data, 4)
    }
    assert len(outs) == 1
    body = outs.pop().decode()
    assert "KEY-1" not in body and "1234" not in body
    documents = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert documents[-1]["choices"][0]["message"]["content"] == "It is # so"
    for document in documents:
        assert "It is # so".startswith(document["choices"][0]["message"]["content"])


# ---- prompts that are answered as in a chat -------------------------------------------------------------------------


def test_what_stands_before_and_after_is_a_prompt() -> None:
    body = {"model": "codestral", "prompt": "def f(", "suffix": "return x", "max_tokens": 9}
    facts = RequestFacts(path="/v1/fim/completions")
    DIALECT.read_request(body, facts)
    assert [(one.role, one.text) for one in facts.messages] == [("user", "def f(")]
    assert facts.text == "def f(\nreturn x"
    assert [one.path for one in DIALECT.request_segments(body)] == [("prompt",), ("suffix",)]
    data = dumps(body).encode()
    edits = DIALECT.edits(loads(data), RequestChange(caps=(("max_tokens", 5),)))
    assert json.loads(splice(data, edits)) == {**body, "max_tokens": 5}
    with pytest.raises(Malformed):
        DIALECT.edits(body, RequestChange(inject_system=("x",)))
