"""mTLS between real Envoys and policyd: who is let in, who is not and what its callers see, and certificates that
change on both sides under running streams."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from policyd.adapters.envoy.bootstrap import as_dict, bootstrap, render
from policyd.adapters.envoy.config import EXTPROC_CLUSTER, settings, tls_to_policyd
from policyd.adapters.envoy.tls_sockets import AUTHORITY, CERTIFICATE, authority_file, certificate_file
from policyd.cli.emulator import Emulator
from policyd.cli.emulator import running as emulating
from policyd.cli.stage import Stage
from tests.certificates import ENVOY, POLICYD, Authority, Certified, replace
from tests.envoy.asking import OPENAI, check_ended, steering
from tests.envoy.harness import VERSIONS, Envoy, free_port, running
from tests.envoy.stack import policy, stack

pytestmark = pytest.mark.envoy

CA, OTHER = Authority(), Authority("another authority")
JUDGED = """\
rules:
  - {name: seen, when: caller.team == "refused", terminate: {status: 418}}
  - {name: read, when: response.output_tokens > 100000, terminate: {}}
"""
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Files:
    """The certificates of both sides, in one folder."""

    folder: Path

    def ours(self, certified: Certified) -> None:
        certified.put(self.folder, "policyd")

    def envoys(self, certified: Certified) -> None:
        certified.put(self.folder, "envoy")

    def trust(self, *authorities: Authority) -> None:
        for side in ("clients", "servers"):
            replace(self.folder / f"{side}.crt", b"".join(one.pem for one in authorities))

    @property
    def serve(self) -> tuple[str, ...]:
        """How policyd is told of them."""
        files = {"cert": "policyd.crt", "key": "policyd.key", "client-ca": "clients.crt"}
        options = itertools.chain.from_iterable(
            (f"--tls-{name}", str(self.folder / one)) for name, one in files.items()
        )
        return (*options, "--tls-client-san", ENVOY)

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """How Envoy is told of them."""
        files = {"ca": "servers.crt", "cert": "envoy.crt", "key": "envoy.key", "sds": "sds"}
        options = itertools.chain.from_iterable(
            (f"--extproc-{name}", str(self.folder / one)) for name, one in files.items()
        )
        return (*options, "--extproc-san", POLICYD)

    def write_sds(self) -> None:
        sds, at = self.folder / "sds", f"{self.folder}/"
        sds.mkdir()
        (sds / f"{CERTIFICATE}.yaml").write_text(render(certificate_file(at + "envoy.crt", at + "envoy.key")))
        (sds / f"{AUTHORITY}.yaml").write_text(render(authority_file(at + "servers.crt")))


def files_in(folder: Path) -> Files:
    files = Files(folder)
    files.ours(CA.certify(POLICYD))
    files.envoys(CA.certify(ENVOY))
    files.trust(CA)
    files.write_sds()
    return files


@contextmanager
def guarded(files: Files, *serve: str, workers: int = 1) -> Iterator[Stage]:
    """policyd and an Envoy that speak mTLS by these files."""
    place = ("127.0.0.1:" + str(free_ports(workers)), "--workers", str(workers))
    nowhere = ("--redis", "redis://127.0.0.1:1") if workers > 1 else ()
    asked, told = ("--listen", *place, *files.serve, *serve, *nowhere), ("--extproc", *place, *files.bootstrap)
    with stack({"p.yaml": policy("p", JUDGED)}, serve=asked, bootstrap=told) as stage:
        yield stage


def free_ports(count: int) -> int:
    """The first of so many in a row."""
    while True:
        first = free_port()
        with ExitStack() as opened:
            try:
                for port in range(first, first + count):
                    opened.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first


# ---- who is let in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """What one Envoy listener knows and says of itself."""

    certified: Certified | None = None
    ca: Authority | None = CA
    san: str = POLICYD
    fail_open: bool = False
    sds: bool = False
    alpn: bool = True


RIGHT = CA.certify(ENVOY)
SIDES = {
    "right": Side(RIGHT),
    "by sds": Side(RIGHT, sds=True),
    "by a configuration that asks for no protocol, as Envoy Gateway's": Side(RIGHT, alpn=False),
    "no certificate": Side(),
    "one of another authority": Side(OTHER.certify(ENVOY)),
    "one that has ended": Side(CA.certify(ENVOY, days=-1)),
    "one of another name": Side(CA.certify(POLICYD)),
    "who expects another authority": Side(RIGHT, ca=OTHER),
    "who expects another name": Side(RIGHT, san="other.svc"),
    "plain": Side(ca=None),
    "no certificate, and fails open": Side(fail_open=True),
}
LET_IN = list(SIDES)[:3]
SAID = {  # by policyd: its log has the handshakes that failed
    "no certificate": "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    "one of another authority": "CERTIFICATE_VERIFY_FAILED",
    "one that has ended": "CERTIFICATE_VERIFY_FAILED",
    "plain": "WRONG_VERSION_NUMBER",
    "one of another name": f"its certificate names '{POLICYD}', --tls-client-san does not",
}
BY = {  # a word of the reason in Envoy's access log
    "one of another name": "ext_proc_error_gRPC_error_7{policyd:_--tls-client-san",
    "who expects another authority": "CERTIFICATE_VERIFY_FAILED",
    "who expects another name": "CERTIFICATE_VERIFY_FAILED",
}


def configuration(folder: Path, provider: str, place: str, ports: dict[str, int]) -> str:
    """One Envoy with a listener, and a cluster of its own for policyd, for each side."""
    listeners, clusters = [], {}
    for number, (name, side) in enumerate(SIDES.items()):
        whole = _one(folder / str(number), provider, place, ports[name], side)["static_resources"]
        (listener,) = whole["listeners"]
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        filters[0]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = f"policyd_{number}"
        listeners.append({**listener, "name": f"side_{number}"})
        for cluster in whole["clusters"]:
            called = f"policyd_{number}" if cluster["name"] == EXTPROC_CLUSTER else cluster["name"]
            clusters[called] = {**cluster, "name": called}
            clusters[called]["load_assignment"] = {**cluster["load_assignment"], "cluster_name": called}
    return str(yaml.safe_dump({"static_resources": {"listeners": listeners, "clusters": [*clusters.values()]}}))


def _one(folder: Path, provider: str, place: str, port: int, side: Side) -> dict[str, Any]:
    folder.mkdir()
    files = Files(folder)
    given: dict[str, Any] = {}
    if side.ca:
        files.trust(side.ca)
        given = {"ca": f"{folder}/servers.crt", "sans": (side.san,), "sds": f"{folder}/sds" if side.sds else ""}
    if side.certified:
        files.envoys(side.certified)
        given |= {"cert": f"{folder}/envoy.crt", "key": f"{folder}/envoy.key"}
    files.write_sds()
    wanted = settings(
        listener=f"127.0.0.1:{port}",
        upstreams=[f"openai={provider}"],
        extproc=place,
        fail_open=side.fail_open,
        extproc_tls=tls_to_policyd(**given),
    )
    made = as_dict(bootstrap(wanted))
    log = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    log[0]["typed_config"]["log_format"]["json_format"]["port"] = "%DOWNSTREAM_LOCAL_PORT%"
    if not side.alpn:
        del made["static_resources"]["clusters"][1]["transport_socket"]["typed_config"]["common_tls_context"][
            "alpn_protocols"
        ]
    return made


@dataclass
class Sides:
    """A running Envoy with a listener for each side."""

    envoy: Envoy
    provider: Emulator
    policyd: Stage
    ports: dict[str, int] = field(default_factory=dict)

    def log(self) -> str:
        return (self.policyd.folder / "policyd.log").read_text()

    def ask(self, name: str, team: str = "") -> httpx.Response:
        at = f"http://127.0.0.1:{self.ports[name]}/v1/chat/completions"
        return httpx.post(at, json=ASKED, headers=steering(team), timeout=20, verify=False)

    def reason(self, name: str) -> str:
        line = self.envoy.access_log("/v1/chat/completions", port=self.ports[name])
        return str(line["details"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One policyd of two workers for all versions; its own Envoy is the first that it lets in."""
    with guarded(files_in(tmp_path_factory.mktemp("tls")), workers=2) as stage:
        yield stage


def test_every_worker_speaks_it_and_envoy_asks_them_how_they_are(served: Stage) -> None:
    def stat(name: str) -> int:
        whole = f"cluster.{EXTPROC_CLUSTER}.{name}"
        return served.envoy_stats(f"^{whole}$").get(whole, 0)

    served.wait_until(lambda: stat("health_check.success") >= 2, "two checks")
    assert (stat("membership_healthy"), stat("health_check.failure")) == (2, 0)
    lines = [line for line in served.metrics().splitlines() if "policyd_tls_certificate_expires_seconds{" in line]
    assert len(lines) == 2
    for _ in range(8):
        answer = httpx.post(served.url + OPENAI.path, json=ASKED, headers=steering("refused"), verify=False)
        assert answer.status_code == 418


@pytest.fixture(scope="module", params=VERSIONS)
def sides(request: pytest.FixtureRequest, served: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("sides")
    listening = yaml.safe_load((served.folder / "envoy.yaml").read_text())["static_resources"]["clusters"][-1]
    address = listening["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    place = f"127.0.0.1:{address['port_value']}"
    with ExitStack() as opened:
        provider = Emulator("openai")
        opened.enter_context(emulating(provider))
        ports = {name: free_port() for name in SIDES}
        admin = "node: {id: a, cluster: a}\n"
        admin += "admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}\n"
        whole = configuration(folder, provider.url, place, ports)
        envoy = opened.enter_context(running(request.param, folder, lambda _, port: admin % port + whole))
        yield Sides(envoy, provider, served, ports)


@pytest.mark.parametrize("name", LET_IN)
def test_who_is_let_in_is_judged(sides: Sides, name: str) -> None:
    assert sides.ask(name).status_code == 200
    assert sides.ask(name, "refused").status_code == 418


@pytest.mark.parametrize("name", [name for name in SIDES if name not in LET_IN])
def test_who_is_not_let_in_fails_closed_unless_told_otherwise(sides: Sides, name: str) -> None:
    before = len(sides.provider.calls)
    answer = sides.ask(name, "refused")
    opened = SIDES[name].fail_open
    assert answer.status_code == (200 if opened else 503)
    assert len(sides.provider.calls) - before == int(opened)
    if not opened:
        reason = sides.reason(name)
        assert "ext_proc_error_gRPC_error" in reason and BY.get(name, "") in reason, reason
        assert SAID.get(name, "") in sides.log()


# ---- certificates that change ----------------------------------------------------------------------------------------

STREAMS, EVENTS, GAP_MS = 10, 40, 50  # of each Envoy


@dataclass
class Crowd:
    """Streams and short calls through one Envoy, one after another, until it is over."""

    url: str
    streams: list[httpx.Response] = field(default_factory=list)
    short: list[httpx.Response] = field(default_factory=list)

    async def run(self, over: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=30, verify=False) as client:
            lines = [self._line(client, self.streams, over, events=EVENTS, interval_ms=GAP_MS) for _ in range(STREAMS)]
            await asyncio.gather(*lines, self._line(client, self.short, over, events=3, interval_ms=1))

    async def _line(
        self, client: httpx.AsyncClient, answers: list[httpx.Response], over: asyncio.Event, **wishes: int
    ) -> None:
        while not over.is_set():
            at = self.url + OPENAI.path
            answers.append(await client.post(at, content=OPENAI.body(), headers=steering(**wishes)))


@dataclass
class Rotation:
    """One policyd, and Envoys of every version before it, whose certificates are all replaced."""

    stage: Stage
    envoys: list[Envoy]
    files: Files

    def handshakes(self) -> list[int]:
        name = f"cluster.{EXTPROC_CLUSTER}.ssl.handshake"
        return [
            stats(f"^{name}$").get(name, 0) for stats in (self.stage.envoy_stats, *(one.stats for one in self.envoys))
        ]

    def reloads(self) -> dict[str, int]:
        lines = [line for line in self.stage.metrics().splitlines() if line.startswith("policyd_tls_reload_total{")]
        return {line.split('"')[1]: int(float(line.split()[1])) for line in lines}

    def changed(self, what: str, result: str, before: dict[str, int]) -> None:
        """Waits until policyd has looked, and until every Envoy has come anew since."""
        self.stage.wait_until(lambda: self.reloads()[result] > before[result], what)
        shaken = self.handshakes()
        self.stage.wait_until(
            lambda: all(now > then for now, then in zip(self.handshakes(), shaken, strict=True)),
            f"every Envoy to come anew after {what}",
        )

    def run(self) -> None:
        """In the order in which it can be done; half a pair comes in between, and stays out."""
        new, before = OTHER.certify(POLICYD), self.reloads()
        self.files.trust(CA, OTHER)
        self.changed("both authorities", "loaded", before)
        replace(self.files.folder / "policyd.crt", new.cert)
        self.changed("half of a pair", "refused", before)
        before = self.reloads()
        self.files.ours(new)
        self.changed("policyd's certificate", "loaded", before)
        before = self.reloads()
        self.files.envoys(OTHER.certify(ENVOY))
        self.files.trust(OTHER)
        self.changed("the new authority alone", "loaded", before)

    async def under_load(self) -> list[Crowd]:
        crowds, over = [Crowd(one.url) for one in (self.stage, *self.envoys)], asyncio.Event()
        calls = asyncio.gather(*(crowd.run(over) for crowd in crowds))
        try:
            await asyncio.to_thread(self.run)
        finally:
            over.set()
            await calls
        return crowds


@contextmanager
def further_envoys(stage: Stage, folder: Path) -> Iterator[list[Envoy]]:
    """The same configuration, for the other versions."""
    text = (stage.folder / "envoy.yaml").read_text()

    def config(port: int, admin: int) -> str:
        moved = text.replace(f"port_value: {stage.listener}", f"port_value: {port}")
        return moved.replace(f"port_value: {stage.envoy_admin}", f"port_value: {admin}")

    with ExitStack() as opened:
        yield [opened.enter_context(running(version, folder / version, config)) for version in VERSIONS[:-1]]


def test_both_sides_change_under_running_streams(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    with guarded(files, "--tls-renew-seconds", "0.3") as stage, further_envoys(stage, tmp_path) as envoys:
        crowds = asyncio.run(Rotation(stage, envoys, files).under_load())
        logs = [log.read_text() for log in (stage.folder / "envoy.log", *(one.log for one in envoys))]
    for crowd, log in zip(crowds, logs, strict=True):
        answers = (*crowd.streams, *crowd.short)
        assert {answer.status_code for answer in answers} == {200}
        assert {check_ended(OPENAI, answer.content) for answer in answers} == {"stop"}
        assert len(crowd.streams) >= STREAMS and len(crowd.short) >= 10
        assert "ext_proc_error" not in log
