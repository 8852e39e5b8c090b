"""Content encodings undone as their bytes come: gzip, deflate, br and zstd, and bodies in several of them.

Rule 1: what comes out depends on the bytes, never on how they were cut, also where they are broken: all that stands
        before the damage comes out, and nothing behind it.
Rule 2: linear in what comes and what it makes: no byte is kept to be decoded anew.
Rule 3: a body expands to `most` bytes at most, and to FREE and RATIO a byte at most, also between two encodings.
Rule 4: a body is its encoding's and nothing else: what follows its end is damage. Members of gzip and frames of zstd
        may follow one another, as their formats say.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import brotli

from policyd.core.errors import Malformed

try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore] # from Python 3.14 on
except ImportError:
    from backports import zstd

FREE = 1 << 20  # bytes that any body may expand to
RATIO = 100  # decoded bytes for an encoded one: streams of events reach 60, bombs 1,000 and more
MOST_STREAMED = 1 << 28  # bytes that a streamed answer may expand to
MOST_CODINGS = 3
BLOCK = 4096  # encoded bytes between two looks at the ratio
ZSTD_WINDOW = 23  # 8 MiB, the most that HTTP allows (RFC 9659)

BROKEN = "the body's encoding is broken"
TRAILING = "data after the end of an encoded body"
CUT_SHORT = "an encoded body ends too early"
TOO_MUCH = "an encoded body expands to too much"

_ERRORS = (zlib.error, brotli.error, zstd.ZstdError)


class _Unpack(Protocol):
    """One member or frame being decoded, in the words of the standard library."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Brotli:
    """Brotli in those words. Nothing may follow its end, which brotli itself says by failing."""

    unused_data = b""

    def __init__(self) -> None:
        self._decoder = brotli.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._decoder.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = bytearray(self._decoder.process(data, output_buffer_limit=max_length))
        # It stops at every buffer that it has filled, and says nothing of what it still holds.
        while len(out) < max_length and (more := self._decoder.process(b"", output_buffer_limit=max_length)):
            out += more
        return bytes(out)


@dataclass(frozen=True, slots=True)
class _Coding:
    """One encoding: how long its beginning is, and what decodes what begins so (None: this is not its beginning)."""

    head: int  # bytes
    begin: Callable[[bytes], _Unpack | None]
    repeats: bool = False  # whether another member or frame may follow


def _gzip(head: bytes) -> _Unpack | None:
    return zlib.decompressobj(31) if head == b"\x1f\x8b" else None


def _deflate(head: bytes) -> _Unpack:
    """HTTP's deflate is zlib's format; some servers send the raw one."""
    wrapped = head[0] & 0x8F == 8 and not int.from_bytes(head, "big") % 31 and not head[1] & 0x20
    return zlib.decompressobj(15 if wrapped else -15)


def _zstd(head: bytes) -> _Unpack | None:
    if head != b"\x28\xb5\x2f\xfd" and (head[0] & 0xF0, head[1:]) != (0x50, b"\x2a\x4d\x18"):
        return None
    unpack: _Unpack = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})
    return unpack


_CODINGS = {
    "gzip": _Coding(2, _gzip, repeats=True),
    "x-gzip": _Coding(2, _gzip, repeats=True),
    "deflate": _Coding(2, _deflate),
    "br": _Coding(1, lambda _: _Brotli()),
    "zstd": _Coding(4, _zstd, repeats=True),
}


def codings_of(header: str) -> tuple[str, ...]:
    """The encodings that a content-encoding header names, in the order in which they are undone; none for identity.
    Raises Malformed when one of them is not known."""
    names = [name for one in header.split(",") if (name := one.strip().lower()) not in ("", "identity")]
    if len(names) > MOST_CODINGS:
        raise Malformed("the body is encoded too many times")
    if not all(name in _CODINGS for name in names):
        raise Malformed("the body's encoding is not known")
    return tuple(reversed(names))


class _Stage:
    """One encoding being undone."""

    __slots__ = ("_coding", "_head", "_unpack", "ended", "full", "made")

    def __init__(self, coding: _Coding) -> None:
        self._coding = coding
        self._head = b""  # of the next member, until it is whole
        self._unpack: _Unpack | None = None
        self.ended = False  # what has come is whole
        self.made = 0  # bytes
        self.full = False  # there was more than it might make

    def feed(self, data: bytes, limit: int) -> bytes:
        """What these bytes expand to, up to `limit` bytes of all that ever came. Raises Malformed."""
        out: list[bytes] = []
        while data and not self.full:
            unpack = self._unpack
            if unpack is None and (unpack := self._begin(data)) is None:
                break
            data, self._head = self._head + data, b""
            room = limit - self.made
            made = unpack.decompress(data, room + 1)
            self.full = len(made) > room
            out.append(made[:room])
            self.made += len(out[-1])
            data = self._after(unpack)
        return b"".join(out)

    def _begin(self, data: bytes) -> _Unpack | None:
        """Another member; None while its head is not whole."""
        if self.ended and not self._coding.repeats:
            raise Malformed(TRAILING)
        head = (self._head + data)[: self._coding.head]
        if len(head) < self._coding.head:
            self._head = head
            return None
        self._unpack = self._coding.begin(head)
        if self._unpack is None:
            raise Malformed(TRAILING if self.ended else BROKEN)
        return self._unpack

    def _after(self, unpack: _Unpack) -> bytes:
        """What is left of the data that was given."""
        if not unpack.eof:
            self.ended = False
            return b""
        self.ended, self._unpack = True, None
        return unpack.unused_data

    @property
    def whole(self) -> bool:
        """Whether the body may end here."""
        return self.ended and not self._head


class _Chain:
    """All encodings of one body."""

    __slots__ = ("_stages",)

    def __init__(self, codings: tuple[str, ...]) -> None:
        self._stages = [_Stage(_CODINGS[name]) for name in codings]

    def feed(self, data: bytes, limit: int) -> bytes:
        try:
            for stage in self._stages:
                data = stage.feed(data, limit)
        except _ERRORS:
            raise Malformed(BROKEN) from None
        return data

    @property
    def full(self) -> bool:
        return any(stage.full for stage in self._stages)

    @property
    def whole(self) -> bool:
        return all(stage.whole for stage in self._stages)


class Decoding:
    """Feed it the body as it comes. `failure` says why nothing more is decoded."""

    def __init__(self, codings: tuple[str, ...], most: int, *, exact: bool = True) -> None:
        self._lead = _Chain(codings)
        # A decoder that fails tells nothing of what it had decoded. The one that follows can be led up to that place.
        self._behind = _Chain(codings) if exact else None
        self._most, self._taken = most, 0
        self.failure = ""

    @property
    def lost(self) -> bool:
        """Whether there was more that could not be decoded."""
        return self.failure in (BROKEN, TOO_MUCH)

    def feed(self, data: bytes) -> bytes:
        """What these bytes expand to, up to where they are damaged."""
        out: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.failure:
            stop = min(size, at + BLOCK - self._taken % BLOCK)
            out.append(self._piece(data[at:stop]))
            self._taken += stop - at
            at = stop
        return out[0] if len(out) == 1 else b"".join(out)

    def _piece(self, piece: bytes) -> bytes:
        # INVARIANT: one limit for all of a block, so that it does not matter how the block was cut.
        limit = min(self._most, FREE + RATIO * (self._taken - self._taken % BLOCK))
        try:
            made = self._lead.feed(piece, limit)
        except Malformed as failure:
            self.failure = failure.reason
            return self._salvaged(piece, limit)
        if self._lead.full:
            self.failure = TOO_MUCH
        elif self._behind is not None:
            self._behind.feed(piece, limit)
        return made

    def _salvaged(self, piece: bytes, limit: int) -> bytes:
        """What a piece holds before the byte that is damaged."""
        out: list[bytes] = []
        if self._behind is None:
            return b""
        for at in range(len(piece)):
            try:
                out.append(self._behind.feed(piece[at : at + 1], limit))
            except Malformed as failure:
                self.failure = failure.reason
                break
            if self._behind.full:
                self.failure = TOO_MUCH
                break
        return b"".join(out)

    def finish(self) -> None:
        """The body is over. Nothing at all is an empty body."""
        if not self.failure and self._taken and not self._lead.whole:
            self.failure = CUT_SHORT


def decode(data: bytes, codings: tuple[str, ...], most: int) -> bytes:
    """A whole body without its encodings. Raises Malformed."""
    decoding = Decoding(codings, most, exact=False)
    plain = decoding.feed(data)
    decoding.finish()
    if decoding.failure:
        raise Malformed(decoding.failure)
    return plain


__all__ = ["MOST_STREAMED", "Decoding", "codings_of", "decode"]
