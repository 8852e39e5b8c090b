"""Calls whose usage comes later or in another place: background responses, runs, batches; interactions, predictions."""

from __future__ import annotations

import json

import pytest

from policyd.adapters.recordings import Recording
from tests.driving import Bed, policy
from tests.small import READS, call, play, read
from tests.streams import sse

OPENAI, CLAUDE, GOOGLE = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
VERTEX = "us-central1-aiplatform.googleapis.com"
PUBLISHED = "/v1/projects/p/locations/us-central1/publishers/google/models/"
USED = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
CHARGED = 1000 * 1250 + 100 * 10_000  # gpt-5


def message(text: str, role: str = "assistant") -> dict[str, object]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"id": "m", "type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def response(status: str, **more: object) -> dict[str, object]:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5", "background": True}
    return {**head, "status": status, "output": [], "usage": None, **more}


def begin(answer: object) -> Recording:
    return call(OPENAI, "/v1/responses", {"model": "gpt-5", "input": "hi", "background": True}, answer)


def fetch(answer: object, path: str = "/v1/responses/resp_1", host: str = OPENAI, kind: str = "") -> Recording:
    return call(host, path, None, answer, method="GET", kind=kind)


# ---- background responses -------------------------------------------------------------------------------------------


def test_a_background_response_is_charged_once_when_it_is_fetched() -> None:
    done = response("completed", output=[message("Hello")], usage=USED)
    calls = [begin(response("queued")), fetch(response("in_progress")), fetch(done), fetch(done)]

    costs = [played.record.cost_nano for played in play(*calls)]
    counted = "counters: [{name: spend, key: '\"k\"', charge: Cost, window: {lifetime: 1h}, limit: 1 USD}]"
    *_, last = play(*calls, call(OPENAI, "/v1/responses", {"model": "x", "input": ""}, {}, status=400), spec=counted)

    assert costs == [0, 0, CHARGED, 0]
    assert last.record.counters[0].before == CHARGED


def test_a_response_that_was_charged_when_it_was_made_is_not_charged_again() -> None:
    done = response("completed", output=[message("Hello")], usage=USED)
    made, fetched = play(begin(done), fetch(done))
    stored = {**done, "background": False}
    first, again = play(begin(stored), fetch(stored))

    assert [one.record.cost_nano for one in (made, fetched, first, again)] == [CHARGED, 0, CHARGED, 0]


def test_a_compaction_is_billed_and_repeats_no_text_as_the_models_own() -> None:
    answer = {
        "id": "resp_1",
        "object": "response.compaction",
        "output": [
            message("what I asked", "user"),
            {"id": "c", "type": "compaction", "encrypted_content": "gAAA" * 30},
        ],
        "usage": USED,
    }
    played = read(call(OPENAI, "/v1/responses/compact", {"model": "gpt-5", "input": "hi"}, answer))

    assert (played.record.inspection, played.record.cost_nano) == ("full", CHARGED)
    assert played.facts.response.all_text() == ""
    blocked = READS.replace("zzqqzz", "what I asked")
    assert read(call(OPENAI, "/v1/responses/compact", {"model": "gpt-5", "input": "hi"}, answer), blocked).record.reason


# ---- runs -----------------------------------------------------------------------------------------------------------

RUNS = "/v1/threads/t/runs"
PAID = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def run(status: str, **more: object) -> dict[str, object]:
    return {"id": "run_1", "object": "thread.run", "thread_id": "t", "status": status, "model": "gpt-4o", **more}


def test_a_run_is_charged_once_when_it_is_over() -> None:
    made = call(OPENAI, RUNS, {"assistant_id": "a"}, run("queued", usage=None))
    done = fetch(run("completed", usage=PAID), f"{RUNS}/run_1")

    played = play(made, fetch(run("in_progress", usage=None), f"{RUNS}/run_1"), done, done)

    assert [one.record.cost_nano for one in played] == [0, 0, 1000 * 2500 + 100 * 10_000, 0]
    assert {one.record.dialect for one in played} == {"openai.runs"}


def test_a_streamed_run_tells_its_text_its_calls_and_its_usage() -> None:
    function = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    wanted = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [function]}}

    def part(text: str) -> dict[str, object]:
        content = [{"index": 0, "type": "text", "text": {"value": text, "annotations": []}}]
        return {"id": "msg", "object": "thread.message.delta", "delta": {"content": content}}

    def named(name: str, document: dict[str, object]) -> bytes:
        return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()

    talk = named("thread.message.delta", part("Hel")) + named("thread.message.delta", part("lo"))
    end = named("thread.run.completed", run("completed", usage=PAID)) + b"event: done\ndata: [DONE]\n\n"
    asked = named("thread.run.requires_action", run("requires_action", required_action=wanted, usage=None))
    body = {"assistant_id": "a", "stream": True}

    spoken = read(call(OPENAI, RUNS, body, named("thread.run.created", run("queued", usage=None)) + talk + end))
    acting = read(call(OPENAI, RUNS, body, asked))

    assert (spoken.facts.response.all_text(), spoken.record.finish_reasons) == ("Hello", ("completed",))
    assert spoken.record.cost_nano == 1000 * 2500 + 100 * 10_000
    assert [(one.name, one.arguments) for one in acting.facts.response.tool_calls] == [("f", '{"a":1}')]


CAPPED = [
    (RUNS, {"assistant_id": "a", "max_completion_tokens": 900}, ("max_completion_tokens",)),
    (RUNS, {"assistant_id": "a"}, ("max_completion_tokens",)),
    ("/v1beta/interactions", {"model": "gemini-2.5-flash", "input": "hi"}, ("generation_config", "max_output_tokens")),
    (
        "/v1beta/interactions",
        {"model": "m", "input": "hi", "generation_config": {"max_output_tokens": 900, "top_p": 1}},
        ("generation_config", "max_output_tokens"),
    ),
    (f"{PUBLISHED}text-bison:predict", {"instances": []}, ("parameters", "maxOutputTokens")),
]


@pytest.mark.parametrize(("path", "body", "place"), CAPPED)
def test_a_cap_reaches_the_place_that_the_provider_reads(
    path: str, body: dict[str, object], place: tuple[str, ...]
) -> None:
    bed = Bed(policy("rules: [{name: cap, constrain: {cap: {max_tokens: 7}}}]"))
    out = bed.call(body=json.dumps(body).encode(), path=path)

    assert out.sent is not None
    held = json.loads(out.sent)
    for step in place:
        held = held[step]
    assert held == 7


# ---- batches --------------------------------------------------------------------------------------------------------


def lines(*documents: dict[str, object]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in documents).encode()


def test_results_of_a_batch_are_charged_once_each_line_by_its_own_model() -> None:
    chat = {"id": "c", "object": "chat.completion", "choices": [], "usage": PAID}
    answers = lines(
        {"custom_id": "1", "response": {"status_code": 200, "body": {**chat, "model": "gpt-4o"}}, "error": None},
        {"custom_id": "2", "response": {"status_code": 200, "body": {**chat, "model": "gpt-4o-mini"}}, "error": None},
        {"custom_id": "3", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}, "error": None},
    )
    fetched = fetch(answers, "/v1/files/file-1/content", kind="application/octet-stream")

    once, again = play(fetched, fetched)

    assert read(fetched).record.inspection == "full"
    assert (once.record.usage["input_tokens"], once.record.usage["output_tokens"]) == (2000, 200)
    full = 1000 * (2500 + 150) + 100 * (10_000 + 600)
    assert once.record.cost_nano in (full, full // 2), "at the batch's price where the snapshot has one"
    assert again.record.cost_nano == 0


def test_results_of_anthropics_batches_cost_half() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    said = {"id": "msg", "type": "message", "role": "assistant", "model": "claude-opus-4-5", "usage": usage}
    answer = {**said, "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
    results = lines({"custom_id": "1", "result": {"type": "succeeded", "message": answer}})
    fetched = fetch(results, "/v1/messages/batches/b/results", CLAUDE, "application/x-jsonl")

    record = read(fetched).record

    assert record.cost_nano == (1000 * 5000 + 100 * 25_000) // 2
    assert read(fetched, READS.replace("zzqqzz", "Hello")).record.reason, "what a batch says is content"


# ---- interactions and predictions -----------------------------------------------------------------------------------

TOTALS = {"total_input_tokens": 5, "total_output_tokens": 3, "total_thought_tokens": 2, "total_tokens": 10}


def test_an_interaction() -> None:
    outputs = [
        {"type": "thought", "summary": [{"type": "text", "text": "hm"}], "signature": "QUJD" * 30},
        {"type": "text", "text": "Hello"},
        {"type": "function_call", "id": "c", "name": "f", "arguments": {"a": 1}},
    ]
    done = {"id": "v1_x", "status": "completed", "model": "gemini-2.5-flash", "usage": TOTALS}
    events = (
        {"event_type": "interaction.start", "interaction": {"id": "v1_x", "status": "in_progress"}},
        {"event_type": "content.start", "index": 0, "content": {"type": "text"}},
        {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "Hel"}},
        {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "lo"}},
        {"event_type": "content.delta", "index": 1, "delta": outputs[2]},
        {"event_type": "content.stop", "index": 0},
        {"event_type": "interaction.complete", "interaction": {**done, "outputs": outputs}},
    )
    body = {"model": "gemini-2.5-flash", "input": "hi"}

    for answer in ({**done, "outputs": outputs}, sse(*events, done=False)):
        played = read(call(GOOGLE, "/v1beta/interactions", {**body, "stream": isinstance(answer, bytes)}, answer))
        record, seen = played.record, played.facts.response
        assert (record.dialect, record.inspection, record.finish_reasons) == (
            "google.interactions",
            "full",
            ("completed",),
        )
        assert (record.usage["input_tokens"], record.usage["output_tokens"], record.usage["reasoning_tokens"]) == (
            5,
            5,
            2,
        )
        assert seen.all_text() == "Hello"
        assert [(one.name, json.loads(one.arguments)) for one in seen.tool_calls] == [("f", {"a": 1})]


COUNTED = {"tokenMetadata": {"inputTokenCount": {"totalTokens": 5}, "outputTokenCount": {"totalTokens": 3}}}
PREDICTIONS = {
    "text-bison@001": ({"predictions": [{"content": "Hello"}], "metadata": COUNTED}, "completion", "Hello", 5),
    "chat-bison": ({"predictions": [{"candidates": [{"content": "Hello"}]}], "metadata": COUNTED}, "chat", "Hello", 5),
    "text-embedding-005": (
        {"predictions": [{"embeddings": {"values": [0.1], "statistics": {"token_count": 2}}}]},
        "embedding",
        "",
        2,
    ),
}


@pytest.mark.parametrize("model", PREDICTIONS)
def test_predictions_of_vertex(model: str) -> None:
    answer, operation, text, given = PREDICTIONS[model]
    played = read(call(VERTEX, f"{PUBLISHED}{model}:predict", {"instances": [{"prompt": "hi"}]}, answer))

    assert (played.record.dialect, played.record.operation, played.record.inspection) == (
        "vertex.predict",
        operation,
        "full",
    )
    assert played.facts.request.model == model
    assert played.facts.response.all_text() == text
    assert (played.record.usage["input_tokens"], played.record.usage["source"]) == (given, "provider")


def test_mistral_on_vertex_speaks_openais_language() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": PAID}
    path = "/v1/projects/p/locations/l/publishers/mistralai/models/mistral-large:rawPredict"
    record = read(call(VERTEX, path, {"model": "mistral-large", "messages": []}, answer)).record

    assert (record.dialect, record.provider, record.inspection) == ("openai.chat", "google", "full")


def test_a_conversation_of_mistrals() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "connector_tokens": 50, "total_tokens": 1150}
    talk = {"type": "message.output", "role": "assistant", "model": "mistral-large-2512", "content": "Hello"}
    acts = {"type": "function.call", "name": "f", "arguments": '{"a":1}', "tool_call_id": "c"}
    whole = {"object": "conversation.response", "conversation_id": "c", "outputs": [talk, acts], "usage": usage}
    events = (
        {"type": "conversation.response.started", "conversation_id": "c"},
        {"type": "message.output.delta", "model": "mistral-large-2512", "content": "Hel"},
        {"type": "message.output.delta", "model": "mistral-large-2512", "content": {"type": "text", "text": "lo"}},
        {"type": "function.call.delta", "name": "f", "arguments": '{"a":1}', "tool_call_id": "c"},
        {"type": "conversation.response.done", "usage": usage},
    )
    body = {"model": "mistral-large-latest", "inputs": "hi"}

    for answer in (whole, sse(*events, names=True)):
        played = read(call("api.mistral.ai", "/v1/conversations", {**body, "stream": answer is not whole}, answer))
        assert (played.record.dialect, played.record.inspection) == ("mistral.conversations", "full")
        assert played.facts.response.all_text() == "Hello"
        assert [(one.name, one.arguments) for one in played.facts.response.tool_calls] == [("f", '{"a":1}')]
        assert (played.record.usage["input_tokens"], played.record.usage["output_tokens"]) == (1050, 100)


def test_bedrocks_openai_door_has_bedrocks_prices() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    model = "openai.gpt-oss-120b"
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": PAID}
    body = {"model": model, "messages": []}
    record = read(call("bedrock-mantle.us-east-1.api.aws", "/v1/chat/completions", body, answer)).record

    assert (record.provider, record.cost_nano, record.cost_confidence) == ("bedrock", 1000 * 150 + 100 * 600, 1.0)
