"""Where the API server is and who asks it: the pod's service account, or a kubeconfig.

Rule 1: in a pod the service account counts; elsewhere `KUBECONFIG`, or ~/.kube/config.
Rule 2: what a kubeconfig asks for and this does not do (exec plugins, auth providers) is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policyd.adapters.errors import NotAvailable, UnreadableInput, reason_of

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and a way in."""

    url: str
    tls: ssl.SSLContext | None
    namespace: str  # the asker's own
    token: str = ""
    token_file: Path | None = None  # read anew: the tokens of service accounts are replaced while we run

    def bearer(self) -> str:
        """The token of now; empty without one."""
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise NotAvailable(f"kube: {self.token_file}: {reason_of(error)}") from None


def find_access(context: str = "", environ: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """The way in from here. Raises NotAvailable, or UnreadableInput for a broken kubeconfig."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if host and not context and (account / "token").exists():
        return _of_pod(host, environ, account)
    file = Path(environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not file.is_file():
        raise NotAvailable(f"kube: no cluster: neither a service account in {account} nor a kubeconfig at {file}")
    return _of_file(file, context, environ)


def _of_pod(host: str, environ: Mapping[str, str], account: Path) -> Access:
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    place = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    space = account / "namespace"
    namespace = space.read_text().strip() if space.is_file() else environ.get("POD_NAMESPACE") or "default"
    return Access(f"https://{place}:{port}", tls, namespace, token_file=account / "token")


# ---- a kubeconfig ---------------------------------------------------------------------------------------------------


def _of_file(file: Path, wanted: str, environ: Mapping[str, str]) -> Access:
    config = _read(file)
    context = _named(file, config, "context", wanted or str(config.get("current-context") or ""))
    cluster = _named(file, config, "cluster", str(context.get("cluster") or ""))
    user = _named(file, config, "user", str(context["user"])) if context.get("user") else {}
    for word in ("exec", "auth-provider", "username"):
        if word in user:
            raise UnreadableInput(file, f"user `{context['user']}`: `{word}` is not supported; write a token")
    url = str(cluster.get("server") or "")
    if not url.startswith(("https://", "http://")):
        raise UnreadableInput(file, f"cluster `{context.get('cluster')}`: `server` is no URL")
    namespace = str(context.get("namespace") or environ.get("POD_NAMESPACE") or "default")
    token_file = Path(file.parent, str(user["tokenFile"])) if user.get("tokenFile") else None
    tls = _tls(file, cluster, user) if url.startswith("https://") else None
    return Access(url.rstrip("/"), tls, namespace, str(user.get("token") or ""), token_file)


def _read(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UnreadableInput(file, "is no YAML") from None
    if not isinstance(config, dict):
        raise UnreadableInput(file, "is no kubeconfig")
    return config


def _named(file: Path, config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    listed = config.get(f"{kind}s")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("name") == name and isinstance(one.get(kind), dict):
            return dict(one[kind])
    raise UnreadableInput(file, f"there is no {kind} `{name}`")


def _tls(file: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    try:
        authority = _bytes(file, cluster, "certificate-authority")
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        certificate, key = _bytes(file, user, "client-certificate"), _bytes(file, user, "client-key")
        if certificate:
            _present(tls, certificate, key)
    except (OSError, ssl.SSLError, ValueError, binascii.Error) as error:
        raise UnreadableInput(file, f"certificates: {error}") from None
    return tls


def _bytes(file: Path, part: dict[str, Any], name: str) -> bytes:
    """What stands in the file itself, or in the one that it names."""
    if data := part.get(f"{name}-data"):
        return base64.b64decode(str(data), validate=True)
    return Path(file.parent, str(part[name])).read_bytes() if part.get(name) else b""


def _present(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # The ssl module reads certificates of our own from files alone; this one is gone as soon as it was read.
    with tempfile.NamedTemporaryFile("wb") as pair:
        pair.write(certificate + b"\n" + key)
        pair.flush()
        tls.load_cert_chain(pair.name)
