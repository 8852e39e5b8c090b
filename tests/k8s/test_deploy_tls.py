"""TLS in the manifests: what one object names another has, and servers take what belongs to others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s import foreign
from tests.k8s.server import CLUSTER, kubectl
from tests.k8s.structural import defaulted, errors
from tests.k8s.test_deploy import DEPLOY, Shore, built, objects, shore

__all__ = ["shore"]  # a fixture


@pytest.fixture
def whole(tmp_path: Path) -> list[dict[str, Any]]:
    """The overlay for Envoy Gateway with the certificates of cert-manager, as a user's own overlay has them."""
    built("crds")  # skips without kubectl
    where = Path(os.path.relpath(DEPLOY, tmp_path))
    own = {
        "resources": [str(where / "overlays" / "envoy-gateway")],
        "components": [str(where / "components" / "cert-manager")],
        "namespace": "policyd",
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    done = subprocess.run([kubectl(), "kustomize", tmp_path], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def one(made: list[dict[str, Any]], kind: str, name: str = "policyd") -> dict[str, Any]:
    (found,) = (each for each in made if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return dict(found["spec"])


def serving(made: list[dict[str, Any]]) -> dict[str, str]:
    """The options of `policyd serve`."""
    (container,) = one(made, "Deployment")["template"]["spec"]["containers"]
    return dict(option.split("=", 1) for option in container["args"] if "=" in option)


def test_what_one_object_names_another_has(whole: list[dict[str, Any]]) -> None:
    pod = one(whole, "Deployment")["template"]["spec"]
    options, ours, envoys = (
        serving(whole),
        one(whole, "Certificate", "policyd-tls"),
        one(whole, "Certificate", "policyd-envoy-tls"),
    )
    (mounted,) = (volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "tls")
    (at,) = (mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "tls")
    assert mounted == ours["secretName"]
    files = {"--tls-cert": "tls.crt", "--tls-key": "tls.key", "--tls-client-ca": "ca.crt"}
    assert {name: options[name] for name in files} == {name: f"{at}/{file}" for name, file in files.items()}
    assert [options["--tls-client-san"]] == envoys["uris"]
    checked = one(whole, "BackendTLSPolicy")["validation"]
    assert checked["caCertificateRefs"] == [{"group": "", "kind": "Secret", "name": ours["secretName"]}]
    assert {checked["hostname"], *(san["hostname"] for san in checked["subjectAltNames"])} <= set(ours["dnsNames"])
    assert one(whole, "EnvoyProxy")["backendTLS"]["clientCertificateRef"]["name"] == envoys["secretName"]
    assert {ours["issuerRef"]["name"], envoys["issuerRef"]["name"]} == {"policyd"}
    assert one(whole, "Issuer")["ca"]["secretName"] == one(whole, "Certificate", "policyd-ca")["secretName"]


def test_the_repository_holds_no_certificate() -> None:
    for name in ("overlays/shared", "overlays/envoy-gateway"):
        assert not objects(name, "Secret")


@pytest.mark.parametrize(("name", "expected"), [("shared", True), ("envoy-gateway", True), ("try", False)])
def test_which_overlays_speak_tls(name: str, expected: bool) -> None:
    made = objects(f"overlays/{name}")
    assert ("--tls-client-ca" in serving(made)) is expected
    (port,) = one(made, "Service")["ports"]
    assert port["appProtocol"] == ("https" if expected else "kubernetes.io/h2c")


def test_probes_need_no_certificate() -> None:
    """The kubelet has none: they go to the admin port."""
    (container,) = one(objects("overlays/shared"), "Deployment")["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"


def test_the_schemas_of_others_take_what_is_theirs(whole: list[dict[str, Any]]) -> None:
    for made in filter(foreign.is_foreign, whole):
        schema = foreign.schema_of(made)
        assert list(errors(defaulted(made, schema), schema)) == []


def test_a_real_server_takes_the_certificates(whole: list[dict[str, Any]], shore: Shore) -> None:
    """What else belongs to others is in the overlays, which test_deploy.py applies."""
    theirs = [made for made in whole if foreign.group_of(made) == "cert-manager.io"]
    if CLUSTER:
        pytest.skip("it may have a cert-manager, which would make them")
    shore.define(theirs)
    assert shore.apply(theirs) == len(theirs) == 5
