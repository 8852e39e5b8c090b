"""A hundred thousand evaluations over what was never sent: no abort, no growth. In a process of its own, for the
failure it looks for ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import resource
from policyd.core.compile.cel import CelEngine, Scope, Want
from policyd.core.compile.policyset import CelFailure
from policyd.core.stream.hits import Hits
from policyd.core.model.facts import CounterFacts, Facts

scope = Scope(policy="p", counters=["spend"], params={}, variables=[])
SOURCES = [
    ("request.model == ''", Want.BOOL),
    ("dyn(request.?model) == optional.none()", Want.BOOL),
    ("dyn(null) == null && request.tags.size() == 0", Want.BOOL),
    ("[dyn(null)].exists(x, x == null) && request.max_tokens == 0", Want.BOOL),
    ("has(request.max_tokens) || request.max_tokens == 0", Want.BOOL),
    ("request.tags['none'] == 'a'", Want.BOOL),
    ("dyn(null) && true", Want.BOOL),
    ("request.stream ? dyn(null) : request.stream || request.temperature == 0", Want.BOOL),
    ("request.?system.orValue('none')", Want.STRING),
    ("string(dyn(null))", Want.STRING),
    ("request.messages.map(m, m.name)", Want.KEYS),
    ("{'a': dyn(null)}.?a.optMap(x, string(x)).orValue('')", Want.STRING),
    ("counters.spend.limit", Want.NUMBER),
    ("response.text.size()", Want.NUMBER),
]
programs = [scope.compile(source, want) for source, want in SOURCES]
programs = [program for program in programs if not isinstance(program, tuple)]
assert len(programs) >= 12, len(programs)
batch = CelEngine().batch(programs)
counters = {("p", "spend"): CounterFacts()}
first = batch.evaluate(Facts(), counters, Hits())
assert not any(value is None for value in first)
assert sum(isinstance(value, CelFailure) for value in first) >= 3, first
for turn in range(ROUNDS):
    if turn == ROUNDS // 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert batch.evaluate(Facts(), counters, Hits()) == first
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(ROUNDS * len(programs), grown)
"""


@pytest.mark.timeout(300)
def test_nothing_that_was_never_sent_ends_the_process_or_grows_it() -> None:
    rounds = 10_000  # of a dozen programs and more
    source = PROGRAM.replace("ROUNDS", str(rounds))
    ran = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    evaluations, grown_kb = map(int, ran.stdout.split())
    assert evaluations >= 100_000
    assert grown_kb < 2048, f"grew by {grown_kb} kB"
