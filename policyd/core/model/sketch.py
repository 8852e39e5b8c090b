"""How alike two answers are, from sketches of them: small, of bounded size, and no text.

A sketch holds the least hashes of an answer's four-letter pieces (bytes of UTF-8). Up to LEAST different pieces it is
all of them, and likeness is exact; beyond that it is estimated, with a standard error of about 0.015 at 0.9.

Rule 1: the hashes are salted by the session: sketches of two sessions cannot be compared, and a piece can be guessed
        from one only by who knows the session's id.
Rule 2: every store must come to the same likeness: counters_redis/lib.lua says it in Lua.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from hashlib import blake2b
from itertools import repeat
from operator import mod, mul

from policyd.core.model.counters import SessionId

LEAST = 256  # hashes of one sketch
SIZE = 4 * LEAST  # bytes of the largest sketch
KEPT = 8  # how many likenesses a session remembers
MOST = 2048  # characters of an answer that are looked at; of a longer one, four parts of it
_PARTS = 4
_PRIME = 4_294_967_291  # the largest below 2**32
_PIECE = 4  # bytes
_LITTLE = array("I", b"\1\0\0\0")[0] == 1  # how this machine writes numbers


def sketch(text: str, session: SessionId) -> bytes:
    """The sketch of an answer; empty for one that says nothing. Case and the width of white space do not count."""
    data = " ".join(_looked_at(text).lower().split()).encode("utf-8", "surrogatepass")
    if not data:
        return b""
    hashes = array("I", sorted(map(mod, map(mul, _pieces(data), repeat(_salt(session))), repeat(_PRIME)))[:LEAST])
    if _LITTLE:
        hashes.byteswap()
    return hashes.tobytes()


def _looked_at(text: str) -> str:
    if len(text) <= MOST:
        return text
    length, gap = MOST // _PARTS, (len(text) - MOST) // (_PARTS - 1)
    return "".join(text[at * (length + gap) :][:length] for at in range(_PARTS - 1)) + text[-length:]


def _pieces(data: bytes) -> set[int]:
    data = data.ljust(_PIECE, b"\0")
    pieces: set[int] = set()
    for start in range(_PIECE):  # all pieces that begin at every fourth byte, at once
        end = start + (len(data) - start) // _PIECE * _PIECE
        words = array("I", data[start:end])
        if not _LITTLE:
            words.byteswap()
        pieces.update(words)
    return pieces


@lru_cache(maxsize=4096)
def _salt(session: SessionId) -> int:
    """An odd number: different pieces stay different but for the prime."""
    name = f"{len(session.tenant)}:{session.tenant}{session.id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=4, person=b"policyd like").digest(), "little") | 1


def likeness(one: bytes, other: bytes) -> float:
    """How much two answers have in common, 0 to 1: twice the pieces of both over the pieces of each (Dice)."""
    a, b = set(_hashes(one)), set(_hashes(other))
    union = sorted(a | b)[:LEAST]
    shared = len((a & b).intersection(union))
    return 2 * shared / (len(union) + shared) if union else 0.0


def _hashes(data: bytes) -> array[int]:
    hashes = array("I", data[: len(data) // 4 * 4])
    if _LITTLE:
        hashes.byteswap()
    return hashes
