"""Streams of OpenAI Responses, put together as the provider sends them: every text told in all its places."""

from __future__ import annotations

from typing import Any

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 18,
}


def response(status: str = "completed", output: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """A response object."""
    done = status not in ("in_progress", "queued")
    return {
        "id": "resp_1", "object": "response", "created_at": 7, "status": status, "model": "gpt-4.1-nano", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "output": output or [], "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "usage": USAGE if done else None, **more,
    }  # fmt: skip


def message(at: int, text: str, kind: str = "output_text") -> dict[str, Any]:
    """A finished message of one part."""
    part: dict[str, Any] = {"type": kind, "annotations": [], "logprobs": [], "text": text}
    if kind == "refusal":
        part = {"type": kind, "refusal": text}
    return {"id": f"msg_{at}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


class Script:
    """Collects the events of one stream."""

    def __init__(self, **more: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.output: list[Any] = []
        self.more = more
        for kind in ("response.created", "response.in_progress"):
            self.add(kind, response=response("in_progress", **more))

    def add(self, kind: str, **fields: Any) -> None:
        """One event."""
        self.events.append({"type": kind, "sequence_number": len(self.events), **fields})

    def say(self, *pieces: str, refusal: bool = False) -> Script:
        """A message."""
        at, text = len(self.output), "".join(pieces)
        kind, field = ("refusal", "refusal") if refusal else ("output_text", "text")
        item = message(at, text, kind)
        where: dict[str, Any] = {"item_id": item["id"], "output_index": at, "content_index": 0}
        self.add("response.output_item.added", output_index=at, item={**item, "status": "in_progress", "content": []})
        self.add("response.content_part.added", **where, part={**item["content"][0], field: ""})
        for piece in pieces:
            self.add(f"response.{kind}.delta", **where, delta=piece, **({} if refusal else {"logprobs": []}))
        self.add(f"response.{kind}.done", **where, **{field: text}, **({} if refusal else {"logprobs": []}))
        self.add("response.content_part.done", **where, part=item["content"][0])
        return self._done(at, item)

    def think(self, *pieces: str) -> Script:
        """A reasoning with a summary."""
        at, text = len(self.output), "".join(pieces)
        item: dict[str, Any] = {"id": f"rs_{at}", "type": "reasoning", "summary": []}
        part = {"type": "summary_text", "text": text}
        where: dict[str, Any] = {"item_id": item["id"], "output_index": at, "summary_index": 0}
        self.add("response.output_item.added", output_index=at, item=item)
        self.add("response.reasoning_summary_part.added", **where, part={**part, "text": ""})
        for piece in pieces:
            self.add("response.reasoning_summary_text.delta", **where, delta=piece)
        self.add("response.reasoning_summary_text.done", **where, text=text)
        self.add("response.reasoning_summary_part.done", **where, part=part)
        return self._done(at, {**item, "summary": [part]})

    def call(self, name: str, *pieces: str, custom: bool = False) -> Script:
        """A call of a function, or of a custom tool."""
        at, text = len(self.output), "".join(pieces)
        kind, field = ("custom_tool_call", "input") if custom else ("function_call", "arguments")
        base = "custom_tool_call_input" if custom else "function_call_arguments"
        item: dict[str, Any] = {"id": f"fc_{at}", "type": kind, "call_id": f"call_{at}", "name": name, field: text}
        where: dict[str, Any] = {"item_id": item["id"], "output_index": at}
        self.add("response.output_item.added", output_index=at, item={**item, "status": "in_progress", field: ""})
        for piece in pieces:
            self.add(f"response.{base}.delta", **where, delta=piece)
        self.add(f"response.{base}.done", **where, **{field: text})
        return self._done(at, {**item, "status": "completed"})

    def search(self, query: str) -> Script:
        """A hosted search."""
        at = len(self.output)
        item = {"id": f"ws_{at}", "type": "web_search_call", "status": "in_progress"}
        self.add("response.output_item.added", output_index=at, item=item)
        for state in ("in_progress", "searching", "completed"):
            self.add(f"response.web_search_call.{state}", output_index=at, item_id=item["id"])
        return self._done(at, {**item, "status": "completed", "action": {"type": "search", "query": query}})

    def code(self, *pieces: str) -> Script:
        """A hosted run of code."""
        at, text = len(self.output), "".join(pieces)
        item = {"id": f"ci_{at}", "type": "code_interpreter_call", "status": "in_progress", "container_id": "c"}
        where: dict[str, Any] = {"item_id": item["id"], "output_index": at}
        self.add("response.output_item.added", output_index=at, item={**item, "code": "", "outputs": None})
        for piece in pieces:
            self.add("response.code_interpreter_call_code.delta", **where, delta=piece)
        self.add("response.code_interpreter_call_code.done", **where, code=text)
        outputs = [{"type": "logs", "logs": text}]
        return self._done(at, {**item, "status": "completed", "code": text, "outputs": outputs})

    def _done(self, at: int, item: dict[str, Any]) -> Script:
        self.add("response.output_item.done", output_index=at, item=item)
        self.output.append(item)
        return self

    def end(self, status: str = "completed", **more: Any) -> list[dict[str, Any]]:
        """The closing event, and all of them."""
        self.add(f"response.{status}", response=response(status, self.output, **{**self.more, **more}))
        return self.events
