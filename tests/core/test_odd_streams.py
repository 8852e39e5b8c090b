"""Streams of an odd make: what any client may read in them is judged and redacted."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from policyd.core.stream import eventstream
from policyd.core.stream.json_strict import dumps
from tests.attempts.attempt import holds
from tests.core.test_endings import MESSAGE
from tests.driving import Bed, Outcome, policy
from tests.responses import Script
from tests.spoken import VOICES
from tests.streams import cuts, sse

CUT = """rules:
- {name: no, when: 'response.content.contains("make plutonium now")', terminate: {fallback: stopped}}"""
CARD = """rules:
- {name: hide, constrain: {redact: {detectors: [card], in: [response]}}}"""
WORD, NUMBER = "make plutonium now", "4111 1111 1111 1111"


def call(voice: str, spec: str, chunks: list[bytes]) -> Outcome:
    one = VOICES[voice]
    body = json.dumps({"stream": True, **one.body}).encode()
    kind = (("content-type", one.kind),)
    return Bed(policy(spec)).call(body=body, path=one.path, chunks=chunks, response_headers=kind, step_s=0.0)


def only(voice: str, spec: str, data: bytes) -> Outcome:
    """The one outcome, however the bytes come."""
    outs = [call(voice, spec, chunks) for chunks in cuts(data, 4)]
    assert len({(out.body, out.record.verdict, out.record.reason) for out in outs}) == 1
    return outs[0]


# ---- bytes that are no UTF-8 ----------------------------------------------------------------------------------------

CHUNK = '{"choices":[{"index":0,"delta":{"content":"' + WORD + '"}}]}'
HIDDEN = "data: " + CHUNK
LINES = {
    "a comment": f": c\x85{HIDDEN}\n\n",
    "a comment with the rest of a line": f": \xe9\r\n: \x85{HIDDEN}\r\n\r\n",
    "a comment before data": f': c\x85{HIDDEN}\ndata: {{"choices":[]}}\n\n',
    "a comment behind data": f'data: {{"choices":[]}}\n: c\x85{HIDDEN}\n\n',
    "an event name": f'event: a\x85{HIDDEN}\ndata: {{"choices":[]}}\n\n',
    "an id": f'id: a\x85{HIDDEN}\ndata: {{"choices":[]}}\n\n',
    "a retry time": f"retry: \x85{HIDDEN}\n\n",
    "an unknown field": f"note: \x85{HIDDEN}\n\n",
}


@pytest.mark.parametrize("policy_of", ["Fail", "Ignore"])
@pytest.mark.parametrize("place", LINES)
def test_bytes_that_are_no_utf8_do_not_leave_beside_data(place: str, policy_of: str) -> None:
    said = VOICES["openai"].say(["hello", " there"])
    at = said.index(b"\n\n") + 2
    data = said[:at] + LINES[place].encode("latin-1") + said[at:]
    out = only("openai", f"failurePolicy: {policy_of}\n{CUT}", data)
    assert WORD.encode() not in out.body and b"\x85" not in out.body


# ---- blocks that overlap --------------------------------------------------------------------------------------------


def anthropic(first: str, last: str, *, stopped: bool) -> bytes:
    def told(index: int, text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}

    def begun(index: int) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}

    end = [{"type": "content_block_stop", "index": 0}] if stopped else []
    said = [begun(0), told(0, first), *end, begun(1), told(1, "q"), told(0, last)]
    return sse(MESSAGE_START, *said, {"type": "content_block_stop", "index": 1}, {"type": "message_stop"}, names=True)


def converse(first: str, last: str, *, stopped: bool) -> bytes:
    def told(index: int, text: str) -> tuple[str, Any]:
        return "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": text}}

    end: list[tuple[str, Any]] = [("contentBlockStop", {"contentBlockIndex": 0})] if stopped else []
    events = [("messageStart", {"role": "assistant"}), told(0, first), *end, told(1, "q"), told(0, last)]
    events += [("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": {}, "metrics": {"latencyMs": 1}})]
    return b"".join(eventstream.render(dumps(document), name) for name, document in events)


MESSAGE_START = {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 1}}}
OVERLAPS = {"anthropic": anthropic, "converse": converse}


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("voice", OVERLAPS)
def test_a_block_that_goes_on_behind_a_newer_one_cannot_be_judged(voice: str, stopped: bool) -> None:
    for spec, first, last in ((CUT, "make plut", "onium now"), (CARD, "pay 4111 1111 ", "1111 1111.")):
        out = only(voice, spec, OVERLAPS[voice](first, last, stopped=stopped))
        assert out.record.reason == "policy_error"
        assert not holds(out.body, last)


def test_blocks_in_a_row_are_one_text() -> None:
    events = [("messageStart", {"role": "assistant"})]
    for index, text in enumerate(["make", " plut", "onium", " now"]):
        events.append(("contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": text}}))  # type: ignore[arg-type,dict-item]
        events.append(("contentBlockStop", {"contentBlockIndex": index}))  # type: ignore[arg-type,dict-item]
    out = only("converse", CUT, b"".join(eventstream.render(dumps(document), name) for name, document in events))
    assert out.record.reason == "no" and not holds(out.body, "make")


# ---- what an ending says again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["type", "id", "call_id", "name", "namespace", "server_label"])
def test_an_ending_repeats_an_item_as_it_left(field: str) -> None:
    spec = CARD + "\n- {name: no, when: 'response.text.contains(\"zugzwang\")', terminate: {fallback: stopped}}"
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "", field: f"pay {NUMBER} x"}
    script = Script()
    script.add("response.output_item.added", output_index=0, item=item)
    script.output.append(item)
    data = sse(*script.say("a zugzwang").events, names=True)
    out = only("responses", spec, data)
    assert out.record.verdict == "terminate"
    assert NUMBER.encode() not in out.body


# ---- fields that no dialect knows -----------------------------------------------------------------------------------


def placed(text: str, *path: str | int) -> dict[str, Any]:
    """A chunk with this text at a place."""
    document: Any = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]}
    here = document
    for step, below in pairwise(path):
        if isinstance(here, dict):
            here = here.setdefault(step, [] if isinstance(below, int) else {})
        else:
            here += [{}] * (int(step) + 1 - len(here))
            here = here[int(step)]
    here[path[-1]] = text
    return document  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", [
    ("novel",), ("novel", "deep"), ("choices", 0, "novel"), ("choices", 0, "delta", "novel"),
    ("choices", 0, "delta", "novel", "x"), ("choices", 0, "delta", "thinking_blocks", 0, "thinking"),
    ("choices", 0, "delta", "context", "intent"), ("choices", 0, "novel", 0, "a", "b"), ("usage", "novel"),
])  # fmt: skip
def test_text_over_events_in_any_field_is_found(path: tuple[str | int, ...]) -> None:
    end = {"id": "c", "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
    data = sse(placed("please make plut", *path), placed("onium now.", *path), end)
    out = only("openai", CUT, data)
    assert out.record.verdict == "terminate" and not holds(out.body, "onium now")


def test_other_dialects_join_fields_that_nobody_knows() -> None:
    def event(text: str) -> dict[str, Any]:
        return {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "a", "novel": {"x": text}},
        }

    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    data = sse(MESSAGE_START, begun, event("make plut"), event("onium now"), names=True)
    out = only("anthropic", CUT, data)
    assert out.record.verdict == "terminate" and not holds(out.body, "onium now")
