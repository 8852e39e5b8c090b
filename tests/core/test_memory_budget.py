"""What calls in flight may take together: over it a new call that has to be read cannot be judged for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.machine_memory import UNKNOWN, default_budget, trimmer
from policyd.core.model.decision import Verdict
from policyd.core.model.steps import Ended, RequestBody, RequestHeaders, ResponseChunk, ResponseHeaders
from policyd.enforcer import Call, Memory
from policyd.enforcer.memory import KEPT, WHILE_JUDGED, Share
from tests.driving import Bed, answer_of, chat, policy, stream_of

ON_TEXT = """failurePolicy: %s
rules:
- {name: r, when: '%s.text.contains("forbidden")', terminate: {}}"""
ON_HEADERS = """rules:
- {name: r, when: 'caller.team == "x"', terminate: {}}"""
HEAD = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com"))
BODY = chat("hello")


def bed(spec: str, most: int) -> Bed:
    made = Bed(policy(spec))
    made.enforcer.memory = Memory(most)
    return made


def test_a_body_without_room_is_rejected_and_recorded() -> None:
    one = bed(ON_TEXT % ("Fail", "request"), most=8 * len(BODY) - 1)

    out = one.call(body=BODY)

    assert out.rejected is not None
    assert out.rejected.status == 503
    assert dict(out.rejected.headers)["retry-after"] == "1"
    assert "x-should-retry" not in dict(out.rejected.headers)
    assert b'"overloaded"' in out.rejected.body
    assert out.record.reason == "overloaded"
    assert "bound memory" in out.record.inspection_reason
    assert one.enforcer.memory.used == 0


def test_a_body_with_room_is_judged() -> None:
    one = bed(ON_TEXT % ("Fail", "request"), most=8 * len(BODY))

    assert one.call(body=BODY, chunks=[answer_of("hi")]).body == answer_of("hi")
    assert one.enforcer.memory.used == 0


@pytest.mark.parametrize(
    ("spec", "status"),
    [(ON_TEXT % ("Fail", "request"), 503), (ON_TEXT % ("Ignore", "request"), None), (ON_HEADERS, None)],
    ids=["Fail", "Ignore", "reads no body"],
)
def test_while_memory_is_used_up_a_new_call_is_not_asked_for_its_body(spec: str, status: int | None) -> None:
    one = bed(spec, most=1000)
    one.enforcer.memory.change(1000)

    out = one.call(body=BODY, chunks=[answer_of("hi")])

    assert (out.rejected.status if out.rejected else None) == status
    assert out.sent == (None if status else b"")
    assert out.record.degraded == (spec == ON_TEXT % ("Ignore", "request"))


def test_a_response_in_one_piece_without_room_is_rejected() -> None:
    answer = answer_of("word " * 4000)
    one = bed(ON_TEXT % ("Fail", "response"), most=4 * len(answer))

    out = one.call(body=BODY, chunks=[answer])

    assert out.rejected is not None
    assert out.record.reason == "overloaded"
    assert out.record.verdict is Verdict.TERMINATE
    assert one.enforcer.memory.used == 0


def test_what_a_call_takes_is_known_while_it_runs() -> None:
    one = bed(
        """rules:
- {name: r, when: 'response.text.contains("forbidden") || request.text.contains("x")', holdBack: 9, terminate: {}}""",
        most=1 << 30,
    )
    seen: list[int] = []

    async def run() -> None:
        call: Call = one.enforcer.open()
        events = [
            RequestHeaders(HEAD, False, 0.0, 0.0),
            RequestBody(chat(stream=True), 0.0),
            ResponseHeaders(((":status", "200"), ("content-type", "text/event-stream")), False, 0.0),
            ResponseChunk(stream_of("forbid")[0], False, 0.0),
            Ended(0.0, cancelled=True),
        ]
        for event in events:
            await call.handle(event)
            seen.append(one.enforcer.memory.used)

    asyncio.run(run())
    kept = KEPT * len(chat(stream=True))
    assert seen == [0, kept, kept, kept + len(stream_of("forbid")[0]), 0]


@given(st.lists(st.tuples(st.sampled_from(["judging", "judged", "holds"]), st.integers(0, 1000)), max_size=30))
def test_whatever_a_call_does_it_gives_everything_back(steps: list[tuple[str, int]]) -> None:
    memory = Memory(20_000)
    share, other = Share(memory), Share(memory)
    other.judging(100)
    for name, size in steps:
        getattr(share, name)(size)
        assert memory.used >= WHILE_JUDGED * 100
    share.end()
    assert memory.used == WHILE_JUDGED * 100


def test_memory_that_was_in_use_is_given_back_once() -> None:
    freed: list[int] = []
    memory = Memory(None, lambda: freed.append(1))
    for size in (1 << 20, -(1 << 20), 64 << 20, -(40 << 20), -(24 << 20), 1, -1):
        memory.change(size)
    assert freed == [1]
    assert memory.room_for(1 << 60)


@pytest.mark.parametrize("text", ["max\n", "", "1073741824\n"])
def test_the_budget_is_half_of_what_there_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "memory.max"
    file.write_text(text)
    machine = default_budget((tmp_path / "none",))

    assert default_budget((file,)) == min(machine, (1 << 29) if text.startswith("1") else machine)
    assert machine >= UNKNOWN // 4


def test_trimming_is_possible_wherever_it_is_not() -> None:
    trimmer()()
