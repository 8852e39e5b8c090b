"""Processes that die with the one that started them, whatever becomes of it.

Rule 1: nothing of ours runs in a forked child: gRPC's own handlers may abort it, so the wish is made by a program that
        then becomes the one that is wanted, under the same process id.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import IO

_BECOME = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execv(sys.argv[1], sys.argv[1:])
"""


def started(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a program, named by its path; what it says goes to `log`."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _BECOME, *command], stdout=log, stderr=log)
