"""Policies are rewritten every 20 ms, half of the time to something broken, while 200 streams run through a real
Envoy: each call is judged by one set from its first header to its last word, no broken set is ever in force, no stream
is lost.

The set is two files that change together, as a mounted ConfigMap does: by one symbolic link. Its generation stands in
the headers of request and answer, which the first file sets, and in the words that end the answer, from the second.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from policyd.cli.emulator import Call
from policyd.cli.emulator_answers import Wish, answer
from policyd.cli.stage import Stage
from policyd.core.compile.compiler import compile_documents
from tests.envoy.asking import DIALECTS, PROTOCOLS, check_ended, steering, text_of
from tests.envoy.stack import policy, stack

pytestmark = pytest.mark.envoy

STREAMS = 200
CUT = 18  # events of each stream before its end
GAP_MS = 250
STARTING_S = 3.0  # over which the streams begin
ROUNDS = 4  # at most, until streams have seen two sets
WRITE_S = 0.02

HEAD = """\
rules:
  - {name: request, constrain: {headers: {request: {set: {x-generation: "GENERATION"}}}}}
  - name: answer
    when: response.status == 200
    constrain: {headers: {response: {set: {x-generation: "GENERATION"}}}}
"""
WORDS = f"""\
rules:
  - {{name: enough, when: response.events > {CUT}, terminate: {{fallback: "generation GENERATION"}}}}
  - {{name: never, when: response.output_tokens > 100000 || response.finish_reasons.size() > 9, terminate: {{}}}}
"""
Files = dict[str, str]


def good(generation: object) -> Files:
    texts = {"head": HEAD, "words": WORDS}
    return {f"{name}.yaml": policy(name, text.replace("GENERATION", str(generation))) for name, text in texts.items()}


def change(file: str, edit: Callable[[str], str]) -> Callable[[Files], Files]:
    return lambda files: {**files, file: edit(files[file])}


BREAKS: tuple[Callable[[Files], Files], ...] = (
    change("words.yaml", lambda text: text[: len(text) // 2] + "\n  - ["),  # no YAML
    change("words.yaml", lambda text: text.replace("response.events", "response.evnts")),  # no such fact
    change("head.yaml", lambda text: text.replace("== 200", '== "200"')),  # of another type
    change("head.yaml", lambda text: text.replace("constrain:", "constrian:")),  # no such action
    change("words.yaml", lambda _: ""),  # a writer that has just begun
    change("words.yaml", lambda text: text.replace("kind: LLMPolicy", "kind: ConfigMap")),
    lambda files: {**files, "words.yaml": files["head.yaml"]},  # one policy twice
)


def broken(generation: int) -> Files:
    """A set whose one file is broken, and whose other would say so if it were in force all the same."""
    return BREAKS[generation // 2 % len(BREAKS)](good(f"broken-{generation}"))


# ---- the writer ------------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Rewrites a folder of policies for ever, each state in one step."""

    folder: Path
    written: int = 0

    def put(self, generation: int, files: Files) -> None:
        """Makes these files the folder's, all at once, and drops the ones before."""
        fresh = self.folder / f"..{generation}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text)
        link, data = self.folder / "..next", self.folder / "..data"
        before = data.resolve() if data.exists() else None
        link.symlink_to(fresh.name)
        link.replace(data)
        if before:
            shutil.rmtree(before)
        self.written = generation

    def mount(self) -> None:
        """Turns plain files into links through `..data`."""
        self.put(0, good(0))
        for name in good(0):
            link = self.folder / f".{name}"
            link.symlink_to(Path("..data") / name)
            link.replace(self.folder / name)

    @staticmethod
    def ordered(pair: int, chance: random.Random) -> list[int]:
        """A broken state and a good one, in any order: one who reads at fixed times might else meet one kind only."""
        both = [2 * pair - 1, 2 * pair]
        chance.shuffle(both)
        return both

    @contextmanager
    def writing(self) -> Iterator[None]:
        stop, chance = threading.Event(), random.Random(self.written)

        def write() -> None:
            for pair in itertools.count(self.written // 2 + 1):
                for generation in self.ordered(pair, chance):
                    if stop.wait(WRITE_S):
                        return
                    self.put(generation, broken(generation) if generation % 2 else good(generation))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def test_every_break_is_one() -> None:
    assert compile_documents(list(good(1).items())).policy_set is not None
    for number in range(len(BREAKS)):
        files = broken(2 * number + 1)
        assert "" in files.values() or compile_documents(list(files.items())).policy_set is None


# ---- the streams -----------------------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Streams at one time, half of them over connections of their own, half over one."""

    stage: Stage
    running: int = 0
    most: int = 0
    answers: dict[int, httpx.Response] = field(default_factory=dict)

    async def ask(self, client: httpx.AsyncClient, number: int) -> None:
        await asyncio.sleep(number * STARTING_S / STREAMS)
        dialect = DIALECTS[number // 2 % 2]
        headers = {**steering(events=60, interval_ms=GAP_MS), "x-number": str(number)}
        self.running += 1
        self.most = max(self.most, self.running)
        self.answers[number] = await client.post(self.stage.url + dialect.path, content=dialect.body(), headers=headers)
        self.running -= 1

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=STREAMS)
        async with (
            httpx.AsyncClient(timeout=30, verify=False, limits=limits, **PROTOCOLS["http1"]) as one,  # type: ignore[arg-type]
            httpx.AsyncClient(timeout=30, verify=False, limits=limits, **PROTOCOLS["http2"]) as two,  # type: ignore[arg-type]
        ):
            await asyncio.gather(*(self.ask((one, two)[number % 2], number) for number in range(STREAMS)))


@dataclass(frozen=True, slots=True)
class Marks:
    """Where the generation of the set in force stands, for one call."""

    asked: str
    answered: str
    said: str
    digest: object

    @property
    def agree(self) -> bool:
        return self.asked == self.answered == self.said


def marks(number: int, answered: httpx.Response, call: Call, digest: object) -> Marks:
    """What marks one stream, which must be whole: every event before the cut, and a proper end."""
    dialect = DIALECTS[number // 2 % 2]
    events = answer(dialect.path, call.body, Wish(events=60)).events
    before = b"".join(event.data for event in events[:CUT])
    assert answered.status_code == 200
    assert answered.content.startswith(before)
    check_ended(dialect, answered.content)
    own = text_of(dialect, answered.content).removeprefix(text_of(dialect, before))
    said = own.strip().removeprefix("generation ")
    return Marks(call.header("x-generation"), answered.headers["x-generation"], said, digest)


def reloads(stage: Stage) -> dict[str, int]:
    """How many reloads came to what."""
    found = re.findall(r'^policyd_reload_total\{result="(\w+)"\} (\d+)', stage.metrics(), re.MULTILINE)
    return {result: int(count) for result, count in found}


def ever_in_force(stage: Stage) -> list[str]:
    """The digests of all sets that were in force, in order."""
    return re.findall(r"policy set (\S+) in force", (stage.folder / "policyd.log").read_text())


@dataclass(frozen=True, slots=True)
class Round:
    """What 200 streams at one time came to."""

    seen: list[Marks]
    most: int
    ended: list[object]


def run_streams(stage: Stage, rounds: int) -> Round:
    """One round of streams, the `rounds`-th of this stage."""
    crowd, first = Crowd(stage), len(stage.providers[0].calls)
    asyncio.run(crowd.run())
    records = {record["id"]: record for record in stage.wait_for_records(rounds * STREAMS)}
    calls = {int(call.header("x-number")): call for call in stage.providers[0].calls[first:]}
    seen, ended = [], []
    for number, got in crowd.answers.items():
        record = records[got.headers["x-policyd-decision"]]
        ended.append(record["ended"])
        seen.append(marks(number, got, calls[number], record["policy_set"]))
    return Round(seen, crowd.most, ended)


def test_200_streams_while_policies_are_rewritten() -> None:
    rounds: list[Round] = []
    with stack(good(0)) as stage:
        writer = Writer(stage.policies)
        writer.mount()
        with writer.writing():
            while len(rounds) < ROUNDS and len({one.asked for found in rounds for one in found.seen}) < 2:
                rounds.append(run_streams(stage, len(rounds) + 1))
        found, in_force = reloads(stage), ever_in_force(stage)
    assert [(len(one.seen), one.most, set(one.ended)) for one in rounds] == [(STREAMS, STREAMS, {"cut"})] * len(rounds)
    seen = [one for each in rounds for one in each.seen]
    assert [one for one in seen if not one.agree] == []
    digests = {str(generation): digest_of(generation) for generation in range(0, writer.written + 2, 2)}
    assert [one for one in seen if one.digest != digests.get(one.asked)] == []
    assert [digest for digest in in_force if digest not in digests.values()] == []
    generations = {one.asked for one in seen}
    print(f"{writer.written} writes, reloads {found}, the streams saw generations {sorted(generations, key=int)}")
    assert len(generations) >= 2
    assert found["loaded"] >= 2
    assert found["refused"] >= 1


def digest_of(generation: object) -> str:
    policies = compile_documents(list(good(generation).items())).policy_set
    assert policies is not None
    return policies.digest
