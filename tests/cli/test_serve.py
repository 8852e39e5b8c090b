"""The options of `policyd serve`: from the command line, from a file, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from policyd.adapters.envoy.config import EXTPROC_CLUSTER, Address, addresses
from policyd.cli import main as root
from policyd.cli import serve as command
from policyd.core.model.decision import Mode
from policyd.server import plane, supervisor
from policyd.server.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    seen: list[Settings] = []
    monkeypatch.setattr(plane, "serve", seen.append)
    monkeypatch.setattr(supervisor, "supervise", lambda settings: seen.append(settings) or 0)
    monkeypatch.setattr(command.logging, "basicConfig", lambda **_: None)
    return seen


def serve(*args: str | Path) -> object:
    with pytest.raises(SystemExit) as left:
        root.main(["serve", *map(str, args)])
    return left.value.code


def test_the_defaults(started: list[Settings]) -> None:
    assert serve("--policies", "p") == 0
    (settings,) = started
    assert settings.policies == (Path("p"),)
    assert settings.listen == Address(path="./policyd.sock")
    assert settings.options.mode is Mode.FULL
    assert settings.options.identity == "headers"
    assert settings.options.max_request == 32 * 1024 * 1024
    assert not settings.options.observe_all
    assert (settings.records, settings.capture, settings.admin) == (None, None, None)
    assert not settings.allow_empty


def test_every_option_arrives(started: list[Settings]) -> None:
    args = (
        "--policies a --policies b --listen [::1]:1234 --mode monitor --identity metadata:envoy.jwt --namespace agents "
        "--records r --capture c --prices f --max-request 4096 --admin 127.0.0.1:9901 --drain-seconds 2.5 --state s "
        "--workers 1 --allow-empty"
    )
    assert serve(*args.split()) == 0
    (settings,) = started
    assert settings.policies == (Path("a"), Path("b"))
    assert settings.listen == Address("::1", 1234)
    options = settings.options
    assert (options.mode, options.identity, options.namespace) == (Mode.MONITOR, "metadata:envoy.jwt", "agents")
    assert (options.max_request, options.observe_all) == (4096, True)
    assert (settings.records, settings.capture, settings.prices) == (Path("r"), Path("c"), Path("f"))
    assert (settings.admin, settings.drain_s) == (Address("127.0.0.1", 9901), 2.5)
    assert settings.allow_empty


TLS = "--tls-cert tls.crt --tls-key tls.key"


def test_tls_is_what_four_options_say(started: list[Settings]) -> None:
    sans = "--tls-client-san spiffe://td/ns/*/sa/envoy --tls-client-san Envoy.svc"
    args = f"--policies p --listen 0.0.0.0:1 {TLS} --tls-client-ca ca.crt {sans} --tls-renew-seconds 60"
    assert serve(*args.split()) == 0
    tls = started[0].tls
    assert tls
    assert [file.name for file in tls.files.all] == ["tls.crt", "tls.key", "ca.crt"]
    assert [name.text for name in tls.clients] == ["spiffe://td/ns/*/sa/envoy", "envoy.svc"]
    assert tls.renewed_s == 60


def test_tls_from_a_file(started: list[Settings], tmp_path: Path) -> None:
    text = "policies: a\nlisten: 0.0.0.0:1\ntls-cert: c\ntls-key: k\ntls-client-ca: a\ntls-client-san: [a.svc, b.svc]\n"
    (tmp_path / "o.yaml").write_text(text)
    assert serve("--config", tmp_path / "o.yaml") == 0
    assert started[0].tls and [name.text for name in started[0].tls.clients] == ["a.svc", "b.svc"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--listen 0.0.0.0:1", "whoever reaches it is answered, and may read along"),
        ("--listen [::]:1", "--listen [::]:1: whoever reaches it"),
        ("--listen policyd.svc:1", "may read along"),
        (f"--listen 0.0.0.0:1 {TLS}", "--tls-client-ca says whose"),
        (f"--listen 0.0.0.0:1 {TLS} --tls-client-ca ca", "--tls-client-san names those that may"),
        (f"--listen 0.0.0.0:1 {TLS} --tls-client-ca ca --tls-client-san a.svc", ""),
        ("--listen 127.0.0.1:1", ""),
        ("--listen [::1]:1", ""),
        ("--listen localhost:1", ""),
        ("--listen unix:p", ""),
    ],
)
def test_an_open_door_is_pointed_out(
    started: list[Settings], caplog: pytest.LogCaptureFixture, args: str, words: str
) -> None:
    assert serve("--policies", "p", "--identity", "metadata:jwt", *args.split()) == 0
    said = [record.getMessage() for record in caplog.records]
    assert len(started) == 1
    assert words in said[0] if words else said == [], said


def test_workers_are_supervised(started: list[Settings]) -> None:
    args = "--policies p --workers 3 --redis unix:///r.sock --listen 127.0.0.1:7000 --admin 127.0.0.1:7003"
    assert serve(*args.split()) == 0
    assert (started[0].workers, started[0].redis) == (3, "unix:///r.sock")


def test_the_two_commands_of_the_documents_agree_on_the_addresses(
    started: list[Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    ours, envoys = (line.split()[1:] for line in page.split("```sh\n")[1].split("```")[0].splitlines())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    for args in (ours, envoys):
        with pytest.raises(SystemExit) as left:
            root.main(args)
        assert left.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    (policyd,) = (each for each in config["static_resources"]["clusters"] if each["name"] == EXTPROC_CLUSTER)
    endpoints = policyd["load_assignment"]["endpoints"][0]["lb_endpoints"]
    found = [Address(path=each["endpoint"]["address"]["pipe"]["path"]) for each in endpoints]
    assert found == list(addresses(started[0].listen, started[0].workers))
    assert [str(address) for address in found] == ["unix:./policyd.sock", "unix:./policyd.sock.1"]


def test_the_commands_of_the_page_about_tls_agree(
    started: list[Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
    ours, *envoys = (line.split()[1:] for line in page.split("```sh\n")[1].split("```")[0].splitlines())
    monkeypatch.chdir(tmp_path)
    for folder in ("policies", "sds"):
        (tmp_path / folder).mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    assert serve(*ours[1:]) == 0
    tls = started[0].tls
    assert tls and [name.text for name in tls.clients] == ["spiffe://cluster.local/policyd/envoy"]
    made = {}
    for *words, _, file in envoys:
        with pytest.raises(SystemExit) as left:
            root.main(words)
        assert left.value.code == 0
        made[file] = yaml.safe_load(capsys.readouterr().out)
    (cluster,) = (one for one in made["envoy.yaml"]["static_resources"]["clusters"] if one["name"] == EXTPROC_CLUSTER)
    common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    (own,) = common["tls_certificate_sds_secret_configs"]
    asked = [own, common["combined_validation_context"]["validation_context_sds_secret_config"]]
    paths = [one["sds_config"]["path_config_source"]["path"] for one in asked]
    assert paths == [f"/{file}" for file in made if file.startswith("sds/")]
    assert [made[path.removeprefix("/")]["resources"][0]["name"] for path in paths] == [one["name"] for one in asked]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.yaml", "policies: [a, b]\nlisten: 127.0.0.1:77\nmax-request: 4096\nmode: Soft\n"),
        ("o.toml", 'policies = ["a", "b"]\nlisten = "127.0.0.1:77"\nmax_request = 4096\nmode = "soft"\n'),
    ],
)
def test_a_file_gives_defaults_and_the_command_line_wins(
    started: list[Settings], tmp_path: Path, name: str, text: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert serve("--config", file) == 0
    assert serve("--config", file, "--policies", "c", "--max-request", "8192") == 0
    first, second = started
    assert (first.policies, second.policies) == ((Path("a"), Path("b")), (Path("c"),))
    assert first.listen == second.listen == Address("127.0.0.1", 77)
    assert (first.options.max_request, second.options.max_request) == (4096, 8192)
    assert first.options.mode is Mode.SOFT


def test_one_policy_path_needs_no_list(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("policies: a\n")
    assert serve("--config", tmp_path / "o.yaml") == 0
    assert started[0].policies == (Path("a"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("polices: a\n", "unknown option `polices`"),
        ("policies: {a: b}\n", "`policies`: expected a text or a number"),
        ("policies: a\nmode: [Soft, Full]\n", "`mode`: expected one value"),
        ("[a]\n", "expected options by name"),
        ("policies: [\n", "broken:"),
        ("config: other\n", "unknown option `config`"),
    ],
)
def test_a_file_of_options_that_says_nothing_is_refused(
    started: list[Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "o.yaml").write_text(text)
    assert serve("--config", tmp_path / "o.yaml") == root.USAGE
    error = capsys.readouterr().err
    assert words in error
    assert "o.yaml" in error
    assert started == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ("", root.USAGE, "--policies"),
        ("--policies p --listen nowhere", root.USAGE, "HOST:PORT"),
        ("--policies p --listen unix:", root.USAGE, "unix:PATH"),
        ("--policies p --admin unix:x", root.USAGE, "HOST:PORT"),
        ("--policies p --mode Loud", root.USAGE, "Loud"),
        ("--policies p --identity jwt", root.USAGE, "metadata:NAMESPACE"),
        ("--policies p --identity metadata:", root.USAGE, "metadata:NAMESPACE"),
        ("--policies p --identity metadata:ns,user=sub,user=name", root.USAGE, "mapped twice"),
        ("--policies p --identity metadata:ns,group=sub", root.USAGE, "no field of an identity"),
        ("--policies p --identity headers:user", root.USAGE, "FIELD=NAME"),
        ("--policies p --max-request 5", root.USAGE, "1024"),
        ("--policies p --workers 0", root.USAGE, "--workers"),
        ("--policies p --config none.yaml", root.USAGE, "none.yaml: no such file"),
        ("--policies p --redis localhost:6379", root.USAGE, "--redis"),
        ("--policies p --workers 2", root.UNAVAILABLE, "needs --redis"),
        ("--policies p --workers -2", root.USAGE, "--workers"),
        ("--policies p --workers two", root.USAGE, "--workers"),
        ("--policies p --workers 2.5", root.USAGE, "--workers"),
        ("--policies p --workers 257 --redis unix:///r", root.USAGE, "256"),
        ("--policies p --workers 3 --redis unix:///r --listen [::1]:65534", root.USAGE, "65536"),
        ("--policies p --workers 3 --redis unix:///r --listen 0.0.0.0:7000 --admin 127.0.0.1:7002", root.USAGE, "7002"),
        ("--policies p --listen 127.0.0.1:7000 --admin 127.0.0.1:7000", root.USAGE, "a worker listens on"),
        ("--policies p --listen [::]:1 --tls-cert c", root.USAGE, "TLS needs --tls-cert and --tls-key"),
        ("--policies p --listen [::]:1 --tls-key k", root.USAGE, "TLS needs"),
        ("--policies p --listen [::]:1 --tls-client-ca a", root.USAGE, "TLS needs"),
        ("--policies p --listen [::]:1 --tls-client-san a", root.USAGE, "TLS needs"),
        (f"--policies p {TLS}", root.USAGE, "a unix socket has no TLS"),
        (f"--policies p --listen [::]:1 {TLS} --tls-client-san a", root.USAGE, "--tls-client-ca"),
        (f"--policies p --listen [::]:1 {TLS} --tls-client-ca a --tls-client-san a*", root.USAGE, "is no name in"),
    ],
)
def test_what_is_wrong_is_said(
    started: list[Settings], capsys: pytest.CaptureFixture[str], args: str, code: int, words: str
) -> None:
    assert serve(*args.split()) == code
    assert words in capsys.readouterr().err
    assert started == []


POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: p, namespace: tests}
spec: {mode: Full, rules: [{name: r, when: request.model == "m", terminate: {}}]}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_drains_and_leaves_with_0(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    args = ["--policies", "p.yaml", "--listen", "unix:p.sock", "--records", "records", "--capture", "capture"]
    command = [sys.executable, "-m", "policyd", "serve", *args]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "listening on unix:p.sock" in line:
                process.send_signal(number)
    assert process.returncode == 0
    log = "".join(said)
    for words in ("in force: 1 policies", "identity is read from request headers", "prompts and answers", "stopped"):
        assert words in log
    assert "Traceback" not in log
    assert not (tmp_path / "p.sock").exists()
    assert [file.read_text() for file in (*(tmp_path / "records").iterdir(), *(tmp_path / "capture").iterdir())] == [
        "",
        "",
    ]


def test_certificates_that_are_not_there_end_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    args = f"--policies p.yaml --listen 127.0.0.1:1 {TLS}"
    command = [sys.executable, "-m", "policyd", "serve", *args.split()]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == root.USAGE
    assert f"policyd: {tmp_path}/tls.crt: no such file or directory" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_bad_policy_ends_the_start_with_its_issues(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY.replace("request.model", "requst.model"))
    command = [sys.executable, "-m", "policyd", "serve", "--policies", "p.yaml", "--listen", "unix:p.sock"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == root.FINDINGS
    assert "p.yaml:5:" in told.stderr
    assert "Traceback" not in told.stderr
