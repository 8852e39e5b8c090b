"""OpenAI Completions and Embeddings: requests, edits, answers, and what policyd says in those voices."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Dialect, Ending, RequestChange
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_embeddings import OpenAIEmbeddings
from policyd.core.stream.json_text import dumps, loads, splice
from tests.driving import Bed, policy
from tests.streams import Read, answering, cuts, read_json, read_stream, sse

COMPLETIONS, EMBEDDINGS = OpenAICompletions(), OpenAIEmbeddings()
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def asked(dialect: Dialect, document: Any, path: str = "/v1/completions") -> RequestFacts:
    facts = RequestFacts(path=path)
    dialect.read_request(loads(dumps(document)), facts)
    return facts


def changed(dialect: Dialect, document: Any, **how: Any) -> Any:
    data = dumps(document).encode()
    return json.loads(splice(data, dialect.edits(loads(data), RequestChange(**how))))


def chunk(text: str, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
    return {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [choice], **more}


def streamed(*documents: Any, done: bool = True) -> Read:
    data = sse(*documents, done=done)
    whole = read_stream(COMPLETIONS, [data])
    for chunks in cuts(data, 3):
        again = read_stream(COMPLETIONS, chunks)
        assert (again.response, again.readings) == (whole.response, whole.readings)
    return whole


# ---- completions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "texts", "choices"),
    [("a", ["a"], 2), (["a", "b"], ["a", "b"], 4), ([1, 2, 3], [], 2), ([[1], [2, 3]], [], 4), (None, [], 2)],
    ids=dumps,
)
def test_what_is_prompted(prompt: Any, texts: list[str], choices: int) -> None:
    facts = asked(COMPLETIONS, {"model": "m", "prompt": prompt, "n": 2, "max_tokens": 9, "suffix": "z"})
    assert [one.text for one in facts.messages] == texts
    together = ["".join(texts)] if len(texts) > 1 else []
    assert (facts.text, facts.choices, facts.max_tokens) == ("\n".join([*texts, "z", *together]), choices, 9)


def test_azure_names_its_model_in_the_path() -> None:
    assert asked(COMPLETIONS, {}, "/openai/deployments/d/completions").model == "d"
    assert asked(EMBEDDINGS, {}, "/openai/deployments/d/embeddings").model == "d"


@pytest.mark.parametrize(
    "body",
    [[], None, {"prompt": 5}, {"prompt": [True]}, {"prompt": ["a", 5]}, {"prompt": [{}]}, {"n": 0}, {"n": 10**6},
     {"max_tokens": "5"}, {"max_tokens": -1}, {"stream": "true"}, {"Prompt": "x"}, {"stream_options": 5}],
    ids=dumps,
)  # fmt: skip
def test_what_cannot_be_read_is_malformed(body: Any) -> None:
    with pytest.raises(Malformed):
        asked(COMPLETIONS, body)


def test_edits_of_completions() -> None:
    body = {"prompt": ["a", "b"], "max_tokens": 100, "stream": True}
    assert changed(COMPLETIONS, body, caps=(("max_output_tokens", 5),))["max_tokens"] == 5
    assert changed(COMPLETIONS, body, model="n")["model"] == "n"
    assert changed(COMPLETIONS, body, inject_system=("x",))["prompt"] == ["x\n\na", "x\n\nb"]
    assert changed(COMPLETIONS, body, include_usage=True)["stream_options"] == {"include_usage": True}
    assert changed(COMPLETIONS, body, tools_deny=frozenset({"f"})) == body
    with pytest.raises(Malformed):
        COMPLETIONS.edits({"prompt": [1, 2]}, RequestChange(inject_system=("x",)))


def test_choices_are_kept_apart() -> None:
    got = streamed(
        chunk("a"),
        chunk("x", index=1),
        chunk("b", "length"),
        chunk("", "stop", 1),
        {**chunk(""), "choices": [], "usage": USAGE},
    ).response
    assert (got.text(0), got.text(1), got.finish_reasons) == ("ab", "x", ["length", "stop"])
    assert (got.input_tokens, got.output_tokens, got.usage_source, got.inspection) == (3, 2, "provider", "full")


def test_an_answer_in_one_piece_and_its_errors() -> None:
    got = read_json(COMPLETIONS, chunk("ab", "length", usage=USAGE)).response
    assert (got.text(), got.finish_reasons, got.output_tokens, got.inspection) == ("ab", ["length"], 2, "full")
    assert read_json(COMPLETIONS, {"error": {"message": "no"}}, 400).response.is_error
    with pytest.raises(Malformed):
        read_json(COMPLETIONS, {})


@pytest.mark.parametrize("odd", [chunk("a", invented="x") | {"object": "odd"}, {"type": "odd"}, [], "{"], ids=dumps)
def test_what_is_unknown_makes_the_answer_partial(odd: Any) -> None:
    data = sse(chunk("a"), odd, chunk("", "stop"))
    assert read_stream(COMPLETIONS, [data]).response.inspection == "partial"


@pytest.mark.parametrize("event", range(4))
def test_a_cut_stream_parses_in_the_openai_sdk(event: int) -> None:
    request = RequestFacts(stream=True, choices=2, wants_usage=True)
    read = read_stream(COMPLETIONS, [sse(chunk("a"), chunk("b", "stop"), chunk("x", index=1))], request)
    read.reader.rewind(read.marks[event])
    body = b"".join(one.raw for one in read.events[:event]) + read.reader.ending(Ending("Stopped.", "stop"))
    client = openai.OpenAI(api_key="k", http_client=answering(body), max_retries=0)
    pieces = list(client.completions.create(model="m", prompt="hi", stream=True))
    ends = {choice.index for piece in pieces for choice in piece.choices if choice.finish_reason}
    assert ends == {0, 1} and sum(piece.usage is not None for piece in pieces) == 1
    assert body.endswith(b"data: [DONE]\n\n")
    assert any("Stopped." in choice.text for piece in pieces for choice in piece.choices)


def test_a_secret_is_redacted_across_events() -> None:
    spec = "rules:\n- {name: r, constrain: {redact: {patterns: ['KEY-[0-9]{4}'], in: [response], replacement: '#'}}}"
    data = sse(*(chunk(piece) for piece in ["a ", *"KEY-1234", " b"]), chunk("", "stop"))
    body = dumps({"model": "m", "prompt": "hi", "stream": True}).encode()
    outs = {Bed(policy(spec)).call(body=body, path="/v1/completions", chunks=one).body for one in cuts(data, 4)}
    assert len(outs) == 1
    assert read_stream(COMPLETIONS, [outs.pop()]).response.text() == "a # b"


# ---- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], []), ([{"text": "a"}, {"image": "b"}], ["a"])],
    ids=dumps,
)
def test_what_is_embedded(given: Any, texts: list[str]) -> None:
    body = {"model": "m", "input": given}
    facts = asked(EMBEDDINGS, body)
    assert (facts.text, [one.text for one in facts.messages]) == ("\n".join(texts), texts)
    assert [one.text for one in EMBEDDINGS.request_segments(body)] == texts
    assert facts.input_tokens > 0


def test_an_embedding_has_nothing_to_cap_and_nobody_to_tell() -> None:
    body = {"model": "m", "input": "a"}
    assert changed(EMBEDDINGS, body, caps=(("max_tokens", 5),), inject_system=("x",)) == body
    assert changed(EMBEDDINGS, body, model="n") == {"model": "n", "input": "a"}


def test_an_embedding_costs_its_input() -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.1]}
    for usage in ({"prompt_tokens": 8, "total_tokens": 8}, {"total_tokens": 8}):
        got = read_json(EMBEDDINGS, {"object": "list", "data": [vector], "model": "m", "usage": usage}).response
        assert (got.input_tokens, got.output_tokens, got.usage_source) == (8, 0, "provider")
        assert (got.inspection, got.finish_reasons, got.text()) == ("full", [], "")
    with pytest.raises(Malformed):
        read_json(EMBEDDINGS, {"object": "odd"})


@pytest.mark.parametrize("dialect", [COMPLETIONS, EMBEDDINGS], ids=lambda one: one.name)
def test_an_error_of_our_own_in_the_openai_sdk(dialect: Dialect) -> None:
    told = dialect.error(429, "too_much", "Enough.")
    client = openai.OpenAI(api_key="k", http_client=answering(told.data, 429, told.content_type), max_retries=0)
    with pytest.raises(openai.RateLimitError, match="Enough"):
        client.completions.create(model="m", prompt="hi")


def test_completions_of_our_own() -> None:
    told = COMPLETIONS.completion(RequestFacts(model="m", choices=2), Ending("No.", "stop"), "d1")
    client = openai.OpenAI(api_key="k", http_client=answering(told.data, kind=told.content_type), max_retries=0)
    got = client.completions.create(model="m", prompt="hi")
    assert (got.id, [choice.text for choice in got.choices]) == ("cmpl-d1", ["No.", "No."])
    assert json.loads(EMBEDDINGS.completion(RequestFacts(model="m"), Ending("No.", "stop"), "d1").data)["data"] == []
