"""The verdict `constrain` means that something was changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.desk import Desk
from tests.cli.desk import desk as desk

REDACT = "constrain: {redact: {detectors: [email], in: [request, response]}}"
DENY = "constrain: {tools: {deny: [shell]}}"
CAP = "constrain: {cap: {max_tokens: 100}}"
HEADER = "constrain: {headers: {response: {set: {x-note: seen}}}}"


def exchange(prompt: str = "hi", answer: str = "hello", **body: object) -> dict[str, object]:
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **body}
    message = {"role": "assistant", "content": answer}
    told = {
        "id": "x",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    plain = {"content-type": "application/json"}
    return {
        "request": {
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": {"host": "api.openai.com", **plain},
            "body": json.dumps(asked),
        },
        "response": {"status": 200, "headers": plain, "chunks": [{"ms": 1, "data": json.dumps(told)}]},
    }


def decision_of(desk: Desk, actions: dict[str, str], played: dict[str, object]) -> dict[str, Any]:
    rules = "".join(f"    - {{name: {name}, {action}}}\n" for name, action in actions.items())
    head = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: p}\nspec:\n  mode: Full\n  rules:\n"
    desk.policies.write_text(head + rules)
    desk.record(played)
    decision: dict[str, Any] = desk.json()["exchanges"][0]["decision"]
    return decision


TOOLS = {"tools": [{"type": "function", "function": {"name": "shell"}}]}
MAIL = "write to a@example.com"
CASES = [
    ("nothing to redact", {"redact": REDACT}, exchange(), ()),
    ("a prompt redacted", {"redact": REDACT}, exchange(MAIL), ("redact",)),
    ("a response redacted", {"redact": REDACT}, exchange(answer=MAIL), ("redact",)),
    ("no such tool", {"deny": DENY}, exchange(), ()),
    ("a tool removed", {"deny": DENY}, exchange(**TOOLS), ("deny",)),
    ("below the cap", {"cap": CAP}, exchange(max_tokens=50), ()),
    ("above the cap", {"cap": CAP}, exchange(max_tokens=500), ("cap",)),
    ("a header of the response", {"header": HEADER}, exchange(), ("header",)),
    ("one of three", {"a": DENY, "b": REDACT, "c": CAP}, exchange(MAIL, max_tokens=5), ("b",)),
]


@pytest.mark.parametrize(("actions", "played", "acted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_constrain_that_changed_nothing_decides_nothing(
    desk: Desk, actions: dict[str, str], played: dict[str, object], acted: tuple[str, ...]
) -> None:
    decision = decision_of(desk, actions, played)
    assert decision["verdict"] == ("constrain" if acted else "allow")
    assert decision["enforced"] == bool(acted)
    assert decision["determined_by"] == [f"p/{name}" for name in acted]
    assert {rule["rule"]: (rule["outcome"], rule["enforced"]) for rule in decision["rules"]} == {
        name: ("matched", name in acted) for name in actions
    }
