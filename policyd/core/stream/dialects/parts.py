"""Texts of several parts of one message, as a provider puts them together: without anything between them.

Rule 1: the texts of the parts of one `content`, `parts`, `system` or `prompt` list are one run, whatever parts that are
        no text stand between them.
Rule 2: rules also read each run as one text. Of a part of more than `2 * NEAR` characters it has the first and the last
        `NEAR`: matches within one part are found where the part itself is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from policyd.core.model.bounds import Bounds
from policyd.core.stream.dialects import Path, Segment
from policyd.core.stream.dialects.content import Leaf, Structure, joined, leaves

NEAR = 1024  # characters on each side of a border
_LISTS = frozenset({"content", "parts", "system", "prompt", "summary"})
_WITHIN = frozenset({"text", "guardContent"})  # fields of a part that lead to its text


class Run(NamedTuple):
    """The places and texts of the parts of one message."""

    paths: list[Path]
    texts: list[str]

    @property
    def near(self) -> list[str]:
        """The texts, long ones without their middle."""
        return [one if len(one) <= 2 * NEAR else f"{one[:NEAR]}\n{one[-NEAR:]}" for one in self.texts]


def list_of(path: Path) -> Path | None:
    """The list of parts that the text at this place belongs to; None if it is no part of a message."""
    at = len(path) - 1
    while at >= 0 and path[at] in _WITHIN:
        at -= 1
    return path[:at] if at > 0 and isinstance(path[at], int) and path[at - 1] in _LISTS else None


def runs(texts: Iterable[tuple[Path, str]]) -> list[Run]:
    """The runs of these texts that have more than one part."""
    found: dict[Path, Run] = {}
    for path, text in texts:
        if (key := list_of(path)) is not None:
            run = found.setdefault(key, Run([], []))
            run.paths.append(path)
            run.texts.append(text)
    return [run for run in found.values() if len(run.texts) > 1]


def runs_of(found: Iterable[Leaf]) -> list[Run]:
    """The runs among the strings of a document."""
    last = (leaf for leaf in found if not leaf.key and not leaf.number and leaf.link is not None)
    return runs((leaf.path, leaf.text) for leaf in last if leaf.link and not _named(leaf.link[1]))


def _named(step: str | int) -> bool:
    return isinstance(step, str) and step not in _WITHIN


def with_runs(texts: Sequence[str], segments: Iterable[Segment]) -> str:
    """What `request.text` reads: every text, and every run as one text."""
    return "\n".join([*texts, *("".join(run.near) for run in runs((one.path, one.text) for one in segments))])


class Content(NamedTuple):
    """What `request.content` reads: every string that is content, and every run as one text."""

    text: str
    plain: str  # the strings alone
    runs: list[Run]


def contents(document: object, structure: Structure, bounds: Bounds) -> Content:
    """The content of a request. Raises Malformed beyond the bound `request_content`."""
    found = [*leaves(document, structure)]
    plain = joined((leaf.text for leaf in found), bounds)
    several = runs_of(found)
    return Content("\n".join([plain, *("".join(run.near) for run in several)]), plain, several)
