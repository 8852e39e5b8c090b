"""Stored responses: read like the response that they are, and refused where the client was not to see all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.decision import Mode
from tests.driving import Bed, chat, policy, sse
from tests.fakes import FaultyCounters

WORD = "zugzwang"
NO = policy(f"rules: [{{name: no, when: 'response.text.contains(\"{WORD}\")', terminate: {{}}}}]")
HIDE = policy("rules: [{name: hide, constrain: {redact: {patterns: ['zugzwang'], in: [response]}}}]")
FETCHED = ("/v1/responses/{}", "/v1/responses/{}?stream=true", "/openai/v1/responses/{}/", "/v1/Responses/{}",
           "/v1/chat/completions/{}", "/v1/chat/completions/{}/messages", "/v1/responses/{}/input_items")  # fmt: skip


def answer(text: str, id: str = "resp_1") -> bytes:
    output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": text, "annotations": []}]}]  # fmt: skip
    return json.dumps({"id": id, "object": "response", "status": "completed", "model": "gpt-5", "output": output,
                       "usage": {"input_tokens": 3, "output_tokens": 5}}).encode()  # fmt: skip


def asked(bed: Bed, text: str, id: str = "resp_1") -> Any:
    body = json.dumps({"model": "gpt-5", "input": "hi"}).encode()
    return bed.call(body=body, path="/v1/responses", chunks=[answer(text, id)])


def status(out: Any) -> int:
    return out.rejected.status if out.rejected else 200


@pytest.mark.parametrize("spec", [NO, HIDE])
@pytest.mark.parametrize("path", FETCHED)
def test_what_was_stopped_or_changed_cannot_be_fetched(spec: str, path: str) -> None:
    bed = Bed(spec)
    asked(bed, f"it is {WORD}")
    asked(bed, "all is well", "resp_2")

    assert status(bed.call(path=path.format("resp_1"), method="GET", chunks=[answer("x")])) == 403
    assert status(bed.call(path=path.format("resp_2"), method="GET")) == 200
    assert status(bed.call(path="/v1/responses/resp_1", method="DELETE")) == 200


def test_a_stream_that_was_cut_cannot_be_fetched() -> None:
    bed = Bed(NO)
    words = [{"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
              "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
             for text in ("so ", WORD, " it is")]  # fmt: skip
    out = bed.call(body=chat(stream=True), chunks=[sse(one, done=False) for one in words])
    assert WORD not in out.text

    assert status(bed.call(path="/v1/chat/completions/chatcmpl-9", method="GET")) == 403


@pytest.mark.parametrize("path", ["/v1/responses/r", "/v1/responses/r/cancel"])
def test_a_stored_response_is_judged_and_redacted(path: str) -> None:
    method = "POST" if path.endswith("cancel") else "GET"
    assert status(Bed(NO).call(path=path, method=method, chunks=[answer(WORD)])) == 403
    bed = Bed(HIDE)
    for _ in range(2):
        out = bed.call(path=path, method=method, chunks=[answer(f"it is {WORD}")])
        assert WORD.encode() not in out.body and b"it is" in out.body
    assert out.record.operation == "retrieval" and out.record.cost_nano == 0


def test_policies_for_chats_are_not_about_retrievals() -> None:
    bed = Bed(policy("match: {operations: [chat]}\nrules: [{name: no, terminate: {}}]"))
    assert status(bed.call(path="/v1/responses/r", method="GET", chunks=[answer(WORD)])) == 200


def test_every_replica_of_a_store_knows_what_was_stopped() -> None:
    one = Bed(NO)
    asked(one, f"it is {WORD}")
    other = Bed(NO, counters=one.memory)
    assert status(other.call(path="/v1/responses/resp_1", method="GET", chunks=[answer("x")])) == 403
    assert other.sink.records[-1].reason == "response_withheld"


@pytest.mark.parametrize("fails, wanted", [("Fail", 503), ("Ignore", 200)])
def test_a_store_that_cannot_tell_leaves_it_to_the_failure_policy(fails: str, wanted: int) -> None:
    spec = NO.replace("spec:", f"spec:\n  failurePolicy: {fails}")
    bed = Bed(spec)
    down = Bed(spec, counters=FaultyCounters.down(bed.memory))
    assert status(down.call(path="/v1/responses/resp_1", method="GET", chunks=[answer("x")])) == wanted


def test_under_monitor_everything_can_be_fetched() -> None:
    bed = Bed(NO)
    asked(bed, f"it is {WORD}")
    watching = Bed(NO, counters=bed.memory, mode=Mode.MONITOR)
    assert status(watching.call(path="/v1/responses/resp_1", method="GET", chunks=[answer("x")])) == 200


def test_a_rejected_retrieval_is_an_attempt() -> None:
    counter = "{name: tries, key: caller.key, charge: Attempts, window: {sliding: 1m}, onExceeded: Continue}"
    about = f"match: {{operations: ['*']}}\ncounters: [{counter}]\n"
    bed = Bed(policy(about + f"rules: [{{name: no, when: 'response.text.contains(\"{WORD}\")', terminate: {{}}}}]"))
    key = (("authorization", "Bearer sk-1"),)
    body = json.dumps({"model": "gpt-5", "input": "hi"}).encode()
    bed.call(body=body, path="/v1/responses", chunks=[answer(WORD)], headers=key)
    out = bed.call(path="/v1/responses/resp_1", method="GET", headers=key)
    assert [one.spent for one in out.record.counters] == [1]
