"""Texts that a stream tells several times: none of their tellings says what may not leave."""

from __future__ import annotations

import json
import random
from typing import Any

import openai
import pytest

from tests.driving import Bed, Outcome, policy
from tests.responses import Script
from tests.streams import answering, cuts, sse

ASKED = json.dumps({"model": "gpt-4o", "input": "hi", "stream": True}).encode()
SECRET = "KEY-12345678"
REDACT = "rules:\n- {name: r, constrain: {redact: {patterns: ['KEY-[0-9]{8}'], in: [response], replacement: '#'}}}"


def run(spec: str, chunks: list[bytes], body: bytes = ASKED, path: str = "/v1/responses") -> Outcome:
    kind = (("content-type", "text/event-stream"),)
    return Bed(policy(spec)).call(body=body, path=path, chunks=chunks, response_headers=kind, step_s=0.0)


def final(out: Outcome) -> Any:
    """The closing response as the official SDK hears it."""
    client = openai.OpenAI(api_key="k", http_client=answering(out.body), max_retries=0)
    with client.responses.stream(model="m", input="hi") as events:
        return events.get_final_response()


def ways(documents: list[Any]) -> list[list[bytes]]:
    return list(cuts(sse(*documents, names=True), 6))


def everywhere(secret: str = SECRET) -> list[Any]:
    said = ["Mine: ", *secret, ", yes"]
    arguments = ['{"k":"', *secret, '"}']
    script = Script(instructions=f"Say {secret}").think(*said).search(secret).code("print('", *secret, "')")
    return script.call("f", *arguments).call("g", *said, custom=True).say(*said, refusal=True).say(*said).end()


def test_a_secret_is_redacted_wherever_it_is_told() -> None:
    outcomes = [run(REDACT, chunks) for chunks in ways(everywhere())]
    assert len({out.body for out in outcomes}) == 1
    out = outcomes[0]
    assert SECRET not in out.body.decode() and "1234" not in out.body.decode()
    told = final(out)
    assert told.output_text == "Mine: #, yes"
    by_type = {item.type: item for item in told.output}
    assert by_type["function_call"].arguments == '{"k":"#"}'
    assert by_type["custom_tool_call"].input == "Mine: #, yes"
    assert by_type["reasoning"].summary[0].text == "Mine: #, yes"
    assert by_type["code_interpreter_call"].code == "print('#')"
    assert told.instructions == "Say #"


def test_a_redaction_changes_nothing_else() -> None:
    documents = everywhere()
    data, other = sse(*documents, names=True), sse(*everywhere("KEY-1234567"), names=True)
    assert run(REDACT, [other]).body == other
    before, after = (
        [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]
        for body in (data, run(REDACT, [data]).body)
    )
    assert [(one["type"], one["sequence_number"]) for one in before] == [
        (one["type"], one["sequence_number"]) for one in after
    ]


HOLD = """rules:
- {name: r, when: 'response.text.contains("forbidden")', holdBack: 9, terminate: {fallback: Stopped.}}"""


@pytest.mark.parametrize("seed", range(8))
def test_what_was_held_back_is_in_no_telling(seed: int) -> None:
    rng = random.Random(seed)
    text = "All is well. " * rng.randrange(3) + "This is forbidden, and more of it."
    pieces, at = [], 0
    while at < len(text):
        size = rng.choice((1, 2, 5, 9))
        pieces.append(text[at : at + size])
        at += size
    outcomes = [run(HOLD, chunks) for chunks in ways(Script().think("hm").say(*pieces).call("f", "{}").end())]
    assert len({out.body for out in outcomes}) == 1
    out = outcomes[0]
    assert out.record.verdict == "terminate"
    assert b"forbid" not in out.body
    told = final(out)
    assert told.output_text == text[: text.index("forbidden")] + "\n\nStopped."
    assert [item.type for item in told.output] == ["message"] * 2


def test_an_ending_tells_what_was_redacted_as_it_was_told() -> None:
    spec = (
        REDACT
        + """
- {name: t, when: 'response.text.contains("stop")', terminate: {fallback: Stopped.}}"""
    )
    documents = Script().think(SECRET).say("a ", *SECRET, " b").say("c ", *SECRET, " d", " stop", " e").end()
    outcomes = [run(spec, chunks) for chunks in ways(documents)]
    assert len({out.body for out in outcomes}) == 1
    assert "1234" not in outcomes[0].body.decode()
    assert final(outcomes[0]).output_text == "a # bc # d \n\nStopped."


def test_text_that_only_a_later_telling_has_is_judged_before_it_leaves() -> None:
    documents = [one for one in Script().say("forbidden").end() if one["type"] != "response.output_text.delta"]
    outcomes = [run(HOLD, chunks) for chunks in ways(documents)]
    assert len({out.body for out in outcomes}) == 1
    assert b"forbidden" not in outcomes[0].body
    assert final(outcomes[0]).output_text.endswith("Stopped.")


def test_a_telling_that_differs_is_judged_before_it_leaves() -> None:
    documents = Script().say("harmless").end()
    for kind in ("response.output_text.done", "response.content_part.done", "response.completed"):
        changed = [
            json.loads(json.dumps(one).replace("harmless", "forbidden")) if one["type"] == kind else one
            for one in documents
        ]
        out = run(HOLD, [sse(*changed, names=True)])
        assert b"forbidden" not in out.body, kind
        assert final(out).output_text.endswith("Stopped.")


def test_a_call_leaves_only_when_its_arguments_were_judged() -> None:
    spec = """rules:
- {name: r, when: 'response.tool_calls.exists(t, t.arguments.contains("rm -rf"))', terminate: {fallback: Stopped.}}"""
    documents = Script().say("Well.").call("shell", '{"c":"', "rm ", "-rf", ' /"}').say("done").end()
    outcomes = [run(spec, chunks) for chunks in ways(documents)]
    assert len({out.body for out in outcomes}) == 1
    assert b"shell" not in outcomes[0].body
    assert final(outcomes[0]).output_text == "Well.\n\nStopped."


def test_nothing_is_touched_where_nothing_is_found() -> None:
    data = sse(*everywhere(), names=True)
    spec = "rules:\n- {name: r, constrain: {redact: {patterns: ['NOT[0-9]{8}'], in: [response]}}}"
    for chunks in cuts(data, 4):
        assert run(spec, chunks).body == data


TOKENS = [{"token": one, "logprob": -0.1, "bytes": [*one.encode()], "top_logprobs": []} for one in SECRET]


def test_log_probabilities_do_not_tell_what_was_redacted() -> None:
    documents = Script().say("a ", *SECRET, " b").end()
    for one in documents:
        if one["type"] in ("response.output_text.delta", "response.output_text.done"):
            one["logprobs"] = TOKENS
        if one["type"] == "response.content_part.done":
            one["part"]["logprobs"] = TOKENS
    for chunks in ways(documents):
        said = [json.loads(line[6:]) for line in run(REDACT, chunks).body.decode().split("\n") if line[:6] == "data: "]
        deltas = [one for one in said if one["type"] == "response.output_text.delta"]
        assert not any(one["logprobs"] for one in deltas)  # each list of tokens holds all of what is redacted
        rest = [one for one in said if one["type"] in ("response.output_text.done", "response.content_part.done")]
        assert [one.get("part", one)["logprobs"] for one in rest] == [[], []]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_log_probabilities_of_choices_neither(path: str) -> None:
    chat = path.startswith("/v1/chat")
    head = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk" if chat else "text_completion"}
    chunks = []
    for piece in ["a ", *SECRET, " b"]:
        told = {"delta": {"content": piece}} if chat else {"text": piece}
        choice = {"index": 0, "finish_reason": None, "logprobs": {"content": [{"token": piece}]}, **told}
        chunks.append(sse({**head, "choices": [choice]}, done=False))
    body = json.dumps({"model": "m", "prompt": "hi", "messages": [], "stream": True}).encode()
    out = run(REDACT, chunks, body, path)
    said = [json.loads(line[6:])["choices"][0] for line in out.body.decode().split("\n") if line[:7] == "data: {"]
    assert [bool(one["logprobs"]) for one in said] == [True, *(False for _ in SECRET), True]
    whole = json.dumps({**head, "choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"tokens": [SECRET]},
                        **({"message": {"content": SECRET}} if chat else {"text": SECRET})}]}).encode()  # fmt: skip
    answer = Bed(policy(REDACT)).call(body=body.replace(b"true", b"false"), path=path, chunks=[whole])
    assert SECRET.encode() not in answer.body and json.loads(answer.body)["choices"][0]["logprobs"] is None
