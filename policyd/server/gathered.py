"""The pages of several workers as one.

Rule 1: each series keeps its worker (`worker="0"`) instead of being added up: a worker that is replaced begins at zero,
        and only in a series of its own does Prometheus see that. `sum without (worker) (...)` adds them.
Rule 2: it is ready when every worker is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from policyd.adapters.admin import METRICS, Answer, text

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (.*)")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of one worker: its page, None when it does not answer, and how often it was replaced."""

    page: Answer | None
    replaced: int = 0


def metrics(workers: Sequence[Told]) -> Answer:
    """All pages on one."""
    families: dict[str, list[str]] = {}
    for number, worker in enumerate(workers):
        if worker.page is not None:
            _gather(families, worker.page.body.decode(), f'worker="{number}"')
    lines = [*_own(workers), *(line for family in families.values() for line in family)]
    return Answer(HTTPStatus.OK, "".join(f"{line}\n" for line in lines).encode(), METRICS)


def _gather(families: dict[str, list[str]], page: str, label: str) -> None:
    """Add a page's series, each family in one piece, as the format wants it."""
    family: list[str] = []
    known = False
    for line in page.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            known = name in families
            family = families.setdefault(name, [])
        if not line.startswith("#"):
            family.append(_labelled(line, label))
        elif not known:
            family.append(line)


def _labelled(line: str, label: str) -> str:
    sample = _SAMPLE.fullmatch(line)
    if sample is None:
        return line
    name, labels, value = sample.groups()
    return f"{name}{{{labels},{label}}} {value}" if labels else f"{name}{{{label}}} {value}"


def _own(workers: Sequence[Told]) -> list[str]:
    """What only the supervisor knows."""
    up = {number: int(worker.page is not None) for number, worker in enumerate(workers)}
    replaced = {number: worker.replaced for number, worker in enumerate(workers)}
    return [
        *_family("policyd_worker_up", "gauge", "1 while the worker answers its supervisor", up),
        *_family(
            "policyd_worker_replaced_total", "counter", "how often the worker was replaced, having ended", replaced
        ),
    ]


def _family(name: str, kind: str, words: str, values: Mapping[int, int]) -> list[str]:
    series = [f'{name}{{worker="{number}"}} {value}' for number, value in values.items()]
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *series]


def ready(workers: Sequence[Told]) -> Answer:
    """A line or more a worker; 200 only when each of them is ready."""
    whole = all(worker.page is not None and worker.page.status == HTTPStatus.OK for worker in workers)
    lines = [
        f"worker {number}: {line}"
        for number, worker in enumerate(workers)
        for line in (worker.page.body.decode().splitlines() if worker.page else ["does not answer"])
    ]
    return text(HTTPStatus.OK if whole else HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(lines))
