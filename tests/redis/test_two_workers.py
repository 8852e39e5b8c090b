"""Two workers behind a real Envoy, one Redis: one budget of many agents at once, and what a call asks of Redis."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from policyd.cli.emulator import Emulator, RawAnswer
from policyd.cli.stage import Stage
from tests.envoy.asking import OPENAI, caller, check_ended, steering, text_of
from tests.envoy.stack import policy, stack, upstream_calls, wait_for_end
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.envoy

AGENTS = 64
BUDGET_USD = 2.00
USD_PER_TOKEN = 50 / 10**6
EVENT_TOKENS = 16  # in one event, as fast providers send them: the text of a token is four characters
WANTED_EVENTS = 64  # of a stream: two slices of what a stream holds; all agents together want 1.6 times the budget
GAP_MS = 80
IN_FLIGHT = 4  # events of a stream that the provider has made and its caller never sees: the one that is cut, and those
# that are made until the provider sees that nobody listens
FALLBACK = "This session has used its budget."
COUNTERS = 16
CALLS, WARM = 100, 10  # of so many, two workers that are chosen by lot have 30 each but once in 30,000
ATTEMPTS = 5  # of who is told that it cannot be judged now

PRICES = f"""
models:
  - {{model: gpt-4o, provider: openai, input_per_mtok: 0, output_per_mtok: {USD_PER_TOKEN * 10**6:g}}}
"""
BUDGET = f"""\
counters:
  - {{name: spend, key: session.id, charge: Cost, window: {{lifetime: 24h}}, limit: {BUDGET_USD} USD}}
rules:
  - {{name: spent, when: counters.spend.exceeded, terminate: {{status: 429, fallback: "{FALLBACK}"}}}}
"""
KEYS = ("session.id", "caller.user", "caller.team", "request.model")
CHARGES = (("Requests", "requests"), ("OutputTokens", "tokens"), ("TotalTokens", "tokens"), ("Cost", "USD"))
MANY = "counters:\n" + "\n".join(
    f"  - {{name: c{k}_{c}, key: {key}, charge: {charge}, window: {{lifetime: 1h}}, limit: 1000000 {unit}}}"
    for k, key in enumerate(KEYS)
    for c, (charge, unit) in enumerate(CHARGES)
)


def answer_in_big_events() -> RawAnswer:
    """A stream of OpenAI's, each event of which holds EVENT_TOKENS tokens."""
    piece = {"content": "four" * EVENT_TOKENS}
    deltas = [{"role": "assistant", "content": ""}, *[piece] * WANTED_EVENTS, {}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    made = EVENT_TOKENS * WANTED_EVENTS
    usage = {"prompt_tokens": 20, "completion_tokens": made, "total_tokens": 20 + made}
    documents = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}], "usage": None}
        for delta in deltas
    ]
    documents.append({**head, "choices": [], "usage": usage})
    lines = [f"data: {json.dumps(document)}\n\n".encode() for document in documents]
    tokens = (0, *[EVENT_TOKENS] * WANTED_EVENTS, 0, 0, 0)
    return RawAnswer(200, (("content-type", "text/event-stream"),), (*lines, b"data: [DONE]\n\n"), tokens=tokens)


@pytest.fixture(scope="module")
def up(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(PRICES)
    with redis_server.client() as client:
        client.flushall()
    provider = Emulator("openai", raw={"big": answer_in_big_events()})
    policies = {"budget.yaml": policy("budget", BUDGET, team="agents"), "many.yaml": policy("many", MANY, team="many")}
    serve = ("--workers", "2", "--redis", redis_server.url, "--prices", str(prices))
    with stack(policies, providers=[provider], serve=serve, bootstrap=("--workers", "2")) as stage:
        # A worker whose first health check came too early gets no calls before the next one, two seconds later.
        healthy = "cluster.policyd_extproc.membership_healthy"
        stage.wait_until(lambda: stage.envoy_stats(f"^{healthy}$") == {healthy: 2}, "Envoy to find both workers well")
        yield stage


def by_worker(stage: Stage) -> Counter[Path]:
    """Calls decided by each worker: each writes a file of its own."""
    lines = {file: file.read_text().count('"kind":"decision"') for file in (stage.folder / "records").iterdir()}
    return Counter(lines)


def check_shared(stage: Stage, before: Counter[Path], calls: int) -> None:
    served = by_worker(stage) - before
    print(f"calls a worker: {sorted(served.values())}")
    assert sum(served.values()) == calls
    assert len(served) == 2 and min(served.values()) >= 0.3 * calls


# ---- one budget ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agent:
    """What one agent got."""

    status: int
    body: bytes
    attempts: int

    @property
    def cut(self) -> bool:
        return self.status == 200 and FALLBACK in text_of(OPENAI, self.body)

    @property
    def tokens(self) -> int:
        return text_of(OPENAI, self.body).count("four") if self.status == 200 else 0


async def all_at_once(stage: Stage, headers: dict[str, str]) -> list[Agent]:
    room = httpx.Limits(max_connections=AGENTS)
    async with httpx.AsyncClient(base_url=stage.url, timeout=60, limits=room, verify=False) as client:

        async def one(number: int) -> Agent:
            own = {**headers, "x-agent": str(number)}  # one caller: a session belongs to its caller
            got = [await client.post(OPENAI.path, content=OPENAI.body(max_tokens=4000), headers=own)]
            # Redis was not asked in time, on a busy machine: an agent tries again.
            while got[-1].status_code == HTTPStatus.SERVICE_UNAVAILABLE and len(got) < ATTEMPTS:
                got.append(await client.post(OPENAI.path, content=OPENAI.body(max_tokens=4000), headers=own))
            return Agent(got[-1].status_code, got[-1].content, len(got))

        return await asyncio.gather(*map(one, range(AGENTS)))


def test_64_agents_at_once_spend_two_dollars_and_no_more(up: Stage) -> None:
    before = by_worker(up)
    headers = {**steering("agents", raw="big", interval_ms=GAP_MS), "x-session-id": "the-session"}
    agents = asyncio.run(all_at_once(up, headers))
    calls = {int(call.header("x-agent")): wait_for_end(up, call) for call in upstream_calls(up)}
    attempts = sum(agent.attempts for agent in agents)
    up.wait_until(lambda: (by_worker(up) - before).total() == attempts, "all records")

    cut = [number for number, agent in enumerate(agents) if agent.cut]
    unseen = {number: call.output_tokens - agents[number].tokens for number, call in calls.items()}
    billed = sum(call.output_tokens for call in calls.values()) * USD_PER_TOKEN
    bound = len(cut) * IN_FLIGHT * EVENT_TOKENS * USD_PER_TOKEN
    statuses = Counter(agent.status for agent in agents)
    print(
        f"billed ${billed:.4f} of ${BUDGET_USD:.2f}, ${sum(unseen.values()) * USD_PER_TOKEN:.4f} of it in flight at "
        f"{len(cut)} cuts (bound ${bound:.4f}); {max(unseen.values()) / EVENT_TOKENS:g} events at most a stream; "
        f"answers {dict(statuses)}"
    )
    assert set(statuses) <= {200, 429}
    assert cut, "else nothing was tried"
    assert billed <= BUDGET_USD + bound
    assert max(unseen.values()) <= IN_FLIGHT * EVENT_TOKENS
    assert sum(agent.tokens for agent in agents) * USD_PER_TOKEN <= BUDGET_USD, "what was let through never exceeds it"
    if all(counter["available"] for record in up.records() for counter in record["counters"]):  # type: ignore[attr-defined]
        assert billed >= 0.98 * BUDGET_USD, "nearly all of it can be used"
    for number in cut:
        check_ended(OPENAI, agents[number].body)
        assert calls[number].closed_early
    check_shared(up, before, attempts)


# ---- round trips -----------------------------------------------------------------------------------------------------


def test_16_counters_cost_a_call_one_round_trip_before_it_and_one_after(up: Stage, redis_server: RedisServer) -> None:
    def ask(calls: int) -> bool:
        """Whether each was judged: on a busy machine Redis may be asked too late for one."""
        before = len(up.records())
        with caller(up) as client:
            for number in range(calls):
                headers = {**steering("many"), "x-session-id": f"s{number % 7}", "x-user-id": f"u{number % 3}"}
                statuses.append(
                    client.post(OPENAI.path, content=OPENAI.body(stream=False), headers=headers).status_code
                )
        up.wait_for_records(before + calls)
        return statuses[-calls:] == [HTTPStatus.OK] * calls

    statuses: list[int] = []

    def settled() -> bool:
        return redis_server.commands().get("evalsha", 0) >= 2 * CALLS

    for _ in range(ATTEMPTS):
        redis_server.reset_commands()
        ask(WARM)  # both workers have a connection, and Redis knows the scripts
        up.wait_until(lambda: redis_server.commands().get("zrem", 0) >= WARM, "their leases to be taken back")
        before = by_worker(up)
        redis_server.reset_commands()
        if ask(CALLS):
            break
    up.wait_until(settled, "every call to be settled")
    commands = redis_server.commands()
    sent = {name: count for name, count in commands.items() if name in ("evalsha", "eval", "get", "hget", "hmget")}
    counters = {len(record["counters"]) for record in up.records() if record["counters"]}  # type: ignore[arg-type]
    print(f"{CALLS} calls of {COUNTERS} counters: {commands}")
    assert max(counters) == COUNTERS
    # A call that is open when the leases are renewed, every five seconds, has one more.
    assert 2 * CALLS <= commands["evalsha"] <= 2 * CALLS + 2, f"one to reserve, one to settle: {sent}"
    assert "eval" not in commands
    check_shared(up, before, CALLS)
