"""The outbox by tables: what leaves when, and what a cut leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import DETECTOR_NAMES, Tail
from policyd.core.model.reach import Watcher, reach
from policyd.core.stream.dialects import Channel, Path, Segment
from policyd.core.stream.outbox import Outbox
from policyd.core.stream.redactor import redactor, redactors

TEXT: Channel = ("text", 0, 0)
OTHER: Channel = ("text", 1, 0)
ARGS: Channel = ("args", 0, 1)
KEY = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\\n-----END PRIVATE KEY-----"


def edit(raw: bytes, changes: list[tuple[Path, object]]) -> bytes:
    document = json.loads(raw)
    for (key,), text in changes:
        document[key] = text
    return json.dumps(document).encode() + b"\n"


def add(box: Outbox, text: str, channel: Channel = TEXT, closes: Sequence[Channel] = ()) -> bytes:
    raw = json.dumps({"t": text}).encode() + b"\n"
    box.add(raw, [Segment(channel, ("t",), text)], closes, closes)
    return raw


def said(data: bytes) -> list[str]:
    return [json.loads(line)["t"] for line in data.splitlines() if not line.startswith(b":")]


def contains(text: str) -> Watcher:
    return Watcher("contains", text, len(text))


def matches(pattern: str) -> Watcher:
    return Watcher("matches", pattern, reach(pattern))


# ---- nothing is held ------------------------------------------------------------------------------------------------


def test_without_anything_to_hold_every_event_leaves_as_it_came() -> None:
    box = Outbox(watchers=[contains("x")], edit=edit)
    assert box.add(b": ping\n", [], []) == 0
    raw = add(box, "a x b")
    assert box.pending_bytes == 7 + len(raw)

    assert box.release() == b": ping\n" + raw
    assert (box.released_events, box.pending_bytes, box.release()) == (2, 0, b"")
    assert box.hits == {contains("x")}


def test_a_cut_without_hold_back_leaves_exactly_the_events_before() -> None:
    box = Outbox(watchers=[contains("bad")], edit=edit)
    first = add(box, "so ba")
    assert box.release() == first
    second, _, _ = add(box, "x"), add(box, "d bad"), add(box, "more")

    assert box.cut(2) == second
    assert (box.released_events, box.partial, box.pending_bytes) == (2, False, 0)
    add(box, "late")
    assert box.release() == b""


# ---- watchers -------------------------------------------------------------------------------------------------------

WATCHED = [
    (contains("bad"), ["ba", "d"], 1),
    (contains("bad"), ["ba", " d"], None),
    (contains("b\ud800d"), ["b", "d"], None),
    (contains(""), [], -1),
    (matches("b.d"), ["xb", "", "é", "d"], 3),
    (matches("^bad"), ["x", "bad"], None),
    (matches("^bad"), ["ba", "d"], 1),
    (matches("x*"), [], -1),
    (matches(r"bad\b"), ["xba", "ds", " bad"], 2),
    (matches("bad$"), ["xbads", "bad"], 1),  # true of the text so far
    (Watcher("matches", "b.*d", None), ["xb" + "y" * 9000, "z" * 9000, "d"], 2),
    (matches("(?i)BÄD"), ["b", "ä", "d"], 2),
]


@pytest.mark.parametrize(("watcher", "texts", "at"), WATCHED)
@pytest.mark.parametrize("keep", [0, 4])
def test_a_watcher_matches_at_its_event(watcher: Watcher, texts: list[str], at: int | None, keep: int) -> None:
    box = Outbox(watchers=[watcher], keep=keep, edit=edit)
    hit = -1 if box.hits else None
    for number, text in enumerate(texts):
        add(box, text)
        box.release()
        hit = number if box.hits and hit is None else hit
    assert hit == at


def test_choices_are_watched_one_by_one_and_only_their_visible_text() -> None:
    box = Outbox(watchers=[contains("bad")], edit=edit)
    add(box, "ba"), add(box, "d", OTHER), add(box, "bad", ARGS), add(box, "bad", ("reasoning", 0, 0))
    assert box.hits == set()
    add(box, "d")
    assert box.hits == {contains("bad")}


# ---- hold-back ------------------------------------------------------------------------------------------------------


def test_kept_characters_leave_when_more_come_or_the_channel_closes() -> None:
    box = Outbox(keep=3, edit=edit)
    a, b, c = add(box, "abcd"), add(box, "e"), add(box, "fg")

    assert box.release() == a
    box.add(b": ping\n", [], [])
    d = add(box, "", closes=[TEXT])
    assert box.release() == b + c + b": ping\n" + d


def test_what_is_kept_of_one_choice_keeps_the_order_of_all() -> None:
    box = Outbox(keep=2, edit=edit)
    a, b = add(box, "x"), add(box, "yyyy", ARGS)
    assert box.release() == b""
    box.close()
    assert box.release() == a + b


def test_ordinary_text_hardly_waits_for_redaction() -> None:
    """No detector, whatever its reach, holds more than the word that may become a match."""
    box = Outbox(redactors=redactors([Redaction(detectors=DETECTOR_NAMES)]), edit=edit)
    events = [add(box, word) for word in ("The ", "quick ", "brown ", "fo")]
    assert box.release() == b"".join(events[:3])


def test_a_tool_call_leaves_when_it_is_complete() -> None:
    box = Outbox(hold_args=True, edit=edit)
    text, start = add(box, "hi"), add(box, "", ARGS)
    assert box.release() == text
    rest = [add(box, '{"a":', ARGS), add(box, "1}", ARGS)]
    assert box.release() == b""
    box.add(b": end\n", [], (), [ARGS])
    assert box.release() == start + b"".join(rest) + b": end\n"


def test_a_cut_takes_away_an_unfinished_tool_call() -> None:
    box = Outbox(hold_args=True, edit=edit)
    add(box, "hi"), add(box, '{"a', ARGS)
    add(box, '":1}', ARGS, closes=[ARGS])
    assert said(box.cut(2)) == ["hi"]
    assert box.released_events == 1


@pytest.mark.parametrize("channel", [TEXT, ARGS])
@pytest.mark.parametrize("end", [True, False])
def test_not_one_byte_of_a_private_key_leaves(channel: Channel, end: bool) -> None:
    key = KEY if end else KEY.partition("\\n-----END")[0]
    before, after = ('{"pem": "', '", "n": 1}') if channel is ARGS else ("key: ", " that was it" if end else "")
    box = Outbox(redactors=redactors([Redaction(detectors=("private_key",))]), edit=edit)
    out = b""
    for character in before + key + after:
        add(box, character, channel)
        out += box.release()
    box.close()
    out += box.release()

    assert "".join(said(out)) == f"{before}[redacted]{after}"
    assert len(out.splitlines()) == len(before + key + after)


def test_a_key_that_streams_is_not_kept() -> None:
    box = Outbox(redactors=redactors([Redaction(detectors=("private_key",))]), edit=edit)
    add(box, "-----BEGIN PRIVATE KEY-----")
    for _ in range(50):
        add(box, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC")
        box.release()
        assert box.pending_bytes == 0


# ---- cuts with hold-back --------------------------------------------------------------------------------------------

CUTS = [  # texts, event, keep, what is said, entries that left, the last one in part
    (["hello ", "ba", "d!"], 2, 3, ["hello "], 1, False),
    (["hello b", "a", "d!"], 2, 3, ["hello "], 1, True),
    (["hello ", "so bad!"], 1, 3, ["hello ", "so "], 2, True),
    (["bad!"], 0, 3, [], 0, False),
    (["hello ", "bad!"], 1, 3, ["hello "], 1, False),
    (
        ["bad and ", "long after ", "x"],
        2,
        3,
        ["bad and ", "long aft"],
        2,
        True,
    ),  # the match had left: `keep` is dropped
]


@pytest.mark.parametrize(("texts", "at", "keep", "expected", "left", "partial"), CUTS)
def test_a_cut_with_hold_back(
    texts: list[str], at: int, keep: int, expected: list[str], left: int, partial: bool
) -> None:
    box = Outbox(watchers=[contains("bad")], keep=keep, edit=edit)
    for text in texts:
        add(box, text)

    assert said(box.cut(at)) == expected
    assert (box.released_events, box.partial) == (left, partial)


def test_a_rule_that_watches_nothing_drops_all_that_was_kept() -> None:
    box = Outbox(watchers=[contains("bad")], keep=4, edit=edit)
    add(box, "it is bad"), add(box, "x")
    assert said(box.cut(1, watchers=())) == ["it is"]


def test_a_tail_that_runs_when_the_stream_is_cut_takes_all() -> None:
    found = [redactor("<k", "#", tail=Tail("k>", through=True, most=99))]
    box = Outbox(redactors=found, edit=edit)
    out = b""
    for character in "a<k12k":
        add(box, character)
        out += box.release()
    add(box, "x")
    assert "".join(said(out + box.cut(6))) == "a#"


def test_a_match_over_the_cut_is_replaced() -> None:
    box = Outbox(redactors=[redactor("secret", "#")], edit=edit)
    add(box, "a sec"), add(box, "ret b")
    assert said(box.cut(1)) == ["a #"]


# ---- bounds ---------------------------------------------------------------------------------------------------------


def test_a_long_stream_is_forgotten_as_it_leaves() -> None:
    box = Outbox(redactors=[redactor("secret", "#")], watchers=[contains("bad")], keep=5, edit=edit)
    for _ in range(3000):
        add(box, "some ordinary text ")
        box.release()
    (lane,) = box._lanes.values()
    held = sum(map(len, lane.hold._past)) + len(lane.hold._window)
    assert held < 100 and len(lane.watch._text) < 100 and box.pending_bytes < 100  # type: ignore[union-attr]
