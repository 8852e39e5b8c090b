"""What policyd builds on, on real Envoys: each test is one fact that a release of Envoy could take away.

The ext_proc server here answers from a script, with the messages that codec.py makes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from policyd.adapters.envoy import bootstrap, codec, config
from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.codec import Kind
from policyd.core.model.steps import (
    BodyMode,
    HeaderEdit,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
)
from tests.envoy.harness import VERSIONS, Envoy, free_port, running
from tests.envoy.scripted import GAP_S, JSON, Background, Processor, Seen, Upstream, event

pytestmark = pytest.mark.envoy
Answers = Iterable[pb.ProcessingResponse]
EVENTS = 12
HTTP1, HTTP2 = {"http1": True}, {"http1": False, "http2": True}


@dataclass
class Shape:
    """An Envoy with its neighbours."""

    envoy: Envoy
    background: Background
    processor: Processor
    upstream: Upstream  # the default one
    other: Upstream

    def script(self, **by_kind: Answers | Callable[[pb.ProcessingRequest], Answers]) -> None:
        """Answer messages of these kinds so, and let everything else pass."""
        self.processor.messages.clear()
        self.upstream.seen.clear()
        self.other.seen.clear()

        def answer(message: pb.ProcessingRequest) -> Answers:
            kind = codec.kind_of(message)
            wanted = by_kind.get(kind, passing)
            return wanted(message) if callable(wanted) else wanted

        self.processor.script = answer

    def ask(self, path: str, *, http: dict[str, bool] = HTTP1, method: str = "GET", **options: Any) -> httpx.Response:
        with httpx.Client(timeout=5, **http) as client:  # type: ignore[arg-type]
            return client.request(method, self.envoy.url + path, **options)

    def finished(self, upstream: Upstream | None = None) -> Seen:
        """The last request, once its answer is over."""
        seen = (upstream or self.upstream).seen[-1]
        self.background.run(_within(seen.done.wait()))
        return seen


async def _within(waiting: Any) -> None:
    await asyncio.wait_for(waiting, 5)


def passing(message: pb.ProcessingRequest) -> Answers:
    match codec.kind_of(message):
        case Kind.REQUEST_HEADERS:
            yield codec.pass_request_headers(PassRequestHeaders())
        case Kind.RESPONSE_HEADERS:
            yield codec.pass_response_headers(PassResponseHeaders())
        case Kind.REQUEST_BODY:
            yield codec.pass_request_body(PassRequestBody())
        case Kind.RESPONSE_BODY:
            yield from codec.release(message.response_body.body, end=message.response_body.end_of_stream)


STREAMED = [codec.pass_response_headers(PassResponseHeaders(mode=BodyMode.STREAM))]
WHOLE = [codec.pass_response_headers(PassResponseHeaders(mode=BodyMode.WHOLE))]
READ_BODY = [codec.pass_request_headers(PassRequestHeaders(want_body=True))]
REFUSAL = Reject(429, (("content-type", "application/json"), ("x-policyd-decision", "d1")), b'{"error": "no"}')
FALLBACK = b"data: the fallback\n\n"


def cut_at(number: int, *last: pb.ProcessingResponse) -> Callable[[pb.ProcessingRequest], Answers]:
    """Ends the answer in place of its n-th message (from 1)."""
    seen = 0

    def answer(message: pb.ProcessingRequest) -> Answers:
        nonlocal seen
        seen += 1
        if seen < number:
            return passing(message)
        return last if seen == number else ()

    return answer


ENDING = tuple(codec.release(FALLBACK, end=True))


def settings(port: int, admin: int, a: int, b: int, extproc: int, **more: Any) -> config.Settings:
    return config.settings(
        listener=f"127.0.0.1:{port}",
        admin=f"127.0.0.1:{admin}",
        upstreams=(f"a=127.0.0.1:{a}", f"b=127.0.0.1:{b}"),
        extproc=f"127.0.0.1:{extproc}",
        **more,
    )


@contextlib.contextmanager
def shaped(version: str, folder: Path, **more: Any) -> Iterator[Shape]:
    background = Background()
    parts = processor, a, b = Processor(), Upstream("a"), Upstream("b")
    for part in parts:
        background.run(part.start())

    def yaml(port: int, admin: int) -> str:
        wanted = settings(port, admin, a.port, b.port, more.pop("extproc", processor.port), **more)
        return bootstrap.render(bootstrap.bootstrap(wanted))

    try:
        with running(version, folder, yaml) as envoy:
            yield Shape(envoy, background, processor, a, b)
    finally:
        for part in parts:
            background.run(part.stop())
        background.stop()


@pytest.fixture(scope="module", params=VERSIONS)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shape]:
    with shaped(request.param, tmp_path_factory.mktemp("envoy")) as found:
        yield found


# ---- nothing is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/json", "/stream?3", "/204", "/zero"])
def test_a_call_that_nobody_reads_costs_two_messages(shape: Shape, path: str) -> None:
    shape.script()
    answer = shape.ask(path, method="POST", content=b"{}")
    assert answer.status_code in (200, 204)
    assert shape.processor.kinds == ["request_headers", "response_headers"]
    assert shape.upstream.seen[0].body == b"{}"


# ---- an answer that streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", [HTTP1, HTTP2], ids=["http1", "http2"])
@pytest.mark.parametrize("at", [1, 5])
def test_a_cut_ends_cleanly_and_cancels_the_upstream(shape: Shape, at: int, http: dict[str, bool]) -> None:
    shape.script(response_headers=STREAMED, response_body=cut_at(at, *ENDING))
    answer = shape.ask(f"/stream?{EVENTS}", http=http)
    assert answer.status_code == 200
    assert answer.content == b"".join(map(event, range(at - 1))) + FALLBACK
    seen = shape.finished()
    assert seen.closed_early
    assert seen.events < at + 3


def test_an_answer_that_passes_is_the_same(shape: Shape) -> None:
    shape.script(response_headers=STREAMED)
    answer = shape.ask("/stream?4")
    assert answer.content == b"".join(map(event, range(4)))
    assert not shape.finished().closed_early


def test_held_bytes_may_leave_with_the_end(shape: Shape) -> None:
    def hold(message: pb.ProcessingRequest) -> Answers:
        return codec.release(b"everything", end=True) if message.response_body.end_of_stream else ()

    shape.script(response_headers=STREAMED, response_body=hold)
    assert shape.ask("/stream?3").content == b"everything"


def test_a_silent_answer_can_be_ended_without_being_asked(shape: Shape) -> None:
    shape.script(response_headers=[*STREAMED, *ENDING], response_body=())
    assert shape.ask(f"/stream?{EVENTS}").content == FALLBACK
    assert shape.finished().closed_early


@pytest.mark.parametrize("http", [HTTP1, HTTP2], ids=["http1", "http2"])
def test_a_changed_answer_does_not_keep_its_old_length(shape: Shape, http: dict[str, bool]) -> None:
    """Overridden to FULL_DUPLEX_STREAMED Envoy leaves the upstream's content-length where it is: codec removes it."""
    shape.script(response_headers=STREAMED, response_body=ENDING)
    answer = shape.ask("/json", http=http)
    assert answer.content == FALLBACK
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("path", ["/204", "/zero", "/empty-late"])
@pytest.mark.parametrize("override", [STREAMED, WHOLE], ids=["stream", "whole"])
def test_an_empty_answer_ends(shape: Shape, path: str, override: list[pb.ProcessingResponse]) -> None:
    shape.script(response_headers=override, response_body=passing if override is STREAMED else whole_body())
    answer = shape.ask(path)
    assert (answer.status_code, answer.content) == (204 if path == "/204" else 200, b"")


def test_an_empty_chunked_answer_in_one_segment_hangs_before_1_40(shape: Shape) -> None:
    """envoy#44201: its end came before the override. An end that nobody asked for sets it free."""
    shape.script(response_headers=STREAMED)
    if shape.envoy.version == "1.40.0":
        assert shape.ask("/empty").content == b""
        return
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=10 * GAP_S) as client:
        client.get(shape.envoy.url + "/empty")
    shape.script(response_headers=[*STREAMED, *ENDING])
    assert shape.ask("/empty").content == FALLBACK


def test_a_stream_that_breaks_is_seen_by_the_client(shape: Shape) -> None:
    shape.script(response_headers=STREAMED, response_body=cut_at(3))
    shape.processor.abort = grpc.StatusCode.ABORTED
    try:
        with pytest.raises(httpx.RemoteProtocolError):
            shape.ask(f"/stream?{EVENTS}")
    finally:
        shape.processor.abort = None
    assert shape.finished().closed_early


# ---- a request that is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", [HTTP1, HTTP2], ids=["http1", "http2"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_is_changed_and_sent_elsewhere(shape: Shape, http: dict[str, bool], chunked: bool) -> None:
    edit = HeaderEdit(((config.UPSTREAM_HEADER, "b"), ("x-note", "é")), ("authorization",))
    moved = PassRequestBody(b'{"model": "small"}', edit, reroute=True)
    shape.script(request_headers=READ_BODY, request_body=[codec.pass_request_body(moved)])
    content = iter([b'{"model":', b' "a-big-one"}']) if chunked else b'{"model": "a-big-one"}'
    answer = shape.ask("/json", method="POST", http=http, content=content, headers={"authorization": "secret"})
    assert answer.content == JSON
    assert shape.processor.messages[1].request_body.body == b'{"model": "a-big-one"}'
    assert not shape.upstream.seen
    seen = shape.other.seen[0]
    assert (seen.body, seen.header("content-length")) == (b'{"model": "small"}', ["18"])
    assert (seen.header("host"), seen.header("authorization")) == ([f"127.0.0.1:{shape.other.port}"], [])
    assert seen.header(config.UPSTREAM_HEADER) == []


def test_a_body_that_may_go_is_the_same(shape: Shape) -> None:
    shape.script(request_headers=READ_BODY)
    shape.ask("/json", method="POST", content=b"as it came")
    assert shape.upstream.seen[0].body == b"as it came"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_without_a_body_does_not_wait_for_one(shape: Shape, method: str) -> None:
    shape.script(request_headers=READ_BODY)
    assert shape.ask("/json", method=method).status_code == 200
    assert shape.processor.kinds == ["request_headers", "response_headers"]


def test_an_upstream_that_is_not_there_is_not_the_default_one(shape: Shape) -> None:
    edit = HeaderEdit(((config.UPSTREAM_HEADER, "elsewhere"),))
    shape.script(request_headers=[codec.pass_request_headers(PassRequestHeaders(edit, reroute=True))])
    assert shape.ask("/json").status_code == 503
    assert not shape.upstream.seen


# ---- an answer in one piece ------------------------------------------------------------------------------------------


def whole_body(data: bytes | None = None) -> list[pb.ProcessingResponse]:
    return [codec.pass_response_body(PassResponseBody(data))]


@pytest.mark.parametrize("http", [HTTP1, HTTP2], ids=["http1", "http2"])
@pytest.mark.parametrize("path", ["/json", "/json-chunked"])
def test_a_whole_answer_is_changed(shape: Shape, path: str, http: dict[str, bool]) -> None:
    shape.script(response_headers=WHOLE, response_body=whole_body(b"new"))
    answer = shape.ask(path, http=http)
    assert (answer.content, answer.headers["content-length"]) == (b"new", "3")
    assert shape.processor.messages[-1].response_body.body == JSON


def test_a_whole_answer_that_may_go_is_the_same(shape: Shape) -> None:
    shape.script(response_headers=WHOLE, response_body=whole_body())
    answer = shape.ask("/json")
    assert (answer.content, answer.headers["content-length"]) == (JSON, str(len(JSON)))


@pytest.mark.parametrize("kind", ["request_headers", "request_body", "response_headers", "response_body"])
def test_a_refusal_is_possible_until_the_headers_leave(shape: Shape, kind: str) -> None:
    steps: dict[str, Answers] = {"request_headers": READ_BODY, "response_headers": WHOLE}
    shape.script(**{**steps, kind: [codec.reject(REFUSAL)]})
    answer = shape.ask("/json", method="POST", content=b"{}")
    assert (answer.status_code, answer.content) == (429, REFUSAL.body)
    assert (answer.headers["content-type"], answer.headers["x-policyd-decision"]) == ("application/json", "d1")
    assert bool(shape.upstream.seen) == kind.startswith("response")


def test_a_status_that_envoy_does_not_know_is_fine(shape: Shape) -> None:
    shape.script(request_headers=[codec.reject(Reject(529, (), b"overloaded"))])
    assert shape.ask("/json").status_code == 529


# ---- around it -------------------------------------------------------------------------------------------------------


def test_the_callers_own_policyd_headers_are_nothing(shape: Shape) -> None:
    shape.script()
    answer = shape.ask("/json", headers={config.UPSTREAM_HEADER: "b", "X-Policyd-Anything": "1", "x-other": "2"})
    assert answer.status_code == 200
    told = dict(codec.headers(shape.processor.messages[0].request_headers.headers))
    seen = shape.upstream.seen[0]
    for headers in (told, dict(seen.headers)):
        assert "x-other" in headers
        assert not [name for name in headers if name.startswith(bootstrap.PREFIX)]
    assert not [name for name, _ in seen.headers if name in ("x-forwarded-for", "x-envoy-external-address")]


@pytest.mark.parametrize(("path", "seen"), [("/a/../json", "/json"), ("//json", "/json"), ("/%6Ason", "/json")])
def test_a_path_has_one_meaning(shape: Shape, path: str, seen: str) -> None:
    shape.script()
    assert raw_status(shape, path) == 200
    assert dict(codec.headers(shape.processor.messages[0].request_headers.headers))[":path"] == seen
    assert shape.upstream.seen[0].path == seen


@pytest.mark.parametrize("path", ["/a%2f..%2fjson", "/a%5Cjson"])
def test_a_path_that_could_be_two_is_refused(shape: Shape, path: str) -> None:
    """The first that policyd hears of it is the refusal, whole in its headers."""
    shape.script()
    assert raw_status(shape, path) == 400
    assert [message.response_headers.end_of_stream for message in shape.processor.messages] == [True]
    assert shape.processor.kinds == ["response_headers"]


def raw_status(shape: Shape, path: str) -> int:
    """Asks without a client that would tidy up the path."""

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", shape.envoy.port)
        writer.write(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path.encode())
        line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    return shape.background.run(ask())


def test_what_was_decided_stands_in_the_access_log(shape: Shape) -> None:
    ending = pb.ProcessingResponse.FromString(ENDING[0].SerializeToString())
    codec.attach(ending, {"decision": "of-the-cut", "verdict": "terminate"})
    shape.script(response_headers=STREAMED, response_body=cut_at(2, ending))
    shape.ask("/stream?13")
    refusal = codec.reject(REFUSAL)
    codec.attach(refusal, {"decision": "of-the-refusal"})
    shape.script(request_headers=[refusal])
    shape.ask("/json?refused")
    cut = shape.envoy.access_log("/stream", decision="of-the-cut")
    refused = shape.envoy.access_log("/json", decision="of-the-refusal")
    assert (cut["decision"], cut["verdict"], cut["status"]) == ("of-the-cut", "terminate", 200)
    assert (refused["decision"], refused["details"], refused["status"]) == ("of-the-refusal", "policyd", 429)


def test_no_query_stands_in_the_access_log(shape: Shape) -> None:
    """It may hold a credential, also where policyd refuses the call or rewrites the path."""
    shape.script()
    shape.ask("/json?key=sk-in-the-query")
    shape.script(request_headers=[codec.reject(REFUSAL)])
    shape.ask("/json?key=sk-in-the-query")
    shape.envoy.access_log("/json", status=429)
    assert "sk-in-the-query" not in shape.envoy.log.read_text()


# ---- without policyd -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
def test_a_call_without_policyd(version: str, fail_open: bool, tmp_path: Path) -> None:
    """Failing open, the caller still cannot choose the upstream."""
    with shaped(version, tmp_path, extproc=free_port(), fail_open=fail_open) as shape:
        answer = shape.ask("/json", headers={config.UPSTREAM_HEADER: "b"})
        assert answer.status_code == (200 if fail_open else 503)
        assert (len(shape.upstream.seen), len(shape.other.seen)) == (int(fail_open), 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_bodies_up_to_the_limit_are_read(version: str, tmp_path: Path) -> None:
    """An HTTP/2 stream's window is its buffer: it must hold as much as HTTP/1.1's."""
    limit = 20 << 20  # above every default of Envoy's
    with shaped(version, tmp_path, max_request=limit) as shape:
        for http in (HTTP1, HTTP2):
            shape.script(request_headers=READ_BODY, request_body=[codec.reject(REFUSAL)])
            answer = shape.ask("/json", method="POST", http=http, content=b"x" * limit)
            assert answer.status_code == 429
            assert len(shape.processor.messages[1].request_body.body) == limit
