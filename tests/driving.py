"""Drives calls through the same enforcer that serves them, in this process, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.compile.compiler import Compiler
from policyd.core.compile.policyset import PolicySet
from policyd.core.model.decision import DecisionRecord, Mode, RuleResult
from policyd.core.model.options import Options
from policyd.core.model.prices import Price, PriceTable, Tier
from policyd.core.model.route import Route
from policyd.core.model.steps import (
    BodyMode,
    Break,
    Ended,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
    Release,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    Step,
    Tick,
    WakeAt,
)
from policyd.enforcer import Call, CounterStore, Deadlines, Enforcer
from tests.fakes import EPOCH, FakeClock, ListSink

HEAD = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\n"


def policy(spec: str, name: str = "p", *, namespace: str = "default", mode: str = "Full") -> str:
    """One policy document from its spec (YAML, not indented)."""
    body = "\n".join(f"  {line}" for line in spec.strip("\n").split("\n"))
    return f"{HEAD}metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  mode: {mode}\n{body}\n"


def cluster_policy(spec: str, name: str = "c", *, mode: str = "Full") -> str:
    """One ClusterLLMPolicy from its spec."""
    text = policy(spec, name, mode=mode)
    return text.replace("kind: LLMPolicy", "kind: ClusterLLMPolicy").replace(", namespace: default", "")


def chat(
    text: str = "hello",
    *,
    model: str = "gpt-4o",
    stream: bool = False,
    **more: object,
) -> bytes:
    """The body of an OpenAI chat request."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return json.dumps({**body, "stream": True} if stream else body).encode()


def sse(*documents: object, done: bool = True) -> bytes:
    """Server-sent events of these documents."""
    lines = [f"data: {json.dumps(one)}\n\n" for one in documents]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def delta(text: str, finish: str | None = None) -> dict[str, object]:
    """One chunk of an OpenAI chat stream."""
    content = {"content": text} if text else {}
    choice = {"index": 0, "delta": content, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [choice]}


def stream_of(*texts: str) -> list[bytes]:
    """A whole chat stream: one event a text, then the finish and the end."""
    return [*(sse(delta(text), done=False) for text in texts), sse(delta("", "stop"))]


def answer_of(text: str, *, prompt: int = 10, completion: int = 5) -> bytes:
    """A whole chat answer in one piece."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    document = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
        "usage": usage,
    }
    return json.dumps(document).encode()


@dataclass(slots=True)
class Outcome:
    """What became of one call."""

    steps: list[Step] = field(default_factory=list)
    records: list[DecisionRecord] = field(default_factory=list)
    sent: bytes | None = None  # the request body as it left; None when nothing left
    request_headers: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    moved: bool = False
    rejected: Reject | None = None
    response_headers: dict[str, str] = field(default_factory=dict)
    response_removed: set[str] = field(default_factory=set)
    mode: BodyMode | None = None
    body: bytes = b""
    ended: bool = False
    broken: bool = False
    times: list[float | None] = field(default_factory=list)  # of each Release

    @property
    def record(self) -> DecisionRecord:
        assert len(self.records) == 1, f"{len(self.records)} records"
        return self.records[0]

    def rule(self, name: str) -> RuleResult:
        return next(result for result in self.record.rules if result.rule == name)

    @property
    def data(self) -> list[object]:
        """The documents of the events that reached the client; `[DONE]` as that string."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        """The visible text that reached the client in a chat stream."""
        return "".join(
            choice["delta"].get("content") or ""
            for one in self.data
            if isinstance(one, dict)
            for choice in one.get("choices", ())
        )


class Bed:
    """An enforcer with counters in memory over the policies of one test."""

    def __init__(
        self,
        *documents: str,
        prices: PriceTable | None = None,
        mode: Mode = Mode.FULL,
        counters: CounterStore | None = None,
        deadlines: Deadlines | None = None,
        **options: object,
    ) -> None:
        self._compiler = Compiler()
        self.policy_set = self._compiled(documents)
        self.clock = FakeClock()
        self.memory = MemoryCounters(self.clock)
        self.sink = ListSink()
        ids = iter(range(1, 1_000_000))
        self.enforcer = Enforcer(
            policies=lambda: self.policy_set,
            counters=counters or self.memory,
            prices=prices or NoPrices(),
            sink=self.sink,
            options=Options(mode=mode, **options),  # type: ignore[arg-type]
            deadlines=deadlines,
            clock=self.clock.monotonic,
            new_id=lambda: f"call-{next(ids)}",
        )

    def _compiled(self, documents: Sequence[str]) -> PolicySet:
        compiled = self._compiler([(f"p{index}.yaml", text) for index, text in enumerate(documents)])
        assert compiled.policy_set is not None, "\n".join(map(str, compiled.issues))
        return compiled.policy_set

    def put(self, *documents: str) -> None:
        """Another set comes into force."""
        self.policy_set = self._compiled(documents)
        self.enforcer.changed()

    def call(self, **how: object) -> Outcome:
        """One whole call; see `acall`."""
        return asyncio.run(self.acall(**how))  # type: ignore[arg-type]

    async def acall(
        self,
        body: bytes = b"",
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        host: str = "api.openai.com",
        headers: Iterable[tuple[str, str]] = (),
        status: int = 200,
        response_headers: Iterable[tuple[str, str]] | None = None,
        chunks: Sequence[bytes] = (),
        step_s: float = 0.01,
        silent_s: float = 0.0,
        finish: bool = True,
        route: Route | None = None,
        metadata: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Outcome:
        """One call: `chunks` come `step_s` seconds apart; `silent_s` of silence before the body ends."""
        out = Outcome()
        call = self.enforcer.open()
        before = len(self.sink.records)
        now = self.clock.monotonic()
        head = ((":method", method), (":path", path), (":authority", host), *headers)
        await self._do(call, out, RequestHeaders(head, not body, now, EPOCH + now, metadata or {}, route))
        if out.rejected is None and out.sent is None and body and not out.broken:
            await self._do(call, out, RequestBody(body, now))
        if out.rejected is None and not out.broken:
            kind = "text/event-stream" if len(chunks) > 1 or b"data: " in b"".join(chunks) else "application/json"
            given = tuple(response_headers) if response_headers is not None else (("content-type", kind),)
            self.clock.advance(step_s)
            await self._do(
                call, out, ResponseHeaders(((":status", str(status)), *given), not chunks, self.clock.monotonic())
            )
            await self._body(call, out, chunks, step_s, silent_s, finish)
        await self._do(call, out, Ended(self.clock.monotonic()))
        await self.enforcer.drain()
        out.records = self.sink.records[before:]
        return out

    async def _body(
        self, call: Call, out: Outcome, chunks: Sequence[bytes], step_s: float, silent_s: float, finish: bool
    ) -> None:
        if out.mode is BodyMode.WHOLE:
            await self._do(call, out, ResponseChunk(b"".join(chunks), True, self.clock.monotonic()))
            return
        if out.mode is not BodyMode.STREAM:
            out.body += b"".join(chunks) if out.rejected is None else b""
            return
        for index, chunk in enumerate(chunks):
            last = index == len(chunks) - 1
            await self._wait(call, out, step_s + (silent_s if last else 0.0))
            if out.ended or out.broken:
                return
            await self._do(call, out, ResponseChunk(chunk, last and finish, self.clock.monotonic()))

    async def _wait(self, call: Call, out: Outcome, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        while (wake := self._wake(out)) is not None and wake <= until and not out.ended:
            self.clock.advance(max(0.0, wake - self.clock.monotonic()))
            await self._do(call, out, Tick(self.clock.monotonic()))
        self.clock.advance(max(0.0, until - self.clock.monotonic()))

    @staticmethod
    def _wake(out: Outcome) -> float | None:
        return next((step.at for step in reversed(out.steps) if isinstance(step, WakeAt)), None)

    async def _do(self, call: Call, out: Outcome, event: object) -> None:
        steps = list(await call.handle(event))  # type: ignore[arg-type]
        while call.outstanding is not None:
            steps += await call.deliver()
        for step in steps:
            self._see(out, step, event)
        out.steps += steps

    @staticmethod
    def _see(out: Outcome, step: Step, event: object) -> None:
        match step:
            case PassRequestHeaders(edit, want_body, _, reroute):
                out.request_headers.update(edit.set)
                out.removed.update(edit.remove)
                if not want_body:
                    out.sent, out.moved = b"", reroute
            case PassRequestBody(data, edit, reroute):
                assert isinstance(event, RequestBody)
                out.sent, out.moved = (event.data if data is None else data), reroute
                out.request_headers.update(edit.set)
                out.removed.update(edit.remove)
            case Reject():
                out.rejected, out.body, out.ended = step, step.body, True
            case PassResponseHeaders(edit, mode):
                out.response_headers.update(edit.set)
                out.response_removed.update(edit.remove)
                out.mode = mode
            case PassResponseBody(data, edit):
                assert isinstance(event, ResponseChunk)
                out.response_removed.update(edit.remove)
                out.body, out.ended = (event.data if data is None else data), True
            case Release(data, end, at):
                out.body += data
                out.ended = out.ended or end
                out.times.append(at)
            case Break():
                out.broken = True
            case _:
                pass


class NoPrices:
    """A price table that knows nothing."""

    digest = "none"

    def price(self, _provider: str, _model: str, _at: float) -> None:
        return None

    def dearest(self, _provider: str, _at: float) -> None:
        return None


class FlatPrices:
    """Every model in `models` costs the same: nano-dollars a token in and out."""

    digest = "flat"

    def __init__(self, *models: str, input: int = 1_000, output: int = 1_000_000) -> None:
        rates = Tier(0, Fraction(input), Fraction(output), Fraction(input), Fraction(input))
        self._prices = {model: Price(model, (rates,), source="flat") for model in models}

    def price(self, _provider: str, model: str, _at: float) -> Price | None:
        return self._prices.get(model)

    def dearest(self, _provider: str, _at: float) -> Price | None:
        first = next(iter(self._prices.values()), None)
        return replace(first, source="estimate:flat", confidence=0.1, guess=True) if first else None
