"""The name of a tool call, given more than once: a call is judged by every name that a client may take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.driving import Bed, Outcome, policy
from tests.responses import Script
from tests.streams import cuts, sse

BY_NAME = """rules:
- {name: no, when: 'response.tool_calls.exists(t, t.name == "delete_all")', terminate: {fallback: stopped}}"""
BY_BOTH = """rules:
- name: no
  when: 'response.tool_calls.exists(t, t.name == "run_shell" && t.arguments.contains("rm -rf"))'
  terminate: {fallback: stopped}"""
TOOLS = [{"type": "function", "name": name, "parameters": {}} for name in ("search", "delete_all", "run_shell")]
CALL = {"type": "function_call", "id": "fc_0", "call_id": "call_0"}
Events = list[dict[str, Any]]


def added(name: str, at: int = 0, **more: Any) -> dict[str, Any]:
    item = {**CALL, "name": name, "arguments": "", "status": "in_progress", **more}
    return {"type": "response.output_item.added", "output_index": at, "item": item}


def delta(arguments: str, at: int = 0, **more: Any) -> dict[str, Any]:
    where = {"item_id": "fc_0", "output_index": at, **more}
    return {"type": "response.function_call_arguments.delta", **where, "delta": arguments}


def arguments_done(arguments: str, at: int = 0, **more: Any) -> dict[str, Any]:
    where = {"item_id": "fc_0", "output_index": at, **more}
    return {"type": "response.function_call_arguments.done", **where, "arguments": arguments}


def item_done(name: str, arguments: str, at: int = 0, **more: Any) -> dict[str, Any]:
    item = {**CALL, "name": name, "arguments": arguments, "status": "completed", **more}
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def completed(*items: tuple[str, str], **more: Any) -> dict[str, Any]:
    output = [{**CALL, "name": name, "arguments": said, "status": "completed", **more} for name, said in items]
    return {"type": "response.completed", "response": {"object": "response", "status": "completed", "output": output}}


def names(last: str, args: str) -> dict[str, Events]:
    """A call that begins as `search` and is named otherwise in one place."""
    ordinary = [arguments_done(args), item_done("search", args), completed(("search", args))]
    return {
        "item.done": [added("search"), delta(args), arguments_done(args), item_done(last, args)],
        "completed": [added("search"), delta(args), *ordinary[:2], completed((last, args))],
        "completed alone": [added("search"), completed((last, args))],
        "arguments.done": [added("search"), delta(args), arguments_done(args, name=last), *ordinary[1:]],
        "a delta": [added("search"), delta(args, name=last), *ordinary],
        "added twice": [added("search"), added(last), delta(args), *ordinary],
        "an index used twice": [added("search"), added(last, id="fc_1"), delta(args, item_id="fc_1"), *ordinary],
        "an index used again": [
            added("search"), delta("{}"), item_done("search", "{}"), added(last, id="fc_1", call_id="call_1"),
            delta(args), item_done(last, args, id="fc_1", call_id="call_1"),
        ],
        "no name at first": [added(""), delta(args), item_done(last, args)],
        "the first name": [added(last), delta(args), *ordinary],
        "the first name, arguments later": [added(last), arguments_done(args), *ordinary[1:]],
        "three names": [added("search"), delta(args, name="find"), item_done(last, args), completed(("look", args))],
        "custom": [
            added("search", type="custom_tool_call", input=""),
            item_done(last, "", type="custom_tool_call", input=args),
        ],
    }  # fmt: skip


def call(spec: str, chunks: list[bytes]) -> Outcome:
    body = {"model": "gpt-4o", "input": "hi", "stream": True, "tools": TOOLS}
    kind = (("content-type", "text/event-stream"),)
    return Bed(policy(spec)).call(
        body=json.dumps(body).encode(), path="/v1/responses", chunks=chunks, response_headers=kind, step_s=0.0
    )


def stream(events: Events) -> bytes:
    head = Script().events
    return sse(*head, *({**one, "sequence_number": len(head) + at} for at, one in enumerate(events)), names=True)


@pytest.mark.parametrize(("spec", "name", "args"), [
    pytest.param(BY_NAME, "delete_all", "{}", id="by name"),
    pytest.param(BY_BOTH, "run_shell", '{"cmd":"rm -rf /data"}', id="by name and arguments"),
])  # fmt: skip
@pytest.mark.parametrize("place", names("x", "y"))
def test_a_call_is_judged_by_every_name(spec: str, name: str, args: str, place: str) -> None:
    (out,) = {
        (one.body, one.record.reason)
        for one in (call(spec, data) for data in cuts(stream(names(name, args)[place]), 4))
    }
    body, reason = out
    assert reason == "no", reason
    assert name.encode() not in body


def test_a_call_that_is_named_once_is_read_whole() -> None:
    data = stream([*Script().call("search", '{"a":', "1}").end()[2:]])
    rule = 'response.inspection != "full" || response.tool_calls.size() > 1'
    spec = f"rules:\n- {{name: no, when: '{rule}', terminate: {{fallback: stopped}}}}"
    assert call(spec, [data]).body == data


# ---- other dialects -------------------------------------------------------------------------------------------------


def chat(*functions: dict[str, Any]) -> bytes:
    calls = [{"index": 0, "function": one} for one in functions]
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}, "finish_reason": None}]} for one in calls]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return sse(*({"id": "c", "object": "chat.completion.chunk", "model": "m", **one} for one in (*deltas, end)))


def cohere(*functions: dict[str, Any]) -> bytes:
    kinds = ["tool-call-start", *["tool-call-delta"] * (len(functions) - 1)]
    said = [
        {"type": kind, "index": 0, "delta": {"message": {"tool_calls": {"id": "t", "function": one}}}}
        for kind, one in zip(kinds, functions, strict=True)
    ]
    end = [{"type": "tool-call-end", "index": 0}, {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}]
    return sse({"type": "message-start", "id": "m"}, *said, *end, names=True)


OTHERS = {
    "chat, a second name": ("/v1/chat/completions", chat({"name": "search", "arguments": ""}, {"name": "delete_all"})),
    "chat, after its arguments": ("/v1/chat/completions", chat({"name": "search", "arguments": "{}"}, {"name": "rm"})),
    "cohere": ("/v2/chat", cohere({"name": "search", "arguments": ""}, {"name": "delete_all", "arguments": "{}"})),
}


@pytest.mark.parametrize("place", OTHERS)
def test_a_second_name_in_other_dialects_cannot_be_judged(place: str) -> None:
    path, data = OTHERS[place]
    offered = [{"type": "function", "function": {"name": one["name"], "parameters": {}}} for one in TOOLS]
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}], "tools": offered}
    kind = (("content-type", "text/event-stream"),)
    for chunks in cuts(data, 4):
        out = Bed(policy(BY_NAME)).call(
            body=json.dumps(body).encode(), path=path, chunks=chunks, response_headers=kind, step_s=0.0
        )
        assert out.record.reason == "policy_error" and b"delete_all" not in out.body.replace(b"named", b"")
