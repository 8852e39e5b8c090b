"""Writes the ready Envoy configurations of this folder; `--check` only says whether they are fresh (exit code 1).

They are what `policyd envoy bootstrap` prints with the options that stand at the head of each.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from policyd.adapters.envoy.bootstrap import bootstrap, render
from policyd.adapters.envoy.config import Settings, settings

HERE = Path(__file__).resolve().parent
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Example:
    """One configuration: its options as a user gives them, and what they mean."""

    options: str
    settings: Settings

    def text(self) -> str:
        head = f"# policyd envoy bootstrap --policies policies/ {self.options}".rstrip()
        return f"{head}\n{render(bootstrap(replace(self.settings, ca_file=CA_FILE)))}"


EXAMPLES = {
    "openai.yaml": Example("", settings()),
    "two-providers.yaml": Example(
        "--upstream openai=https://api.openai.com --upstream anthropic=https://api.anthropic.com "
        "--listener 0.0.0.0:10000 --extproc 127.0.0.1:50051 --workers 4 --admin 127.0.0.1:9901",
        settings(
            upstreams=("openai=https://api.openai.com", "anthropic=https://api.anthropic.com"),
            listener="0.0.0.0:10000",
            extproc="127.0.0.1:50051",
            workers=4,
            admin="127.0.0.1:9901",
        ),
    ),
    "local.yaml": Example(
        "--upstream local=127.0.0.1:8000 --max-request 4194304 --fail-open",
        settings(upstreams=("local=127.0.0.1:8000",), max_request=4 << 20, fail_open=True),
    ),
}


def main(arguments: list[str]) -> int:
    stale = [name for name, example in EXAMPLES.items() if _read(HERE / name) != example.text()]
    if arguments == ["--check"]:
        for name in stale:
            print(f"envoy/{name} is stale: run envoy/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(EXAMPLES[name].text())
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
