"""Every error text, whole: tests/cases/check/NAME/policy.yaml gives what stands in expect.txt beside it.

`WRITE_EXPECTATIONS=1 pytest tests/cli/test_check_cases.py` writes them anew; look at the difference before you
believe it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyd.cli.render import as_text, summary
from policyd.core.compile.compiler import compile_documents
from policyd.core.review.review import review

CASES = Path(__file__).parents[1] / "cases" / "check"


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_what_check_says(case: Path) -> None:
    files = [(file.name, file.read_text(encoding="utf-8")) for file in sorted(case.glob("*.yaml"))]
    issues = review(compile_documents(files))
    said = as_text(issues, dict(files)) + summary(issues) + "\n"
    expected = case / "expect.txt"
    if os.environ.get("WRITE_EXPECTATIONS"):
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")
    assert all(issue.hint for issue in issues)
