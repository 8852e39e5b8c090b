"""Other readers of JSON: what a body means is what all of them read in it.

Rule 1: each answers with the document, or with REFUSED; it never raises.
Rule 2: a number is the double that it is nearest to where `rounded` says so: some of them know no other.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jiter
import msgspec
import orjson

REFUSED = object()
NODE = shutil.which("node")
_SCRIPT = """
let batch = [];
require("readline").createInterface({input: process.stdin}).on("line", line => {
  if (line) { batch.push(line); return; }
  const out = batch.map(one => {
    try { return JSON.stringify(JSON.parse(Buffer.from(one, "base64").toString("utf8"))); } catch { return "!"; }
  });
  batch = [];
  process.stdout.write(out.join("\\n") + "\\n");
});
"""

PEERS: dict[str, Callable[[bytes], Any]] = {
    "json": json.loads,
    "orjson": orjson.loads,
    "msgspec": msgspec.json.decode,
    "jiter": jiter.from_json,
}


def read(peer: str, data: bytes) -> Any:
    """The document as one of PEERS reads it."""
    try:
        return PEERS[peer](data)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return REFUSED


class Node:
    """One Node process, asked in batches."""

    def __init__(self) -> None:
        assert NODE is not None
        self._process = subprocess.Popen([NODE, "-e", _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, bodies: Sequence[bytes]) -> Iterable[Any]:
        """Each document as JSON.parse reads it. INVARIANT: nothing is written while Node writes."""
        out, back = self._process.stdin, self._process.stdout
        assert out is not None and back is not None
        out.write(b"".join(base64.b64encode(body) + b"\n" for body in bodies) + b"\n")
        out.flush()
        for _ in bodies:
            line = back.readline()
            assert line, "node is gone"
            yield REFUSED if line == b"!\n" else json.loads(line)

    def close(self) -> None:
        self._process.kill()  # it may be writing what nobody will read
        with self._process:
            pass


def rounded(value: Any) -> Any:
    """The same with every integer that doubles cannot tell from its neighbours as one of them."""
    if isinstance(value, dict):
        return {key: rounded(below) for key, below in value.items()}
    if isinstance(value, list):
        return [rounded(below) for below in value]
    return float(value) if type(value) is int and abs(value) > 2**53 - 1 else value


def told_apart(first: Any, second: Any) -> bool:
    """Whether two documents differ; true is not 1 here, as it is in Python."""
    todo = [(first, second)]
    while todo:
        a, b = todo.pop()
        if isinstance(a, bool) != isinstance(b, bool) or a != b:
            return True
        if isinstance(a, dict):
            todo += [(below, b[key]) for key, below in a.items()]
        elif isinstance(a, list):
            todo += zip(a, b, strict=True)
    return False
