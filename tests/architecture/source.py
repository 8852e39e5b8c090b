"""The project's own files, as the architecture tests look at them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "policyd"


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git tracks and that is there; outside a clone, every file of the project's folders."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        found = [path for top in ("policyd", "tests", "proto", "docs", "bench") for path in (ROOT / top).rglob("*")]
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def is_generated(path: Path) -> bool:
    """What a generator wrote is nobody's style."""
    return "_pb2" in path.name


@cache
def python_files() -> tuple[Path, ...]:
    """Every hand-written Python file, tests included."""
    return tuple(path for path in tracked() if path.suffix == ".py" and not is_generated(path))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The dotted name of everything called, as it is written, with its line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))
