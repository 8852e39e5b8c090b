"""Several workers under one supervisor, as real processes: started, asked, changed, killed, frozen, told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest

from policyd.adapters.admin import METRICS, Answer, text
from policyd.adapters.envoy.config import Address
from policyd.adapters.envoy.health import SERVING
from policyd.adapters.envoy.names import parse_name
from policyd.adapters.tls_files import TlsFiles
from policyd.cli import main as root
from policyd.core.model.decision import Mode
from policyd.core.model.options import Options
from policyd.server import gathered
from policyd.server.gathered import Told
from policyd.server.link import Order, send_order, take_order
from policyd.server.settings import Settings, Tls
from policyd.server.supervisor import Supervisor, next_pause
from tests.certificates import Authority, replace
from tests.envoy.harness import a_moment, free_port

NOWHERE = "redis://127.0.0.1:1"  # nothing listens there: it serves all the same
POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: p, namespace: agents}
spec: {mode: Full, rules: [{name: r, when: request.model == "MODEL", terminate: {}}]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    return tmp_path


def supervisor(**changes: object) -> Supervisor:
    given = {
        "policies": (Path("policies"),),
        "listen": Address(path="./p.sock"),
        "options": Options(),
        "drain_s": 5.0,
        "redis": NOWHERE,
        "workers": 2,
    }
    return Supervisor(Settings(**{**given, **changes}))  # type: ignore[arg-type]


def running(one: Supervisor, story: Callable[[], Awaitable[None]]) -> int:
    """Plays a story when all workers are ready, then stops them; gives the exit code."""

    async def play() -> int:
        task = asyncio.create_task(one.run())
        try:
            await until(one, lambda page: page.status == HTTPStatus.OK)
            await story()
        finally:
            one.stop()
            code = await asyncio.wait_for(task, 30)
        return code

    return asyncio.run(play())


async def until(one: Supervisor, true: Callable[[Answer], bool], path: str = "/readyz") -> Answer:
    """The page, once it is so: each look waits for the workers' answers."""
    pages = {"/readyz": one._readiness, "/metrics": one._metrics}
    async with asyncio.timeout(30):
        while not true(page := await pages[path]()):
            await asyncio.to_thread(a_moment)
    return page


def in_force(page: Answer) -> set[str]:
    """The policy sets of all workers."""
    return {line.split(": ", 1)[1] for line in page.body.decode().splitlines() if "policy set" in line}


async def health(address: Address) -> bytes:
    async with grpc.aio.insecure_channel(str(address)) as channel:
        answer: bytes = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        return answer


def test_workers_serve_as_one(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = supervisor(records=Path("records"), capture=Path("capture"), state=Path("state"), drain_s=0.5)
    one.grace_s = 2.0
    first: list[int] = []

    async def story() -> None:
        first.extend(worker.process.pid for worker in one._workers.values())
        for address in (Address(path="./p.sock"), Address(path="./p.sock.1")):
            assert await health(address) == SERVING
        for name in ("records", "capture", "state"):
            assert len({*(folder / name).iterdir()}) == 2, "each worker has a file of its own"
        await _reloaded()
        await _killed()
        await _frozen()

    async def _reloaded() -> None:
        before = in_force(await one._readiness())
        (folder / "draft").write_text(POLICY.replace("MODEL", "o3"))
        (folder / "draft").replace(folder / "policies" / "p.yaml")

        def everywhere(page: Answer) -> bool:
            return len(in_force(page)) == 1 and in_force(page) != before

        assert len(before) == 1
        await until(one, everywhere)

    async def _killed() -> None:
        os.kill(first[0], signal.SIGKILL)
        await until(one, lambda page: page.status != HTTPStatus.OK)
        await until(one, lambda page: page.status == HTTPStatus.OK)
        assert one._workers[0].process.pid != first[0]
        assert one._workers[1].process.pid == first[1]
        assert await health(Address(path="./p.sock")) == SERVING
        page = (await one._metrics()).body.decode()
        assert 'policyd_worker_replaced_total{worker="0"} 1\n' in page
        assert 'policyd_worker_replaced_total{worker="1"} 0\n' in page
        assert page.count("# TYPE policyd_open_calls gauge\n") == 1
        ready = (await one._readiness()).body.decode()
        for number in "01":
            assert f"worker {number}: redis: 127.0.0.1:1: redis is away\n" in ready
            assert f'policyd_redis_up{{worker="{number}"}} 0.0\n' in page
            assert f'policyd_open_calls{{worker="{number}"}} 0.0\n' in page

    async def _frozen() -> None:
        os.kill(first[1], signal.SIGSTOP)
        page = await until(one, lambda page: page.status != HTTPStatus.OK)
        assert page.body.decode().endswith("worker 1: does not answer\n")

    assert running(one, story) == 0
    assert [worker.process.returncode for worker in one._workers.values()] == [0, -signal.SIGKILL]
    assert "worker 1 has not drained in time: killed" in caplog.text
    assert [path.name for path in folder.glob("p.sock*")] == ["p.sock.1"], "left by the one that was killed"
    assert len([*(folder / "state").iterdir()]) == 1


# ---- the command -----------------------------------------------------------------------------------------------------


def command(*args: str) -> list[str]:
    own = ("--policies", "policies", "--workers", "2", "--redis", NOWHERE, "--listen", "unix:p.sock")
    return [sys.executable, "-m", "policyd", "serve", *own, *args]


def logged(process: subprocess.Popen[str], words: str) -> list[str]:
    """The log up to the line with these words."""
    assert process.stderr
    said: list[str] = []
    while not (said and words in said[-1]):
        said.append(process.stderr.readline())
        assert said[-1], "".join(said)
    return said


def test_told_to_stop_they_all_drain(folder: Path) -> None:
    with subprocess.Popen(command("--drain-seconds", "20"), cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        said = logged(process, "2 workers serve")
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said += process.stderr.readlines()
    assert process.returncode == 0
    log = "".join(said)
    for words in ("worker 0: listening on unix:p.sock\n", "worker 1: listening on unix:p.sock.1\n"):
        assert words in log
    assert log.count(": stopped") == 2 and log.index("all workers stopped") > log.rindex(": stopped")
    assert "Traceback" not in log


def test_workers_whose_supervisor_died_end_too(folder: Path) -> None:
    with subprocess.Popen(command(), cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        logged(process, "2 workers serve")
        process.kill()
        assert process.stderr
        left = process.stderr.read()  # to its end: nobody has it open any more
    assert left.count("the supervisor is gone") == 2 and left.count(": stopped") == 2
    assert not [*folder.glob("p.sock*")]


def test_a_bad_policy_is_said_once_and_ends_the_start(folder: Path) -> None:
    (folder / "policies" / "p.yaml").write_text(POLICY.replace("request.model", "requst.model"))
    told = subprocess.run(command(), cwd=folder, capture_output=True, text=True, check=False)
    assert told.returncode == root.FINDINGS
    assert told.stderr.count("p.yaml:5:") == 1
    assert "worker 0 could not start (exit code 1): none serves" in told.stderr
    assert "Traceback" not in told.stderr


def test_certificates_that_do_not_fit_are_said_once_and_end_the_start(folder: Path) -> None:
    Authority().certify("a.svc").put(folder)
    replace(folder / "tls.key", Authority().certify("a.svc").key)
    options = ("--listen", f"127.0.0.1:{free_port()}", "--tls-cert", "tls.crt", "--tls-key", "tls.key")
    told = subprocess.run(command(*options), cwd=folder, capture_output=True, text=True, check=False)
    assert told.returncode == root.USAGE, told.stderr
    assert told.stderr.count("is not the key of") == 1
    assert "Traceback" not in told.stderr


def test_an_address_in_use_ends_them_all(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("p.sock.1")
        other.listen()
        told = subprocess.run(command(), cwd=folder, capture_output=True, text=True, check=False)
    assert told.returncode == root.UNAVAILABLE
    assert "p.sock.1: another process listens there" in told.stderr
    assert "worker 1 could not start" in told.stderr
    assert not (folder / "p.sock").exists()


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_a_worker_is_told_all_that_the_command_was_told() -> None:
    options = Options(
        mode=Mode.SOFT, identity="metadata:jwt", namespace="n", max_request=4096, observe_all=True, lease_s=15
    )
    places = [Path(name) for name in ("records", "capture", "prices", "state")]
    settings = Settings(
        policies=(Path("a"), Path("b")),
        listen=Address("::1", 7000),
        options=options,
        records=places[0],
        capture=places[1],
        prices=places[2],
        admin=Address("127.0.0.1", 9901),
        drain_s=2.5,
        redis="redis://:secret@127.0.0.1:1",
        state=places[3],
        workers=3,
        allow_empty=True,
        tls=Tls(TlsFiles(Path("c"), Path("k"), Path("a")), (parse_name("spiffe://td/a"), parse_name("a.svc")), 5.0),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_order(ours, Order(2, settings))
        assert take_order(theirs) == Order(2, settings)


def test_a_worker_that_keeps_dying_is_waited_for_longer_and_longer() -> None:
    pauses = [0.0]
    for _ in range(12):
        pauses.append(next_pause(pauses[-1], 1.0))
    assert pauses[1:4] == [0.1, 0.2, 0.4]
    assert pauses[-1] == 30.0
    assert next_pause(30.0, 3600.0) == 0.1


def page(*lines: str) -> Told:
    return Told(Answer(200, "".join(f"{line}\n" for line in lines).encode(), METRICS))


def test_pages_of_metrics_become_one_with_each_family_in_one_piece() -> None:
    head = ("# HELP a words", "# TYPE a counter")
    other = ("# HELP b words", "# TYPE b gauge")
    workers = (
        page(*head, 'a_total{x="} {"} 1.0', *other, "b 2.0"),
        Told(None, replaced=3),
        page(*head, 'a_total{x="y"} 4.0', *other, "b 5.0"),
    )
    lines = gathered.metrics(workers).body.decode().splitlines()
    assert lines[1:5] == [
        "# TYPE policyd_worker_up gauge",
        'policyd_worker_up{worker="0"} 1',
        'policyd_worker_up{worker="1"} 0',
        'policyd_worker_up{worker="2"} 1',
    ]
    assert 'policyd_worker_replaced_total{worker="1"} 3' in lines
    assert lines[-8:] == [
        *head,
        'a_total{x="} {",worker="0"} 1.0',
        'a_total{x="y",worker="2"} 4.0',
        *other,
        'b{worker="0"} 2.0',
        'b{worker="2"} 5.0',
    ]


@pytest.mark.parametrize(
    ("pages", "status"),
    [
        ((text(200, "ready"), text(200, "ready")), 200),
        ((text(200, "ready"), text(503, "draining")), 503),
        ((None, text(200, "ready")), 503),
    ],
)
def test_ready_means_all_of_them(pages: tuple[Answer | None, ...], status: int) -> None:
    assert gathered.ready([Told(each) for each in pages]).status == status
