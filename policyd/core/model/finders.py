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
from collections.abc import Collection, Iterable, Iterator, Mapping
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
_OTHERS = bytes(byte for byte in range(256) if not _MEMBERS[byte])
_FIRSTS = _mask(_both(b"23456"))  # that payment networks use
_THREES = _mask(_both(b"3"))
_BETWEEN = _mask(b" .-")
_BEFORE = _mask(_DIGITS)  # no number begins behind these,
_BEHIND = _mask(_DIGITS + b"ABCDEF")  # and none ends before these: hashes hold many digits
_PLAIN = bytes(byte & 15 for byte in range(256))
_DOUBLED = bytes(sum(divmod(2 * value, 10)) if value < 10 else 0 for value in range(256))
_TENS = bytes(value % 10 == 0 for value in range(256))


def cards(text: str) -> list[tuple[int, int]]:
    """Where payment cards' numbers stand in a text: start and end, ascending; they may overlap."""
    data = _coded(text)
    member = data.translate(_MEMBERS)
    if member.count(1) < LEAST:
        return []
    digits = _Digits(data, member)
    found: dict[int, int] = {}
    if digits.groups:
        index = [0, *accumulate(member)]
        for first, size, length in digits.groups:
            if digits.right[length][index[first] + length - 1]:
                found.setdefault(first, first + size)
        digits.take([index[first] for first in found])
    if numbers := digits.numbers():
        places = list(compress(range(len(data)), member))
        found.update((places[first], places[last] + 1) for first, last in numbers)
    return sorted(found.items())


def _lanes(row: bytes) -> int:
    """A row as one number, a byte a character: what is done to the number is done to all characters at once. Shifted to
    the left by a byte, each is in the place of the one behind it."""
    return int.from_bytes(row, "little")


def _ones(lanes: int, count: int) -> Iterator[int]:
    """Which of the first `count` characters are 1, ascending."""
    if not lanes:
        return
    row = lanes.to_bytes(count, "little")
    at = row.find(1)
    while at >= 0:
        yield at
        at = row.find(1, at + 1)


class _Digits:
    """The digits of a text, by index, those between them left out, and the numbers that they may be.

    `groups`: start, characters and digits of what is grouped as cards are printed. `right`: by length, 1 at the last
    digit of a number whose sum is right.
    """

    __slots__ = ("_count", "_loose", "_solid", "_starts", "groups", "right")

    def __init__(self, data: bytes, digits: bytes) -> None:
        member, gap, wide = _lanes(digits), _lanes(data.translate(_GAPS)), _lanes(data.translate(_WIDE))
        ends = member & (wide | ~(_lanes(data.translate(_BEHIND)) >> 8))
        begins = wide | ~(_lanes(data.translate(_BEFORE)) << 8)
        self.groups = list(self._grouped(data, member, begins, ends))
        starts = _lanes(data.translate(_FIRSTS)) & begins
        apart = member & ~(member << 8)
        broken = apart & ~((gap & member << 8) << 8)
        # One byte a digit. 2: another stands not right before it; 4: nor before one gap; 8: may end; 16: may begin.
        flags = member | apart << 1 | broken << 2 | ends << 3 | starts << 4
        self._find(flags.to_bytes(len(data), "little").translate(None, b"\0"), data.translate(_PLAIN, _OTHERS))

    def _find(self, flags: bytes, values: bytes) -> None:
        every, lanes = _lanes(b"\1" * len(flags)), _lanes(flags)
        apart, broken, ends, self._starts = ((lanes >> bit) & every for bit in (1, 2, 3, 4))
        plain, doubled = _lanes(values), _lanes(values.translate(_DOUBLED))
        self._count = len(flags)
        self.right: dict[int, bytes] = {}
        self._solid: dict[int, int] = {}  # by length: where what has the shape of a number ends,
        self._loose: dict[int, int] = {}  # and the same with gaps within
        total = gaps = breaks = 0
        for back in range(MOST):
            shift = 8 * back
            total += (doubled if back % 2 else plain) << shift  # at most 19 times 9: it fits into a byte
            if back:
                gaps |= apart << shift - 8
                breaks |= broken << shift - 8
            if (length := back + 1) >= LEAST:
                self.right[length] = total.to_bytes(self._count + MOST, "little").translate(_TENS)
                self._loose[length] = ends & (self._starts << shift) & ~breaks
                self._solid[length] = self._loose[length] & ~gaps

    @staticmethod
    def _grouped(data: bytes, member: int, begins: int, ends: int) -> Iterator[tuple[int, int, int]]:
        """4-4-4-4, and 4-6-5 or 4-6-4 that begins with 3."""
        fours = member & member >> 8 & member >> 16 & member >> 24
        if not fours:
            return
        between, count = _lanes(data.translate(_BETWEEN)), len(data)
        start = begins & fours & between >> 32
        again = fours & between >> 32
        four = start & _lanes(data.translate(_FIRSTS)) & again >> 40 & again >> 80 & fours >> 120 & ends >> 144
        three = start & _lanes(data.translate(_THREES)) & (fours & fours >> 16) >> 40 & between >> 88
        five = three & fours >> 96 & ends >> 128
        three &= fours >> 96 & ends >> 120 & ~five
        for lanes, size, length in ((four, 19, 16), (five, 17, 15), (three, 16, 14)):
            yield from ((first, size, length) for first in _ones(lanes, count))

    def take(self, firsts: Iterable[int]) -> None:
        """No other number is to begin at these digits."""
        taken = bytearray(self._count)
        for first in firsts:
            taken[first] = 1
        self._starts &= ~_lanes(bytes(taken))

    def numbers(self) -> list[tuple[int, int]]:
        """The first and last digit of each number. Only the longest that begins at a place is one, if its sum is right:
        first of those without gaps, then of all."""
        found: list[tuple[int, int]] = []
        for ends in (self._solid, self._loose):
            starts = self._starts
            for length in range(MOST, LEAST - 1, -1):
                back = 8 * (length - 1)
                if shaped := ends[length] & (starts << back):
                    starts &= ~(shaped >> back)
                    right = shaped & _lanes(self.right[length])
                    self._starts &= ~(right >> back)
                    found += ((last - length + 1, last) for last in _ones(right, self._count))
        return found


# ---- IBANs ----------------------------------------------------------------------------------------------------------

_DIGIT_CLASS = rb"[0-9\xb0-\xb9]"
_ALNUM = _mask(_both(_DIGITS + _LETTERS))
_BASE_36 = {code: str(int(chr(code), 36)) for code in _LETTERS}


class Ibans:
    """Finds IBANs: by country the length of its numbers, all characters counted."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._lengths = {country.encode(): length for country, length in lengths.items()}
        narrow = b"|".join(self._lengths)
        wide = b"|".join(bytes(byte | 0x80 for byte in country) for country in self._lengths)
        self._heads = re.compile(rb"(?:(?<![0-9A-Z_])(?:%b)|%b)(?=%b%b)" % (narrow, wide, _DIGIT_CLASS, _DIGIT_CLASS))

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
