"""The openai and anthropic SDKs for Node.js, unmodified, against a real Envoy: as test_sdks.py has those for Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from policyd.cli.emulator import Emulator, RawAnswer
from policyd.cli.stage import Stage
from tests.envoy.stack import policy, requests_seen, stack, upstream_calls, wait_for_end
from tests.envoy.test_sdks import CUT_AT, FALLBACK, POLICIES, REFUSAL, words
from tests.responses import Script
from tests.sdks.asking import Clients, Seen, clients, node_is_missing
from tests.sdks.documents import CHAT, MESSAGES, RESPONSES, encoded
from tests.streams import sse

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(bool(node_is_missing()), reason=node_is_missing())]

WORD = "zugzwang"
CONTAINS = f"response.content.contains('{WORD}')"
REDACT = f"{{patterns: [{WORD}], in: [response]}}"
SEEN = {
    "seen.yaml": policy("seen", f'rules: [{{name: no, when: "{CONTAINS}", terminate: {{}}}}]', team="seen"),
    "hidden.yaml": policy("hidden", f"rules: [{{name: h, constrain: {{redact: {REDACT}}}}}]", team="hidden"),
}
EVENTS = (("content-type", "text/event-stream"),)
ODD = {
    "chat": ("an unknown list", "arguments under another id", "pieces around the finish", "an escaped key"),
    "messages": ("two blocks at once", "behind the block's end", "arguments, cut in an escape", "a summary"),
    "responses": ("pieces", "two parts at once", "arguments", "a text that differs"),
}
STREAMS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}


@pytest.fixture(scope="module")
def up() -> Iterator[Stage]:
    provider = Emulator("openai")
    script = Script().say(*(f"word {number} " for number in range(12))).call("look", "{}")
    provider.raw["responses"] = RawAnswer(200, EVENTS, _blocks(sse(*script.end(), names=True)))
    for api, names in ODD.items():
        for name in names:
            provider.raw[f"{api}: {name}"] = RawAnswer(200, EVENTS, _blocks(encoded(api, STREAMS[api][name])))
    with stack({**POLICIES, **SEEN}, providers=[provider, Emulator("backup")]) as stage:
        yield stage


def _blocks(stream: bytes) -> tuple[bytes, ...]:
    return tuple(block + b"\n\n" for block in stream.split(b"\n\n") if block)


@pytest.fixture(scope="module")
def ask() -> Iterator[Clients]:
    with clients() as asking:
        yield asking


def asked(ask: Clients, up: Stage, api: str, way: str, team: str, **steer: str) -> Seen:
    headers = {"x-team-id": team, "x-session-id": f"node-{team}"}
    headers |= {f"x-emulate-{name.replace('_', '-')}": value for name, value in steer.items()}
    if api == "responses":
        return ask("node", api, way, url=up.url, headers={**headers, "x-emulate-raw": "responses"})
    return ask("node", api, way, url=up.url, headers=headers, max_tokens=1000)


APIS = ("chat", "messages")
each_api = pytest.mark.parametrize("api", APIS)
each_way = pytest.mark.parametrize("way", ["whole", "stream", "helper"])


@each_way
@each_api
def test_allowed(up: Stage, ask: Clients, api: str, way: str) -> None:
    seen = asked(ask, up, api, way, "anybody", events="12")
    assert (seen.error, seen.text) == (None, words(12))


@each_way
@each_api
def test_tool_call(up: Stage, ask: Clients, api: str, way: str) -> None:
    seen = asked(ask, up, api, way, "redacted", events="1", tool="look", arguments="{}")
    assert seen.error is None and "look" in seen.strings


@each_way
@each_api
@pytest.mark.parametrize("chars", ["1", "9"])
def test_redacted(up: Stage, ask: Clients, api: str, way: str, chars: str) -> None:
    seen = asked(ask, up, api, way, "redacted", text="no%20secret%20here", token_chars=chars)
    assert seen.text == "no [redacted] here"
    assert not any("secret" in text for text in seen.strings)


@pytest.mark.parametrize("way", ["stream", "helper"])
@pytest.mark.parametrize("api", [*APIS, "responses"])
def test_cut_stream_ends_cleanly(up: Stage, ask: Clients, api: str, way: str) -> None:
    """`finalChatCompletion()`, `finalMessage()` and `finalResponse()` give the text of a stream that was cut."""
    seen = asked(ask, up, api, way, "cut", events="60", interval_ms="20")
    assert seen.error is None and seen.text.endswith(f"\n\n{FALLBACK}"), seen
    assert seen.text.removesuffix(f"\n\n{FALLBACK}")
    if api != "responses":
        call = wait_for_end(up, upstream_calls(up)[-1])
        assert call.closed_early and call.events < CUT_AT + 3


@each_way
@each_api
@pytest.mark.parametrize(
    ("team", "name"), [("denied", "PermissionDeniedError"), ("limited", "RateLimitError"), ("away", "")]
)
def test_rejected(up: Stage, ask: Clients, api: str, way: str, team: str, name: str) -> None:
    reached, requests = len(upstream_calls(up)), requests_seen(up)
    error: Any = asked(ask, up, api, way, team).error
    assert error is not None and REFUSAL in error.message
    assert error.name == name or (not name and error.status == 503)
    assert error.headers["x-should-retry"] == "false" and error.headers["x-policyd-decision"]
    assert requests_seen(up) == requests + 1, "the SDK has tried again what waiting cannot cure"
    assert len(upstream_calls(up)) == reached


@each_way
@each_api
def test_fallback_as_a_response(up: Stage, ask: Clients, api: str, way: str) -> None:
    reached = len(upstream_calls(up))
    seen = asked(ask, up, api, way, "answered")
    assert (seen.error, seen.text) == (None, FALLBACK)
    assert len(upstream_calls(up)) == reached


@pytest.mark.parametrize("team", ["seen", "hidden"])
@pytest.mark.parametrize(("api", "name"), [(api, name) for api, names in ODD.items() for name in names])
def test_what_an_sdk_reads_was_judged(up: Stage, ask: Clients, api: str, name: str, team: str) -> None:
    """Some of the streams of tests/sdks, through Envoy; all four SDKs read what is forwarded."""
    headers = {"x-team-id": team, "x-emulate-raw": f"{api}: {name}"}
    for language in ("python", "node"):
        for way in ("stream", "helper"):
            seen = ask(language, api, way, url=up.url, headers=headers)
            assert not [text for text in seen.strings if WORD in text], (language, way)
