"""`policyd explain`: one recorded call, judged aloud."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording, read_recordings
from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli.aloud.hearing import HeardSet, Listening
from policyd.cli.aloud.report import as_json, as_text
from policyd.cli.aloud.secrets import scrubber
from policyd.cli.aloud.telling import Told
from policyd.cli.dry_run import DryRun, Played
from policyd.cli.replay import compiled
from policyd.cli.serve_options import BoundValues, bounds_from
from policyd.core.compile.policyset import PolicySet
from policyd.core.model.decision import Mode
from policyd.core.model.options import Options
from policyd.core.model.prices import PriceTable


class Format(StrEnum):
    """How it is told."""

    TEXT = "text"
    JSON = "json"


def explain(
    call: Annotated[
        str, typer.Argument(metavar="FILE#N", help="A recorded file and the number of the call in it, from 0.")
    ],
    policies: Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")],
    mode: Annotated[Mode, typer.Option(help="The process's mode.", case_sensitive=False)] = Mode.FULL,
    format: Annotated[Format, typer.Option(help="For people, or one JSON document.")] = Format.TEXT,
    alone: Annotated[
        bool, typer.Option("--alone", help="With empty counters, as if no call of the file came before it.")
    ] = False,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")] = None,
    bound: BoundValues = None,
) -> None:
    """Judge one recorded call aloud: the facts, what each part of each rule gave, the counters, and why this verdict.

    The calls before it in the file are judged first, so that counters are what they were. Prompts and answers of the
    recording are shown, credentials never.
    """
    file, number = place_of(call)
    options = Options(mode=mode, namespace=namespace, observe_all=True, bounds=bounds_from(bound))
    told = asyncio.run(judge(compiled(policies), load_prices(prices), options, (file, number), alone=alone))
    document = told.document()
    print(as_json(document) if format is Format.JSON else as_text(document).rstrip("\n"))


def place_of(call: str) -> tuple[Path, int]:
    """The file and the number of `FILE#N`; the first call of a plain `FILE`."""
    file, mark, number = call.rpartition("#")
    if not mark or (not number.isdecimal() and Path(call).exists()):
        return Path(call), 0
    if not number.isdecimal() or len(number) > 12:
        raise typer.BadParameter(f"write FILE#N, N counting calls from 0, not `{call}`", param_hint="FILE#N")
    return Path(file), int(number)


async def judge(
    policies: PolicySet, prices: PriceTable, options: Options, place: tuple[Path, int], *, alone: bool = False
) -> Told:
    """The call at this place, with all that was heard while it was judged. Raises UnreadableInput."""
    listening = Listening(policies.engine)
    watched = HeardSet(policies, listening)
    run = DryRun(watched, prices, options, gather=False, vocabularies=load_vocabularies())
    played = await _play(run, listening, place, alone=alone)
    return Told(policies, listening, played, scrubber(played.recording))


async def _play(run: DryRun, listening: Listening, place: tuple[Path, int], *, alone: bool) -> Played:
    file, number = place
    count = 0
    for recording in read_recordings(file):
        if count == number:
            listening.heard.clear()
            return await run.play(recording)
        await _before(run, recording, alone=alone)
        count += 1
    calls = "1 call" if count == 1 else f"{count} calls"
    raise UnreadableInput(file, f"has no call {number}: it holds {calls}, counted from 0")


async def _before(run: DryRun, recording: Recording, *, alone: bool) -> None:
    if not alone:
        await run.play(recording)
