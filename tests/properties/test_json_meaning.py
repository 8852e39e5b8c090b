"""What policyd judged and what it let go mean the same to every reader of JSON, or the body was refused.

Rule 1: requests and answers of every dialect, as they came and as policies change them.
Rule 2: POLICYD_JSON_BODIES says how many bodies are tried, POLICYD_JSON_SEED which ones.
Rule 3: in an answer an integer that doubles cannot hold is compared as the double that it is nearest to.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from policyd.core.exchange import Exchange, Ground
from policyd.core.model.steps import (
    PassRequestBody,
    PassResponseBody,
    Reject,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
)
from policyd.core.stream.json_text import dumps
from tests.core.test_anthropic import whole as claude_answer
from tests.core.test_openai_chat import whole as chat_answer
from tests.core.test_requests_others import FACTS
from tests.driving import Bed, policy
from tests.json_damage import Writer
from tests.json_peers import NODE, PEERS, REFUSED, Node, read, rounded, told_apart
from tests.responses import message, response

BODIES = int(os.environ.get("POLICYD_JSON_BODIES", "8000"))
SEED = os.environ.get("POLICYD_JSON_SEED", "7")
BATCH = 500
SECRET = re.compile("sec[a-z]{1,5}")

JUDGES = 'rules: [{name: r, when: \'request.model == "forbidden" || request.text == "x"\', terminate: {}}]'
HEARS = "rules: [{name: r, when: 'response.text == \"x\" || response.output_tokens > 1000000', terminate: {}}]"
CHANGES = {
    "judged": JUDGES,
    "capped": "rules: [{name: r, constrain: {cap: {max_tokens: 3}}}]",
    "set": "rules: [{name: r, constrain: {set: {temperature: 0, user.name: nobody}}}]",
    "rerouted": "rules: [{name: r, reroute: {model: another}}]",
    "redacted": f"rules: [{{name: r, constrain: {{redact: {{patterns: ['{SECRET.pattern}'], in: [request]}}}}}}]",
    "told": "rules: [{name: r, constrain: {inject: {system: 'Be brief.'}, tools: {deny: [f]}}}]",
}
ANSWERED = {
    "judged": HEARS,
    "redacted": f"rules: [{{name: r, constrain: {{redact: {{patterns: ['{SECRET.pattern}'], in: [response]}}}}}}]",
}
# Where a cap, a set or another model may show, in the words of all dialects.
EDITED = re.compile(
    r"^(max|temperature$|user$|model|num_predict|options|generation_?config|inferenceConfig|textGenerationConfig|parameters"
    r"|maxTokenCount|stream_options|config$)",
    re.IGNORECASE,
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "maximum": 5.5}}}
ASKED: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", {
        "model": "gpt-4o", "max_tokens": 9, "temperature": 0.5, "seed": 7, "stream": False, "tools": [TOOL],
        "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "a secret", "name": "n"},
                     {"role": "user", "content": [{"type": "text", "text": "secrets"}]}]}),
    "responses": ("/v1/responses", {"model": "gpt-4.1", "input": [{"role": "user", "content": "a secret"}],
                                    "max_output_tokens": 9, "instructions": "be", "metadata": {"a": "b"}}),
    "completions": ("/v1/completions", {"model": "m", "prompt": ["a secret", "b"], "max_tokens": 4, "n": 1}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": ["a secret"], "dimensions": 4}),
    "claude": ("/v1/messages", {"model": "claude", "max_tokens": 9, "system": "be", "metadata": {"user_id": "u"},
                                "messages": [{"role": "user", "content": [{"type": "text", "text": "a secret"}]}]}),
    **{name: (path, body) for name, (_, path, body, _) in FACTS.items()},
}  # fmt: skip
CHAT_USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
MODEL = "/v1beta/models/g:generateContent"
ANSWERS: dict[str, tuple[str, Any, Any]] = {
    "chat": (*ASKED["chat"], chat_answer(seed=10337522019019826656, system_fingerprint="secret")),
    "responses": (*ASKED["responses"], response("completed", [message(0, "a secret")])),
    "completions": (*ASKED["completions"], {"id": "c", "object": "text_completion", "model": "m", "usage": CHAT_USAGE,
        "choices": [{"index": 0, "text": "a secret", "logprobs": None, "finish_reason": "stop"}]}),
    "embeddings": (*ASKED["embeddings"], {"object": "list", "model": "m", "usage": {"prompt_tokens": 2},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -1e-7, 3]}]}),
    "claude": (*ASKED["claude"], claude_answer()),
    "ollama": ("/api/chat", {**ASKED["ollama"][1], "stream": False}, {"model": "llama",
        "message": {"role": "assistant", "content": "a secret"}, "done": True, "done_reason": "stop",
        "prompt_eval_count": 2, "eval_count": 3, "total_duration": 123456789}),
    "cohere": ("/v2/chat", ASKED["cohere 2"][1], {"id": "c", "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "a secret"}]},
        "usage": {"billed_units": {"input_tokens": 2, "output_tokens": 3}}}),
    "gemini": (MODEL, ASKED["gemini"][1], {"modelVersion": "g", "candidates": [
        {"index": 0, "content": {"role": "model", "parts": [{"text": "a secret"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 2, "candidatesTokenCount": 3, "totalTokenCount": 5}}),
    "converse": ("/model/m/converse", ASKED["converse"][1], {"output": {"message": {"role": "assistant", "content": [
        {"text": "a secret"}]}}, "stopReason": "end_turn", "usage": {"inputTokens": 2, "outputTokens": 3,
        "totalTokens": 5}, "metrics": {"latencyMs": 5}}),
    "invoke titan": (ASKED["invoke titan"][0], ASKED["invoke titan"][1], {"inputTextTokenCount": 2, "results": [
        {"tokenCount": 3, "outputText": "a secret", "completionReason": "FINISH"}]}),
    "hugging face": ("/generate", ASKED["hugging face"][1], {"generated_text": "a secret", "details": {
        "finish_reason": "length", "generated_tokens": 3, "seed": 10337522019019826656}}),
    "anthropic complete": (*ASKED["anthropic complete"], {"type": "completion", "id": "c", "completion": "a secret",
        "stop_reason": "stop_sequence", "model": "c"}),
    "mcp": (*ASKED["mcp"], {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "a secret"}]}}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """One body that was let go: as it came, as policyd read it (None: nobody asked), and as it left."""

    name: str
    change: str
    came: bytes
    judged: Any
    left: bytes
    answer: bool


def ground(spec: str) -> Ground:
    every = 'match: {operations: ["*", unknown, other]}\n'
    return Bed(policy(every + spec)).enforcer.ground()


def begun(on: Ground, path: str) -> Exchange:
    exchange = Exchange(on, "x")
    head = ((":method", "POST"), (":path", path), (":authority", "x"), ("content-type", "application/json"))
    assert exchange.receive(RequestHeaders(head, False, 0.0, 0.0))
    return exchange


def ask(on: Ground, name: str, change: str, body: bytes) -> Tried | None:
    """The request, if it leaves."""
    exchange = begun(on, ASKED[name][0])
    steps = exchange.receive(RequestBody(body, 0.0))
    if any(isinstance(step, Reject) for step in steps):
        return None
    (left,) = [step for step in steps if isinstance(step, PassRequestBody)]
    return Tried(name, change, body, exchange.call.document, body if left.data is None else left.data, False)


def hear(on: Ground, name: str, change: str, body: bytes) -> Tried | None:
    """The answer, if it leaves."""
    path, asked, _ = ANSWERS[name]
    exchange = begun(on, path)
    exchange.receive(RequestBody(dumps(asked).encode(), 0.0))
    exchange.receive(ResponseHeaders(((":status", "200"), ("content-type", "application/json")), False, 0.0))
    steps = exchange.receive(ResponseChunk(body, True, 0.0))
    if any(isinstance(step, Reject) for step in steps):
        return None
    (left,) = [step for step in steps if isinstance(step, PassResponseBody)]
    return Tried(name, change, body, None, body if left.data is None else left.data, True)


def tried(count: int, seed: str, refused: Counter[str]) -> Iterator[Tried]:
    """Bodies at random, those that were let go."""
    requests = {change: ground(spec) for change, spec in CHANGES.items()}
    answers = {change: ground(spec) for change, spec in ANSWERED.items()}
    names, answer_names = list(ASKED), list(ANSWERS)
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        writer = Writer(chance, chance.choice([0.0, 0.01, 0.02, 0.05]))
        if chance.random() < 0.7:
            name, change = chance.choice(names), chance.choice(list(CHANGES))
            found = ask(requests[change], name, change, writer.body(ASKED[name][1]))
        else:
            name, change = chance.choice(answer_names), chance.choice(list(ANSWERED))
            found = hear(answers[change], name, change, writer.body(ANSWERS[name][2]))
        if found is None:
            refused[name] += 1
        else:
            yield found


def check(one: Tried, node: Any) -> None:
    """All readers read what left alike, and nothing but what policyd changed differs from what came."""
    level = rounded if one.answer else lambda value: value
    meant = level(read("json", one.left))
    told = f"{one.name}, {one.change}: {one.left[:2000]!r}"
    assert meant is not REFUSED, told
    for peer in PEERS:
        assert not told_apart(meant, level(read(peer, one.left))), f"{peer} reads something else: {told}"
    if NODE is not None:
        assert not told_apart(meant, level(node)), f"node reads something else: {told}"
    came = meant if one.left == one.came else level(read("json", one.came))
    if not one.answer:
        assert not told_apart(came, one.judged), f"another document was judged: {told}"
    if one.left != one.came:
        assert unchanged(came, meant, one.change), f"more than asked was changed: {told} came as {one.came[:2000]!r}"


def unchanged(came: Any, left: Any, change: str) -> bool:
    """Whether only what this change is about differs."""
    if change == "judged":
        return bool(came == left)
    if change == "told":
        return True  # what is put in and taken out shifts all that follows; its edits are tested for themselves
    if isinstance(came, str) and isinstance(left, str):
        return came == left or (change == "redacted" and SECRET.sub("[redacted]", came) == left)
    if isinstance(came, list) and isinstance(left, list):
        return len(came) == len(left) and all(unchanged(a, b, change) for a, b in zip(came, left, strict=True))
    if not isinstance(came, dict) or not isinstance(left, dict):
        return bool(came == left)
    for key in came.keys() | left.keys():
        if change != "redacted" and EDITED.search(key):
            continue
        if change == "redacted" and key in left and left[key] in (None, []):
            continue  # it told the same text once more
        if key not in came or key not in left or not unchanged(came[key], left[key], change):
            return False
    return True


@pytest.mark.timeout(36_000)
def test_every_reader_reads_what_was_judged() -> None:
    node, refused, passed = Node() if NODE else None, Counter[str](), Counter[str]()
    batch: list[Tried] = []
    try:
        for one in tried(BODIES, SEED, refused):
            passed[one.name] += 1
            batch.append(one)
            if len(batch) == BATCH:
                check_all(batch, node)
                batch.clear()
        check_all(batch, node)
    finally:
        if node is not None:
            node.close()
    # The test tells something only where much of both kinds was tried.
    assert min(sum(passed.values()), sum(refused.values())) > BODIES // 5, (passed.total(), refused.total())
    assert passed.keys() == refused.keys() == ASKED.keys() | ANSWERS.keys()
    if node is None:
        pytest.skip("all other readers agree; node is not here to be asked")


def check_all(batch: list[Tried], node: Node | None) -> None:
    read_by_node = node.read([one.left for one in batch]) if node else [None] * len(batch)
    for one, seen in zip(batch, read_by_node, strict=True):
        check(one, seen)
