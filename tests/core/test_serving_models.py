"""The model that is judged is the model that will serve, and no fallback leads past a list."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.model.steps import PassRequestBody
from policyd.core.stream.dialects.models import MOST, model_in_path, models_of, with_model
from tests.driving import Bed, policy

SAID: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"
AZURE = "/openai/deployments/o3/chat/completions"
CONVERSE: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
GEMINI: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}]}

NAMED: list[tuple[str, Any, list[str]]] = [
    (CHAT, SAID, ["gpt-4o"]),
    (CHAT, {**SAID, "models": ["gpt-4o", "o3"]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "models": [{"model": "o3"}]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "fallbacks": ["o3", {"model": "o4", "messages": [{"role": "user", "content": "x"}]}]},
     ["gpt-4o", "o3", "o4"]),
    (CHAT, {**SAID, "fallbacks": [{"gpt-4o": ["o3"]}]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "context_window_fallback_dict": {"gpt-4o": "o3"}}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "route": "fallback", "models": ["o3"]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "extra_body": {"models": ["o3"]}}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "extra_body": {"model": "o3"}}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "extra_body": {"extra_body": {"fallbacks": ["o3"]}}}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "plugins": [{"id": "auto-router", "allowed_models": ["o3"]}]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "plugins": [{"id": "x", "model": "o3"}]}, ["gpt-4o", "o3"]),
    (CHAT, {**SAID, "metadata": {"model": "o3"}}, ["gpt-4o"]),
    (CHAT, {"messages": SAID["messages"]}, []),
    ("/v1/responses", {"model": "gpt-5", "tools": [{"type": "image_generation", "model": "gpt-image-1"}]},
     ["gpt-5", "gpt-image-1"]),
    (AZURE, SAID, ["o3"]),
    (AZURE, {**SAID, "models": ["gpt-4o"]}, ["o3", "gpt-4o"]),
    ("/v1/engines/o3/completions", {"model": "gpt-4o", "prompt": "hi"}, ["o3"]),
    ("/openai/deployments/dall-e/images/generations", {"model": "gpt-4o", "prompt": "hi"}, ["dall-e"]),
    ("/model/o3/converse", {**CONVERSE, "model": "gpt-4o"}, ["o3"]),
    ("/v1beta/models/o3:generateContent", {**GEMINI, "model": "models/gpt-4o"}, ["o3"]),
    ("/v1beta/models/e:batchEmbedContents", {"requests": [{"model": "models/e", "content": {"parts": []}}]},
     ["e"]),
    ("/v1/messages/batches", {"requests": [{"custom_id": "1", "params": {"model": "o3", "messages": []}}]}, ["o3"]),
    ("/v1/images/generations", {"model": "m", "prompt": "a"}, ["m"]),
]  # fmt: skip


def asked(path: str, body: object, spec: str, **more: Any) -> Any:
    return Bed(policy(spec)).call(body=json.dumps(body).encode(), path=path, **more)


@pytest.mark.parametrize(("path", "body", "models"), NAMED)
def test_every_model_is_a_fact(path: str, body: Any, models: list[str]) -> None:
    listed = json.dumps(models)
    when = f"request.models == {listed}" if models else "request.models.size() == 0"
    out = asked(path, body, f"rules: [{{name: same, when: '{when}', terminate: {{}}}}]", host="gateway.test")
    assert out.rejected is not None and out.rejected.status == 403, out.record.rules


@pytest.mark.parametrize(("path", "body", "models"), [row for row in NAMED if len(row[2]) > 1])
def test_a_policy_for_one_of_them_is_about_the_call(path: str, body: Any, models: list[str]) -> None:
    for model in models:
        out = asked(path, body, f"match: {{models: [{model}]}}\nrules: [{{name: no, terminate: {{}}}}]")
        assert out.rejected is not None


def test_the_number_of_models_is_bounded() -> None:
    with pytest.raises(Malformed):
        models_of({"models": [f"m{at}" for at in range(MOST + 1)]}, RequestFacts(path=CHAT))


MOVED = [
    (AZURE + "?api-version=1", "/openai/deployments/mini/chat/completions?api-version=1", {**SAID, "models": ["x"]}),
    ("/model/anthropic.claude%3A0/converse", "/model/mini/converse", CONVERSE),
    ("/v1beta/models/o3:generateContent?alt=sse", "/v1beta/models/mini:generateContent?alt=sse", GEMINI),
    ("/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
     "/v1/projects/p/locations/l/publishers/google/models/mini:streamGenerateContent", GEMINI),
    (CHAT, "", {**SAID, "fallbacks": ["o3"], "extra_body": {"models": ["o3"], "x": 1}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "moved", "body"), MOVED)
def test_a_reroute_changes_the_model_where_the_provider_reads_it(path: str, moved: str, body: Any) -> None:
    spec = "rules: [{name: away, when: 'request.model != \"mini\"', reroute: {model: mini}}]"
    out = asked(path, body, spec)
    leaving = [step for step in out.steps if isinstance(step, PassRequestBody)]

    assert [step.reroute for step in leaving] == [True], out.record
    assert dict(leaving[0].edit.set).get(":path", "") == moved
    sent = json.loads(out.sent) if out.sent else body
    assert out.record.served_model == "mini"
    assert not {"models", "fallbacks"} & sent.keys()
    assert "models" not in sent.get("extra_body", {})
    if "model" in body:
        assert sent["model"] == "mini"


def test_where_a_model_stands_in_a_path() -> None:
    assert model_in_path("/model/arn:aws:bedrock:r:1:inference-profile/x/converse").startswith("arn:")
    assert model_in_path("/v1/models") == model_in_path(CHAT) == ""
    assert with_model(CHAT, "x") == ""
    assert with_model("/model/a%3A0/invoke?x=1", "arn:b/c") == "/model/arn%3Ab%2Fc/invoke?x=1"
