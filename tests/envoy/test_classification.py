"""What a call is does not depend on what its caller can choose freely: through a real Envoy, in mode Full and Fail."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from policyd.cli.emulator import Call, Emulator, RawAnswer
from policyd.cli.stage import Stage
from tests.envoy.stack import policy, stack

WORD = "zugzwang"
CHAT = "/v1/chat/completions"
SAID: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": WORD}]}
CLEAN: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
READS = f'when: request.text.contains("{WORD}"), terminate: {{}}'

POLICIES = {
    "default.yaml": policy("default", f"rules: [{{name: no, {READS}}}]", team="default"),
    "path.yaml": policy("path", f"match: {{paths: [{CHAT}]}}\nrules: [{{name: no, {READS}}}]", team="path"),
    "provider.yaml": policy("provider", f"match: {{providers: [openai]}}\nrules: [{{name: no, {READS}}}]", team="prov"),
    "unknown.yaml": policy("unknown", "match: {operations: [unknown]}\nrules: [{name: no, terminate: {}}]", team="unk"),
    "spied.yaml": policy("spied", f"match: {{operations: [unknown]}}\nrules: [{{name: no, {READS}}}]", team="spied"),
    "place.yaml": policy(
        "place",
        """
        match: {operations: ["*"]}
        rules:
          - name: told
            terminate: {status: 403}
            when: request.upstream == "openai" && request.host == "127.0.0.1" && request.provider == "openai"
        """,
        team="place",
    ),
    "moved.yaml": policy(
        "moved",
        """
        rules:
          - {name: away, when: request.upstream == "openai", reroute: {upstream: claude}}
          - {name: there, when: request.provider == "anthropic" && request.region == "mars", terminate: {status: 451}}
        """,
        team="moved",
    ),
    "listed.yaml": policy(
        "listed", "rules: [{name: no, when: '!request.models.all(m, m == \"gpt-4o\")', terminate: {}}]", team="listed"
    ),
    "only.yaml": policy("only", "match: {models: [o3]}\nrules: [{name: no, terminate: {}}]", team="only"),
    "away.yaml": policy("away", "rules: [{name: go, reroute: {model: mini}}]", team="away"),
    "answers.yaml": policy(
        "answers", f'rules: [{{name: no, when: response.text.contains("{WORD}"), terminate: {{}}}}]', team="answers"
    ),
    "passes.yaml": policy("passes", 'rules: [{name: no, when: request.text == "never", terminate: {}}]', team="passes"),
}


@dataclass(frozen=True, slots=True)
class Sent:
    """One crafted request of a team's caller."""

    team: str
    path: str
    body: Any = field(default_factory=lambda: SAID)
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.team} {self.method} {self.path} {dict(self.headers)}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    providers = [Emulator("openai"), Emulator("claude")]
    answer = RawAnswer(200, (("content-type", "application/json"),), (b"{}",), stream=False)
    for provider in providers:
        provider.raw["/ok"] = answer
    with stack(POLICIES, providers=providers) as up:
        yield up


def ask(stage: Stage, sent: Sent) -> tuple[int, bytes, list[Call]]:
    """Status, body and what reached the upstreams. Nothing of the request is normalised on its way."""
    before = [len(provider.calls) for provider in stage.providers]
    connection = http.client.HTTPConnection("127.0.0.1", stage.listener, timeout=20)
    body = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
    headers = {"x-team-id": sent.team, "x-emulate-raw": "/ok", "content-type": "application/json", **sent.headers}
    connection.putrequest(sent.method, sent.path, skip_host="host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body or None)
    try:
        response = connection.getresponse()
        status, data = response.status, response.read()
    except (http.client.HTTPException, OSError):
        status, data = 0, b""
    connection.close()
    calls = [call for provider, at in zip(stage.providers, before, strict=True) for call in provider.calls[at:]]
    return status, data, calls


PATHS = (
    "/v1/chat/completions/", "/V1/Chat/COMPLETIONS", "/v1/chat/completions;x=1", "/v1;a/chat/completions",
    "/v1/%63hat/completions", "/v1/chat/completions%20", "//v1/chat//completions", "/v1/./chat/completions",
    "/v1/x/../chat/completions", "/v1/x/%2e%2e/chat/completions", "/v1\\chat\\completions", "/v1/chat/completions?a=b",
    "/v1/chat%2Fcompletions", "/v1/%2563hat/completions", "/v1/chat/completions%3Bx", "/v1/chat/completions%3Fx",
)  # fmt: skip
OVERRIDES = ("x-http-method-override", "x-method-override", "x-http-method")
MCP = ({"mcp-session-id": "1"}, {"mcp-protocol-version": "2025-06-18"}, {"mcp-method": "ping"})
PROMPT = {"prompt": WORD, "model": "m"}
GENERIC = (
    "/v1/images/generations", "/v1/images/edits", "/v1/videos", "/v1/audio/speech", "/v1/rerank", "/v2/rerank",
    "/v1/moderations", "/v1/batches", "/v1/messages/batches", "/v1/messages/count_tokens", "/v1/files", "/v1/uploads",
    "/v1/threads", "/v1/threads/t/messages", "/v1/conversations", "/v1/conversations/c/items", "/v1/assistants",
    "/v1/vector_stores", "/v1/vector_stores/v/search", "/v1/graders/run", "/v1/evals", "/v1/fine_tuning/jobs",
    "/v1/realtime/sessions", "/v1/responses/input_tokens", "/v1beta/models/g:countTokens", "/v1beta/cachedContents",
    "/v1beta/models/g:batchGenerateContent", "/model/stability.sd3/invoke", "/guardrail/g/version/1/apply",
    "/v1/containers/c/files", "/v1/skills", "/tokenize",
)  # fmt: skip
JUDGED = [
    *(Sent("path", path) for path in PATHS),
    *(Sent("prov", CHAT, headers={"host": host}) for host in ("api.groq.com", "writer.com", "x.openai.azure.com")),
    *(Sent("prov", CHAT, headers={"x-forwarded-host": host}) for host in ("api.groq.com",)),
    *(Sent("default", path, PROMPT, headers=signs) for path in GENERIC for signs in ({}, MCP[0])),
    *(Sent("default", CHAT, headers={name: "GET"}) for name in OVERRIDES),
    *(Sent("unk", "/v7/new", PROMPT, headers=signs) for signs in ({}, *MCP)),
    *(Sent("unk", "/v1/agents/a/run", PROMPT, headers=signs) for signs in MCP),
    *(Sent("unk", "/v1/models", b"", "GET", {name: "POST"}) for name in OVERRIDES),
    *(Sent("unk", path, SAID, method) for path in (CHAT, "/v1/models") for method in ("GET", "OPTIONS", "DELETE")),
    *(Sent("spied", "/v7/new", body) for body in (PROMPT, [WORD], WORD, {"a": {"b": [{"c": WORD}]}})),
    Sent("spied", "/v1/agents/a/run", {"additional_instructions": WORD}),
    Sent("spied", "/v7/new", b"\x89PNG not json"),
    *(
        Sent("default", CHAT, headers={"content-type": f"application/json; charset={name}"})
        for name in ("utf-7", "utf-16", '"UTF-16LE"', "iso-8859-1", "utf-8; charset=utf-7")
    ),
    *(
        Sent(team, path, {**CLEAN, **more})
        for team in ("listed", "only")
        for path, more in (
            ("/openai/deployments/o3/chat/completions", {}),
            ("/openai/Deployments/o3/Chat/completions?api-version=1", {}),
            ("/v1/engines/o3/completions", {"prompt": "hi"}),
            (CHAT, {"models": ["gpt-4o", "o3"]}),
            (CHAT, {"fallbacks": [{"model": "o3"}]}),
            (CHAT, {"fallbacks": [{"gpt-4o": ["o3"]}]}),
            (CHAT, {"extra_body": {"models": ["o3"]}}),
            (CHAT, {"plugins": [{"id": "auto-router", "allowed_models": ["o3"]}]}),
            ("/v1/messages/batches", {"requests": [{"custom_id": "1", "params": {"model": "o3"}}]}),
            ("/v1/images/generations", {"model": "o3", "prompt": "a"}),
        )
    ),
    *(Sent("place", CHAT, headers={"host": host}) for host in ("api.openai.com", "elsewhere.test")),
    Sent("default", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                             "params": {"name": "x", "arguments": {"a": WORD}}}),
]  # fmt: skip


@pytest.mark.parametrize("sent", JUDGED, ids=str)
def test_a_call_is_judged_as_what_it_is(stage: Stage, sent: Sent) -> None:
    status, body, calls = ask(stage, sent)

    assert calls == [], body
    assert status in (400, 403, 404, 503), body


FORWARDED = [
    ("/v1/chat/completions/?x=%2F", "/v1/chat/completions?x=%2F"),
    ("/V1/Chat/Completions", CHAT),
    ("/v1/chat/completions;x=1?a=b", "/v1/chat/completions?a=b"),
    ("/v1/%63hat/completions", CHAT),
    (CHAT, CHAT),
    ("/model/anthropic.claude-3%3A0/converse", "/model/anthropic.claude-3%3A0/converse"),
    ("/model/anthropic.claude-3%3a0/Converse", "/model/anthropic.claude-3%3a0/converse"),
]


@pytest.mark.parametrize(("path", "forwarded"), FORWARDED)
def test_the_provider_gets_the_path_that_was_judged(stage: Stage, path: str, forwarded: str) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    status, data, calls = ask(stage, Sent("passes", path, body))

    assert [call.path for call in calls] == [forwarded], (status, data)


REROUTED = [
    (
        "/openai/deployments/o3/chat/completions?api-version=1",
        "/openai/deployments/mini/chat/completions?api-version=1",
    ),
    ("/model/anthropic.claude-3%3A0/converse", "/model/mini/converse"),
    ("/v1beta/models/o3:generateContent", "/v1beta/models/mini:generateContent"),
    (CHAT, CHAT),
]


@pytest.mark.parametrize(("path", "forwarded"), REROUTED)
def test_a_reroute_changes_the_model_in_the_path(stage: Stage, path: str, forwarded: str) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    if "models/" in path:
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
    if path == CHAT:
        body = {**CLEAN, "models": ["o3"], "fallbacks": ["o3"]}
    status, data, calls = ask(stage, Sent("away", path, body))

    assert [call.path for call in calls] == [forwarded], (status, data)
    assert b"o3" not in calls[0].body


def test_override_headers_do_not_reach_the_provider(stage: Stage) -> None:
    headers = {"x-http-method-override": "GET", "x-original-url": "/v1/other"}
    _, _, calls = ask(stage, Sent("passes", CHAT, headers=headers))

    assert [{name for name, _ in call.headers} & headers.keys() for call in calls] == [set()]


def test_a_response_that_was_stopped_cannot_be_fetched(stage: Stage) -> None:
    output = [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": f"it is {WORD}"}]}]
    stored = {"id": "resp_7", "object": "response", "status": "completed", "model": "gpt-5", "output": output}
    for provider in stage.providers:
        provider.raw["/stored"] = RawAnswer(
            200, (("content-type", "application/json"),), (json.dumps(stored).encode(),), stream=False
        )
    headers = {"x-emulate-raw": "/stored"}
    first, data, _ = ask(stage, Sent("answers", "/v1/responses", {"model": "gpt-5", "input": "hi"}, headers=headers))
    assert (first, WORD in data.decode()) == (403, False)
    for team, path in (("answers", "/v1/responses/resp_8"), ("passes", "/v1/responses/resp_7")):
        again, data, _ = ask(stage, Sent(team, path, b"", "GET", headers))
        assert (again, WORD in data.decode()) == (403, False)


def test_what_carries_no_content_passes(stage: Stage) -> None:
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/files"), ("DELETE", "/v1/files/f"), ("GET", "/healthz")):
        _, data, calls = ask(stage, Sent("unk", path, b"", method))
        assert len(calls) == 1, (path, data)


def test_the_second_pass_of_a_reroute_knows_its_target() -> None:
    providers = [Emulator("openai"), Emulator("claude")]
    options = ["--upstream", "claude=127.0.0.1:9;provider=anthropic;region=mars"]
    with stack({"moved.yaml": POLICIES["moved.yaml"]}, providers=providers[:1], bootstrap=options) as up:
        status, data, calls = ask(up, Sent("moved", CHAT))
        assert (status, calls) == (451, []), data


def test_an_arn_in_a_bedrock_path_is_judged_and_forwarded_and_no_other_escaped_slash() -> None:
    arn = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fmine/converse"
    said = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    wanted = 'rules: [{name: r, when: request.model.endsWith("inference-profile/bad"), terminate: {status: 451}}]'
    provider = Emulator("aws")
    provider.raw["/ok"] = RawAnswer(200, (("content-type", "application/json"),), (b"{}",), stream=False)
    with stack(
        {"model.yaml": policy("model", wanted)},
        providers=[provider],
        bootstrap=["--upstream", "bedrock=127.0.0.1:9;provider=bedrock"],
    ) as up:
        status, data, calls = ask(up, Sent("", arn, said))
        assert (status, [call.path for call in calls]) == (200, [arn]), data
        assert ask(up, Sent("", arn.replace("mine", "bad"), said))[0] == 451
        for path in ("/v1%2Fchat/completions", "/v1/chat%2fcompletions", "/model/a%2F..%2Fb/converse"):
            status, data, calls = ask(up, Sent("", path, SAID))
            assert (status, calls) == (400, []), data
            assert b"ambiguous_path" in data
