"""`python calling.py HOST PORT MODEL BREATH_S FILE`: one call after another, with a breath between; a line for each.

A process of its own: what else a test does must not make its calls look slow.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from pathlib import Path


def calls(host: str, port: str, model: str, breath_s: str, file: str) -> None:
    """A line: when it ended (monotonic, seconds), how long it took (seconds), and the status or what went wrong."""
    asked = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
    there = http.client.HTTPConnection(host, int(port), timeout=30)
    with Path(file).open("a", buffering=1) as out:
        while True:
            began = time.monotonic()
            try:
                there.request("POST", "/v1/chat/completions", asked, {"content-type": "application/json"})
                answer = there.getresponse()
                answer.read()
                said = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                there.close()
                said = type(error).__name__
            ended = time.monotonic()
            out.write(f"{ended} {ended - began} {said}\n")
            select.select([], [], [], float(breath_s))


if __name__ == "__main__":
    calls(*sys.argv[1:])
