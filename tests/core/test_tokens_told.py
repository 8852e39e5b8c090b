"""What tells of a text's tokens beside it (log probabilities, numbers of tokens) tells nothing that was taken out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.test_endings import chunk
from tests.core.test_endings_others import (
    METRICS,
    array,
    chunked,
    first,
    generated,
    lines,
    said,
    typed,
)
from tests.core.test_private_keys import LEFT, REDACT, TEXT, leaks, outs, stream_of
from tests.hearing import HEAR
from tests.recorded import Lab
from tests.responses import Script
from tests.spoken import START, VOICES, chosen, cohere_ends, completed, gemini_says, token
from tests.streams import sse

PIECES = list(TEXT)
WHOLE = [ord(one) for one in TEXT]


def tokens(*texts: str) -> list[dict[str, Any]]:
    return [{"token": one, "logprob": -0.1, "bytes": [*one.encode()], "top_logprobs": []} for one in texts]


def responses() -> bytes:
    events = Script().say(*PIECES).end()
    for event in events:
        kind = event["type"]
        if kind == "response.output_text.delta":
            event["logprobs"] = tokens(event["delta"])
        if kind == "response.output_text.done":
            event["logprobs"] = tokens(*PIECES)
        if kind == "response.content_part.done":
            event["part"]["logprobs"] = tokens(*PIECES)
        for item in event.get("response", {}).get("output", ()):
            item["content"][0]["logprobs"] = tokens(*PIECES)
        if kind == "response.output_item.done":
            event["item"]["content"][0]["logprobs"] = tokens(*PIECES)
    return sse(*events, names=True)


def gemini() -> list[Any]:
    events = gemini_says(PIECES)
    for event, one in zip(events, PIECES, strict=False):
        best = {"token": one, "tokenId": ord(one), "logProbability": -0.1}
        told = {"chosenCandidates": [best], "topCandidates": [{"candidates": [best]}]}
        event["candidates"][0]["logprobsResult"] = told
    every = [{"token": one, "tokenId": ord(one)} for one in PIECES]
    events[-1]["candidates"][0]["logprobsResult"] = {"chosenCandidates": every}
    return events


def cohere() -> bytes:
    told = [{"text": one, "token_ids": [ord(one)], "logprobs": [-0.1]} for one in PIECES]
    pairs = zip(PIECES, told, strict=True)
    deltas = [{**typed("content-delta", 0, content={"text": one}), "logprobs": two} for one, two in pairs]
    opened = typed("content-start", 0, content={"type": "text", "text": ""})
    return sse(START, opened, *deltas, typed("content-end", 0), cohere_ends("COMPLETE"), names=True)


def cohere_generate() -> bytes:
    likely = [{"token": one, "likelihood": -0.1} for one in PIECES]
    told = {"generations": [{"id": "g", "text": TEXT, "finish_reason": "COMPLETE", "token_likelihoods": likely}]}
    deltas = [first("text-generation", text=one) for one in PIECES]
    return lines(*deltas, first("stream-end", over=True, finish_reason="COMPLETE", response=told))


def huggingface() -> bytes:
    events = [token(one, ord(one), top_tokens=[{"id": ord(one), "text": one}]) for one in PIECES]
    every = [{"id": ord(one), "text": one, "logprob": -0.1} for one in PIECES]
    details = {"finish_reason": "eos_token", "generated_tokens": 9, "seed": None, "prefill": [], "tokens": every}
    last = token("", 2, generated_text=TEXT, details=details)
    last["token"]["special"] = True
    return sse(*events, last, done=False)


def raw(one: str) -> dict[str, Any]:
    return {
        "completion": one,
        "completion_token_ids": [*map(ord, one)],
        "completion_logprobs": {"content": tokens(one)},
    }


def legacy(one: str) -> dict[str, Any]:
    return {"tokens": [one], "token_logprobs": [-0.1], "top_logprobs": [{one: -0.1}], "text_offset": [0]}


def debug(*texts: str) -> dict[str, Any]:
    """What Groq tells of a request with `debug`."""
    told = {"output_tokens": [*texts], "output_token_ids": [ord(char) for text in texts for char in text]}
    return {"id": "req", "debug": {**told, "input_tokens": None}}


STOP = chunk({}, "stop")
TOLD: dict[str, tuple[str, bytes]] = {
    "chat": ("openai", sse(*(chosen({"content": one}, logprobs={"content": tokens(one)}) for one in PIECES), STOP)),
    "chat, at the end": ("openai", sse(*(chosen({"content": one}) for one in PIECES),
                                       chosen({}, "stop", logprobs={"content": tokens(*PIECES)}))),
    "vllm": ("openai", sse(*(chosen({"content": one}, token_ids=[ord(one)]) for one in PIECES), STOP)),
    "vllm, in deltas": ("openai", sse(*(chunk({"content": one, "token_ids": [ord(one)]}) for one in PIECES), STOP)),
    "groq": ("openai", sse(*(chunk({"content": one}, x_groq=debug(one)) for one in PIECES), STOP)),
    "groq, at the end": ("openai", sse(*(chunk({"content": one}) for one in PIECES),
                                       chunk({}, "stop", x_groq=debug(*PIECES)))),
    "together": ("together", sse(*(chosen({"content": one, "token_id": ord(one)}, text=one) for one in PIECES), STOP)),
    "fireworks": ("openai", sse(*(chosen({"content": one}, raw_output=raw(one)) for one in PIECES), STOP)),
    "fireworks, at the end": ("openai", sse(*(chosen({"content": one}) for one in PIECES),
                                            chosen({}, "stop", raw_output=raw(TEXT)))),
    "completions": ("completions", sse(*(completed(one, logprobs=legacy(one)) for one in PIECES),
                                       completed("", "stop"))),
    "responses": ("responses", responses()),
    "gemini": ("gemini", sse(*gemini(), done=False)),
    "gemini array": ("gemini array", array(*gemini())),
    "cohere": ("cohere", cohere()),
    "cohere generate": ("cohere generate", cohere_generate()),
    "ollama chat": ("ollama chat", lines(*({**said(one), "logprobs": tokens(one)} for one in PIECES), said(done=True))),
    "ollama generate": ("ollama generate", lines(*({**generated(one), "logprobs": tokens(one)} for one in PIECES),
                                                 {**generated("", done=True), "context": WHOLE})),
    "huggingface": ("huggingface", huggingface()),
    "command": ("invoke command", chunked(
        *({"generations": [{"text": one, "token_likelihoods": [{"token": one}]}], "is_finished": False}
          for one in PIECES), {"text": "", "is_finished": True, "finish_reason": "COMPLETE", **METRICS})),
    "imported": ("invoke llama", chunked(
        *({"choices": [{"index": 0, "text": one, "logprobs": legacy(one)}]} for one in PIECES),
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], **METRICS})),
}  # fmt: skip


@pytest.fixture(scope="module")
def redacting() -> Lab:
    return Lab(REDACT)


@pytest.mark.parametrize("name", TOLD)
def test_they_tell_nothing_that_was_taken_out(name: str, redacting: Lab) -> None:
    voice, data = VOICES[TOLD[name][0]], TOLD[name][1]
    stream = stream_of(name, voice, data)
    assert len(leaks(data, voice.kind)) > 1
    body = outs(redacting, stream)
    assert leaks(body, voice.kind) == {}
    assert redacting.bed.sink.records[0].inspection == "full"
    if name not in ("imported", "command"):
        heard = HEAR[voice.dialect.name](body, voice.kind)
        assert {text for place, text in heard.items() if place.startswith("text")} == {LEFT}


@pytest.mark.parametrize("name", TOLD)
def test_they_stay_where_nothing_was_found(name: str) -> None:
    voice, data = VOICES[TOLD[name][0]], TOLD[name][1]
    lab = Lab("rules: [{name: r, constrain: {redact: {detectors: [jwt], in: [response]}}}]")
    assert lab.run(stream_of(name, voice, data), [data]).body == data
