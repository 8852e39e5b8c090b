"""A stream that a rule cuts anywhere ends so that its official SDK hears a whole answer, the fallback in it."""

from __future__ import annotations

import json
import random

import pytest

from tests.core.test_private_keys import stream_of
from tests.hearing import HEAR
from tests.recorded import TEXT, Lab, Stream, recorded, words
from tests.spoken import VOICES

WORDS = words(TEXT[:60], random.Random(7))
ARGUMENTS = words(json.dumps({"q": "a b"}), random.Random(7))
EVENTS = (1, 2, 3, 5, 8)


@pytest.fixture(scope="module")
def labs() -> dict[int, Lab]:
    spec = """match: {{operations: ["*"]}}
rules: [{{name: r, when: response.events >= {at}, terminate: {{fallback: Stopped.}}}}]"""
    return {at: Lab(spec.format(at=at)) for at in EVENTS}


def heard(lab: Lab, stream: Stream) -> str | None:
    """Everything that the SDK hears of this stream, cut; None where it is over before."""
    out = lab.run(stream, [stream.data])
    if out.record.ended != "cut":
        assert out.body == stream.data
        return None
    return "".join(HEAR[stream.dialect.name](out.body, stream.kind).values())


@pytest.mark.parametrize("name", VOICES)
def test_a_cut_anywhere_is_heard_as_a_whole_answer(name: str, labs: dict[int, Lab]) -> None:
    voice = VOICES[name]
    for say, pieces in ((voice.say, WORDS), (voice.call, ARGUMENTS)):
        for lab in labs.values() if say is not None else ():
            assert say is not None
            said = heard(lab, stream_of(name, voice, say(pieces)))
            assert said is None or "Stopped." in said


@pytest.mark.corpus
def test_a_cut_of_recorded_streams_is_heard_as_a_whole_answer(labs: dict[int, Lab]) -> None:
    for stream in recorded():
        if len(stream.data) <= 8_000:
            for at in (2, 5):
                said = heard(labs[at], stream)
                assert said is None or "Stopped." in said, stream
