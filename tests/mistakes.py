"""Natural mistakes in policies, each with what `policyd check` has to say about it (tests/cases/mistakes/*.txt).

A case is `== name`, then `> regular expression` lines that the message and hint of one issue must match together, then
the policy. `»` marks the place that this issue must name. The policy is what stands under `spec:`; after a line `doc`
it is a whole document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Issue
from policyd.core.review.review import review

FOLDER = Path(__file__).parent / "cases" / "mistakes"
MARK = "»"
HEAD = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: p}\nspec:\n  mode: Full\n"


@dataclass(frozen=True, slots=True)
class Mistake:
    name: str
    wanted: tuple[str, ...]
    text: str
    line: int
    column: int

    def issues(self) -> tuple[Issue, ...]:
        return tuple(review(compile_documents([("policy.yaml", self.text)])))


def mistakes(file: Path) -> list[Mistake]:
    return [_mistake(section) for section in re.split(r"^== ", file.read_text(encoding="utf-8"), flags=re.M)[1:]]


def _mistake(section: str) -> Mistake:
    name, *lines = section.splitlines()
    wanted = tuple(line[2:] for line in lines if line.startswith("> "))
    rest = [line for line in lines if not line.startswith("> ")]
    whole = rest[0] == "doc"
    marked = "".join(f"{line}\n" for line in rest[1:]) if whole else HEAD + "".join(f"  {line}\n" for line in rest)
    before = marked.partition(MARK)[0]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return Mistake(name, wanted, marked.replace(MARK, ""), line, column)


def is_named(mistake: Mistake, issue: Issue) -> bool:
    """Whether an issue names the place, the cause and the fix of a mistake."""
    said = f"{issue.message} — {issue.hint}"
    return (issue.span.line, issue.span.column) == (mistake.line, mistake.column) and all(
        re.search(one, said) for one in mistake.wanted
    )
