"""The Envoy configuration: what the options say, and that three Envoys take it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from policyd.adapters.envoy import bootstrap, config, tls_sockets
from policyd.adapters.envoy.config import Address, BadSetting, Upstream
from policyd.cli.main import main
from tests.envoy.harness import VERSIONS, validate

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "envoy").glob("*.yaml"))


def made(**options: Any) -> dict[str, Any]:
    return bootstrap.as_dict(bootstrap.bootstrap(config.settings(**options)))


def manager(whole: dict[str, Any]) -> dict[str, Any]:
    found = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert isinstance(found, dict)
    return found


def clusters(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in whole["static_resources"]["clusters"]}


def endpoints(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    found = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return [one["endpoint"]["address"] for one in found]


# ---- words -----------------------------------------------------------------------------------------------------------

ADDRESSES = {
    "127.0.0.1:80": Address("127.0.0.1", 80),
    "[::1]:80": Address("::1", 80),
    "policyd.svc:50051": Address("policyd.svc", 50051),
    "unix:/run/policyd.sock": Address(path="/run/policyd.sock"),
    "unix:./policyd.sock": Address(path="./policyd.sock"),
}
UPSTREAMS = {
    "a=https://api.openai.com": Upstream("a", "api.openai.com", 443, True),
    "a=https://api.openai.com/": Upstream("a", "api.openai.com", 443, True),
    "a=https://h:8443": Upstream("a", "h", 8443, True),
    "a-1=127.0.0.1": Upstream("a-1", "127.0.0.1", 80, False),
    "a=http://[::1]:81": Upstream("a", "::1", 81, False),
}
NO_ADDRESS = ("", "80", ":80", "host", "host:0", "host:65536", "host:x", "unix:", "a b:80", "[::1:80", "http://h:80")
NO_UPSTREAM = (
    "",
    "h:80",
    "=h",
    "A=h",
    "a b=h",
    "a=",
    "a=ftp://h",
    "a=h:",
    "a=h:99999",
    "a=https://h/v1",
    "a=[::1",
    "a=a@b",
)


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address(text: str) -> None:
    assert config.parse_address(text) == ADDRESSES[text]
    assert str(ADDRESSES[text]) == text


@pytest.mark.parametrize("text", UPSTREAMS)
def test_an_upstream(text: str) -> None:
    assert config.parse_upstream(text) == UPSTREAMS[text]


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_no_address(text: str) -> None:
    with pytest.raises(BadSetting):
        config.parse_address(text)


@pytest.mark.parametrize("text", NO_UPSTREAM)
def test_no_upstream(text: str) -> None:
    with pytest.raises(BadSetting):
        config.parse_upstream(text)


@pytest.mark.parametrize(
    "options",
    [
        {"upstreams": ("a=h", "a=i")},
        {"upstreams": ("policyd_extproc=h",)},
        {"workers": 0},
        {"extproc": "h:65535", "workers": 2},
        {"max_request": 10},
        {"max_request": 1 << 40},
        {"listener": "unix:/x"},
        {"admin": "unix:/x"},
    ],
)
def test_no_settings(options: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        config.settings(**options)


# ---- what they become ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extproc", "expected"),
    [
        ("unix:/x", [{"pipe": {"path": "/x"}}, {"pipe": {"path": "/x.1"}}]),
        ("h:80", [{"socket_address": {"address": "h", "port_value": port}} for port in (80, 81)]),
    ],
)
def test_each_worker_has_its_address(extproc: str, expected: list[object]) -> None:
    cluster = clusters(made(extproc=extproc, workers=2))["policyd_extproc"]
    assert endpoints(cluster) == expected
    assert cluster["health_checks"][0]["grpc_health_check"] == {}


def test_https_is_verified() -> None:
    cluster = clusters(made(upstreams=("a=https://api.example.com",)))["a"]
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "api.example.com"
    trusted = tls["common_tls_context"]["validation_context"]
    assert trusted["trusted_ca"]["filename"]
    assert trusted["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}]


def test_host_follows_the_upstream() -> None:
    routes = manager(made(upstreams=("a=https://h", "b=https://i:1", "c=j")))["route_config"]["virtual_hosts"][0][
        "routes"
    ]
    rewrites = [route["route"]["host_rewrite_literal"] for route in routes if "route" in route]
    assert rewrites == ["h", "i:1", "j", "h"]


@pytest.mark.parametrize("fail_open", [False, True])
def test_it_fails_open_only_when_told_to(fail_open: bool) -> None:
    proc = manager(made(fail_open=fail_open))["http_filters"][0]["typed_config"]
    assert proc.get("failure_mode_allow", False) is fail_open
    assert proc["allow_mode_override"] is True
    assert not {"request_body_mode", "response_body_mode"} & set(proc["processing_mode"])  # NONE is the default


def test_the_limit_is_everywhere_the_same() -> None:
    whole = made(max_request=5 << 20)
    listener = whole["static_resources"]["listeners"][0]
    assert listener["per_connection_buffer_limit_bytes"] == 5 << 20
    assert manager(whole)["http2_protocol_options"]["initial_stream_window_size"] == 5 << 20


def test_no_admin_unless_asked_for() -> None:
    assert "admin" not in made()
    assert "admin" in made(admin="127.0.0.1:9901")


# ---- TLS to policyd (tests/envoy/test_tls.py runs it) ----------------------------------------------------------------


def test_policyd_is_known_by_its_host_unless_by_another_name() -> None:
    def expected(*sans: str, extproc: str = "policyd.svc:1", sds: str = "") -> tuple[list[dict[str, Any]], str]:
        tls = config.tls_to_policyd("/ca", sans=sans, sds=sds)
        socket = clusters(made(extproc=extproc, extproc_tls=tls))["policyd_extproc"]["transport_socket"]["typed_config"]
        common = socket["common_tls_context"]
        combined = common.get("combined_validation_context", {})
        context = common.get("validation_context") or combined["default_validation_context"]
        return context["match_typed_subject_alt_names"], socket.get("sni", "")

    def one(kind: str, name: str) -> list[dict[str, Any]]:
        return [{"san_type": kind, "matcher": {"exact": name}}]

    assert expected() == (one("DNS", "policyd.svc"), "policyd.svc")
    assert expected(sds="/sds/") == expected()
    assert expected(extproc="10.0.0.1:1") == (one("IP_ADDRESS", "10.0.0.1"), "")
    assert expected("spiffe://td/p", "b.svc") == (one("URI", "spiffe://td/p") + one("DNS", "b.svc"), "policyd.svc")


def test_without_tls_nothing_is_said_of_it() -> None:
    assert "transport_socket" not in clusters(made(extproc="h:1"))["policyd_extproc"]
    assert "node" not in made()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": "a", "cert": "c"}, "--extproc-cert and --extproc-key"),
        ({"ca": "a", "key": "k"}, "--extproc-cert and --extproc-key"),
        ({"cert": "c", "key": "k"}, "needs --extproc-ca"),
        ({"sds": "/x"}, "needs --extproc-ca"),
        ({"sans": ("a.svc",)}, "needs --extproc-ca"),
        ({"ca": "a", "sans": ("*.svc",)}, "whole name"),
        ({"ca": "a", "extproc": "unix:/x"}, "a unix socket has no TLS"),
    ],
)
def test_no_tls(options: dict[str, Any], words: str) -> None:
    extproc = options.pop("extproc", "h:1")
    with pytest.raises(BadSetting, match=re.escape(words)):
        config.settings(extproc=extproc, extproc_tls=config.tls_to_policyd(**options))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("sds authority", 2),
        ("sds certificate --extproc-cert /c", 2),
        ("sds nothing", 2),
        ("sds authority --extproc-ca /ca", 0),
        ("sds certificate --extproc-cert /c --extproc-key /k", 0),
    ],
)
def test_sds_files(words: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["envoy", *words.split()])
    assert left.value.code == code
    made = yaml.safe_load(capsys.readouterr().out) if code == 0 else None
    if made:
        names = [secret["name"] for secret in made["resources"]]
        assert names == [tls_sockets.AUTHORITY if "authority" in words else tls_sockets.CERTIFICATE]


# ---- ready configurations --------------------------------------------------------------------------------------------


def test_the_ready_configurations_are_fresh() -> None:
    done = subprocess.run([sys.executable, ROOT / "envoy" / "generate.py", "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_ready_configuration_is_typed(example: Path) -> None:
    found = yaml.safe_load(example.read_text())
    assert bootstrap.as_dict(Bootstrap.from_dict(found)) == found


@pytest.mark.envoy
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_envoy_takes_a_ready_configuration(example: Path, version: str) -> None:
    found = yaml.safe_load(example.read_text())
    if not Path(config._CA_FILES[0]).exists():
        pytest.skip(f"no certificate authorities in {config._CA_FILES[0]}")
    assert found["static_resources"]["listeners"]
    assert validate(version, example) == ""


@pytest.mark.envoy
@pytest.mark.parametrize("version", VERSIONS)
def test_envoy_takes_what_the_command_prints(version: str, tmp_path: Path) -> None:
    text = bootstrap.render(bootstrap.bootstrap(config.settings(upstreams=("a=h", "b=[::1]:8"), workers=3)))
    (tmp_path / "envoy.yaml").write_text(text)
    assert validate(version, tmp_path / "envoy.yaml") == ""


@pytest.mark.envoy
def test_envoy_refuses_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "envoy.yaml").write_text("static_resources: {listeners: [{nonsense: 1}]}")
    assert "nonsense" in validate(VERSIONS[-1], tmp_path / "envoy.yaml")
