"""Rules on response.content and response.reasoning: watched while they grow, kept back, cut at the exact event."""

from __future__ import annotations

import json

import pytest

from tests.driving import Bed, chat, policy, sse
from tests.streams import cuts


def chunk(finish: str | None = None, **fields: object) -> dict[str, object]:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [choice]}


THINKING = sse(
    chunk(role="assistant"),
    chunk(reasoning_content="let me think of a sec"),
    chunk(reasoning_content="ret plan"),
    chunk(content="the answer "),
    chunk(content="is 42"),
    chunk("stop"),
)

CASES = [  # rule, the event of the cut, what may not have left
    ('response.reasoning.contains("secret")', 2, "secret"),
    ('response.content.contains("secret plan")', 2, "secret"),
    ('response.content.contains("is 42")', 4, "is 42"),
    ('response.content.matches("[Ss]ecret [a-z]{2,8}")', 2, "secret"),
    ("response.reasoning.size() > 24", 2, ""),
    ("response.content.size() > 35", 3, ""),
    ('response.reasoning.lowerAscii().contains("secret")', 2, ""),
    ('response.content.lowerAscii().contains("plan\\nthe")', 3, ""),
    ('response.text.contains("secret")', None, ""),
    ('response.reasoning.contains("answer")', None, ""),
    ('response.content.contains("planthe")', None, ""),
]


@pytest.mark.parametrize(("when", "event", "gone"), CASES)
def test_a_rule_on_content_or_reasoning_cuts_at_its_event(when: str, event: int | None, gone: str) -> None:
    rule = policy(f"rules: [{{name: r, when: {json.dumps(when)}, terminate: {{fallback: stopped}}}}]")
    seen = set()
    for chunks in cuts(THINKING, 4):
        bed = Bed(rule)
        out = bed.call(body=chat(stream=True), chunks=chunks)
        body = out.body.decode()
        assert (out.record.event, out.record.verdict) == (event, "allow" if event is None else "terminate")
        assert not gone or gone not in "".join(parts(body, "reasoning_content")) + "".join(parts(body, "content"))
        assert (body == THINKING.decode()) is (event is None)
        seen.add(body)
    assert len(seen) == 1


def parts(body: str, field: str) -> list[str]:
    documents = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]
    return [choice["delta"].get(field) or "" for one in documents for choice in one["choices"]]
