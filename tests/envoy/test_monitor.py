"""Monitor changes nothing: recorded traffic of all providers passes a real Envoy with policyd in Monitor, and both
sides see what they see without policyd, byte for byte in the bodies, and in the headers all but framing.

The policies read and would change everything, and the records show that they would have.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import yaml

from policyd.adapters.recordings import Recording, read_recordings
from policyd.cli.emulator import Emulator, RawAnswer
from policyd.cli.stage import Stage
from tests.envoy.asking import VERSION_SPOKEN, caller, header_pairs
from tests.envoy.harness import Envoy, running
from tests.envoy.stack import NEWEST, policy, stack

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"
PROVIDERS = sorted(path.name for path in CORPUS.iterdir()) if CORPUS.is_dir() else []
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.corpus,
    pytest.mark.skipif(not PROVIDERS, reason="the recorded traffic in ../shared/corpus is not here"),
]

FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "host"}
OF_THE_MOMENT = {"date", "x-request-id"}  # where Envoy adds them: another value each time
STREAMED = ("text/event-stream", "application/vnd.amazon.eventstream", "application/x-ndjson")
RAW = "as-recorded"  # the emulator's name for the answer that is played
EVERY = 'match: {operations: ["*", unknown, other]}\n'

MEDDLING = {
    "constrains": """\
        rules:
          - {name: body, constrain: {set: {temperature: 0, user: nobody}, cap: {max_tokens: 1}}}
          - {name: tools, constrain: {tools: {deny: [get_current_weather]}}}
          - {name: system, constrain: {inject: {system: "Be brief."}}}
          - name: headers
            constrain:
              headers:
                request: {set: {x-changed: "1", user-agent: policyd}, remove: [accept, authorization]}
                response: {set: {x-changed: "1", content-type: text/plain}, remove: [openai-version, cache-control]}
          - {name: mask, constrain: {redact: {detectors: [email], patterns: ["[aeiou]"], in: [request, response]}}}
          - {name: slow, constrain: {pace: {tokens_per_second: 1}}}
    """,
    "reroutes": """\
        rules:
          - {name: away, severity: Critical, reroute: {model: another-model, upstream: backup, headers: {set: {a: b}}}}
    """,
    "reads-the-request": """\
        rules:
          - name: anything
            severity: Critical
            when: >-
              request.text != "" || request.system != "" || request.input_tokens > 0 || request.max_tokens > 0 ||
              request.tools.exists(tool, tool.name != "") || request.messages.exists(one, one.role == "user")
            terminate: {status: 429, fallback: "No."}
          - {name: instead, when: request.stream, terminate: {status: 200, fallback: "No."}}
          - {name: cannot-be-judged, when: 'request.headers["x-not-there"] == "1"', terminate: {}}
    """,
    "reads-the-answer": """\
        rules:
          - {name: text, when: 'response.text.contains("e")', holdBack: 500, terminate: {fallback: "No."}}
          - {name: pattern, when: 'response.text.matches("[a-z]+")', terminate: {}}
          - {name: delta, when: response.delta.size() > 3, terminate: {}}
          - {name: tools, when: 'response.tool_calls.exists(call, call.arguments != "")', terminate: {}}
          - {name: tokens, when: response.output_tokens > 1 || response.reasoning_tokens > 1, terminate: {}}
          - {name: cost, when: response.cost_usd > 0.0, terminate: {}}
          - {name: end, when: response.finish_reasons.size() > 0, terminate: {}}
          - {name: events, when: response.events > 2, terminate: {}}
          - {name: time, when: response.elapsed_ms > 0.0, terminate: {}}
          - {name: head, when: response.status == 200, terminate: {status: 418}}
          - {name: blind, when: response.inspection != "full", severity: Critical, terminate: {}}
          - {name: session, when: session.calls > 0 && session.cost_usd >= 0.0, terminate: {}}
    """,
    "counts": """\
        counters:
          - {name: cost, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 0.00001 USD, clamp: MaxTokens}
          - {name: tokens, key: request.model, charge: TotalTokens, window: {sliding: 1h}, limit: 10 tokens}
          - {name: calls, key: caller.source, charge: Requests, window: {calendar: Day}, limit: 1 requests}
        rules:
          - {name: spent, when: counters.cost.exceeded || counters.tokens.value > 5, terminate: {status: 429}}
    """,
}


def meddling(mode: str) -> dict[str, str]:
    return {f"{name}.yaml": policy(name, EVERY + _flat(spec), mode=mode) for name, spec in MEDDLING.items()}


def _flat(spec: str) -> str:
    return "".join(line.removeprefix(" " * 8) + "\n" for line in spec.rstrip().split("\n"))


# ---- both ways -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Both:
    """One emulated provider behind two Envoys: one beside policyd, one as if there were none."""

    stage: Stage
    bare: Envoy
    clients: dict[str, httpx.Client]

    @property
    def provider(self) -> Emulator:
        return self.stage.providers[0]


WAYS = {"policies": ("Monitor", ()), "process": ("Full", ("--mode", "monitor"))}


@pytest.fixture(scope="module", params=WAYS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    mode, serve = WAYS[request.param]
    with stack(meddling(mode), serve=serve) as stage:
        config = (stage.folder / "envoy.yaml").read_text()

        def without_policyd(port: int, admin: int) -> str:
            return bare_config(config, port, admin)

        with (
            running(NEWEST, tmp_path_factory.mktemp("bare"), without_policyd) as bare,
            caller(stage, "http1") as http1,
            caller(stage, "http2") as http2,
        ):
            yield Both(stage, bare, {"http1": http1, "http2": http2})


def bare_config(config: str, port: int, admin: int) -> str:
    """The same Envoy without its ext_proc filter, on other ports."""
    document = yaml.safe_load(config)
    listener = document["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    kept = [one for one in manager["http_filters"] if "ext_proc" not in one["name"]]
    assert len(kept) == len(manager["http_filters"]) - 1
    manager["http_filters"] = kept
    listener["address"]["socket_address"]["port_value"] = port
    document["admin"]["address"]["socket_address"]["port_value"] = admin
    return str(yaml.safe_dump(document))


@dataclass(frozen=True, slots=True)
class Sent:
    """The request as its upstream saw it."""

    line: tuple[str, str]
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """One call, as its caller and its upstream saw it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    sent: Sent | None  # None: it did not get as far as the upstream


def steady(pairs: Iterable[tuple[str, str]], given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers without their framing; of what Envoy makes up, which nobody has `given` it, only that it is there."""
    made_up = OF_THE_MOMENT - {name for name, _ in given}
    return sorted((name, "" if name in made_up else value) for name, value in pairs if name not in FRAMING)


def play(both: Both, url: str, recording: Recording, protocol: str) -> Seen:
    headers = [("host", recording.host), *(pair for pair in recording.headers if pair[0] not in FRAMING)]
    client, steered = both.clients[protocol], [*headers, ("x-emulate-raw", RAW)]
    client.cookies.clear()
    asked = client.build_request(recording.method, url + recording.path, headers=steered, content=recording.body)
    answer = client.send(asked, stream=True)
    body = b"".join(answer.iter_raw())
    calls = [Sent((one.method, one.path), steady(one.headers, ()), one.body) for one in both.provider.calls]
    both.provider.calls.clear()
    assert len(calls) == reaches_upstream(recording)
    told = steady(header_pairs(answer.headers), recording.response_headers if calls else ())
    return Seen(answer.status_code, told, body, calls[0] if calls else None)


def play_both_ways(both: Both, recording: Recording, number: int, *, encoded: bool = False) -> list[Seen]:
    """With policyd, then without."""
    both.provider.raw[RAW] = answer_of(recording, number, encoded=encoded)
    protocol = list(VERSION_SPOKEN)[number % len(VERSION_SPOKEN)]
    return [play(both, url, recording, protocol) for url in (both.stage.url, both.bare.url)]


def reaches_upstream(recording: Recording) -> bool:
    """Our Envoy refuses a path that could be read in two ways, with and without policyd."""
    return "%2f" not in recording.path.lower()


# ---- what is played --------------------------------------------------------------------------------------------------


def recordings(provider: str) -> list[Recording]:
    found = [one for file in sorted((CORPUS / provider).rglob("*.yaml")) for one in read_recordings(file)]
    return [one for one in found if one.status]


def in_pieces(data: bytes, seed: int) -> tuple[bytes, ...]:
    """The same bytes in a handful of pieces that no protocol knows of."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(data) + 1) for _ in range(5))
    return tuple(piece for piece in (data[a:b] for a, b in pairwise([0, *places, len(data)])) if piece)


def answer_of(recording: Recording, seed: int, *, encoded: bool) -> RawAnswer:
    """The answer as it was recorded, in a stream where it was one; `encoded`: from an upstream that compresses."""
    body = b"".join(data for _, data in recording.chunks)
    headers = recording.response_headers
    kind = next((value for name, value in headers if name == "content-type"), "")
    chunked = ("transfer-encoding", "chunked") in headers or kind.startswith(STREAMED)
    if encoded:
        body, headers = gzip.compress(body, mtime=0), (*headers, ("content-encoding", "gzip"))
    return RawAnswer(recording.status, headers, in_pieces(body, seed), stream=chunked)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_recorded_traffic_passes_unchanged(both: Both, provider: str) -> None:
    played = recordings(provider)
    judged = sum(map(reaches_upstream, played))
    assert judged
    before = len(both.stage.records())
    for number, recording in enumerate(played):
        with_policyd, without = play_both_ways(both, recording, number, encoded=number % 7 == 3)
        assert with_policyd == without, recording.source
        assert with_policyd.status == (recording.status if with_policyd.sent else 400)

    def written() -> list[dict[str, object]]:
        """What was judged: of a call that Envoy itself refuses, policyd sees at most a stream without a message."""
        return [record for record in both.stage.records()[before:] if record["inspection_reason"] != "not_read"]

    both.stage.wait_until(lambda: len(written()) >= judged, "the records")
    records = written()
    assert len(records) == judged
    assert {(record["enforced"], record["mode"]) for record in records} == {(False, "Monitor")}
    assert {record["would"] for record in records} == {"terminate"}


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "gzip"])
def test_what_passes_unchanged_was_read(both: Both, encoded: bool) -> None:
    """That nothing changes says something only where everything was read."""
    played = [one for one in recordings("anthropic") if one.path == "/v1/messages"][:8]
    before, sent = len(both.stage.records()), messages(both)
    for number, recording in enumerate(played):
        with_policyd, without = play_both_ways(both, recording, number, encoded=encoded)
        assert with_policyd == without, recording.source
    records = both.stage.wait_for_records(before + len(played))[before:]
    assert {record["inspection"] for record in records} == {"full"}
    matched = {rule["rule"] for record in records for rule in record["rules"] if rule["outcome"] == "matched"}
    assert {"mask", "away", "anything", "instead", "text", "tokens", "cost", "end", "spent", "cost.exceeded"} <= matched
    assert messages(both) - sent >= 4 * len(played), "policyd was not sent the bodies"


def messages(both: Both) -> int:
    name = "http.policyd.ext_proc.stream_msgs_sent"
    return both.stage.envoy_stats(f"^{name}$")[name]
