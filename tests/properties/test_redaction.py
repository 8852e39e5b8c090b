"""Redaction in a stream equals the same substitution on the whole text, and a cut leaks nothing, however it was cut."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import Tail, is_card
from policyd.core.model.reach import Watcher, compiled, reach
from policyd.core.stream.dialects import Channel, Path, Segment
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.outbox import Outbox
from policyd.core.stream.redactor import Redactor, redactor, redactors
from tests.sizes import size

CHANNELS: tuple[Channel, ...] = (("text", 0, 0), ("text", 1, 0), ("refusal", 0, 0))
REDACTORS = (
    redactor("ab{1,3}c", "[1]"),
    redactor(r"\bab?\b", "[2]"),
    redactor("^ab", "[3]"),
    redactor("c$", "[4]"),
    redactor("(?i)é[a-c]{0,4}", ""),
    redactor("a{0,2}", "[6]", lambda text: len(text) == 2),
    redactor(r"[ab1]{1,5}@[ab.]{1,5}\.[ab]{1,2}", "[mail]"),
    redactor(r"\d(?:[ -]?\d){3,6}", "[7]", lambda text: sum(map(int, filter(str.isdigit, text))) % 2 == 0),
    redactor("<k", "[key]", None, Tail("k>", through=True, most=9)),
    redactor("ca", "[8]", None, Tail("[^abc1]", through=False, most=12)),
    *redactors([Redaction(detectors=("card", "email", "private_key"))]),
)
PIECES = [
    "ab",
    "abc",
    "abbbc",
    "c",
    " ",
    "é",
    "A",
    "1",
    "11 1",
    "-",
    "a@b.b",
    "<k",
    "k>",
    "ca",
    ".",
    "\n",
    "4111",
    "４１",
    "\u202f",
    "🎉",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
SETS = st.lists(st.sampled_from(REDACTORS), min_size=1, max_size=4, unique=True).map(tuple)


# ---- the oracle: slow and obvious -----------------------------------------------------------------------------------


def spans(text: str, found: Sequence[Redactor]) -> Iterator[tuple[int, int, str]]:
    at = 0
    while at < len(text):
        end = None
        for one in found:
            match = compiled(one.pattern).match(text, at)
            if match and match.end() > at and (one.validator is None or one.validator(text[at : match.end()])):
                end = _with_tail(text, match.end(), one.tail)
                yield at, end, one.replacement
                break
        at = at + 1 if end is None else end


def _with_tail(text: str, at: int, tail: Tail | None) -> int:
    if tail is None:
        return at
    limit = min(at + tail.most, len(text))
    for place in range(at, limit + 1):
        match = compiled(tail.until).match(text, place)
        if match:
            return int(match.end()) if tail.through else place
    return limit


def substituted(text: str, found: Sequence[Redactor], upto: int | None = None) -> str:
    """The text, or what of it lies before `upto`, with every find replaced."""
    limit = len(text) if upto is None else upto
    out, at = [], 0
    for start, end, replacement in spans(text, found):
        if start >= limit:
            break
        out += [text[at:start], replacement]
        at = end
    return "".join([*out, text[at:limit]])


# ---- events: JSON lines ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    texts: tuple[tuple[int, str], ...]  # channel, text
    closes: tuple[int, ...] = ()

    @property
    def raw(self) -> bytes:
        return json.dumps([list(text) for text in self.texts]).encode() + b"\n"

    def add_to(self, box: Outbox) -> int:
        segments = [Segment(CHANNELS[number], (at, 1), text) for at, (number, text) in enumerate(self.texts)]
        return box.add(self.raw, segments, [CHANNELS[number] for number in self.closes])


def edit(raw: bytes, changes: list[tuple[Path, object]]) -> bytes:
    document = json.loads(raw)
    for (at, _), text in changes:
        document[at][1] = text
    return json.dumps(document).encode() + b"\n"


def said(data: bytes) -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for line in data.splitlines():
        for number, text in json.loads(line):
            texts[number] += text
    return texts


@st.composite
def streams(draw: st.DrawFn, channels: int = 3) -> list[Event]:
    """Texts, each cut whole, at every character or anywhere, their pieces spread over events in order."""
    queues: list[list[tuple[int, str]]] = []
    for number in range(draw(st.integers(1, channels))):
        text = draw(TEXTS)
        match draw(st.sampled_from(["whole", "single", "random"])):
            case "whole":
                cuts = [0, len(text)]
            case "single":
                cuts = list(range(len(text) + 1))
            case _:
                cuts = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=6))})
        queues.append([(number, text[a:b]) for a, b in itertools.pairwise(cuts)])
    events: list[Event] = []
    while waiting := [queue for queue in queues if queue]:
        texts, closes = [], []
        for queue in draw(st.lists(st.sampled_from(waiting), min_size=1, max_size=3)):
            if queue:
                texts.append(queue.pop(0))
                if not queue and draw(st.booleans()):
                    closes.append(texts[-1][0])
        events.append(Event(tuple(texts), tuple(closes)))
    return events


def texts_of(events: Sequence[Event]) -> dict[int, str]:
    return said(b"".join(event.raw for event in events))


@settings(max_examples=size(700), deadline=None)
@given(streams(), SETS, st.integers(0, 4), st.randoms(use_true_random=False))
def test_a_stream_says_what_the_whole_text_redacted_says(events: list[Event], found, keep, random) -> None:  # type: ignore[no-untyped-def]
    box, out = Outbox(redactors=found, keep=keep, edit=edit), b""
    for event in events:
        event.add_to(box)
        if random.random() < 0.6:
            out += box.release()
    box.close()
    out += box.release()

    assert {n: t for n, t in said(out).items() if t} == {
        number: redacted for number, text in texts_of(events).items() if (redacted := substituted(text, found))
    }
    assert len(out.splitlines()) == len(events) == box.released_events
    assert box.pending_bytes == 0


@settings(max_examples=size(400), deadline=None)
@given(TEXTS, SETS)
@example("x" * 3000 + "abc" + " " * 5000 + "a@b.b", REDACTORS[:7])
def test_a_whole_text_is_redacted_alike(text: str, found: tuple[Redactor, ...]) -> None:
    assert redact_text(text, found) == substituted(text, found)


@settings(max_examples=size(300), deadline=None)
@given(streams(), SETS)
def test_text_that_holds_nothing_leaves_as_the_bytes_it_came_in(events: list[Event], found) -> None:  # type: ignore[no-untyped-def]
    clean = [event for event in events if all(substituted(text, found) == text for text in texts_of(events).values())]
    box = Outbox(redactors=found, edit=edit)
    for event in clean:
        event.add_to(box)
    box.close()

    assert box.release() == b"".join(event.raw for event in clean)


# ---- cuts -----------------------------------------------------------------------------------------------------------

WATCHERS = tuple(
    [Watcher("contains", literal, len(literal)) for literal in ("abc", "c ", "1-", "bbb")]
    + [Watcher("matches", pattern, reach(pattern)) for pattern in ("a[b1]{1,2}c", r"\b1{1,3}\b", "(?i)é ?a")]
)


def cut_ways(
    events: Sequence[Event], at: int, found, watchers, keep, random, chosen=None
) -> set[tuple[bytes, int, bool]]:  # type: ignore[no-untyped-def]
    """The output of a cut at this event: released after each event, at random, or never; later events known or not."""
    outputs = set()
    for way in ("each", "random", "never", "later"):
        box, out = Outbox(redactors=found, watchers=watchers, keep=keep, edit=edit), b""
        for event in events[:at]:
            event.add_to(box)
            if way == "each" or (way == "random" and random.random() < 0.5):
                out += box.release()
        for event in events[at:] if way == "later" else events[at : at + 1]:
            event.add_to(box)
        out += box.cut(at, chosen)
        outputs.add((out, box.released_events, box.partial))
        box.close()
        assert box.release() == b"" and box.pending_bytes == 0
    return outputs


def first_hit(events: Sequence[Event], watchers: Sequence[Watcher]) -> int | None:
    box = Outbox(watchers=watchers, edit=edit)
    for number, event in enumerate(events):
        event.add_to(box)
        if box.hits:
            return number
    return None


def first_match(text: str, watchers: Sequence[Watcher], after: int = 0) -> int | None:
    starts = []
    for watcher in watchers:
        form = compiled(watcher.pattern if watcher.kind == "matches" else watcher.pattern.replace(".", r"\."))
        places = [match for at in range(len(text)) if (match := form.match(text, at))]
        starts += [match.start() for match in places if match.end() > after]
    return min(starts, default=None)


@settings(max_examples=size(500), deadline=None)
@given(streams(1), st.one_of(st.just(()), SETS), st.sampled_from(WATCHERS), st.randoms(use_true_random=False))
def test_a_cut_says_all_before_the_match_and_nothing_of_it(events: list[Event], found, watcher, random) -> None:  # type: ignore[no-untyped-def]
    at = first_hit(events, [watcher])
    if at is None:
        return
    outputs = cut_ways(events, at, found, [watcher], watcher.reach, random)
    text = texts_of(events[: at + 1])[0]
    start = first_match(text, [watcher])
    assert start is not None

    ((out, _, _),) = outputs
    closed = any(event.closes for event in events[:at])
    if not closed:  # text after the end of a channel is no stream's; only that all ways agree is asked then
        assert said(out)[0] == substituted(text, found, start)


@settings(max_examples=size(500), deadline=None)
@given(
    streams(), st.one_of(st.just(()), SETS), st.sets(st.sampled_from(WATCHERS)), st.integers(0, 8), st.integers(0, 99),
    st.booleans(), st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_cut_does_not_depend_on_what_was_released_before(  # type: ignore[no-untyped-def]
    events: list[Event], found, watchers, keep, at, generic, random
) -> None:
    if not events:
        return
    at %= len(events)
    outputs = cut_ways(events, at, found, tuple(watchers), keep, random, () if generic else None)
    assert len(outputs) == 1
    ((out, released, partial),) = outputs
    assert len(out.splitlines()) == released <= at + 1
    if keep == 0:
        assert released == at and not partial
        through = texts_of(events[: at + 1])
        for number, text in texts_of(events[:at]).items():
            assert said(out)[number] == substituted(through[number], found, len(text))


@settings(max_examples=size(500), deadline=None)
@given(streams(), SETS, SETS, st.integers(0, 3), st.integers(0, 99), st.randoms(use_true_random=False))
def test_a_redaction_that_begins_midway_begins_at_its_event(events: list[Event], first, more, keep, at, random) -> None:  # type: ignore[no-untyped-def]
    """Law 4 for a rule that starts to redact at an event: the same whether earlier events had left or not."""
    at %= len(events) + 1
    for initial in (first, ()):
        outputs = set()
        for way in ("each", "random", "never", "later"):
            box, out = Outbox(redactors=initial, keep=keep, edit=edit), b""
            for event in events[: len(events) if way == "later" else at]:
                event.add_to(box)
                if way == "each" or (way == "random" and random.random() < 0.5):
                    out += box.release()
            box.set_redactors(more, at)
            for event in [] if way == "later" else events[at:]:
                event.add_to(box)
                out += box.release()
            box.close()
            outputs.add(out + box.release())
        assert len(outputs) == 1


def test_the_oracle_itself() -> None:
    found = (
        redactor("ab{1,3}c", "#"),
        redactor(r"\d{4}", "$", is_card),
        redactor("<k", "K", None, Tail("k>", True, 3)),
    )

    assert substituted("xabbc 1234 <kyk>z <k12345", found) == "x# 1234 Kz K45"
    assert substituted("xabbc", found, 3) == "x#"


# ---- text after a close ---------------------------------------------------------------------------------------------


@st.composite
def reopened(draw: st.DrawFn) -> list[Event]:
    """Texts of two channels, each of which may close with any event and go on after it."""
    pieces = st.tuples(
        st.integers(0, 1), st.sampled_from(["abc", "ab", "c ", "1-1", "a@", "b.c", "x", "1", " "]) | TEXTS
    )
    closes = st.lists(st.integers(0, 1), max_size=1).map(tuple)
    return draw(st.lists(st.builds(Event, st.tuples(pieces), closes), min_size=1, max_size=8))


@settings(max_examples=size(500), deadline=None)
@given(
    reopened(), SETS, st.sets(st.sampled_from(WATCHERS)), st.integers(0, 8), st.integers(0, 99),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_text_after_a_close_does_not_depend_on_what_was_released_before(  # type: ignore[no-untyped-def]
    events: list[Event], found, watchers, keep, at, random
) -> None:
    outs = set()
    for way in ("each", "random", "never"):
        box, out = Outbox(redactors=found, watchers=watchers, keep=keep, edit=edit), b""
        for event in events:
            event.add_to(box)
            if way == "each" or (way == "random" and random.random() < 0.5):
                out += box.release()
        box.close()
        outs.add(out + box.release())
        assert box.released_events == len(events)
    assert len(outs) == 1
    assert len(cut_ways(events, at % len(events), found, tuple(watchers), keep, random)) == 1


@settings(max_examples=size(500), deadline=None)
@given(TEXTS, SETS, st.integers(0, 99), st.lists(st.integers(1, 3), max_size=9))
def test_a_match_that_begins_before_a_close_is_replaced_from_there_on(text: str, found, at, sizes) -> None:  # type: ignore[no-untyped-def]
    """Only the end of the body closes a channel a second time."""
    at %= len(text) + 1
    head, tail = text[:at], text[at:]
    spanning = next((one for one in spans(text, found) if one[0] < at < one[1]), None)
    box = Outbox(redactors=found, edit=edit)
    out = b""
    Event(((0, head),), (0,)).add_to(box)
    for number in [*sizes, len(tail)]:
        piece, tail = tail[:number], tail[number:]
        Event(((0, piece),), (0,)).add_to(box)
        out += box.release()
    box.close()
    left = said(out + box.release())[0]
    assert left.startswith(substituted(head, found))
    if spanning is not None and substituted(head, found) == head:
        rest = text[spanning[1] :]
        assert left == head + spanning[2] + substituted_from(text, found, spanning[1]) if rest else head + spanning[2]


def substituted_from(text: str, found: Sequence[Redactor], start: int) -> str:
    out, at = [], start
    for begin, end, replacement in spans(text, found):
        if begin >= start:
            out += [text[at:begin], replacement]
            at = end
    return "".join([*out, text[at:]])
