"""The official openai and anthropic SDKs for Python and Node.js, each asked in the same way, and what a program gets to
see of a response: its events, the object that a helper makes of them, and the error.

with clients() as ask:
    seen = ask("node", "openai", "chat", reply=Reply([b"data: ..."]), stream=True)
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.built import NODE

CLIENT = Path(__file__).parents[1] / "node" / "client.mjs"
LANGUAGES = ("python", "node")
USER: Any = [{"role": "user", "content": "hi"}]
SDK_OF = {"chat": "openai", "completions": "openai", "responses": "openai", "messages": "anthropic"}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "gpt-4o", "messages": USER},
    "completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"},
    "responses": {"model": "gpt-4o", "input": "hi"},
    "messages": {"model": "claude-sonnet-4-6", "max_tokens": 64, "messages": USER},
}
WAYS = ("whole", "stream", "helper")


@dataclass(frozen=True, slots=True)
class Reply:
    """The response that an SDK reads, without a network."""

    chunks: Sequence[bytes]
    status: int = 200
    kind: str = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Failed:
    """The error that the SDK raised."""

    name: str
    message: str
    status: int | None = None
    code: Any = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a program gets to see of a response."""

    events: Sequence[Any] = ()
    final: Any = None
    error: Failed | None = None
    told: str = ""  # what the expression of `tells` says

    @property
    def strings(self) -> list[str]:
        """Every string that a program gets, the names of members included, and the text that it shows."""
        found = [*strings([*self.events, self.final]), self.text, "".join(map(text_of, self.events))]
        return [*found, self.error.message, *strings(self.error.body)] if self.error else found

    @property
    def text(self) -> str:
        """The visible text that a program shows."""
        return text_of(self.final) if self.final is not None else "".join(map(text_of, self.events))

    @property
    def marks(self) -> list[Any]:
        """Every `policyd` member, wherever it stands."""
        return [*members([*self.events, self.final, self.error.body if self.error else None], "policyd")]


def strings(value: object) -> Iterator[str]:
    """Every string of a value, the names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from strings(inner)


def members(value: object, name: str) -> Iterator[Any]:
    """Every member of this name, wherever it stands."""
    if isinstance(value, Mapping):
        if name in value:
            yield value[name]
        for inner in value.values():
            yield from members(inner, name)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from members(inner, name)


def text_of(said: Any) -> str:
    """The visible text of an event, or of a whole response, of any of the four APIs."""
    if not isinstance(said, Mapping):
        return ""
    if "choices" in said:
        choices = objects(said["choices"])
        parts = objects([choice.get("delta") or choice.get("message") or choice for choice in choices])
        return "".join(_shown(part.get("content")) or _shown(part.get("text")) for part in parts)
    if said.get("type") == "response.output_text.delta":
        return _shown(said["delta"])
    if "output" in said:
        return "".join(_shown(item.get("content")) for item in objects(said["output"]))
    if said.get("type") == "content_block_delta":
        return "".join(_shown(said["delta"].get(name)) for name in ("text", "partial_json"))
    return _shown(said.get("content")) if said.get("type") == "message" else ""


def _shown(content: object) -> str:
    """The text of a string, or of a list of parts."""
    return content if isinstance(content, str) else "".join(_shown(part.get("text")) for part in objects(content))


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


# ---- Node.js ---------------------------------------------------------------------------------------------------------


class Node:
    """The SDKs for Node.js, in one process. `why`: why there is none."""

    def __init__(self) -> None:
        command = [str(shutil.which("node")), str(CLIENT), str(NODE.path.parent)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @staticmethod
    def missing() -> str:
        return "no node" if shutil.which("node") is None else NODE.missing()

    def ask(self, asked: Mapping[str, Any]) -> Seen:
        """One call."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Node.js client has ended"
        told = json.loads(line)
        error = told["error"] and Failed(**{key: value for key, value in told["error"].items() if key != "cause"})
        return Seen(told["events"], told["final"], error, told["told"] or "")

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


# ---- Python ----------------------------------------------------------------------------------------------------------


def plain(value: object) -> Any:
    """What an SDK gave, as plain data; members that its types do not know included."""
    if isinstance(value, BaseModel):
        return {name: plain(inner) for name, inner in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items()}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


class _Replies(httpx2.BaseTransport):
    """Gives the reply of the call at hand."""

    reply: Mapping[str, Any]

    def handle_request(self, _request: httpx2.Request) -> httpx2.Response:
        chunks = [base64.b64decode(chunk) for chunk in self.reply["chunks"]]
        return httpx2.Response(self.reply["status"], content=iter(chunks), headers=self.reply["headers"])


@functools.cache
def _offline(sdk: str) -> tuple[Any, _Replies]:
    """A client that needs no network."""
    transport = _Replies()
    make = openai.OpenAI if sdk == "openai" else anthropic.Anthropic
    client = make(api_key="k", base_url="http://localhost:1", http_client=httpx2.Client(transport=transport))
    return client.with_options(max_retries=0), transport


def ask_python(asked: Mapping[str, Any]) -> Seen:
    """One call of an SDK for Python."""
    if reply := asked.get("reply"):
        client, transport = _offline(asked["sdk"])
        transport.reply = reply
        return _asked(client, asked)
    make = openai.OpenAI if asked["sdk"] == "openai" else anthropic.Anthropic
    options: dict[str, Any] = {"base_url": asked["url"], "default_headers": asked["headers"]}
    options |= {"max_retries": 0} if asked["tells"] else {}
    with make(api_key="sk-the-callers", **options) as client:
        return _asked(client, asked)


def _asked(client: Any, asked: Mapping[str, Any]) -> Seen:
    events: list[Any] = []
    final = raised = None
    api = client.chat.completions if asked["api"] == "chat" else getattr(client, asked["api"])
    try:
        if asked["helper"]:
            with api.stream(**asked["body"]) as stream:
                for event in stream:
                    events.append(event)
                final = _final(asked["api"], stream)
        elif asked["stream"]:
            with api.create(**asked["body"], stream=True) as stream:
                for event in stream:
                    events.append(event)
        else:
            final = api.create(**asked["body"])
    except Exception as error:  # whatever it is: a program sees it
        raised = error
    names = {"last": events[-1] if events else None, "final": final, "error": raised}
    told = _evaluated(asked["tells"], names) if asked["tells"] else ""
    return Seen(plain(events), plain(final), _failed(raised) if raised else None, told)


def _evaluated(expression: str, names: dict[str, Any]) -> str:
    try:
        return str(eval(expression, names))
    except Exception as error:  # so that a table shows it
        return f"{type(error).__name__}: {error} {names['error']!r}"


def _final(api: str, stream: Any) -> Any:
    match api:
        case "chat":
            return stream.get_final_completion()
        case "responses":
            return stream.get_final_response()
        case _:
            return stream.get_final_message()


def _failed(error: Any) -> Failed:
    headers = dict(getattr(getattr(error, "response", None), "headers", None) or {})
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    return Failed(type(error).__name__, str(error), status, code, plain(getattr(error, "body", None)), headers)


# ---- both ------------------------------------------------------------------------------------------------------------


class Clients:
    """Asks an SDK of either language."""

    def __init__(self, node: Node | None) -> None:
        self.node = node

    def __call__(
        self,
        language: str,
        api: str,
        way: str,
        *,
        reply: Reply | None = None,
        url: str = "http://localhost:1",
        headers: Mapping[str, str] | None = None,
        tells: str = "",
        **body: Any,
    ) -> Seen:
        """One call. `way`: whole, stream, or helper: the SDK's own accumulation of a stream. `tells`: an expression of
        its language over `last` (its last event), `final` (what a helper made of the stream) and `error`."""
        sdk = SDK_OF[api]
        asked = {
            "sdk": sdk,
            "api": api,
            "helper": way == "helper",
            "stream": way == "stream",
            "url": url + ("/v1" if sdk == "openai" else ""),
            "headers": dict(headers or {}),
            "body": {**BODIES[api], **body},
            "tells": tells,
        }
        if reply is not None:
            chunks = [base64.b64encode(chunk).decode() for chunk in reply.chunks]
            kind = {"content-type": reply.kind} if reply.kind else {}
            asked["reply"] = {"status": reply.status, "headers": kind, "chunks": chunks}
        if language == "python":
            return ask_python(asked)
        if self.node is None:
            pytest.skip(Node.missing())
        return self.node.ask(asked)


@functools.cache
def node_is_missing() -> str:
    """Why the SDKs for Node.js cannot be asked; empty when they can."""
    return Node.missing()


@contextlib.contextmanager
def clients() -> Iterator[Clients]:
    """All four SDKs; those for Node.js skip the test where they are missing."""
    if node_is_missing():
        yield Clients(None)
        return
    with contextlib.closing(Node()) as node:
        yield Clients(node)
