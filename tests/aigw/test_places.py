"""What a policy comes to with a real Envoy AI Gateway: docs/ai-gateway.md's table, line by line.

What does not hold behind the gateway's filter is held to that too: where a later gateway does better, this says so.
Streams take their time: Envoy 1.38 loses some that arrive in one burst, which test_bursts.py counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.aigw.places import SHARED, STOP, Asked, Place, Stand
from tests.envoy.asking import ANTHROPIC, OPENAI, Dialect, check_ended, events_of, text_of

pytestmark = pytest.mark.envoy

SAID = "the circuit breaker opens when a session has spent what it was"  # twelve tokens
ADDRESS = "ann@example.com"


@dataclass(frozen=True, slots=True)
class Way:
    """A kind of backend, as a caller reaches it."""

    name: str
    model: str
    dialect: Dialect = OPENAI
    translated: bool = False
    path: str = "/v1/chat/completions"

    def __str__(self) -> str:
        return self.name

    def ask(self, place: Place, team: str = "", *, stream: bool, **wishes: object) -> Asked:
        body: dict[str, Any] = {"model": self.model, "max_tokens": 1000, "stream": stream}
        body["messages"] = [{"role": "user", "content": f"Write to {ADDRESS}."}]
        return place.ask(self.path, body, team, **{"events": 12, "interval_ms": 5, **wishes})


PLAIN = Way("plain", "m-plain")
RENAMED = Way("renamed", "m-renamed")
CLAUDE = Way("openai-to-anthropic", "m-claude", translated=True)
MESSAGES = Way("anthropic-to-openai", "m-plain", ANTHROPIC, translated=True, path="/anthropic/v1/messages")
RETRIED = Way("retried", "m-flaky")
WAYS = (PLAIN, RENAMED, CLAUDE, MESSAGES, RETRIED)

each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_shape = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
behind_only = pytest.mark.parametrize("place", [Stand.BEHIND], ids=str, indirect=True)


def survives(place: Place, way: Way, stream: bool) -> bool:
    """Whether a changed request body reaches the provider. Behind, the gateway sends its own copy again wherever it
    changes a body itself: where it translates, renames, retries, or asks a stream for its usage."""
    return place.holds or (way is PLAIN and not stream)


def limit(body: dict[str, Any]) -> object:
    return body.get("max_tokens", body.get("max_completion_tokens"))


def text(way: Way, asked: Asked, stream: bool) -> str:
    if stream:
        return text_of(way.dialect, asked.reply.content)
    answer = asked.reply.json()
    return str(answer["choices"][0]["message"]["content"] if way.dialect is OPENAI else answer["content"][0]["text"])


def check_whole(dialect: Dialect, stream: bytes, *, cut: bool) -> None:
    """The stream ends as its dialect wants. The gateway leaves `finish_reason` out where OpenAI writes null."""
    if dialect is ANTHROPIC:
        assert check_ended(dialect, stream) == ("refusal" if cut else "end_turn")
        return
    *chunks, last = [data for _, data in events_of(stream)]
    choices = [choice for data in chunks for choice in json.loads(data)["choices"]]
    (reason,) = [one["finish_reason"] for one in choices if one.get("finish_reason")]
    assert last == "[DONE]" and reason == ("content_filter" if cut else "stop")


# ---- calls that no rule is about ------------------------------------------------------------------------------------


@each_way
@each_shape
def test_a_call_passes(place: Place, way: Way, stream: bool) -> None:
    asked = way.ask(place, stream=stream)
    assert asked.reply.status_code == 200, asked.reply.text
    assert text(way, asked, stream) == SAID
    assert limit(asked.body()) == 1000
    assert len(asked.calls()) == (2 if way is RETRIED else 1)


# ---- constrain ------------------------------------------------------------------------------------------------------


@each_way
@each_shape
def test_a_cap(place: Place, way: Way, stream: bool) -> None:
    asked = way.ask(place, "cap", stream=stream)
    assert asked.reply.status_code == 200
    assert limit(asked.body()) == (5 if survives(place, way, stream) else 1000)


@each_way
@each_shape
def test_injected_and_redacted(place: Place, way: Way, stream: bool) -> None:
    holds = survives(place, way, stream)
    assert ("BE-BRIEF" in json.dumps(way.ask(place, "inject", stream=stream).body())) == holds
    asked = way.ask(place, "redact", stream=stream, text=f"write%20to%20{ADDRESS}%20now")
    assert (ADDRESS not in json.dumps(asked.body())) == holds


@each_way
@each_shape
def test_an_answer_is_redacted(place: Place, way: Way, stream: bool) -> None:
    asked = way.ask(place, "redact", stream=stream, text=f"write%20to%20{ADDRESS}%20now")
    if not place.holds and way.translated and not stream:
        assert asked.reply.status_code == 503  # cannot be read, and the rule fails closed
        return
    assert ADDRESS not in text(way, asked, stream)


# ---- reroute --------------------------------------------------------------------------------------------------------


@each_way
@each_shape
def test_another_model(place: Place, way: Way, stream: bool) -> None:
    asked = way.ask(place, "model", stream=stream)
    name, call = asked.sent()
    if place.holds:
        assert (name, json.loads(call.body)["model"]) == ("other", "m-other")
        assert text(way, asked, stream) == SAID
        return
    assert name != "other"  # the backend stays the one that was chosen
    changed = "m-other" in (call.body.decode() + call.path)
    assert changed == survives(place, way, stream)


@behind_only
@each_shape
def test_another_backend_by_the_gateways_own_header(place: Place, stream: bool) -> None:
    """The backend is the other one; the model that it is told is the other one only where a body survives."""
    asked = PLAIN.ask(place, "header", stream=stream)
    name, call = asked.sent()
    assert name == "other"
    assert json.loads(call.body)["model"] == ("m-plain" if stream else "m-other")


@each_shape
def test_another_upstream(place: Place, stream: bool) -> None:
    """In front it is one of Envoy's own; in the gateway a rule of the AIGatewayRoute matches the header."""
    asked = PLAIN.ask(place, "upstream", stream=stream)
    name, call = asked.sent()
    assert (name, asked.reply.status_code) == ("other", 200)
    assert call.header("x-policyd-upstream") == ""
    assert call.credentials == []


# ---- terminate ------------------------------------------------------------------------------------------------------


@each_way
@each_shape
def test_refused_before_the_answer(place: Place, way: Way, stream: bool) -> None:
    asked = way.ask(place, "deny", stream=stream)
    assert asked.reply.status_code == 403
    assert asked.reply.json()["error"]["message"] == "not today"
    assert asked.calls() == []


@each_way
def test_a_whole_answer_is_refused(place: Place, way: Way) -> None:
    """Behind, a translating backend's answer cannot be read, and the rule fails closed."""
    asked = way.ask(place, "cut", stream=False)
    assert asked.reply.status_code == (503 if way.translated and not place.holds else 403)
    assert SAID not in asked.reply.text


@each_way
def test_a_cut(place: Place, way: Way) -> None:
    asked = way.ask(place, "cut", stream=True, interval_ms=40)
    _, call = asked.sent()
    passes = way.translated and not place.holds
    check_whole(way.dialect, asked.reply.content, cut=not passes)
    if passes:
        assert text(way, asked, True) == SAID  # nothing is cut: the provider's dialect is not the caller's
        assert call.finished
        return
    assert text(way, asked, True) == f"the circuit\n\n{STOP}"
    assert call.closed_early
    assert call.events < call.planned


@behind_only
@pytest.mark.parametrize("way", [CLAUDE, MESSAGES], ids=str)
def test_a_rule_about_what_was_not_understood_stops_it(place: Place, way: Way) -> None:
    asked = way.ask(place, "guard", stream=True, interval_ms=40)
    assert SAID not in asked.reply.text
    assert asked.sent()[1].closed_early


# ---- what the gateway counts ----------------------------------------------------------------------------------------


@each_way
@each_shape
def test_tokens_reach_the_gateways_log(place: Place, way: Way, stream: bool) -> None:
    line = way.ask(place, stream=stream).logged()
    assert line["llm_output_token"] == 12
    assert bool(line["decision"]) == (place.stand is not Stand.FRONT)


def test_a_call_that_is_cut_is_not_counted_by_the_gateway(place: Place) -> None:
    asked = PLAIN.ask(place, "cut", stream=True, interval_ms=40)
    assert not asked.logged()["llm_output_token"]


# ---- which calls an EnvoyExtensionPolicy is asked about -------------------------------------------------------------


@behind_only
def test_routes_of_one_host_share_the_first_ones_policy(place: Place) -> None:
    """Envoy picks a route before the gateway has read the model: the first route's catch-all, with its filters."""
    for model in ("m-first", "m-second"):
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        asked = place.ask("/v1/chat/completions", body, "deny", host=SHARED)
        assert asked.reply.status_code == 403
