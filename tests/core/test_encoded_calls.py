"""Calls whose bodies are encoded: what was judged is what is sent on, and its headers say so; what is only watched
passes as it came."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import brotli
import pytest

from policyd.core.model.decision import Verdict
from policyd.core.stream.encodings import zstd
from tests.driving import Bed, Outcome, answer_of, chat, policy, stream_of

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}
each = pytest.mark.parametrize("coding", ENCODERS)
NO = "rules: [{name: no, severity: Critical, when: 'request.model == \"forbidden\"', terminate: {}}]"
CAPS = "rules: [{name: cap, severity: Critical, constrain: {cap: {max_tokens: 7}}}]"
SAYS = "rules: [{name: no, severity: Critical, when: 'response.text.contains(\"forbidden\")', terminate: {}}]"
REDACTS = "rules: [{name: r, constrain: {redact: {patterns: ['sec[a-z]{1,5}'], in: [response]}}}]"
STREAM = b"".join(stream_of("one ", "two ", "forbidden ", "four"))
SSE, JSON = (("content-type", "text/event-stream"),), (("content-type", "application/json"),)


def ask(spec: str, data: bytes, coding: str, mode: str = "Full") -> Outcome:
    headers = (("content-encoding", coding),) if coding else ()
    return Bed(policy(spec, mode=mode)).call(body=data, headers=headers, chunks=[answer_of("hi")])


def answer(spec: str, chunks: Sequence[bytes], coding: str, *, mode: str = "Full", kind: object = SSE) -> Outcome:
    headers = (*kind, ("content-encoding", coding))  # type: ignore[misc]
    bed = Bed(policy(spec, mode=mode))
    return bed.call(body=chat(stream=kind is SSE), chunks=chunks, response_headers=headers, step_s=0.0)


# ---- requests --------------------------------------------------------------------------------------------------------


@each
def test_an_encoded_request_is_judged_and_leaves_as_it_was_read(coding: str) -> None:
    encode = ENCODERS[coding]
    assert ask(NO, encode(chat(model="forbidden")), coding).rejected is not None
    out = ask(NO, encode(chat()), coding)
    assert (out.sent, out.removed) == (chat(), {"content-encoding"})


@each
def test_an_encoded_request_is_changed(coding: str) -> None:
    out = ask(CAPS, ENCODERS[coding](chat()), coding)
    assert json.loads(out.sent or b"") == {**json.loads(chat()), "max_tokens": 7}
    assert "content-encoding" in out.removed


@each
@pytest.mark.parametrize("spec", [NO, CAPS])
def test_under_monitor_an_encoded_request_is_read_and_passes_as_it_came(coding: str, spec: str) -> None:
    data = ENCODERS[coding](chat(model="forbidden"))
    out = ask(spec, data, coding, "Monitor")
    assert (out.sent, out.removed, out.request_headers) == (data, set(), {})
    assert out.record.would is (Verdict.TERMINATE if spec == NO else Verdict.CONSTRAIN)


def test_a_request_that_says_identity_leaves_as_it_came() -> None:
    out = ask(NO, chat(), "identity")
    assert (out.sent, out.removed) == (chat(), set())


BAD = {
    "cut short": ("gzip", gzip.compress(chat())[:-3]),
    "garbage behind": ("gzip", gzip.compress(chat()) + b"x"),
    "not encoded": ("gzip", chat()),
    "encoded otherwise": ("br", gzip.compress(chat())),
    "encoded once more": ("gzip", gzip.compress(gzip.compress(chat()))),
    "unknown": ("compress", b"\x1f\x9d"),
    "a bomb": ("gzip", gzip.compress(chat("a" * (40 << 20)))),
    "two documents": ("gzip", gzip.compress(chat()) + gzip.compress(chat(model="forbidden"))),
    "empty": ("gzip", gzip.compress(b"")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_be_decoded_cannot_be_judged(name: str) -> None:
    coding, data = BAD[name]
    out = ask(NO, data, coding)
    assert out.sent is None and out.rejected is not None and out.rejected.status == 503
    for spec, mode in ((f"failurePolicy: Ignore\n{NO}", "Full"), (NO, "Monitor")):
        passed = ask(spec, data, coding, mode)
        assert passed.sent in (data, b"")  # b"": it was not even asked for
        assert passed.removed == set()
        assert passed.record.degraded or passed.record.would is Verdict.TERMINATE


# ---- answers ---------------------------------------------------------------------------------------------------------


def cuts(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, in threes, and at random."""
    found = [[data[at : at + size] for at in range(0, len(data), size)] for size in (len(data), 1, 3)]
    for seed in range(5):
        chance = random.Random(seed)
        places = [0, *sorted(chance.randrange(len(data)) for _ in range(6)), len(data)]
        found.append([data[a:b] for a, b in pairwise(places)])
    return found


@each
@pytest.mark.parametrize("spec", [SAYS, REDACTS, SAYS.replace("forbidden", "nowhere")])
def test_an_encoded_stream_is_judged_like_any_other(coding: str, spec: str) -> None:
    """However it is cut: the events, the cut and the bytes are those of the stream without its encoding."""
    plain = Bed(policy(spec)).call(body=chat(stream=True), chunks=[STREAM], response_headers=SSE, step_s=0.0)
    expected = (plain.body, plain.record.event, plain.record.ended, "full")
    for chunks in cuts(ENCODERS[coding](STREAM)):
        out = answer(spec, chunks, coding)
        assert (out.body, out.record.event, out.record.ended, out.record.inspection) == expected
        assert "content-encoding" in out.response_removed


@each
def test_an_encoded_answer_in_one_piece_is_judged_like_any_other(coding: str) -> None:
    encode = ENCODERS[coding]
    assert answer(SAYS, [encode(answer_of("forbidden"))], coding, kind=JSON).rejected is not None
    for spec, said, heard in ((SAYS, "fine", "fine"), (REDACTS, "a secret", "a [redacted]")):
        out = answer(spec, [encode(answer_of(said))], coding, kind=JSON)
        assert (out.body, out.record.inspection) == (answer_of(heard), "full")
        assert "content-encoding" in out.response_removed


@each
def test_under_monitor_an_encoded_answer_is_read_and_passes_as_it_came(coding: str) -> None:
    spec = f"{SAYS[:-1]}, {REDACTS[8:]}"
    for data, kind in ((STREAM, SSE), (answer_of("forbidden secret"), JSON)):
        for chunks in cuts(ENCODERS[coding](data)):
            out = answer(spec, chunks, coding, mode="Monitor", kind=kind)
            assert (out.body, out.response_removed) == (b"".join(chunks), set())
            assert (out.record.inspection, out.record.enforced, out.ended) == ("full", False, True)
            assert out.record.would is Verdict.TERMINATE


GZIPPED = gzip.compress(STREAM)
LONG = [f"{n} {'no two words are alike ' * 3}{random.Random(n).randbytes(60).hex()}" for n in range(80)]
PACKED = gzip.compress(b"".join(stream_of(*LONG)))
BROKEN = {
    "a bit flipped": PACKED[:4000] + bytes([PACKED[4000] ^ 64]) + PACKED[4001:],
    "not encoded": STREAM,
    "a bomb": gzip.compress(b"".join(stream_of(*["a" * 4000] * 2000))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_stream_holds_behind_its_damage_reaches_nobody(name: str) -> None:
    """Under Fail it is cut; under Ignore what could be decoded leaves, and its caller sees an answer that breaks."""
    ends = set()
    for failure in ("Fail", "Ignore"):
        cutting = cuts(BROKEN[name]) if len(BROKEN[name]) < 5000 else [[BROKEN[name]], [BROKEN[name], b""]]
        for chunks in cutting:
            out = answer(f"failurePolicy: {failure}\n{SAYS.replace('forbidden', 'nowhere')}", chunks, "gzip")
            ends.add((failure, out.body, out.broken, out.record.ended, out.record.event, out.record.degraded))
            assert out.record.inspection == "partial"
    assert [(failure, broken, ended) for failure, _, broken, ended, _, _ in sorted(ends, key=lambda end: end[0])] == [
        ("Fail", False, "cut"),
        ("Ignore", True, "broken"),
    ]


@pytest.mark.parametrize("data", [GZIPPED[:-1], GZIPPED + b"garbage"], ids=["cut short", "garbage behind"])
def test_an_encoding_that_ends_badly_loses_no_event(data: bytes) -> None:
    spec = f"failurePolicy: Ignore\n{SAYS.replace('forbidden', 'nowhere')}"
    for chunks in cuts(data):
        out = answer(spec, chunks, "gzip")
        assert (out.body, out.ended, out.broken) == (STREAM, True, False)
        assert (out.record.inspection, out.record.degraded) == ("partial", True)
        assert answer(SAYS.replace("forbidden", "nowhere"), chunks, "gzip").record.ended == "cut"


def test_an_answer_that_may_be_changed_is_asked_for_without_an_encoding() -> None:
    """Never under Monitor, and not where nothing reads it."""
    for spec, mode, narrowed in ((SAYS, "Full", True), (REDACTS, "Full", True), (SAYS, "Monitor", False)):
        out = Bed(policy(spec, mode=mode)).call(body=chat(), headers=(("accept-encoding", "gzip, br"),))
        assert (out.request_headers.get("accept-encoding") == "identity") is narrowed
    out = Bed(policy(NO)).call(body=chat(), headers=(("accept-encoding", "gzip, br"),))
    assert "accept-encoding" not in out.request_headers
