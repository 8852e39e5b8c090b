"""The floors of the house hold, and the contracts that say so can be broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGE, ROOT
from tests.sizes import some


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTS = {
    "a stray file in the core": ("core/stray.py", ""),
    "a stray file in the house": ("stray.py", ""),
    "a clock in the core": ("core/model/stray.py", "import time\n"),
    "the event loop in the core": ("core/decide/stray.py", "import asyncio\n"),
    "the core leaning on an adapter": ("core/model/stray.py", "import policyd.adapters.errors\n"),
    "errors leaning on the model": ("core/errors.py", "import policyd.core.model.facts\n"),
    "CEL beside its door": ("core/decide/stray.py", "import celpy\n"),
    "gRPC beside its door": ("enforcer/call.py", "import grpc\n"),
    "Redis beside its door": ("cli/stray.py", "import redis\n"),
    "Envoy's messages where serving pays for them": ("adapters/envoy/stray.py", "import envoy_data_plane\n"),
}


@pytest.mark.parametrize("plant", some(list(PLANTS), 4), ids=lambda name: name.replace(" ", "_"))
def test_a_planted_violation_is_caught(tmp_path: Path, plant: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "policyd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    where, line = PLANTS[plant]
    with (tmp_path / "policyd" / where).open("a", encoding="utf-8") as file:
        file.write(line)
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "stray" in done.stdout or "BROKEN" in done.stdout
