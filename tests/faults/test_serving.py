"""A data plane that starts, is asked how it is, changes its policies and is told to stop; and one that cannot start."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from policyd.adapters.envoy.config import Address
from policyd.adapters.envoy.health import NOT_SERVING, SERVING
from policyd.adapters.errors import NotAvailable, UnreadableInput
from policyd.adapters.policies_dir import Reload
from policyd.core.errors import PolicyError
from policyd.core.model.options import Options
from policyd.server.plane import DataPlane
from policyd.server.settings import Settings

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"

POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: NAME, namespace: agents}
spec:
  mode: Full
  rules:
    - {name: r, when: request.model == "MODEL", terminate: {}}
"""


def policy(name: str = "p", model: str = "gpt-4o") -> str:
    return POLICY.replace("NAME", name).replace("MODEL", model)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(policy())
    return tmp_path


def settings(**changes: object) -> Settings:
    given = {"policies": (Path("policies"),), "listen": Address("127.0.0.1", 0), "options": Options(), "drain_s": 5.0}
    return Settings(**{**given, **changes})  # type: ignore[arg-type]


def running(plane: DataPlane, story: Callable[[], Awaitable[None]]) -> None:
    """Plays a story against a running plane, then stops it."""

    async def play() -> None:
        task = asyncio.create_task(plane.run())
        ready = asyncio.create_task(plane.ready.wait())
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED, timeout=20)
        try:
            if ready.done():
                await story()
        finally:
            ready.cancel()
            plane.stop()
            await asyncio.wait_for(task, 20)

    asyncio.run(play())


async def health(address: str) -> bytes:
    async with grpc.aio.insecure_channel(address) as channel:
        answer: bytes = await channel.unary_unary(CHECK)(b"", timeout=10)
        return answer


@pytest.mark.parametrize("listen", [Address("127.0.0.1", 0), Address(path="./policyd.sock")])
def test_it_serves_and_says_so(folder: Path, listen: Address) -> None:
    plane = DataPlane(settings(listen=listen))

    async def story() -> None:
        assert await health(plane.address) == SERVING
        if listen.path:
            mode = (folder / "policyd.sock").stat().st_mode
            assert stat.S_IMODE(mode) == 0o660
        assert plane._ready().status == 200
        assert b"policyd_policies 1.0" in plane._metrics().body

    running(plane, story)
    assert plane._ready().status == 503
    assert not (folder / "policyd.sock").exists()


@pytest.mark.usefixtures("folder")
def test_a_watch_is_told_when_it_drains() -> None:
    plane = DataPlane(settings())
    told: list[bytes] = []

    async def story() -> None:
        async with grpc.aio.insecure_channel(plane.address) as channel:
            async for status in channel.unary_stream(WATCH)(b"", timeout=20):
                told.append(status)
                if len(told) == 1:  # told a second time it would not wait for this watch
                    plane.stop()

    running(plane, story)
    assert told == [SERVING, NOT_SERVING]


def test_a_change_comes_into_force_and_a_bad_one_does_not(folder: Path) -> None:
    plane = DataPlane(settings())
    file = folder / "policies" / "p.yaml"
    reloads: asyncio.Queue[Reload] = asyncio.Queue()

    def report(reload: Reload) -> None:
        plane._reloaded(reload)
        reloads.put_nowait(reload)

    def write(text: str) -> None:
        (folder / "draft").write_text(text)
        (folder / "draft").replace(file)

    async def story() -> None:
        plane._directory.report = report
        first = plane._directory.current.digest
        write(policy(model="o3"))
        assert (await asyncio.wait_for(reloads.get(), 20)).result == "loaded"
        second = plane._directory.current.digest
        assert second != first
        write(policy().replace("request.model", "requst.model"))
        assert (await asyncio.wait_for(reloads.get(), 20)).result == "refused"
        assert plane._directory.current.digest == second
        assert b"changed policies refused" in plane._ready().body
        metrics = plane._metrics().body.decode()
        assert 'policyd_reload_total{result="loaded"} 1.0' in metrics
        assert 'policyd_reload_total{result="refused"} 1.0' in metrics
        assert f'policyd_policy_set_info{{digest="{second}"}} 1.0' in metrics

    running(plane, story)


@pytest.mark.usefixtures("folder")
def test_a_stale_socket_is_removed() -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind("./policyd.sock")
    plane = DataPlane(settings(listen=Address(path="./policyd.sock")))

    async def story() -> None:
        assert await health(plane.address) == SERVING

    running(plane, story)


def refused(error: type[Exception], words: str, **changes: object) -> None:
    with pytest.raises(error, match=words):
        asyncio.run(DataPlane(settings(**changes)).run())


def test_a_socket_in_use_is_left_alone(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("./policyd.sock")
        other.listen()
        refused(NotAvailable, "another process listens there", listen=Address(path="./policyd.sock"))
        assert (folder / "policyd.sock").exists()


def test_a_file_in_the_way_is_left_alone(folder: Path) -> None:
    (folder / "policyd.sock").write_text("precious")
    refused(NotAvailable, "no socket", listen=Address(path="./policyd.sock"))
    assert (folder / "policyd.sock").read_text() == "precious"


@pytest.mark.parametrize(("path", "words"), [("none/policyd.sock", "cannot listen"), ("x" * 108, "longer than 107")])
@pytest.mark.usefixtures("folder")
def test_a_socket_that_cannot_be_is_said(path: str, words: str) -> None:
    refused(NotAvailable, words, listen=Address(path=path))


@pytest.mark.usefixtures("folder")
def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused(NotAvailable, "address already in use", listen=Address("127.0.0.1", other.getsockname()[1]))


def test_a_bad_set_is_refused_at_start(folder: Path) -> None:
    (folder / "policies" / "q.yaml").write_text(policy("q").replace("request.model", "requst.model"))
    refused(PolicyError, "requst")


def test_policies_that_are_gone_stay_in_force_and_it_is_not_ready(folder: Path) -> None:
    plane = DataPlane(settings())
    file = folder / "policies" / "p.yaml"
    reloads: asyncio.Queue[Reload] = asyncio.Queue()

    def report(reload: Reload) -> None:
        plane._reloaded(reload)
        reloads.put_nowait(reload)

    async def story() -> None:
        plane._directory.report = report
        first = plane._directory.current
        file.unlink()
        assert (await asyncio.wait_for(reloads.get(), 20)).lost
        ready = plane._ready()
        assert (ready.status, plane._directory.current) == (503, first)
        assert ready.body.decode().startswith("not ready: policies: holds no policies")
        assert await health(plane.address) == SERVING, "calls that come are judged by the last good set"
        file.write_text(policy(model="o3"))
        assert (await asyncio.wait_for(reloads.get(), 20)).result == "loaded"
        assert plane._ready().status == 200

    running(plane, story)


def test_an_empty_folder_is_refused_at_start(folder: Path) -> None:
    (folder / "policies" / "p.yaml").unlink()
    refused(UnreadableInput, "holds no policies")


def test_an_empty_folder_may_be_meant(folder: Path) -> None:
    (folder / "policies" / "p.yaml").unlink()
    plane = DataPlane(settings(allow_empty=True))

    async def story() -> None:
        assert plane._ready().status == 200

    running(plane, story)


@pytest.mark.usefixtures("folder")
def test_missing_policies_are_refused_at_start() -> None:
    refused(UnreadableInput, "no such file", policies=(Path("none"),))


def test_records_that_cannot_be_written_are_refused_at_start(folder: Path) -> None:
    (folder / "file").write_text("")
    refused(UnreadableInput, "cannot be written", records=Path("file"))
