"""Finds of detectors whose validator refuses much of what the pattern matches, in one pass over a text.

A pattern that is tried again one character further after each refusal costs its whole length for each character. Here
each character is looked at a bounded number of times, whatever the text is.

Rule 1: a finder finds exactly what the detector's patterns and validator would find: for each place the match that
        begins there and is accepted, that of the first pattern where several are.
Rule 2: a text is rewritten into one byte a character, which says what the character is to the detector. Fullwidth
        characters are their ASCII ones plus 0x80; to RE2 they are no part of a word.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, compress

SPACES = (0x20, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
DASHES = (0x2D, *range(0x2010, 0x2016), 0x2212, 0xFE63, 0xFF0D)
DOTS = (0x2E, 0xB7, 0xFF0E)
UNSEEN = (0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF)
_SPACE, _DASH, _DOT, _UNSEEN = b" -.~"
_DIGITS, _LETTERS = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class _Codes(dict[int, str]):
    def __missing__(self, code: int) -> str:
        return "#"


_CODES = _Codes(
    {
        **{code: chr(code) for code in (*_DIGITS, *_LETTERS, ord("_"))},
        **{code + 32: chr(code) for code in _LETTERS},
        **{code + 0xFEE0: chr(code | 0x80) for code in (*_DIGITS, *_LETTERS)},
        **{code + 0xFF00: chr(code | 0x80) for code in _LETTERS},
        **dict.fromkeys(SPACES, chr(_SPACE)),
        **dict.fromkeys(DASHES, chr(_DASH)),
        **dict.fromkeys(DOTS, chr(_DOT)),
        **dict.fromkeys(UNSEEN, chr(_UNSEEN)),
    }
)
_ASCII = bytes(ord(_CODES[code]) for code in range(128)) + b"#" * 128


def _coded(text: str) -> bytes:
    if text.isascii():
        return text.encode().translate(_ASCII)
    return text.translate(_CODES).encode("latin-1")


def _mask(members: Collection[int]) -> bytes:
    """A table that makes these bytes 1 and all others 0."""
    return bytes(byte in members for byte in range(256))


def _both(members: bytes) -> bytes:
    """These bytes, and their fullwidth ones."""
    return members + bytes(byte | 0x80 for byte in members)


_WORD = _mask(_DIGITS + _LETTERS + b"_")
_WIDE = _mask(range(0x80, 0x100))
_GAPS = _mask(b" -~")
_VALUES = bytes(byte & 0x7F for byte in range(256))


def _or(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) | int.from_bytes(other)).to_bytes(len(one))


def _and(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) & int.from_bytes(other)).to_bytes(len(one))


def _and_not(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) & ~int.from_bytes(other)).to_bytes(len(one))


class _Row:
    """The characters of a text that a number is written with, by index, those between them left out.

    `places`: where each stands. `values`: what it is. `index`: for each place of the text, how many stand before it.
    `runs`: equal for two of them if at most one gap stands between neighbours from the one to the other. `ends`: 1 if a
    number may end there, which is not within a word.
    """

    __slots__ = ("ends", "index", "places", "runs", "starts", "values")

    def __init__(self, data: bytes, members: bytes) -> None:
        member, gap, wide = data.translate(members), data.translate(_GAPS), data.translate(_WIDE)
        word = data.translate(_WORD)
        nothing, every = b"\0", b"\1" * len(data)
        # A break is what is neither a member nor a gap, and the second of two gaps.
        broken = _or(_and_not(every, _or(member, gap)), _and(gap, nothing + gap[:-1]))
        self.index = [0, *accumulate(member)]
        self.places = list(compress(range(len(data)), member))
        self.runs = list(compress(accumulate(broken), member))
        self.values = bytes(compress(data, member)).translate(_VALUES)
        self.ends = bytes(compress(_or(wide, _and_not(every, word[1:] + nothing)), member))
        self.starts = _or(wide, _and_not(every, nothing + word[:-1]))

    def within(self, first: int, last: int) -> bool:
        """Whether a number may reach from the one to the other."""
        return last < len(self.ends) and bool(self.ends[last]) and self.runs[first] == self.runs[last]


# ---- payment cards --------------------------------------------------------------------------------------------------

LEAST, MOST = 13, 19  # digits of a card's number
_MEMBERS = _mask(_both(_DIGITS))
_FIRSTS = _mask(_both(b"23456"))  # that payment networks use
_D = rb"[0-9\xb0-\xb9]"
_LAST = rb"(?:[0-9](?![0-9A-Z_])|[\xb0-\xb9])"
_FOURS = re.compile(  # 4-4-4-4
    rb"(?=(?:(?<![0-9A-Z_])[2-6]|[\xb2-\xb6])%b{3}(?:[ .-]%b{4}){2}[ .-]%b{3}%b)" % (_D, _D, _D, _LAST)
)
_AMEX = re.compile(  # 4-6-5, 4-6-4
    rb"(?=((?:(?<![0-9A-Z_])3|\xb3)%b{3}[ .-]%b{6}[ .-]%b{3,4}%b))" % (_D, _D, _D, _LAST)
)
_PLAIN = bytes(max(min(byte - 48, 9), 0) for byte in range(256))
_DOUBLED = bytes(sum(divmod(2 * value, 10)) for value in _PLAIN)


def cards(text: str) -> list[tuple[int, int]]:
    """Where payment cards' numbers stand in a text: start and end, ascending; they may overlap."""
    data = _coded(text)
    row = _Row(data, _MEMBERS)
    if len(row.places) < LEAST:
        return []
    sums = _sums(row.values)
    found: dict[int, int] = {}
    for match in _FOURS.finditer(data):
        at = row.index[match.start()]
        if _is_right(sums, at, at + 15):
            found[match.start()] = match.start() + 19
    for match in _AMEX.finditer(data):
        at, end = row.index[match.start()], row.index[match.end(1)]
        if _is_right(sums, at, end - 1):
            found.setdefault(match.start(), match.end(1))
    firsts = compress(range(len(data)), _and(row.starts, data.translate(_FIRSTS)))
    starts = [row.index[place] for place in firsts if place not in found]
    places, count = row.places, len(row.places)
    solid = [at for at in starts if at + LEAST <= count and places[at + LEAST - 1] - places[at] == LEAST - 1]
    numbers = _longest(solid, row, sums, solid=True)
    numbers |= _longest([at for at in starts if at not in numbers], row, sums, solid=False)
    found.update((places[at], places[last] + 1) for at, last in numbers.items())
    return sorted(found.items())


def _sums(digits: bytes) -> tuple[list[int], list[int]]:
    """Luhn's sums of all digits before a place: the even ones plain and the odd ones doubled, and the other way."""
    plain, doubled = digits.translate(_PLAIN), digits.translate(_DOUBLED)
    even, odd = bytearray(doubled), bytearray(plain)
    even[::2], odd[::2] = plain[::2], doubled[::2]
    return [0, *accumulate(even)], [0, *accumulate(odd)]


def _is_right(sums: tuple[list[int], list[int]], first: int, last: int) -> bool:
    total = sums[last & 1]
    return (total[last + 1] - total[first]) % 10 == 0


def _longest(starts: Sequence[int], row: _Row, sums: tuple[list[int], list[int]], *, solid: bool) -> dict[int, int]:
    """By start: the last digit of the longest number there, where its sum is right. `solid`: nothing stands within."""
    found: dict[int, int] = {}
    ends, runs, places, count = row.ends, row.runs, row.places, len(row.ends)
    for length in range(MOST, LEAST - 1, -1):
        rest: list[int] = []
        for at in starts:
            last = at + length - 1
            if last >= count or not ends[last] or runs[at] != runs[last]:
                rest.append(at)
                continue
            if solid and places[last] - places[at] >= length:
                rest.append(at)
                continue
            total = sums[last & 1]
            if (total[last + 1] - total[at]) % 10 == 0:
                found[at] = last
        starts = rest
    return found


# ---- IBANs ----------------------------------------------------------------------------------------------------------

_ALNUM = _mask(_both(_DIGITS + _LETTERS))
_BASE_36 = {code: str(int(chr(code), 36)) for code in _LETTERS}


class Ibans:
    """Finds IBANs: by country the length of its numbers, all characters counted."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._lengths = {country.encode(): length for country, length in lengths.items()}
        narrow = b"|".join(self._lengths)
        wide = b"|".join(bytes(byte | 0x80 for byte in country) for country in self._lengths)
        self._heads = re.compile(rb"(?:(?<![0-9A-Z_])(?:%b)|%b)(?=%b%b)" % (narrow, wide, _D, _D))

    def __call__(self, text: str) -> list[tuple[int, int]]:
        data = _coded(text)
        heads = [match.start() for match in self._heads.finditer(data)]
        if not heads:
            return []
        row = _Row(data, _ALNUM)
        return list(self._found(row, heads))

    def _found(self, row: _Row, heads: Iterable[int]) -> Iterable[tuple[int, int]]:
        for place in heads:
            at = row.index[place]
            last = at + self._lengths[row.values[at : at + 2]] - 1
            if row.within(at, last) and _remainder(row.values[at : last + 1]) == 1:
                yield place, row.places[last] + 1


def _remainder(number: bytes) -> int:
    """ISO 13616: letters as two-digit numbers, the first four characters last, by 97."""
    return int((number[4:] + number[:4]).decode().translate(_BASE_36)) % 97


# ---- keys -----------------------------------------------------------------------------------------------------------

_KEY_DASHES = "\\-\u2010-\u2015\u2212\ufe63\uff0d"
_KEYS = re.compile(rf"[A-Za-z0-9_{_KEY_DASHES}]+")
_OPENAI = re.compile(rf"\bsk[{_KEY_DASHES}]", re.ASCII)
_DIGIT = re.compile("[0-9]")


def openai_keys(text: str) -> list[tuple[int, int]]:
    """Where OpenAI's keys stand: `sk-` and 20 to 300 characters, a digit among them."""
    found: list[tuple[int, int]] = []
    for run in _KEYS.finditer(text):
        if run.end() - run.start() < 23:
            continue
        digits = [match.start() for match in _DIGIT.finditer(text, run.start(), run.end())]
        for head in _OPENAI.finditer(text, run.start(), run.end()) if digits else ():
            end = min(head.end() + 300, run.end())
            if end - head.end() >= 20 and bisect_left(digits, head.start()) < bisect_left(digits, end):
                found.append((head.start(), end))
    return found
