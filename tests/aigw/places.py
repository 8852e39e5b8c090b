"""The three places where policyd may stand to Envoy AI Gateway, each put up for real, with the same policies.

FRONT   policyd's own Envoy in front of the gateway
BEHIND  an EnvoyExtensionPolicy on an HTTPRoute: policyd is asked behind the gateway's own filter
AHEAD   an EnvoyExtensionPolicy on the Gateway, moved ahead of the gateway's own filter by filterOrder
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import yaml

from policyd.cli.emulator import Call, Emulator, RawAnswer, free_port, running
from policyd.cli.emulator_answers import Answer, Wish, answer, error, read_wish
from policyd.cli.stage import stop
from tests.aigw.gateway import ENVOY, AiGateway, ai_gateway
from tests.aigw.objects import GATEWAY, NAMESPACE, Backend, Object, Route, Way, objects, policyd_first
from tests.dying import started
from tests.envoy.harness import a_moment, binary
from tests.envoy.stack import policy

PATIENCE_S = 15.0
GUARDED = "guarded.test"  # the host whose route has an EnvoyExtensionPolicy
SHARED = "shared.test"  # the host that two routes share


class Stand(StrEnum):
    """Where policyd stands."""

    FRONT = "front"
    BEHIND = "behind"
    AHEAD = "ahead"


def _rule(action: str, when: str = "") -> str:
    condition = f"when: {when}, " if when else ""
    return f"rules: [{{name: r, {condition}{action}}}]"


STOP = "STOPPED-HERE"
SPECS = {
    "cap": _rule("constrain: {cap: {max_tokens: 5}}"),
    "inject": _rule("constrain: {inject: {system: BE-BRIEF}}"),
    "redact": _rule("constrain: {redact: {detectors: [email], in: [request, response]}}"),
    "model": _rule("reroute: {model: m-other}"),
    "header": _rule("reroute: {model: m-other, headers: {set: {x-ai-eg-model: m-other}}}"),
    "upstream": _rule("reroute: {upstream: spare}"),
    "deny": _rule("terminate: {message: not today}"),
    "cut": _rule(f"terminate: {{fallback: {STOP}}}", "response.output_tokens > 4"),
    "guard": _rule("terminate: {}", 'response.inspection == "partial"'),
    "read": _rule("terminate: {}", 'response.text.contains("never said")'),
}
POLICIES = {f"{team}.yaml": policy(team, spec, team=team) for team, spec in SPECS.items()}


@dataclass(slots=True)
class Vertex(Emulator):
    """Anthropic's models as Google serves them: the model stands in the path."""

    def respond(self, call: Call) -> tuple[Answer | RawAnswer, Wish]:
        wish = read_wish(dict(call.headers))
        model = call.path.rpartition("/")[2].partition(":")[0]
        return answer("/v1/messages", json.dumps({**json.loads(call.body), "model": model}).encode(), wish), wish


@dataclass(slots=True)
class Flaky(Emulator):
    """Answers the first attempt of each call with 503."""

    tried: set[str] = field(default_factory=set)

    def respond(self, call: Call) -> tuple[Answer | RawAnswer, Wish]:
        first = call.header("x-call") not in self.tried
        self.tried.add(call.header("x-call"))
        if first:
            return error("/v1/chat/completions", 503, "overloaded"), Wish()
        return Emulator.respond(self, call)


def providers() -> list[Emulator]:
    return [Emulator("plain"), Emulator("other"), Vertex("vertex"), Flaky("flaky")]


WAYS = (
    Way("m-plain", "plain"),
    Way("m-other", "other"),
    Way("m-renamed", "plain", renamed="m-inner"),
    Way("m-claude", "vertex"),
    Way("m-flaky", "flaky"),
    Way(".+", "other", upstream="spare"),
)


@dataclass(slots=True)
class Place:
    """One of them, up: where callers send their calls, and what came of each."""

    stand: Stand
    url: str
    host: str
    folder: Path
    providers: list[Emulator]
    gateway: AiGateway
    count: int = 0

    @property
    def holds(self) -> bool:
        """Whether policyd stands before the gateway translates, so that everything holds."""
        return self.stand is not Stand.BEHIND

    def ask(self, path: str, body: dict[str, Any], team: str, host: str = "", **wishes: object) -> Asked:
        """One call, with everything that came of it."""
        self.count += 1
        name = f"{self.stand}-{self.count}"
        steer = {f"x-emulate-{wish.replace('_', '-')}": str(value) for wish, value in wishes.items()}
        headers = {"host": host or self.host, "x-team-id": team, "x-call": name, **steer}
        with httpx.Client(timeout=30, trust_env=False, verify=False) as client:
            reply = client.post(self.url + path, json=body, headers=headers)
        return Asked(self, name, reply)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one call."""

    place: Place
    name: str
    reply: httpx.Response

    def calls(self) -> list[tuple[str, Call]]:
        """What reached which provider, attempt by attempt."""
        every = [(one.name, call) for one in self.place.providers for call in one.calls]
        return [(name, call) for name, call in every if call.header("x-call") == self.name]

    def sent(self) -> tuple[str, Call]:
        """The last attempt, which is the only one that was answered, once it is over."""
        name, call = self.calls()[-1]
        _wait(lambda: call.finished or call.closed_early, "the upstream call to end")
        return name, call

    def body(self) -> dict[str, Any]:
        """What that attempt said."""
        found = json.loads(self.sent()[1].body)
        assert isinstance(found, dict)
        return found

    def logged(self) -> dict[str, Any]:
        """The gateway's own access log of it."""
        log = self.place.folder / "access.log"

        def lines() -> list[dict[str, Any]]:
            every = [json.loads(line) for line in log.read_text().splitlines()]
            return [line for line in every if line["call"] == self.name]

        _wait(lambda: bool(lines()), "the access log")
        return lines()[0]


def _wait(ready: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        a_moment()


# ---- putting them up ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_routes(envoy: str = ENVOY) -> Iterator[tuple[Place, Place]]:
    """FRONT and BEHIND, on one gateway: a route of everybody's, and one with an EnvoyExtensionPolicy."""
    with _policyd() as (folder, ours):
        port = free_port()
        shared = [Route(f"shared-{at}", (Way(f"m-{at}", "plain"),), SHARED) for at in ("first", "second")]
        routes = [Route("open", WAYS), Route("guarded", WAYS, GUARDED), *shared]
        made = objects(envoy, port, str(folder / "access.log"), _backends(ours), routes)
        made += extension_policy(folder, "HTTPRoute/guarded", "HTTPRoute/shared-first")
        with ai_gateway(port, made, envoy) as gateway, _own_envoy(folder, gateway, ours) as url:
            front = Place(Stand.FRONT, url, "front.test", folder, ours, gateway)
            yield front, Place(Stand.BEHIND, gateway.url, GUARDED, folder, ours, gateway)


@contextlib.contextmanager
def ahead(envoy: str = ENVOY) -> Iterator[Place]:
    """AHEAD."""
    with _policyd() as (folder, ours):
        port = free_port()
        made = objects(envoy, port, str(folder / "access.log"), _backends(ours), [Route("chat", WAYS)])
        policyd_first(made)
        made += extension_policy(folder, f"Gateway/{GATEWAY}")
        with ai_gateway(port, made, envoy) as gateway:
            yield Place(Stand.AHEAD, gateway.url, "ahead.test", folder, ours, gateway)


def _backends(ours: list[Emulator]) -> list[Backend]:
    return [Backend(one.name, one.port, "GCPAnthropic" if isinstance(one, Vertex) else "OpenAI") for one in ours]


def extension_policy(folder: Path, *targets: str) -> list[Object]:
    """What `policyd envoy extension-policy` prints, applied where the gateway is."""
    told = [word for target in targets for word in ("--target", target)]
    words = ["extension-policy", *told, "--extproc", f"unix:{folder / 's'}", "--upstream", "spare=127.0.0.1:1"]
    made = list(yaml.safe_load_all(_printed(folder, words)))
    for one in made:
        one["metadata"]["namespace"] = NAMESPACE
    return made


def _printed(folder: Path, words: list[str]) -> str:
    command = [sys.executable, "-m", "policyd", "envoy", *words, "--policies", str(folder / "policies")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def _policyd() -> Iterator[tuple[Path, list[Emulator]]]:
    """policyd with its policies, and the providers."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aigw-p-")))
        (folder / "policies").mkdir()
        for name, text in POLICIES.items():
            (folder / "policies" / name).write_text(text)
        ours = providers()
        stack.enter_context(running(*ours))
        admin = free_port()
        words = ["--policies", str(folder / "policies"), "--listen", f"unix:{folder / 's'}"]
        command = [sys.executable, "-m", "policyd", "serve", *words, "--admin", f"127.0.0.1:{admin}"]
        stack.enter_context(_started(folder / "policyd.log", command))
        _wait(lambda: _answers(f"http://127.0.0.1:{admin}/readyz"), "policyd")
        yield folder, ours


@contextlib.contextmanager
def _own_envoy(folder: Path, gateway: AiGateway, ours: list[Emulator]) -> Iterator[str]:
    """The Envoy of `policyd envoy bootstrap`, whose default upstream is the gateway."""
    spare = next(one for one in ours if one.name == "other")
    port, admin = free_port(), free_port()
    words = ["bootstrap", "--listener", f"127.0.0.1:{port}", "--extproc", f"unix:{folder / 's'}"]
    words += ["--upstream", f"gateway={gateway.url}", "--upstream", f"spare={spare.url}"]
    config = folder / "envoy.yaml"
    config.write_text(_printed(folder, [*words, "--admin", f"127.0.0.1:{admin}"]))
    command = [str(binary(ENVOY)), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
    with _started(folder / "envoy.log", command):
        _wait(lambda: _answers(f"http://127.0.0.1:{admin}/ready"), "policyd's Envoy")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _started(log: Path, command: list[str]) -> Iterator[None]:
    with log.open("wb") as out:
        process = started(command, out)
    try:
        yield
    finally:
        stop(process)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


class Standing:
    """Puts up what is asked for; there can be but one gateway at a time."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._up: dict[Stand, Place] = {}

    def at(self, stand: Stand) -> Place:
        if stand not in self._up:
            self.close()
            self._up = self._put_up(stand)
        return self._up[stand]

    def _put_up(self, stand: Stand) -> dict[Stand, Place]:
        if stand is Stand.AHEAD:
            return {stand: self._stack.enter_context(ahead())}
        front, behind = self._stack.enter_context(two_routes())
        return {Stand.FRONT: front, Stand.BEHIND: behind}

    def close(self) -> None:
        self._up = {}
        self._stack.close()
