"""What imports cannot show: banned calls, sizes, and words that must not stand in a file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGE, ROOT, calls, functions, name_of, python_files, tracked, tree

MAX_FILE = 500  # lines
MAX_TEST_FILE = 700  # lines; a long table is easier read in one piece
MAX_FUNCTION = 60  # lines
CORE = PACKAGE / "core"
CLI = PACKAGE / "cli"

BANNED_IN_CORE = re.compile(
    r"(^|\.)(open|print|input|exec|eval|__import__|breakpoint|now|utcnow|today|uuid[1-8]|monotonic|perf_counter)$"
    r"|^time\.|^random\."
)
BANNED_OUTSIDE_CLI = re.compile(r"^(print|input|breakpoint)$")
BANNED_EVERYWHERE = re.compile(r"^(exec|eval|breakpoint|pickle\..*|os\.system)$|(^|\.)utcnow$")

in_package = [path for path in python_files() if path.is_relative_to(PACKAGE)]
every_python_file = pytest.mark.parametrize("path", python_files(), ids=name_of)
every_package_file = pytest.mark.parametrize("path", in_package, ids=name_of)


def banned(module: ast.Module, pattern: re.Pattern[str]) -> list[tuple[str, int]]:
    return [(name, line) for name, line in calls(module) if pattern.search(name)]


@every_package_file
def test_no_banned_call(path: Path) -> None:
    module = tree(path)
    assert not banned(module, BANNED_EVERYWHERE)
    if path.is_relative_to(CORE):
        assert not banned(module, BANNED_IN_CORE)
    if not path.is_relative_to(CLI):
        assert not banned(module, BANNED_OUTSIDE_CLI)


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("open('x')", True),
        ("datetime.now(UTC)", True),
        ("datetime.datetime.utcnow()", True),
        ("time.time()", True),
        ("uuid.uuid4()", True),
        ("uuid4()", True),
        ("print(1)", True),
        ("reopen('x')", False),
        ("self.known()", False),
        ("blueprint()", False),
    ],
)
def test_the_ban_knows_what_it_bans(line: str, caught: bool) -> None:
    assert bool(banned(ast.parse(line), BANNED_IN_CORE)) is caught


@every_python_file
def test_files_are_short(path: Path) -> None:
    limit = MAX_FILE if path.is_relative_to(PACKAGE) else MAX_TEST_FILE
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@every_python_file
def test_functions_are_short(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(tree(path))
        if node.end_lineno and node.end_lineno - node.lineno + 1 > MAX_FUNCTION
    }
    assert not long


@every_package_file
def test_no_failure_is_swallowed(path: Path) -> None:
    """A failure is an event: `except: pass` is how a breaker stops breaking."""
    swallowed = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(step, ast.Pass) for step in node.body)
    ]
    assert not swallowed


@every_package_file
def test_every_module_says_what_it_is(path: Path) -> None:
    module = tree(path)
    assert not module.body or ast.get_docstring(module)


BAD_NAMES = re.compile(r"(manager|handler|utils?|helpers?|guardrail)s?$", re.IGNORECASE)


@every_package_file
def test_names_say_what_a_thing_is(path: Path) -> None:
    classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert not [name for name in (path.stem, *classes) if BAD_NAMES.search(name)]


# The patterns are put together here so that this file does not hold what it forbids.
REGISTRIES = re.compile(
    "|".join((r"pypi\.or" + "g", "pythonhoste" + "d", r"npmjs\.or" + "g", r"proxy\.golan" + "g", r"index-ur" + "l"))
)
OWN_PATHS = re.compile(r"(?<![\w.])/(?:" + "|".join(("wor" + "k/", "roo" + "t/", "hom" + "e/", "User" + "s/")) + ")")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".proto", ".txt", ".cfg", ".json", ".lua", ".sh", ".pyi", ".lock", ""}


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix in TEXT], ids=name_of)
def test_no_registry_and_no_development_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path != ROOT / "uv.lock":
        assert not REGISTRIES.search(text)
    assert not OWN_PATHS.search(text)


def test_the_search_for_paths_can_find_one() -> None:
    assert OWN_PATHS.search('open("/' + 'work/x")')
    assert not OWN_PATHS.search("frame" + "work/x and ../" + "work/x")
