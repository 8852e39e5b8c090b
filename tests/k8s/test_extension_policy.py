"""`policyd envoy extension-policy`: what it prints, what it says, and that Envoy Gateway's own schema takes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli.main import main
from tests.k8s.foreign import schema_of
from tests.k8s.structural import defaulted, errors

POLICIES = Path(__file__).parents[2] / "policies"
TLS = ("--extproc-ca", "Secret/policyd-tls", "--extproc-cert", "policyd-envoy-tls")


def run(capsys: pytest.CaptureFixture[str], *words: str, policies: Path = POLICIES) -> tuple[int, list[Any], str]:
    """Exit code, what is to be applied, and what was said."""
    with pytest.raises(SystemExit) as left:
        main(["envoy", "extension-policy", "--policies", str(policies), *words])
    told = capsys.readouterr()
    return int(left.value.code or 0), list(yaml.safe_load_all(told.out)), told.err


def policy(tmp_path: Path, action: str) -> Path:
    file = tmp_path / "p.yaml"
    file.write_text(
        "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: p}\n"
        f"spec: {{mode: Full, rules: [{{name: r, {action}}}]}}\n"
    )
    return file


def test_bodies_are_asked_for_by_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    code, (extension, traffic), _ = run(capsys)
    assert code == 0
    assert (extension["kind"], traffic["kind"]) == ("EnvoyExtensionPolicy", "ClientTrafficPolicy")
    (filter_,) = extension["spec"]["extProc"]
    asked = {"attributes": ["xds.route_metadata"]}
    assert filter_["processingMode"] == {"allowModeOverride": True, "request": asked, "response": {}}
    assert filter_["failOpen"] is False
    assert filter_["metadata"]["writableNamespaces"] == ["policyd"]
    assert filter_["backendRefs"] == [{"name": "policyd", "port": 50051}]
    assert traffic["spec"]["connection"] == {"bufferLimit": str(32 << 20)}


@pytest.mark.parametrize(
    ("extproc", "expected"),
    [
        ("policyd:1", [{"name": "policyd", "port": 1}, {"name": "policyd", "port": 2}]),
        (
            "policyd.guard.svc:1",
            [
                {"name": "policyd", "namespace": "guard", "port": 1},
                {"name": "policyd", "namespace": "guard", "port": 2},
            ],
        ),
    ],
)
def test_every_worker_of_a_service_is_named(
    capsys: pytest.CaptureFixture[str], extproc: str, expected: Sequence[object]
) -> None:
    _, made, _ = run(capsys, "--extproc", extproc, "--workers", "2")
    assert made[0]["spec"]["extProc"][0]["backendRefs"] == expected


@pytest.mark.parametrize(
    ("extproc", "expected"),
    [
        ("unix:/run/p.sock", [{"unix": {"path": "/run/p.sock"}}, {"unix": {"path": "/run/p.sock.1"}}]),
        ("10.0.0.1:1", [{"ip": {"address": "10.0.0.1", "port": 1}}, {"ip": {"address": "10.0.0.1", "port": 2}}]),
        ("a.example.com:1", [{"fqdn": {"hostname": "a.example.com", "port": port}} for port in (1, 2)]),
    ],
)
def test_what_is_no_service_is_a_backend(
    capsys: pytest.CaptureFixture[str], extproc: str, expected: Sequence[object]
) -> None:
    _, made, said = run(capsys, "--extproc", extproc, "--workers", "2", "--target", "HTTPRoute/chat")
    assert [one["kind"] for one in made] == ["EnvoyExtensionPolicy", "Backend"]
    assert made[1]["spec"]["endpoints"] == expected
    assert "enableBackend" in said


@pytest.mark.parametrize(
    ("extproc", "kind", "namespace"),
    [("policyd:1", "Service", None), ("policyd.guard.svc:1", "Service", "guard"), ("a.example.com:1", "Backend", None)],
)
def test_tls_is_said_of_what_is_asked(
    capsys: pytest.CaptureFixture[str], extproc: str, kind: str, namespace: str | None
) -> None:
    code, made, said = run(capsys, "--extproc", extproc, *TLS)
    by_kind = {one["kind"]: one for one in made}
    policy = by_kind["BackendTLSPolicy"]
    assert code == 0
    assert [(one["kind"], one["name"]) for one in policy["spec"]["targetRefs"]] == [(kind, "policyd")]
    assert policy["metadata"].get("namespace") == namespace
    assert policy["spec"]["validation"] == {
        "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "policyd-tls"}],
        "hostname": extproc.removesuffix(":1"),
    }
    own = {"clientCertificateRef": {"kind": "Secret", "name": "policyd-envoy-tls"}}
    if kind == "Backend":
        assert by_kind["Backend"]["spec"]["tls"] == own
    else:
        assert by_kind["EnvoyProxy"]["spec"] == {"backendTLS": own}
        assert "infrastructure.parametersRef" in said


def test_the_commands_of_the_page_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ai-gateway.md").read_text()
    shown = [
        line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.replace("\\\n", "").splitlines()
    ]
    lines = [line.split() for line in shown if line.startswith("policyd envoy extension-policy ")]
    assert len(lines) >= 2
    for words in lines:
        options = words[3 : words.index(">")]
        own = options.index("--policies")
        code, made, _ = run(capsys, *options[:own], *options[own + 2 :])
        assert code == 0
        kinds = {one["kind"] for one in made}
        assert ("BackendTLSPolicy" in kinds and "EnvoyProxy" in kinds) is ("--extproc-cert" in options)


def test_without_tls_it_is_said_that_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "in plain" in run(capsys)[2]
    assert "in plain" not in run(capsys, *TLS)[2]
    assert "in plain" not in run(capsys, "--extproc", "unix:/run/p.sock")[2]
    assert "is not to ask for certificates" in run(capsys, *TLS[:2])[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--extproc-ca", "policyd-tls"), "names no authority"),
        (("--extproc-cert", "a"), "names no authority"),
        (("--extproc-san", "a.svc"), "names no authority"),
        ((*TLS[:2], "--extproc-cert", "A B"), "no name of a Secret"),
        ((*TLS, "--extproc-san", "10.0.0.1"), "DNS names and URIs alone"),
        ((*TLS, "--extproc-san", "*.svc"), "whole name"),
        ((*TLS, "--extproc", "unix:/run/p.sock"), "no TLS"),
        ((*TLS, "--extproc", "10.0.0.1:1"), "--extproc-san"),
    ],
)
def test_tls_that_cannot_be_is_wrong_usage(capsys: pytest.CaptureFixture[str], words: Sequence[str], told: str) -> None:
    code, _, said = run(capsys, *words)
    assert code == 2
    assert told in " ".join(said.replace("│", "").split())


def test_the_other_options_of_the_contract_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--listener", "0.0.0.0:80", "--admin", "127.0.0.1:1", "--upstream", "a=https://h", "--max-request", "2048")
    code, made, said = run(capsys, *words, "--fail-open")
    assert (code, made[0]["spec"]["extProc"][0]["failOpen"]) == (0, True)
    assert made[1]["spec"]["connection"] == {"bufferLimit": "2048"}
    assert "--listener: no effect" in said and "--admin: no effect" in said


@pytest.mark.parametrize("words", [("--target", "Service/a"), ("--target", "eg"), ("--workers", "17")])
def test_what_cannot_be_is_wrong_usage(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> None:
    assert run(capsys, *words)[0] == 2


def test_a_reroute_to_an_upstream_needs_a_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = policy(tmp_path, "reroute: {upstream: spare}")
    code, _, said = run(capsys, policies=file)
    assert code == 2
    assert "spare" in said
    code, _, said = run(capsys, "--upstream", "spare=https://h", policies=file)
    assert code == 0
    assert "x-policyd-upstream: spare" in said


@pytest.mark.parametrize(
    ("action", "warned"),
    [
        ("constrain: {cap: {max_tokens: 5}}", True),
        ("constrain: {redact: {detectors: [email], in: [request]}}", True),
        ("reroute: {model: m}", True),
        ("constrain: {redact: {detectors: [email], in: [response]}}", True),
        ("terminate: {}", False),
    ],
)
def test_what_envoy_ai_gateway_discards_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, warned: bool
) -> None:
    _, _, said = run(capsys, policies=policy(tmp_path, action))
    assert ("behind Envoy AI Gateway" in said) == warned
    assert ("Concerned: rule `r` of default/p" in said) == warned


@pytest.mark.parametrize(("target", "warned"), [("HTTPRoute/chat", True), ("Gateway/eg", False)])
def test_routes_that_share_a_host_are_spoken_of(capsys: pytest.CaptureFixture[str], target: str, warned: bool) -> None:
    assert ("take the Gateway as target" in run(capsys, "--target", target)[2]) == warned


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--workers", "4", "--extproc", "policyd.guard.svc.cluster.local:50051"),
        ("--extproc", "unix:/run/p.sock", "--target", "HTTPRoute/a"),
        ("--extproc", "10.0.0.1:50051", "--fail-open", "--target", "Gateway/x", "--target", "HTTPRoute/a"),
        TLS,
        (
            *TLS,
            "--extproc",
            "10.0.0.1:1",
            "--extproc-san",
            "policyd.svc",
            "--extproc-san",
            "spiffe://td/ns/p/sa/policyd",
        ),
        ("--extproc-ca", "ConfigMap/ca", "--extproc", "policyd.guard.svc:50051"),
    ],
)
def test_envoy_gateways_own_schema_takes_it(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> None:
    for one in run(capsys, *words)[1]:
        schema = schema_of(one)
        whole = defaulted(one, schema)
        assert list(errors(whole, schema)) == []
        spoilt = defaulted(one | {"spec": one["spec"] | {"nonsense": 1}}, schema)
        assert list(errors(spoilt, schema)) != []
