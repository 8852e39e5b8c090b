"""An answer that tells its text in parts says one text: what spans two parts is judged, and taken out, as in one."""

from __future__ import annotations

import json

import pytest

from policyd.core.model.decision import Verdict
from tests.driving import Bed, Outcome, policy
from tests.driving import sse as framed

PARTS = ("xA", "B1", "2y")
ANTHROPIC, RESPONSES, GEMINI = "/v1/messages", "/v1/responses", "/v1beta/models/gemini-2.5-flash:generateContent"
GOOGLE = "generativelanguage.googleapis.com"


def sse(*documents: object) -> bytes:
    return framed(*documents, done=False)


def blocks(index: int, text: str) -> list[dict[str, object]]:
    """One content block of Anthropic's."""
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": index},
    ]


def anthropic_message(content: list[dict[str, object]], **more: object) -> dict[str, object]:
    usage = {"input_tokens": 3, "output_tokens": 1}
    return {"type": "message", "role": "assistant", "model": "claude", "content": content, "usage": usage, **more}


def anthropic_stream(between: tuple[dict[str, object], ...] = ()) -> bytes:
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    told = [event for at, text in enumerate(PARTS) for event in (*blocks(at, text), *(between if at == 1 else ()))]
    return sse({"type": "message_start", "message": anthropic_message([])}, *told, stop, {"type": "message_stop"})


def output_text(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": []}


def response(content: list[dict[str, object]], status: str = "completed") -> dict[str, object]:
    item = {"type": "message", "id": "m", "role": "assistant", "content": content}
    return {"object": "response", "id": "r", "model": "gpt-5", "status": status, "output": [item] if content else []}


def responses_stream(parts: tuple[str, ...] = PARTS) -> bytes:
    item = {"type": "message", "id": "m", "role": "assistant", "content": []}
    told: list[dict[str, object]] = [{"type": "response.created", "response": response([], "in_progress")}]
    told.append({"type": "response.output_item.added", "output_index": 0, "item": item})
    for at, text in enumerate(parts):
        place = {"item_id": "m", "output_index": 0, "content_index": at}
        told.append({"type": "response.content_part.added", **place, "part": output_text("")})
        told.append({"type": "response.output_text.delta", **place, "delta": text})
        told.append({"type": "response.output_text.done", **place, "text": text})
        told.append({"type": "response.content_part.done", **place, "part": output_text(text)})
    return sse(*told, {"type": "response.completed", "response": response([output_text(text) for text in parts])})


def gemini() -> dict[str, object]:
    content = {"role": "model", "parts": [{"text": text} for text in PARTS]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}


WHOLE: dict[str, tuple[str, str, bytes]] = {
    "anthropic": (
        ANTHROPIC,
        "api.anthropic.com",
        json.dumps(
            anthropic_message([{"type": "text", "text": text} for text in PARTS], stop_reason="end_turn")
        ).encode(),
    ),
    "responses": (RESPONSES, "api.openai.com", json.dumps(response([output_text(text) for text in PARTS])).encode()),
    "gemini": (GEMINI, GOOGLE, json.dumps(gemini()).encode()),
}
STREAMED: dict[str, tuple[str, str, bytes]] = {
    "anthropic": (ANTHROPIC, "api.anthropic.com", anthropic_stream()),
    "responses": (RESPONSES, "api.openai.com", responses_stream()),
    "gemini": (GEMINI.replace(":g", ":streamG") + "?alt=sse", GOOGLE, sse(gemini())),
}
ANSWERS = {**{f"{name}, whole": one for name, one in WHOLE.items()}, **STREAMED}
RULES = {
    "a literal": 'response.text.contains("AB12")',
    "a pattern": 'response.text.matches("A[A-Z][0-9]2")',
    "the beginning": 'response.text.matches("^xAB1")',
    "by CEL": 'response.text.lowerAscii().contains("ab12")',
}
REQUEST = {"model": "m", "messages": [], "input": "hi", "contents": [], "max_tokens": 9}


def played(spec: str, path: str, host: str, answer: bytes, *, cut: int = 0) -> Outcome:
    streams = answer.startswith((b"data:", b"event:"))
    chunks = [answer[at : at + cut] for at in range(0, len(answer), cut)] if cut else [answer]
    kind = "text/event-stream" if streams else "application/json"
    body = json.dumps({**REQUEST, "stream": True} if streams and host != GOOGLE else REQUEST).encode()
    return Bed(policy(spec)).call(
        body=body, path=path, host=host, chunks=chunks, response_headers=(("content-type", kind),)
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ANSWERS)
def test_what_spans_two_parts_is_seen(name: str, rule: str) -> None:
    spec = f"rules: [{{name: no, when: '{RULES[rule]}', terminate: {{fallback: no}}}}]"

    once, bytewise = (played(spec, *ANSWERS[name], cut=cut) for cut in (0, 1))

    assert once.record.verdict is Verdict.TERMINATE
    assert (bytewise.record.event, bytewise.body) == (once.record.event, once.body)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_part_does_not_begin_the_text(name: str) -> None:
    spec = "rules: [{name: no, holdBack: 4, when: 'response.text.matches(\"^B1\")', terminate: {fallback: no}}]"
    path, host, answer = ANSWERS[name]

    out = played(spec, path, host, answer)

    assert (out.record.verdict, out.record.inspection, out.body) == (Verdict.ALLOW, "full", answer)


def test_a_text_that_is_told_again_is_not_said_twice() -> None:
    spec = "rules: [{name: no, holdBack: 8, when: 'response.text.contains(\"yx\")', terminate: {fallback: no}}]"
    answer = responses_stream(("xAB12y",))

    out = played(spec, RESPONSES, "api.openai.com", answer)

    assert (out.record.verdict, out.body) == (Verdict.ALLOW, answer)


REDACT = "rules: [{name: hide, constrain: {redact: {patterns: [AB12], in: [response], replacement: '#'}}}]"


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("name", ["gemini", "gemini, whole", "anthropic", "anthropic, whole"])
def test_what_spans_two_parts_is_taken_out(name: str, cut: int) -> None:
    out = played(REDACT, *ANSWERS[name], cut=cut)

    for text in ("x#", "y"):
        assert json.dumps(text).encode() in out.body
    assert b"B1" not in out.body


def test_a_block_that_is_no_text_divides_what_is_taken_out() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    between = (
        {"type": "content_block_start", "index": 7, "content_block": tool},
        {"type": "content_block_stop", "index": 7},
    )

    out = played(REDACT, ANTHROPIC, "api.anthropic.com", anthropic_stream(between))

    assert (out.record.inspection, out.body) == ("full", anthropic_stream(between))


def test_of_blocks_in_a_row_nothing_leaves_that_begins_what_is_forbidden() -> None:
    spec = "rules: [{name: no, holdBack: 8, when: 'response.text.contains(\"AB12\")', terminate: {fallback: no}}]"

    out = played(spec, ANTHROPIC, "api.anthropic.com", anthropic_stream(), cut=1)

    assert out.record.verdict is Verdict.TERMINATE
    said = [one["delta"]["text"] for one in out.data if isinstance(one, dict) and "text" in one.get("delta", ())]
    assert "".join(said) == "x\n\nno"
