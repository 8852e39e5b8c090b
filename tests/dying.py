"""Processes that die with the one that started them, whatever becomes of it.

Rule 1: nothing of ours runs in a forked child: gRPC's own handlers may abort it, so the wish is made by a program that
        then becomes the one that is wanted, under the same process id.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_BECOME = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execv(sys.argv[1], sys.argv[1:])
"""


def started(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a program, named by its path; what it says goes to `log`. `environment`: in place of ours."""
    words = [sys.executable, "-I", "-S", "-c", _BECOME, *command]
    return subprocess.Popen(words, stdout=log, stderr=log, env=environment)
