"""One path for rules, dialects and the provider."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.model.paths import LONGEST, NormalPath, normal_path, resolve

CHAT = "/v1/chat/completions"
NORMAL = [
    (CHAT, CHAT, CHAT),
    ("/v1/chat/completions/", CHAT, CHAT),
    ("/V1/Chat/COMPLETIONS", CHAT, CHAT),
    ("/v1/chat/completions;x=1", CHAT, CHAT),
    ("/v1;a/chat;b/completions", CHAT, CHAT),
    ("/v1/%63hat/completions", CHAT, CHAT),
    ("/v1/chat/completions%20", CHAT, CHAT),
    ("//v1///chat/completions", CHAT, CHAT),
    ("/v1/./chat/x/../completions", CHAT, CHAT),
    ("/v1/files/%2e%2e/chat/completions", CHAT, CHAT),
    ("/v1\\chat\\completions", CHAT, CHAT),
    ("/v1/chat/completions#x", CHAT, CHAT),
    ("/../../v1/chat/completions", CHAT, CHAT),
    # names keep their case and the encoding that they need
    ("/model/anthropic.claude-3%3A0/Converse", "/model/anthropic.claude-3:0/converse",
     "/model/anthropic.claude-3%3A0/converse"),
    ("/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2FMine/invoke",
     "/model/arn:aws:bedrock:r:1:inference-profile/Mine/invoke",
     "/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2FMine/invoke"),
    ("/openai/Deployments/Chat/chat/completions", "/openai/deployments/Chat/chat/completions",
     "/openai/deployments/Chat/chat/completions"),
    ("/v1beta/models/Gem:GENERATECONTENT", "/v1beta/models/Gem:generateContent", "/v1beta/models/Gem:generateContent"),
    ("/v1beta/tunedmodels/t:generateContent", "/v1beta/tunedModels/t:generateContent",
     "/v1beta/tunedModels/t:generateContent"),
    ("/v1/models/org%2FName", "/v1/models/org/Name", "/v1/models/org%2FName"),
    ("/v1/files/a%20b/content", "/v1/files/a b/content", "/v1/files/a%20b/content"),
    ("/v1/responses/resp_ABC", "/v1/responses/resp_ABC", "/v1/responses/resp_ABC"),
    # servers of unknown paths, and of MCP, may need the slash
    ("/tools/own/", "/tools/own", "/tools/own/"),
    ("/mcp/", "/mcp", "/mcp/"),
    ("/messages/", "/messages", "/messages/"),
    ("/v1/messages/", "/v1/messages", "/v1/messages"),
    ("/", "/", "/"),
    ("//", "/", "/"),
    ("*", "*", "*"),
    ("", "/", ""),
]  # fmt: skip
AMBIGUOUS = [
    "/v1/chat%2fcompletions",
    "/v1/chat%5ccompletions",
    "/v1/files/..%2f..%2fv1/chat/completions",
    "/v1/models/..%2f..%2fchat/completions",
    "/model/a/invoke%2fconverse",
    "/model/a%2Finvoke",
    "/v1/%2563hat/completions",
    "/v1/chat/completions%3Bx",
    "/v1/chat/completions%3Fx",
    "/v1/chat/completions%00",
    "/v1/chat/completions%0a",
    "/v1/chat/completions%zz",
    "/v1/chat/completions%ff",
    "v1/chat/completions",
    "/" + "a" * LONGEST,
]


@pytest.mark.parametrize(("path", "judged", "sent"), NORMAL)
def test_a_path_has_one_normal_form(path: str, judged: str, sent: str) -> None:
    assert normal_path(path) == NormalPath(judged, sent)


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_a_path_that_can_be_read_in_several_ways_has_none(path: str) -> None:
    assert normal_path(path).ambiguous


_PARTS = st.sampled_from(
    [
        *(
            "/",
            "//",
            "/./",
            "/../",
            ";x",
            "%2e",
            "%2f",
            "%20",
            "\\",
            "#",
            "v1",
            "V1",
            "chat",
            "completions",
            "model",
            "mcp",
        ),
        *("models", "a%3Ab", "Claude", ":generateContent", "é", "%C3%A9", "responses", "messages"),
    ]
)


@given(st.lists(_PARTS, max_size=12).map("".join))
def test_what_is_forwarded_is_what_was_judged(path: str) -> None:
    normal = normal_path("/" + path)
    if normal.ambiguous:
        return
    again = normal_path(normal.sent)
    assert again == normal
    if "%2f" not in path:
        assert resolve(normal.judged) == normal.judged
