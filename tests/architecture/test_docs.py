"""What the documents show is run, and where they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Severity

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@every_page
def test_every_policy_shown_compiles(page: Path) -> None:
    for text in blocks(page, "yaml"):
        if not text.startswith("apiVersion: policyd.dev/"):
            continue
        issues = [issue for issue in compile_documents([(page.name, text)]).issues if issue.severity is Severity.ERROR]

        assert issues == []


@every_page
def test_every_python_example_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), {})

        assert capsys.readouterr().out or "print(" not in code


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_documents_show_something() -> None:
    assert any(blocks(page, "yaml") for page in PAGES)
    assert any(blocks(page, "python") for page in PAGES)
