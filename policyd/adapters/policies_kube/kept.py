"""The last good policies on disk, for a start without an API server.

Rule 1: the file is replaced whole, or not at all.
Rule 2: what cannot be written is said and does not stop policies from coming into force.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from policyd.adapters.errors import reason_of
from policyd.adapters.policies_kube.good import Texts

log = logging.getLogger("policyd")

FILE = "policies-kube.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """One file in the folder of `--state`."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def read(self) -> Texts | None:
        """What was kept; None when nothing was, or when it cannot be read any more."""
        try:
            found = json.loads(self.path.read_text("utf-8"))["policies"]
            return {str(file): str(text) for file, text in found.items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("%s: cannot be used: %s", self.path, error)
            return None

    def write(self, texts: Texts) -> None:
        fresh = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({"policies": texts}, file, ensure_ascii=True)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            log.error("%s: the last good policies are not kept: %s", self.path, reason_of(error))
