"""Running calls outlive what happens around them: policies rewritten all the time, half of the writes broken, and the
end of the process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE, Address
from policyd.core.model.options import Options
from policyd.server.plane import DataPlane
from policyd.server.settings import Settings

STREAMS = 200
RELOADS = 4  # that running calls live through
EVENTS = [f'data: {{"choices":[{{"index":0,"delta":{{"content":"w{n}"}}}}]}}\n\n'.encode() for n in range(6)]
PATIENCE_S = 60

POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: marks, namespace: tests}
spec:
  mode: Full
  rules:
    - {name: request, constrain: {headers: {request: {set: {x-version: "VERSION"}}}}}
    - name: response
      when: response.status == 200
      constrain: {headers: {response: {set: {x-version: "VERSION"}}}}
    - {name: text, when: 'response.text.contains("never said")', terminate: {}}
"""
BREAKS: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace("response.status", "response.sttus"),
    lambda text: text[: len(text) // 2] + "\n  - [",
    lambda _: "",
    lambda text: text.replace("constrain:", "constrian:"),
)


def policy(version: object) -> str:
    return POLICY.replace("VERSION", str(version))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "marks.yaml").write_text(policy("v0"))
    return tmp_path


def settings(folder: Path, drain_s: float = 30.0) -> Settings:
    listen = Address("127.0.0.1", 0)
    return Settings((folder / "policies",), listen, Options(), records=folder / "records", drain_s=drain_s)


class Envoy:
    """One call as Envoy speaks it: request headers, answer headers, a streamed body."""

    def __init__(self, channel: Any) -> None:
        self.stream = channel.stream_stream(
            f"/{SERVICE}/{PROCESS_METHOD}",
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )()

    async def _ask(self, message: pb.ProcessingRequest) -> pb.ProcessingResponse:
        await self.stream.write(message)
        answer = await asyncio.wait_for(self.stream.read(), PATIENCE_S)
        assert isinstance(answer, pb.ProcessingResponse), "the stream was ended"
        return answer

    async def request(self) -> str:
        """The version that marks the request."""
        message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(end_of_stream=False))
        given = {":method": "POST", ":path": "/v1/chat/completions", ":authority": "api.openai.com"}
        for name, value in given.items():
            message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
        answer = await self._ask(message)
        if answer.HasField("mode_override") and answer.mode_override.request_body_mode:
            body = json.dumps({"model": "gpt-4o", "stream": True, "messages": []}).encode()
            answer = await self._ask(pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)))
            return version_in(answer.request_body.response)
        return version_in(answer.request_headers.response)

    async def answer(self) -> tuple[str, bytes]:
        """The version that marks the answer, and the bytes that came out of it."""
        message = pb.ProcessingRequest(response_headers=pb.HttpHeaders(end_of_stream=False))
        for name, value in {":status": "200", "content-type": "text/event-stream"}.items():
            message.response_headers.headers.headers.add(key=name, raw_value=value.encode())
        version = version_in((await self._ask(message)).response_headers.response)
        for event in [*EVENTS, b"data: [DONE]\n\n"]:
            end = event.startswith(b"data: [DONE]")
            await self.stream.write(pb.ProcessingRequest(response_body=pb.HttpBody(body=event, end_of_stream=end)))
        out, ended = b"", False
        while not ended:
            answer = await asyncio.wait_for(self.stream.read(), PATIENCE_S)
            assert isinstance(answer, pb.ProcessingResponse), "the stream was ended"
            piece = answer.response_body.response.body_mutation.streamed_response
            out, ended = out + piece.body, piece.end_of_stream
        await self.stream.done_writing()
        return version, out


def version_in(response: pb.CommonResponse) -> str:
    options = response.header_mutation.set_headers
    return next((option.header.raw_value.decode() for option in options if option.header.key == "x-version"), "")


@asynccontextmanager
async def running(plane: DataPlane) -> AsyncIterator[Any]:
    """A channel to a plane that runs."""
    task = asyncio.create_task(plane.run())
    ready = asyncio.create_task(plane.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
    ready.cancel()
    try:
        async with grpc.aio.insecure_channel(plane.address) as channel:
            yield channel
    finally:
        plane.stop()
        await asyncio.wait_for(task, PATIENCE_S)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [line for file in (folder / "records").iterdir() for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def write(file: Path, number: int) -> None:
    """Every other write is broken, and every fourth is not even atomic."""
    text = BREAKS[number // 2 % len(BREAKS)](policy("broken")) if number % 2 else policy(f"v{number}")
    if number % 4:
        file.with_suffix(".draft").write_text(text)
        file.with_suffix(".draft").replace(file)
    else:
        file.write_text(text)


async def rewrite(file: Path, stop: asyncio.Event) -> None:
    """A new version every 20 ms."""
    for number in itertools.count(1):
        write(file, number)
        try:
            await asyncio.wait_for(stop.wait(), 0.02)
        except TimeoutError:
            continue
        return


def test_200_running_calls_never_mix_two_sets_while_policies_are_rewritten(folder: Path) -> None:
    plane = DataPlane(settings(folder))
    in_force: list[str] = []

    async def one_call(channel: Any, go: asyncio.Event) -> tuple[str, str, bytes]:
        call = Envoy(channel)
        asked = await call.request()
        await go.wait()
        return (asked, *await call.answer())

    async def waves(channel: Any) -> list[tuple[str, str, bytes]]:
        """Half of the calls begin before the first reload, the others one reload later."""
        reloads = asyncio.Semaphore(0)
        tell = plane._directory.report

        def report(reload: Any) -> None:
            tell(reload)
            if reload.result == "loaded":
                in_force.append(reload.digest)
                reloads.release()

        plane._directory.report = report
        go = asyncio.Event()
        calls = [asyncio.create_task(one_call(channel, go)) for _ in range(STREAMS // 2)]
        for number in range(RELOADS):
            await asyncio.wait_for(reloads.acquire(), PATIENCE_S)
            if not number:
                calls += [asyncio.create_task(one_call(channel, go)) for _ in range(STREAMS // 2)]
        go.set()
        return await asyncio.gather(*calls)

    async def story() -> list[tuple[str, str, bytes]]:
        async with running(plane) as channel:
            stop = asyncio.Event()
            writer = asyncio.create_task(rewrite(folder / "policies" / "marks.yaml", stop))
            try:
                return await waves(channel)
            finally:
                stop.set()
                await writer

    outcomes = asyncio.run(story())
    assert len(outcomes) == STREAMS
    assert [asked for asked, answered, _ in outcomes if asked != answered] == []
    assert {out for _, _, out in outcomes} == {b"".join([*EVENTS, b"data: [DONE]\n\n"])}
    seen = {asked for asked, _, _ in outcomes}
    assert "broken" not in seen
    assert "" not in seen
    assert len(seen) >= 2
    assert len(in_force) >= RELOADS
    written = records(folder)
    assert len(written) == STREAMS
    assert {record["ended"] for record in written} == {"complete"}
    assert len({record["policy_set"] for record in written}) == len(seen)


def drained(folder: Path, drain_s: float, story: Callable[[DataPlane, Any], Awaitable[None]]) -> None:
    plane = DataPlane(settings(folder, drain_s))

    async def play() -> None:
        async with running(plane) as channel:
            await story(plane, channel)

    asyncio.run(play())
    assert plane._state == "draining"


def test_a_running_call_may_finish_and_no_new_one_begins(folder: Path) -> None:
    async def story(plane: DataPlane, channel: Any) -> None:
        call = Envoy(channel)
        assert await call.request() == "v0"
        plane.stop()
        await asyncio.wait_for(plane.draining.wait(), PATIENCE_S)
        async with grpc.aio.insecure_channel(plane.address) as fresh:
            with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
                await Envoy(fresh).request()
        assert (await call.answer())[1].endswith(b"data: [DONE]\n\n")

    drained(folder, 30.0, story)
    (record,) = records(folder)
    assert record["ended"] == "complete"


def test_a_call_that_outlasts_the_drain_is_ended_and_recorded(folder: Path) -> None:
    async def story(plane: DataPlane, channel: Any) -> None:
        call = Envoy(channel)
        assert await call.request() == "v0"
        plane.stop()
        with pytest.raises((grpc.aio.AioRpcError, AssertionError, asyncio.InvalidStateError)):
            await call.stream.read()
            await call.answer()

    drained(folder, 0.1, story)
    assert len(records(folder)) == 1
