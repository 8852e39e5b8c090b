"""Writes what policyd itself prints into the overlays; `--check` only says whether it is fresh (exit code 1)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from policyd.adapters.envoy.bootstrap import bootstrap, render
from policyd.adapters.envoy.config import Settings, settings
from policyd.adapters.envoy.gateway import documents, parse_target
from policyd.adapters.envoy.gateway_tls import parse_tls
from policyd.cli.crds import text

HERE = Path(__file__).resolve().parent
_SOCKET = "unix:/run/policyd/policyd.sock"
_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"  # of Envoy's image
_AI_GATEWAY = "gateway=ai-gateway.envoy-gateway-system.svc:80"


def made() -> dict[str, str]:
    """File by file, what stands in it."""
    return {
        "crds/policyd.dev.yaml": text(),
        "overlays/sidecar/envoy.yaml": _envoy(),
        "overlays/envoy-ai-gateway/envoy.yaml": _envoy(_AI_GATEWAY),
        "overlays/envoy-gateway/extension-policy.yaml": documents(
            settings(extproc="policyd:50051"),
            [parse_target("Gateway/eg")],
            parse_tls("Secret/policyd-tls", "policyd-envoy-tls", ["policyd.policyd.svc"]),
        ),
    }


def _envoy(*upstreams: str) -> str:
    wanted: Settings = settings(listener="0.0.0.0:10000", extproc=_SOCKET, upstreams=upstreams)
    return render(bootstrap(replace(wanted, ca_file=_CA_FILE)))


def main(arguments: list[str]) -> int:
    stale = [name for name, whole in made().items() if _read(HERE / name) != whole]
    for name in stale:
        if arguments == ["--check"]:
            print(f"deploy/k8s/{name} is stale: run deploy/k8s/generate.py", file=sys.stderr)
        else:
            (HERE / name).write_text(made()[name])
    return 1 if stale and arguments == ["--check"] else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
