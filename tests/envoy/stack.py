"""Providers, policyd and a real Envoy for tests, from policy texts; and the two SDKs, asked in one way.

with stack({"p.yaml": policy("p", "rules: [...]")}) as up:
    openai.OpenAI(base_url=up.url + "/v1", api_key="k", ...)
"""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from typer.testing import CliRunner

from policyd.adapters.errors import NotAvailable
from policyd.cli.emulator import Call, Emulator
from policyd.cli.main import app
from policyd.cli.stage import Stage, staged
from tests.envoy.harness import binary

NEWEST = "1.40.0"


def policy(name: str, spec: str, *, team: str = "", mode: str = "Full") -> str:
    """One policy document; `spec` is the rest of its spec, however it is indented. `team`: for its calls only."""
    condition = f'matchConditions: [{{name: team, expression: caller.team == "{team}"}}]\n' if team else ""
    head = f"apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {{name: {name}, namespace: tests}}\nspec:\n"
    return head + textwrap.indent(f"mode: {mode}\n{condition}{textwrap.dedent(spec)}", "  ")


def asked(arguments: Sequence[str]) -> str:
    """What a command prints, without a process of its own: importing Envoy's messages takes longer than most tests."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exit_code:
        raise NotAvailable(done.stderr)
    return done.stdout


@contextlib.contextmanager
def stack(
    policies: dict[str, str],
    *,
    version: str = NEWEST,
    providers: Sequence[Emulator] | None = None,
    serve: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    configured: Callable[[str], str] = str,
) -> Iterator[Stage]:
    """A stage with an Envoy of this version; skips the test when that Envoy is not to be had."""
    with staged(
        policies,
        envoy=binary(version),
        providers=providers,
        serve=serve,
        bootstrap=bootstrap,
        configured=configured,
        ask=asked,
    ) as stage:
        yield stage


def requests_seen(stage: Stage) -> int:
    """How many requests Envoy has taken from its callers: an SDK's retries are each one."""
    return stage.envoy_stats("^http.policyd.downstream_rq_total$")["http.policyd.downstream_rq_total"]


def upstream_calls(stage: Stage, name: str = "openai") -> list[Call]:
    """What reached one provider."""
    return next(provider for provider in stage.providers if provider.name == name).calls


def wait_for_end(stage: Stage, call: Call) -> Call:
    """The call, once its upstream has sent everything or has seen its peer go away."""
    stage.wait_until(lambda: call.finished or call.closed_early, "the upstream call to end")
    return call


# ---- the SDKs, as their users call them ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """What an SDK made of an answer."""

    text: str
    stop: str | None
    model: str
    tool: str = ""
    headers: Mapping[str, str] | None = None


Ask = Callable[..., Answered]
MESSAGES: Any = [{"role": "user", "content": "Tell me about circuit breakers."}]


@dataclass(frozen=True, slots=True)
class Sdk:
    """One SDK: how it is asked, and what it raises."""

    name: str
    model: str
    ask: Ask  # (stage, team, stream=..., max_tokens=..., steer=...) -> Answered
    denied: type[Exception]
    limited: type[Exception]
    broken: type[Exception]  # 5xx
    before_text: int  # events of a stream before its first token
    end: str  # the stop reason of a whole answer
    refused: str  # of one that policyd ends, or gives in the upstream's place

    def __str__(self) -> str:
        return self.name


def _headers(team: str, steer: Mapping[str, str]) -> dict[str, str]:
    return {"x-team-id": team, "x-session-id": team, **{f"x-emulate-{name}": value for name, value in steer.items()}}


def ask_openai(
    stage: Stage, team: str, *, stream: bool = False, max_tokens: int = 1000, model: str = "gpt-4o", **steer: str
) -> Answered:
    """One call of the openai SDK, as it comes: retries and time-outs are its own."""
    headers = _headers(team, {name.replace("_", "-"): value for name, value in steer.items()})
    asked: Any = {"model": model, "messages": MESSAGES, "max_tokens": max_tokens, "extra_headers": headers}
    with openai.OpenAI(base_url=stage.url + "/v1", api_key="sk-the-callers") as client:
        if not stream:
            raw = client.chat.completions.with_raw_response.create(**asked)
            whole: Any = raw.parse()
            choice = whole.choices[0]
            tool = choice.message.tool_calls[0].function.name if choice.message.tool_calls else ""
            return Answered(choice.message.content or "", choice.finish_reason, whole.model, tool, raw.headers)
        with client.chat.completions.create(**asked, stream=True) as events:
            return _openai_stream(list(events))


def _openai_stream(chunks: list[Any]) -> Answered:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    stops = [choice.finish_reason for choice in choices if choice.finish_reason]
    assert len(stops) == 1, f"finish reasons {stops}"
    tools = [call.function.name for choice in choices for call in choice.delta.tool_calls or () if call.function.name]
    return Answered(text, stops[0], chunks[0].model, "".join(tools))


def ask_anthropic(
    stage: Stage,
    team: str,
    *,
    stream: bool = False,
    max_tokens: int = 1000,
    model: str = "claude-sonnet-4-6",
    **steer: str,
) -> Answered:
    """One call of the anthropic SDK, as it comes."""
    headers = _headers(team, {name.replace("_", "-"): value for name, value in steer.items()})
    asked: Any = {"model": model, "messages": MESSAGES, "max_tokens": max_tokens, "extra_headers": headers}
    with anthropic.Anthropic(base_url=stage.url, api_key="sk-the-callers") as client:
        if stream:
            with client.messages.stream(**asked) as events:
                return _anthropic_message(events.get_final_message(), None)
        raw = client.messages.with_raw_response.create(**asked)
        return _anthropic_message(raw.parse(), raw.headers)


def _anthropic_message(message: Any, headers: Mapping[str, str] | None) -> Answered:
    text = "".join(block.text for block in message.content if block.type == "text")
    tool = "".join(block.name for block in message.content if block.type == "tool_use")
    return Answered(text, message.stop_reason, message.model, tool, headers)


OPENAI = Sdk(
    "openai",
    "gpt-4o",
    ask_openai,
    openai.PermissionDeniedError,
    openai.RateLimitError,
    openai.InternalServerError,
    before_text=1,
    end="stop",
    refused="content_filter",
)
ANTHROPIC = Sdk(
    "anthropic",
    "claude-sonnet-4-6",
    ask_anthropic,
    anthropic.PermissionDeniedError,
    anthropic.RateLimitError,
    anthropic.InternalServerError,
    before_text=3,
    end="end_turn",
    refused="refusal",
)
SDKS = (OPENAI, ANTHROPIC)


def sent_body(call: Call) -> dict[str, Any]:
    """The JSON that reached the upstream."""
    body = json.loads(call.body)
    assert isinstance(body, dict)
    return body
