"""One JSON document of a list and its sums, written when it is whole.

Rule 1: stdout gets one document, or nothing.
Rule 2: memory does not grow with the list: past a bound it lies in a temporary file.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

_MEMORY = 16 * 1024 * 1024  # bytes


class Document:
    """`{"NAME": [...], "summary": {...}}`, and `issues` where there are any."""

    def __init__(self, name: str) -> None:
        self._spool: IO[str] = tempfile.SpooledTemporaryFile(_MEMORY, "w+", encoding="ascii")  # noqa: SIM115
        self._spool.write(f'{{"{name}": [')
        self._lead = "\n"

    def add(self, row: dict[str, object]) -> None:
        self._spool.write(self._lead + json.dumps(row))
        self._lead = ",\n"

    def print(self, summary: dict[str, object], issues: Sequence[dict[str, object]] = ()) -> None:
        more = f',\n"issues": {json.dumps(issues)}' if issues else ""
        self._spool.write('\n],\n"summary": ' + json.dumps(summary) + more + "}\n")
        self._spool.seek(0)
        shutil.copyfileobj(self._spool, sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._spool.close()
