"""What recorded calls cost: by the model that answered, and by the provider's own sum where it states one."""

from __future__ import annotations

import json

import pytest

from policyd.adapters.recordings import Recording
from policyd.core.model.deployment import Deployment
from policyd.core.model.names import same_model
from policyd.core.stream.dialects.stated import amount
from tests.driving import Bed, FlatPrices, policy
from tests.small import call, play, read
from tests.streams import sse

ROUTER, XAI, SONAR, CLAUDE = "openrouter.ai", "api.x.ai", "api.perplexity.ai", "api.anthropic.com"
VERTEX = "us-central1-aiplatform.googleapis.com"
CHAT = "/v1/chat/completions"


def asked(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def chat(model: str, usage: dict[str, object], text: str = "hello there") -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def streamed(model: str, usage: dict[str, object], text: str = "hello there") -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    first = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return sse({**head, "choices": [first]}, {**head, "choices": [last]}, {**head, "choices": [], "usage": usage})


def tokens(given: int, made: int, **more: object) -> dict[str, object]:
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made, **more}


# ---- the model that answered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [chat, streamed])
def test_a_free_model_that_falls_back_to_a_paid_one_costs_what_that_costs(shape) -> None:  # type: ignore[no-untyped-def]
    usage = tokens(1000, 100)
    wanted = asked("deepseek/deepseek-r1:free", stream=shape is streamed)

    paid = read(call(ROUTER, "/api" + CHAT, wanted, shape("deepseek/deepseek-r1", usage))).record
    free = read(call(ROUTER, "/api" + CHAT, wanted, shape("deepseek/deepseek-r1:free", usage))).record

    assert (paid.cost_nano, paid.cost_confidence) == (1000 * 700 + 100 * 2500, 1.0)
    assert (free.cost_nano, free.cost_confidence) == (0, 1.0)


def test_an_unknown_model_that_answers_in_the_place_of_a_free_one_is_not_free() -> None:
    record = read(
        call(ROUTER, "/api" + CHAT, asked("deepseek/deepseek-r1:free"), chat("new/thing", tokens(9, 9)))
    ).record

    assert record.cost_nano > 0
    assert record.cost_confidence <= 0.3
    assert record.price_source.startswith("estimate:")


def test_an_unknown_model_that_answers_in_the_place_of_a_known_one_costs_as_much_at_low_confidence() -> None:
    record = read(call("api.openai.com", CHAT, asked("gpt-4o"), chat("something-else", tokens(1000, 100)))).record

    assert (record.cost_nano, record.cost_confidence) == (1000 * 2500 + 100 * 10_000, 0.3)


def test_a_snapshot_without_a_price_of_its_own_is_the_model_that_was_asked_for() -> None:
    record = read(call("api.openai.com", CHAT, asked("gpt-4o"), chat("gpt-4o-2099-01-01", tokens(1000, 100)))).record

    assert (record.cost_nano, record.cost_confidence) == (1000 * 2500 + 100 * 10_000, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("anthropic/claude-sonnet-4.5", "anthropic/claude-4.5-sonnet-20250929", True),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002", True),
        ("grok-4", "grok-4-0709", True),
        ("us.anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku-20240307", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1", False),
        ("gpt-4", "gpt-4-turbo-2024-04-09", False),
        ("x" * 300, "x" * 300, True),
    ],
)
def test_names_of_one_model(one: str, other: str, same: bool) -> None:
    assert same_model(one, other) is same_model(other, one) is same


def test_a_running_response_is_cut_by_the_price_of_the_model_that_serves() -> None:
    spec = "counters: [{name: spend, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 0.05 USD}]"
    prices = FlatPrices("dear", input=0, output=1_000_000)
    cheap = FlatPrices("cheap", input=0, output=1)
    prices._prices |= cheap._prices
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1}
    words = [sse({**head, "model": "dear", "choices": [{"index": 0, "delta": {"content": "word "}}]}, done=False)] * 200

    out = Bed(policy(spec), prices=prices, slice_tokens=16).call(
        body=json.dumps(asked("cheap", stream=True)).encode(), chunks=words
    )

    assert out.record.reason == "spend_exceeded"
    assert out.text.count("word") == 40, "50 tokens of 0.001 USD"


# ---- the provider's own sum -----------------------------------------------------------------------------------------

STATED = {
    "openrouter": (ROUTER, "openai/gpt-4o", tokens(10, 5, cost=0.0123, is_byok=False), 12_300_000),
    "openrouter, own key": (
        ROUTER,
        "openai/gpt-4o",
        tokens(10, 5, cost=0.0005, is_byok=True, cost_details={"upstream_inference_cost": 0.01}),
        10_500_000,
    ),
    "openrouter, no key of one's own": (
        ROUTER,
        "openai/gpt-4o",
        tokens(10, 5, cost=0.02, is_byok=False, cost_details={"upstream_inference_cost": 0.02}),
        20_000_000,
    ),
    "openrouter, a model without a price": (ROUTER, "new/thing", tokens(10, 5, cost=1e-06), 1_000),
    "xai": (XAI, "grok-4", tokens(10, 5, cost_in_usd_ticks=318_319_000), 31_831_900),
    "perplexity": (SONAR, "sonar", tokens(10, 5, cost={"request_cost": 0.005, "total_cost": 0.00512}), 5_120_000),
    "deepinfra": ("api.deepinfra.com", "any/model", tokens(10, 5, estimated_cost=2.68e-05), 26_800),
}


@pytest.mark.parametrize("name", STATED)
def test_the_cost_that_a_provider_states_is_the_cost(name: str) -> None:
    host, model, usage, nano = STATED[name]
    whole = read(call(host, CHAT, asked(model), chat(model, usage))).record
    stream = read(call(host, CHAT, asked(model, stream=True), streamed(model, usage))).record

    for record in (whole, stream):
        assert (record.cost_nano, record.cost_source, record.cost_confidence) == (nano, "provider", 1.0)
        assert record.price_source == "provider"


def test_a_cost_is_believed_of_the_provider_that_states_one_alone() -> None:
    usage = tokens(1000, 100, cost=0, cost_in_usd_ticks=0, estimated_cost=0)

    for host in ("api.openai.com", "somebody.example"):
        record = read(call(host, CHAT, asked("gpt-4o"), chat("gpt-4o", usage))).record
        assert record.cost_nano == 1000 * 2500 + 100 * 10_000


@pytest.mark.parametrize("cost", [-1, "free", None, True, 1e9, float("inf"), [], "1" * 400])
def test_what_is_no_amount_is_no_cost(cost: object) -> None:
    assert amount(cost) is None


def test_a_cost_beside_usage_that_the_text_contradicts_is_not_believed() -> None:
    usage = tokens(0, 0, cost=0)
    record = read(call(ROUTER, CHAT, asked("openai/gpt-4o"), chat("openai/gpt-4o", usage, "word " * 4000))).record

    assert record.usage["source"] == "contradicted"
    assert record.cost_nano > 0


def test_litellm_states_its_cost_in_a_header_that_only_a_declared_route_may_send() -> None:
    header = (("x-litellm-response-cost", "0.0042"),)
    declared = Deployment(host="llm.internal", provider="litellm")
    answer = chat("gpt-4o", tokens(1000, 100))

    own = read(call("llm.internal", CHAT, asked("gpt-4o"), answer, headers=header, deployment=declared)).record
    other = read(call("llm.internal", CHAT, asked("gpt-4o"), answer, headers=header)).record

    assert own.cost_nano == 4_200_000
    assert other.cost_nano == 1000 * 2500 + 100 * 10_000


# ---- what nobody pays for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_error_costs_no_fee(status: int) -> None:
    error = {"error": {"message": "no", "type": "bad", "code": status}}
    page = call(SONAR, "/chat/completions", asked("sonar"), b"<html>no</html>", status=status, kind="text/html")

    assert read(call(SONAR, "/chat/completions", asked("sonar"), error, status=status)).record.cost_nano == 0
    assert read(page).record.cost_nano == 0


def message(content: list[object], usage: dict[str, object], **more: object) -> dict[str, object]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-5", "stop_sequence": None}
    return {**head, "content": content, "stop_reason": "end_turn", "usage": usage, **more}


def events(*blocks: dict[str, object], usage: dict[str, object], reason: str = "end_turn") -> bytes:
    """A stream of an Anthropic message whose blocks come whole."""
    begun = message([], {"input_tokens": 100, "output_tokens": 1}, stop_reason=None)
    out: list[dict[str, object]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(blocks):
        out.append({"type": "content_block_start", "index": index, "content_block": block})
        out.append({"type": "content_block_stop", "index": index})
    out.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage})
    return sse(*out, {"type": "message_stop"}, names=True)


def claude(**more: object) -> dict[str, object]:
    return {**asked("claude-opus-4-5"), "max_tokens": 100, **more}


def test_a_request_that_anthropic_refused_before_any_output_costs_nothing() -> None:
    usage = {"input_tokens": 100, "output_tokens": 1}
    refused = message([], usage, stop_reason="refusal")
    late = message([{"type": "text", "text": "First,"}], usage, stop_reason="refusal")
    stream = events(usage=usage, reason="refusal")

    costs = [
        read(call(CLAUDE, "/v1/messages", claude(stream=isinstance(answer, bytes)), answer)).record.cost_nano
        for answer in (refused, late, stream)
    ]

    assert costs == [0, 100 * 5000 + 25_000, 0]


def test_the_declined_attempt_of_a_fallback_costs_nothing_and_the_one_that_answered_its_own_price() -> None:
    rounds = [
        {"type": "message", "model": "claude-opus-4-5", "input_tokens": 408, "output_tokens": 0},
        {"type": "fallback_message", "model": "claude-haiku-4-5", "input_tokens": 412, "output_tokens": 264},
    ]
    usage = {"input_tokens": 412, "output_tokens": 264, "iterations": rounds}
    moved = {"type": "fallback", "from": {"model": "claude-opus-4-5"}, "to": {"model": "claude-haiku-4-5"}}
    said = {"type": "text", "text": "Sure."}
    whole = message([moved, said], usage, model="claude-haiku-4-5")

    for answer in (whole, events(moved, said, usage=usage)):
        played = read(call(CLAUDE, "/v1/messages", claude(stream=isinstance(answer, bytes)), answer))
        assert played.record.cost_nano == 412 * 1000 + 264 * 5000
        assert (played.record.usage["input_tokens"], played.record.usage["output_tokens"]) == (412, 264)
        assert played.facts.response.model == "claude-haiku-4-5"


def test_an_attempt_that_had_said_something_before_it_was_declined_is_paid_for() -> None:
    rounds = [
        {"type": "message", "model": "claude-opus-4-5", "input_tokens": 400, "output_tokens": 10},
        {"type": "fallback_message", "model": "claude-haiku-4-5", "input_tokens": 412, "output_tokens": 264},
    ]
    usage = {"input_tokens": 412, "output_tokens": 264, "iterations": rounds}
    moved = {"type": "fallback", "from": {"model": "claude-opus-4-5"}, "to": {"model": "claude-haiku-4-5"}}
    blocks = ({"type": "text", "text": "Well"}, moved, {"type": "text", "text": "Sure."})

    record = read(call(CLAUDE, "/v1/messages", claude(stream=True), events(*blocks, usage=usage))).record

    assert record.cost_nano == 400 * 5000 + 10 * 25_000 + 412 * 1000 + 264 * 5000


# ---- counts ---------------------------------------------------------------------------------------------------------


def test_sound_that_was_sent_to_mistral_is_input_and_no_reasoning() -> None:
    usage = {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264}
    model = "voxtral-small-latest"
    record = read(call("api.mistral.ai", CHAT, asked(model), chat(model, usage))).record

    assert {name: record.usage[name] for name in ("input_tokens", "output_tokens", "reasoning_tokens")} == {
        "input_tokens": 2629,
        "output_tokens": 635,
        "reasoning_tokens": 0,
    }


@pytest.mark.parametrize("stream", [False, True])
def test_vertex_with_enums_as_numbers_reads_as_with_names(stream: bool) -> None:
    details = [{"modality": 1, "tokenCount": 7}, {"modality": 4, "tokenCount": 20}]
    usage = {
        "promptTokenCount": 27,
        "candidatesTokenCount": 3,
        "totalTokenCount": 30,
        "trafficType": 1,
        "promptTokensDetails": details,
        "candidatesTokensDetails": [{"modality": 1, "tokenCount": 3}],
    }
    content = {"role": "model", "parts": [{"text": "Hello there"}]}
    candidate = {"content": content, "finishReason": 1, "safetyRatings": [{"category": 1, "probability": 1}]}
    answer = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}
    verb = "streamGenerateContent" if stream else "generateContent"
    path = f"/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:{verb}"
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    said: object = json.dumps([answer]).encode() if stream else answer

    played = read(call(VERTEX, f"{path}?$alt=json;enum-encoding=int", body, said, kind="application/json"))

    assert (played.record.inspection, played.record.finish_reasons) == ("full", ("STOP",))
    assert played.record.usage["source"] == "provider"
    assert played.record.usage["input_audio"] == 20


def test_every_recording_is_priced_by_its_own_date() -> None:
    answer = chat("x-ai/grok-4.20-multi-agent", tokens(1_000_000, 0))
    days = ("Wed, 01 Jan 2025 12:00:00 GMT", "Fri, 20 Nov 2026 12:00:00 GMT")
    calls = [call(ROUTER, CHAT, asked("x-ai/grok-4.20-multi-agent"), answer, date=day) for day in days]

    there = [played.record.cost_nano for played in play(*calls)]
    back = [played.record.cost_nano for played in play(*reversed(calls))]

    assert there == list(reversed(back))
    assert len(set(there)) == 2, "the price has changed between these days"


def test_what_one_upstream_teaches_changes_no_estimate_of_another() -> None:
    body = asked("gpt-4o", stream=True)
    answer = streamed("gpt-4o", tokens(1000, 300), "hello there " * 40)
    one, other = (Deployment(host=host, upstream=host, provider="openai") for host in ("one", "two"))

    def running(place: Deployment) -> Recording:
        return call("same.example", CHAT, body, answer, deployment=place)

    *_, same = play(*[running(one)] * 12)
    *_, apart = play(*[running(one)] * 12, running(other))

    assert same.facts.response.rate.known
    assert not apart.facts.response.rate.known


def test_a_recorded_response_of_another_model_is_priced_as_the_one_that_the_call_is_rerouted_to() -> None:
    usage = tokens(1000, 100, cost=0.5)
    recorded = call(ROUTER, CHAT, asked("openai/gpt-4o"), chat("openai/gpt-4o", usage))

    rerouted = read(recorded, "rules: [{name: cheaper, reroute: {model: openai/gpt-4o-mini}}]").record

    assert rerouted.cost_nano == 1000 * 150 + 100 * 600


# ---- who serves -----------------------------------------------------------------------------------------------------

HOSTS = {
    "somebody.example": "unknown",
    "localhost:8000": "unknown",
    "api.openai.com": "openai",
    "us.api.openai.com": "openai",
    "api.z.ai": "zai",
    "router.huggingface.co": "huggingface",
    "api.voyageai.com": "voyageai",
    "bedrock-mantle.us-east-1.api.aws": "bedrock",
    "ai-gateway.vercel.sh": "vercel",
    "api.githubcopilot.com": "github-copilot",
    "models.github.ai": "github",
    "api.novita.ai": "novita",
    "me--app.modal.run": "modal",
    "api.openai.com.evil.example": "unknown",
}


@pytest.mark.parametrize("host", HOSTS)
def test_the_provider_is_the_hosts_and_unknown_where_nobody_knows_the_host(host: str) -> None:
    assert read(call(host, CHAT, asked("m"), chat("m", tokens(9, 9)))).record.provider == HOSTS[host]


PRICED = [
    ("api.z.ai", "/api/paas/v4/chat/completions", "glm-4.6", (), 600, 2200),
    ("somebody.example", CHAT, "gpt-4o", (), 2500, 10_000),
    ("ai-gateway.vercel.sh", CHAT, "openai/gpt-4o", (), 2500, 10_000),
    ("router.huggingface.co", "/v1/chat/completions", "openai/gpt-oss-120b:cerebras", (), 350, 750),
    ("router.huggingface.co", "/cerebras/v1/chat/completions", "openai/gpt-oss-120b", (), 350, 750),
    ("router.huggingface.co", CHAT, "openai/gpt-oss-120b", (("x-inference-provider", "cerebras"),), 350, 750),
]


@pytest.mark.parametrize(("host", "path", "model", "headers", "given", "made"), PRICED)
def test_a_host_has_its_own_prices(
    host: str, path: str, model: str, headers: tuple[tuple[str, str], ...], given: int, made: int
) -> None:
    record = read(call(host, path, asked(model), chat(model, tokens(1000, 100)), headers=headers)).record

    assert record.cost_nano == 1000 * given + 100 * made


def test_bedrocks_path_names_the_model_that_is_priced() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    answer = message([{"type": "text", "text": "Hello"}], usage, model="claude-3-haiku-20240307")
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    path = "/model/us.anthropic.claude-3-haiku-20240307-v1%3A0/invoke"

    record = read(call("bedrock-runtime.us-east-1.amazonaws.com", path, body, answer)).record

    assert (record.cost_nano, record.cost_confidence) == (1000 * 250 + 100 * 1250, 1.0)


def test_sound_that_comes_back_is_not_charged_as_the_tokens_that_were_held() -> None:
    speech = {"model": "tts-1", "input": "hi", "voice": "alloy"}
    (spoken,) = play(call("api.openai.com", "/v1/audio/speech", speech, b"\xff\xf3\x00\x01", kind="audio/mpeg"))

    assert spoken.record.usage["output_tokens"] == 0


def test_an_error_that_states_usage_is_billed_for_it() -> None:
    error = {"error": {"message": "no", "code": 502}, "usage": tokens(1000, 100)}
    record = read(call("api.openai.com", CHAT, asked("gpt-4o"), error, status=502)).record

    assert record.cost_nano == 1000 * 2500 + 100 * 10_000
