"""The webhook's HTTPS against whoever connects: whatever comes is answered or let go, and the next is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from policyd.adapters.envoy.config import Address
from policyd.adapters.errors import UnreadableInput
from policyd.adapters.policies_kube.access import Access
from policyd.adapters.policies_kube.api import Api
from policyd.adapters.tls_files import TlsFiles
from policyd.operator import webhook as module
from policyd.operator.webhook import LARGEST, Webhook
from tests.certificates import Authority, replace

NAME = "policyd-webhook.policyd.svc"


def review(when: str = "true", **request: Any) -> dict[str, Any]:
    spec = {"mode": "Full", "rules": [{"name": "stop", "when": when, "terminate": {}}]}
    made = {"apiVersion": "policyd.dev/v1alpha1", "kind": "LLMPolicy", "metadata": {"name": "p", "namespace": "n"}}
    asked = {"uid": "u", "operation": "CREATE", "object": {**made, "spec": spec}, **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}


def posted(body: bytes, *, length: int | None = None, path: str = "/validate") -> bytes:
    size = len(body) if length is None else length
    return f"POST {path}?timeout=2s HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body


GOOD = posted(json.dumps(review()).encode())
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


@contextlib.asynccontextmanager
async def serving(folder: Path, authority: Authority, **more: Any) -> AsyncIterator[Webhook]:
    cert, key = authority.certify(NAME).put(folder)
    api = Api(Access("https://127.0.0.1:9", None, "policyd"))
    one = Webhook(Address("127.0.0.1", 0), api, lambda _: [], TlsFiles(cert, key), **more)
    async with one.serving():
        yield one
    await api.close()


async def told(one: Webhook, authority: Authority, data: bytes) -> tuple[int, bytes]:
    """Status and body; 0 when there was no answer."""
    tls = ssl.create_default_context(cadata=authority.pem.decode())
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=tls, server_hostname=NAME)
    try:
        writer.write(data)
        writer.write_eof() if writer.can_write_eof() else None
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return (int(head.split()[1]), body) if head else (0, b"")
    except (ConnectionError, ssl.SSLError):
        return 0, b""
    finally:
        writer.close()


def play(
    folder: Path,
    story: Callable[[Webhook, Callable[[bytes], Awaitable[tuple[int, bytes]]]], Awaitable[None]],
    **more: Any,
) -> None:
    authority = Authority()

    async def whole() -> None:
        async with serving(folder, authority, **more) as one:
            await story(one, lambda data: told(one, authority, data))

    asyncio.run(whole())


def as_json(document: object) -> bytes:
    return posted(json.dumps(document).encode())


ODD = {
    "another path": (posted(b"{}", path="/"), 404, b"/validate"),
    "another method": (b"GET /validate HTTP/1.1\r\n\r\n", 405, b"POST"),
    "no length": (b"POST /validate HTTP/1.1\r\nHost: x\r\n\r\n{}", 411, b"content-length"),
    "chunked": (b"POST /validate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, b"content-length"),
    "a negative length": (posted(b"", length=-1), 411, b"content-length"),
    "too large": (posted(b"", length=LARGEST + 1), 413, b"8 MiB"),
    "far too large": (posted(b"", length=10**15), 413, b"8 MiB"),
    "no HTTP": (b"\x00\x01\x02\r\n\r\n", 400, b"HTTP/1"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, b"HTTP/1"),
    "no body": (posted(b""), 400, b"no JSON"),
    "no JSON": (posted(b"\xff\xfe"), 400, b"no JSON"),
    "a list": (posted(b"[]"), 400, b"no AdmissionReview"),
    "nothing": (posted(b"null"), 400, b"no AdmissionReview"),
    "deep": (posted(DEEP), 400, b"no AdmissionReview"),
    "another kind": (as_json({"kind": "Pod"}), 400, b"no AdmissionReview"),
    "v1beta1": (as_json({**review(), "apiVersion": "admission.k8s.io/v1beta1"}), 400, b"admission.k8s.io/v1 "),
    "no request": (as_json({**review(), "request": None}), 400, b"`request`"),
    "no uid": (as_json(review(uid="")), 400, b"uid"),
    "no object": (as_json(review(object=None)), 400, b"`object`"),
    "a pod": (
        as_json(review(object={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})),
        400,
        b"no policy",
    ),
    "no name": (as_json(review(object={**review()["request"]["object"], "metadata": {}})), 400, b"no policy"),
    "a spec that is text": (as_json(review(object={**review()["request"]["object"], "spec": "x"})), 400, b"no policy"),
    "half a body": (posted(b"{", length=9), 0, b""),
    "half a head": (b"POST /validate HTTP", 0, b""),
    "an endless head": (b"POST /validate HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 0, b""),
}


def test_whatever_comes_the_next_review_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.4)
    got: dict[str, tuple[int, bytes]] = {}

    async def story(one: Webhook, ask: Callable[[bytes], Awaitable[tuple[int, bytes]]]) -> None:
        for name, (data, *_) in ODD.items():
            got[name] = await ask(data)
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"no TLS at all")
        assert not one._gate.locked()
        status, body = await ask(GOOD)
        writer.close()
        assert status == 200
        assert json.loads(body)["response"] == {"uid": "u", "allowed": True}

    play(tmp_path, story)
    wrong = {
        name: got[name]
        for name, (_, status, words) in ODD.items()
        if got[name][0] != status or words not in got[name][1] or b"Traceback" in got[name][1]
    }
    assert wrong == {}


def test_those_who_connect_and_say_nothing_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "MOST_OPEN", 4)

    async def story(one: Webhook, ask: Callable[[bytes], Awaitable[tuple[int, bytes]]]) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(12)]
        assert (await ask(GOOD))[0] == 200
        assert len(one._open) <= 4
        for _, writer in silent:
            writer.close()

    play(tmp_path, story)


def test_who_is_late_is_let_pass_with_a_word_and_blocks_nobody(tmp_path: Path) -> None:
    freed = threading.Event()

    def slow(asked: module.Asked, _: module.Beside) -> module.Object:
        freed.wait(10)
        return module.unjudged(asked)

    async def story(_: Webhook, ask: Callable[[bytes], Awaitable[tuple[int, bytes]]]) -> None:
        for status, body in await asyncio.gather(*(ask(GOOD) for _ in range(20))):
            assert status == 200
            response = json.loads(body)["response"]
            assert response["allowed"] is True
            assert "no time" in response["warnings"][0]
        freed.set()

    play(tmp_path, story, judge=slow, judged_s=0.05)


def test_a_judge_that_fails_is_said_and_the_server_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> module.Object:
        raise RuntimeError("nobody foresaw this")

    async def story(_: Webhook, ask: Callable[[bytes], Awaitable[tuple[int, bytes]]]) -> None:
        assert await ask(GOOD) == (500, b"the review failed\n")
        assert (await ask(posted(b"{}")))[0] == 400

    play(tmp_path, story, judge=broken)
    assert "could not be answered" in caplog.text


def test_certificates_from_files_are_followed(tmp_path: Path) -> None:
    authority, next_one = Authority("one"), Authority("two")

    async def story() -> None:
        async with serving(tmp_path, authority) as one:
            assert (await told(one, authority, GOOD))[0] == 200
            fresh = next_one.certify(NAME)
            fresh.put(tmp_path)
            await one._certificate.look()
            assert (await told(one, next_one, GOOD))[0] == 200
            with pytest.raises(ssl.SSLCertVerificationError):
                await told(one, authority, GOOD)
            replace(tmp_path / "tls.key", b"no key")
            await one._certificate.look()
            assert "tls.key" in one.failure
            assert (await told(one, next_one, GOOD))[0] == 200

    asyncio.run(story())


def test_certificates_that_are_no_good_end_the_start(tmp_path: Path) -> None:
    for name in "ck":
        replace(tmp_path / name, b"")
    one = Webhook(
        Address("127.0.0.1", 0),
        Api(Access("http://x", None, "n")),
        lambda _: [],
        TlsFiles(tmp_path / "c", tmp_path / "k"),
    )

    async def story() -> None:
        async with one.serving():
            pass

    with pytest.raises(UnreadableInput, match="no certificate"):
        asyncio.run(story())
