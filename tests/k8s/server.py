"""A real Kubernetes API server on loopback: kube-apiserver and etcd of the Go module beside this file, built once.

Rule 1: what runs is the whole kube-apiserver, so that Deployments, HPAs and NetworkPolicies are known to it; without
        kubelet, scheduler and controllers: objects are defaulted, validated, stored, watched, guarded, and that is all.
Rule 2: binaries lie in `~/.cache/policyd/k8s/VERSION`, outside the repository; tests/built.py builds them.
Rule 3: with `POLICYD_K8S=cluster` the cluster of `KUBECONFIG` stands in for it, and loses the policies that are there;
        what would stop its API server is left out.
Rule 4: what cannot be had is a skip with its reason. Everything listens on 127.0.0.1 and dies with the tests.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from tests.built import APISERVER, ETCD, KUBECTL, Built
from tests.dying import started
from tests.envoy.harness import a_moment, free_port

CLUSTER = os.environ.get("KUBECONFIG", "") if os.environ.get("POLICYD_K8S") == "cluster" else ""
READY_S = 90.0


def missing() -> str:
    """Why there is no API server here; empty when there is one."""
    if CLUSTER:
        return "" if kubectl() else "no kubectl, to read KUBECONFIG with"
    if shutil.which("openssl") is None:
        return "no openssl, for the keys of an API server"
    return APISERVER.missing() or ETCD.missing()


def kubectl() -> str:
    """The one on PATH, else the one that was built; empty where there is none."""
    return shutil.which("kubectl") or (str(KUBECTL.path) if KUBECTL.path.is_file() else "")


# ---- as a client sees it --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """An API server, and who asks."""

    url: str
    ca: Path | None
    token: str
    pair: Path | None = None  # certificate and key of a client
    namespace: str = "default"

    def client(self, **headers: str) -> httpx.Client:
        """A blocking client for a test's own questions."""
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(self.ca)) if self.ca else True
        if self.pair is not None and isinstance(verify, ssl.SSLContext):
            verify.load_cert_chain(self.pair)
        bearer = {**({"authorization": f"Bearer {self.token}"} if self.token else {}), **headers}
        return httpx.Client(base_url=self.url, verify=verify, headers=bearer, timeout=30, trust_env=False)

    def kubeconfig(self, file: Path) -> Path:
        """The same as a file that `kubectl` and `policyd` read."""
        cluster = {"server": self.url} | ({"certificate-authority": str(self.ca)} if self.ca else {})
        pair = {"client-certificate": str(self.pair), "client-key": str(self.pair)} if self.pair else {}
        user = {**({"token": self.token} if self.token else {}), **pair}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": user}],
            "contexts": [
                {"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": self.namespace}}
            ],
        }
        file.write_text(yaml.safe_dump(document))
        return file


# ---- the server -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ApiServer:
    """etcd and kube-apiserver, in one folder of their own."""

    folder: Path
    port: int = field(default_factory=free_port)
    etcd_port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    etcd: subprocess.Popen[bytes] | None = None
    apiserver: subprocess.Popen[bytes] | None = None

    @property
    def access(self) -> Access:
        """As its administrator."""
        return Access(f"https://127.0.0.1:{self.port}", self.folder / "certs" / "apiserver.crt", self.token)

    def start(self) -> ApiServer:
        """Start both, and wait until it is ready."""
        self._write_keys()
        self.start_etcd()
        self.start_apiserver()
        return self

    def _write_keys(self) -> None:
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        self._openssl("genrsa", "-out", str(key), "2048")
        self._openssl("rsa", "-in", str(key), "-pubout", "-out", str(public))
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')

    @staticmethod
    def _openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self.etcd = self._run(
            ETCD,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )

    def start_apiserver(self) -> None:
        self.apiserver = self._run(
            APISERVER,
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
        )
        self._wait_until_ready()

    def _run(self, program: Built, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program.name}.log").open("ab") as log:
            return started([str(program.path), *words], log)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.apiserver is not None
            if self.apiserver.poll() is not None:
                break
            with contextlib.suppress(OSError, httpx.HTTPError), self.access.client() as client:
                if client.get("/readyz").status_code == 200:
                    return
            a_moment()
        raise AssertionError("kube-apiserver did not become ready:\n" + self._said("kube-apiserver"))

    def _said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-4000:]

    # ---- what goes wrong --------------------------------------------------------------------------------------------

    def stop_apiserver(self) -> None:
        """Gone at once, as a crash would leave it."""
        _end(self.apiserver)
        self.apiserver = None

    def compact(self) -> None:
        """Forget every revision but the newest, as etcd does to those who were away for long."""
        revision = self._etcd("kv/range", {"key": "AA=="})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": revision, "physical": True})

    def _etcd(self, what: str, asked: dict[str, object]) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.etcd_port}/v3/{what}", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, dict[str, str]] = json.loads(answer.read())
            return found

    def stop(self) -> None:
        _end(self.apiserver)
        _end(self.etcd)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Cluster(ApiServer):
    """Somebody's cluster in its place."""

    found: Access | None = None

    @property
    def access(self) -> Access:
        assert self.found is not None
        return self.found

    def start(self) -> Cluster:
        words = [kubectl(), "config", "view", "--minify", "--flatten", "--raw", "-o", "json"]
        done = subprocess.run(words, env={**os.environ, "KUBECONFIG": CLUSTER}, check=True, capture_output=True)
        config = json.loads(done.stdout)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        ca = self._file("ca.crt", cluster.get("certificate-authority-data", ""))
        pair = self._file("client.pem", user.get("client-certificate-data", ""), user.get("client-key-data", ""))
        self.found = Access(cluster["server"], ca, user.get("token", ""), pair)
        return self

    def _file(self, name: str, *parts: str) -> Path | None:
        if not all(parts):
            return None
        (self.folder / name).write_bytes(b"\n".join(base64.b64decode(part) for part in parts))
        return self.folder / name

    def stop_apiserver(self) -> None:
        pytest.skip("would stop the API server of a cluster that is not the test's own")

    def compact(self) -> None:
        self.stop_apiserver()


@contextlib.contextmanager
def api_server(place: Path) -> Iterator[ApiServer]:
    """A fresh one with a folder of its own."""
    server = Cluster(place) if CLUSTER else ApiServer(place)
    try:
        yield server.start()
    finally:
        server.stop()
