"""Bodies in content encodings, decoded as they come: however they are cut, damaged, nested, or made to burst."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import brotli
import pytest

from policyd.core.errors import Malformed
from policyd.core.stream import encodings
from policyd.core.stream.encodings import Decoding, codings_of, decode, zstd


def raw_deflate(data: bytes) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return pack.compress(data) + pack.flush()


def checked_zstd(data: bytes) -> bytes:
    return bytes(zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}))


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", checked_zstd),
    "gzip, br": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "zstd, gzip, gzip": ("identity, zstd,gzip , gzip", lambda data: gzip.compress(gzip.compress(checked_zstd(data)))),
}
PLAIN = b"".join(b'data: {"n": %d, "text": "%b"}\n\n' % (n, b"word " * (n % 7)) for n in range(400))
PLAIN += random.Random(5).randbytes(6000)  # more than a block, however well it is packed
each = pytest.mark.parametrize("name", ENCODERS)


def read(data: bytes, header: str, cuts: Sequence[int] = (), most: int = 1 << 28) -> tuple[bytes, str]:
    """What is decoded, and why no more is."""
    decoding = Decoding(codings_of(header), most)
    plain = b"".join(decoding.feed(data[a:b]) for a, b in pairwise([0, *cuts, len(data)]))
    decoding.finish()
    return plain, decoding.failure


def cut(data: bytes, seed: int) -> list[int]:
    chance = random.Random(seed)
    return sorted(chance.randrange(len(data) + 1) for _ in range(9))


@each
def test_what_was_encoded_is_decoded(name: str) -> None:
    header, encode = ENCODERS[name]
    assert read(encode(PLAIN), header) == (PLAIN, "")
    assert decode(encode(PLAIN), codings_of(header), len(PLAIN)) == PLAIN
    assert read(encode(b""), header) == (b"", "")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "cut short": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "one byte": lambda data: data[:1],
    "garbage behind": lambda data: data + b"garbage",
    "twice": lambda data: data + data,
    "half of another behind": lambda data: data + data[: len(data) // 3],
    "a bit flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :]
    ),
    "another end": lambda data: data[:-3] + b"\0\0\0",
    "not encoded at all": lambda _: PLAIN,
}


@each
@pytest.mark.parametrize("damage", DAMAGES)
def test_however_it_was_cut_the_same_comes_out_also_of_damaged_bytes(name: str, damage: str) -> None:
    header, encode = ENCODERS[name]
    data = DAMAGES[damage](encode(PLAIN))
    whole = read(data, header)
    assert read(data, header, range(1, len(data))) == whole
    assert all(read(data, header, cut(data, seed)) == whole for seed in range(20))


REPEATED = {name for name, (header, _) in ENCODERS.items() if header.lower() in ("gzip", "x-gzip", "zstd")}


@each
def test_members_may_follow_one_another_where_the_format_says_so(name: str) -> None:
    header, encode = ENCODERS[name]
    expected = (PLAIN * 2, "") if name in REPEATED else (PLAIN, encodings.TRAILING)
    if name.startswith("zstd,"):
        expected = (PLAIN * 2, "")  # members of gzip, the frames in them follow one another
    assert read(encode(PLAIN) * 2, header) == expected


def test_a_frame_of_zstd_that_is_to_be_skipped_is() -> None:
    skipped = b"\x5a\x2a\x4d\x18\x04\0\0\0skip"
    assert read(skipped + checked_zstd(b"a") + skipped + checked_zstd(b"b"), "zstd") == (b"ab", "")


@each
def test_damage_is_told_and_what_stands_before_it_comes_out(name: str) -> None:
    header, encode = ENCODERS[name]
    data = encode(PLAIN)
    for damaged, failure in [(data[:-1], encodings.CUT_SHORT), (data + b"\0garbage", encodings.TRAILING)]:
        plain, why = read(damaged, header)
        assert why == failure
        assert PLAIN.startswith(plain)
        with pytest.raises(Malformed, match=r"encod"):
            decode(damaged, codings_of(header), 1 << 28)
    assert read(data + b"\0garbage", header)[0] == PLAIN


BOMB = bytes(16 << 20)


@each
def test_what_expands_too_much_is_stopped_at_once(name: str) -> None:
    header, encode = ENCODERS[name]
    bomb = encode(BOMB)
    plain, failure = read(bomb, header)
    assert failure == encodings.TOO_MUCH
    assert len(plain) <= encodings.FREE + encodings.RATIO * encodings.BLOCK
    with pytest.raises(Malformed, match="expands"):
        decode(bomb, codings_of(header), 1 << 28)


def test_what_expands_to_more_than_its_caller_takes_is_stopped_there() -> None:
    packed = gzip.compress(PLAIN)
    assert read(packed, "gzip", most=1000) == (PLAIN[:1000], encodings.TOO_MUCH)
    assert read(packed, "gzip", range(1, len(packed)), most=1000) == (PLAIN[:1000], encodings.TOO_MUCH)
    assert read(packed, "gzip", most=len(PLAIN)) == (PLAIN, "")


def test_nothing_at_all_is_an_empty_body() -> None:
    assert [read(b"", header) for header, _ in ENCODERS.values()] == [(b"", "")] * len(ENCODERS)


def test_which_encodings_a_header_names() -> None:
    assert [codings_of(header) for header in ("", "identity", " , ", "GZip", "gzip, br")] == [
        (),
        (),
        (),
        ("gzip",),
        ("br", "gzip"),
    ]


@pytest.mark.parametrize("header", ["compress", "dcb", "gzip;q=1", "aws-chunked", "gzip br", "gzip, gzip, gzip, gzip"])
def test_an_encoding_that_is_not_known_is_said_so(header: str) -> None:
    with pytest.raises(Malformed, match=r"not known|too many"):
        codings_of(header)


@pytest.mark.parametrize("name", ["gzip", "zlib", "br", "zstd"])
def test_an_event_comes_out_with_its_last_byte(name: str) -> None:
    """An upstream that flushes behind every event is not kept waiting for the next one."""
    pieces = _flushed(name, [b"data: one\n\n", b"data: two\n\n"])
    decoding = Decoding(codings_of(ENCODERS[name][0]), 1 << 20)
    assert [decoding.feed(piece) for piece in pieces[:2]] == [b"data: one\n\n", b"data: two\n\n"]


def _flushed(name: str, events: list[bytes]) -> list[bytes]:
    if name == "br":
        pack = brotli.Compressor()
        return [pack.process(event) + pack.flush() for event in events] + [pack.finish()]
    if name == "zstd":
        frame = zstd.ZstdCompressor()
        return [*(frame.compress(event, zstd.ZstdCompressor.FLUSH_BLOCK) for event in events), frame.flush()]
    wrapped = zlib.compressobj(9, zlib.DEFLATED, 31 if name == "gzip" else 15)
    return [wrapped.compress(event) + wrapped.flush(zlib.Z_SYNC_FLUSH) for event in events] + [wrapped.flush()]
