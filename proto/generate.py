"""Generates the protobuf stubs from proto/; `--check` only says whether they are fresh (exit code 1 when not).

Rule: generated files are committed, so that installing policyd needs no protobuf compiler.
Rule: no file of ours imports another one of ours, so each stub can stand where it is used.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
DESTINATIONS = {  # proto file -> the package that its stubs live in
    "policyd/extproc/v1/ext_proc.proto": "policyd/adapters/envoy/_pb",
    "policyd/celexpr/v1/celexpr.proto": "policyd/core/compile/_pb",
    "policyd/facts/v1/facts.proto": "policyd/core/compile/_pb",
}


def generated(work: Path) -> Iterator[tuple[Path, str]]:
    """Every stub as it should be: its place in the repository, and its text."""
    well_known = Path(protoc.__file__).parent / "_proto"
    options = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={work}", f"--pyi_out={work}"]
    if protoc.main(["protoc", *options, *DESTINATIONS]) != 0:
        raise SystemExit(1)
    for source, destination in DESTINATIONS.items():
        for suffix in ("_pb2.py", "_pb2.pyi"):
            stub = work / source.replace(".proto", suffix)
            yield ROOT / destination / stub.name, stub.read_text()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as work:
        stubs = list(generated(Path(work)))
    stale = [path for path, text in stubs if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run proto/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stubs:
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
