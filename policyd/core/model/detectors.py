r"""What policyd finds by name: patterns of finite reach, and validators that tell a find from its likeness.

Rule 1: every pattern has a finite reach, so a running stream holds back a bounded number of characters.
Rule 2: a validator sees the matched text alone; what it refuses stays, and the search goes on one character further.
        Where most of what can match is refused, a finder does the same in one pass.
Rule 3: what can be longer than a pattern may reach (a private key, a JWT) is found by its beginning, and goes on as a
        `Tail`: everything up to its end is taken away as it comes, nothing of it is ever held, so not one character of
        it leaves even when the end never comes.
Rule 4: a pattern reads typographic variants as their ASCII characters: models print no-break spaces, non-breaking
        hyphens and fullwidth digits by themselves. RE2's `\b` knows ASCII alone, so a find that begins or ends with a
        fullwidth digit needs no word boundary there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from policyd.core.model.finders import Ibans, cards, openai_keys

Validator = Callable[[str], bool]
Finder = Callable[[str], Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows a match and belongs to it: all up to the first find of `until` (RE2, finite reach), that included
    when `through`, at most `most` characters, or to the end of the text."""

    until: str
    through: bool
    most: int


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of thing that can be found. The first of `patterns` wins where two match at the same place."""

    name: str
    patterns: tuple[str, ...]
    validator: Validator | None = None
    tail: Tail | None = None
    finder: Finder | None = None  # finds what `patterns` and `validator` do, in one pass: see finders.py


# ---- typographic variants -------------------------------------------------------------------------------------------

# Members of character classes: few, and close together, for each one makes every search larger.
_SPACES = " \u00a0\u2000-\u200a\u202f\u205f\u3000"  # no-break, thin, figure, narrow, ideographic …
_DASHES = "\\-\u2010-\u2015\u2212\ufe63\uff0d"  # hyphens, dashes, the minus sign
_DOTS = ".\u00b7\uff0e"
_UNSEEN = "\u00ad\u200b-\u200f\u2060\ufeff"  # soft hyphen, zero width, joiners, marks of direction
_WIDE_DIGITS = "\uff10-\uff19"
_WIDE_LETTERS = "\uff21-\uff3a\uff41-\uff5a"

_DIGITS = f"0-9{_WIDE_DIGITS}"

_D = f"[{_DIGITS}]"
_GAP = f"[{_UNSEEN}{_SPACES}{_DASHES}]?"  # between any two characters of a number
_FIRST = rf"(?:\b[0-9]|[{_WIDE_DIGITS}])"  # of a number
_LAST = rf"(?:[0-9]\b|[{_WIDE_DIGITS}])"
_HYPHEN = f"[{_DASHES}]"

_FOLDED = {ord(wide): chr(ord(wide) - 0xFEE0) for wide in map(chr, range(0xFF01, 0xFF5F))}


def _ascii(text: str) -> str:
    """A find with fullwidth characters as the ASCII ones that they stand for."""
    return text if text.isascii() else text.translate(_FOLDED)


def _digits(text: str) -> list[int]:
    return [ord(character) - 48 for character in _ascii(text) if character in "0123456789"]


# ---- validators -----------------------------------------------------------------------------------------------------


def is_card(text: str) -> bool:
    """Luhn's sum, 13 to 19 digits, a first digit that payment networks use."""
    digits = _digits(text)
    if not 13 <= len(digits) <= 19 or not 2 <= digits[0] <= 6:
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """ISO 13616: letters as two-digit numbers, the first four characters last, remainder 1 by 97."""
    plain = "".join(one for one in _ascii(text) if one.isascii() and one.isalnum()).upper()
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def is_ssn(text: str) -> bool:
    """Areas 000, 666 and 900 to 999, group 00 and serial 0000 are never given out."""
    digits = "".join(map(str, _digits(text)))
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def has_digit(text: str) -> bool:
    """Random keys hold a digit; words joined by hyphens do not."""
    return any(character in "0123456789" for character in text)


# ---- patterns -------------------------------------------------------------------------------------------------------

_GROUP = f"[{_SPACES}{_DOTS}{_DASHES}]"

# A card's number may stand within a word (CARD4111…, _4111…_). The finder tells where it may begin and end; to wait for
# the character behind it, the patterns have that.
_BEHIND = "[0-9A-Fa-f]?"
_CARD = (
    # Grouped as printed first: "4111 1111 1111 1111 12/27" must not be read as one number of 18 digits.
    f"{_D}{{4}}(?:{_GROUP}{_D}{{4}}){{3}}{_BEHIND}",
    f"[3３]{_D}{{3}}{_GROUP}{_D}{{6}}{_GROUP}{_D}{{4,5}}{_BEHIND}",
    f"{_D}{{13,19}}{_BEHIND}",
    f"{_D}(?:{_GAP}{_D}){{12,18}}{_BEHIND}",
)

_ALPHANUMERIC = f"[A-Z{_DIGITS}{_WIDE_LETTERS}]"
_IBAN_LENGTHS: Mapping[int, str] = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}

_COUNTRIES = {country: length for length, those in _IBAN_LENGTHS.items() for country in those.split()}


def _wide(text: str) -> str:
    """ASCII characters as their fullwidth forms."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def _iban(shortest: int, longest: int) -> str:
    """Each country has one length, so a word that follows is never taken for a part of the number.

    Written from the longest to the shortest, each going on where the one before stands: they share their last
    characters.
    """
    pattern = ""
    for length in range(longest, shortest - 1, -1):
        pattern = f"{pattern}{_GAP}{_ALPHANUMERIC}" if pattern else ""
        if countries := _IBAN_LENGTHS.get(length, "").split():
            wide = (_wide(country) for country in countries)
            head = rf"(?:\b(?:{'|'.join(countries)})|{'|'.join(wide)}){_D}{{2}}"
            pattern = f"(?:{pattern}|{head})" if pattern else head
    rest = shortest - 5
    return rf"(?i:{pattern}(?:{_GAP}{_ALPHANUMERIC}){{{rest}}}{_GAP}(?:[A-Z0-9]\b|[{_WIDE_DIGITS}{_WIDE_LETTERS}]))"


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_WIDE_OCTET = "(?:２５[０-５]|２[０-４][０-９]|１[０-９][０-９]|[１-９]?[０-９])"
_EMAIL = rf"A-Za-z{_DIGITS}{_WIDE_LETTERS}.．{_UNSEEN}{_DASHES}"
_SSN_GROUP = f"[{_DASHES}{_SPACES[1:]}]"  # not ASCII's space: too many numbers
_PHONE_GAP = f"[/／()（）{_SPACES}{_DOTS}{_DASHES}{_UNSEEN}]"
_KEY = f"A-Za-z0-9_{_DASHES}"
_KEY_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?" + f"{_HYPHEN}{{4,5}}"

_ALL = (
    # SSH2 writes four dashes and a space. The largest RSA keys in use (16,384 bits) take 12,800 characters; within
    # the tail every character goes, base64 or not, for a key may be quoted, numbered, indented or escaped.
    Detector(
        "private_key",
        (f"{_HYPHEN}{{4,5}} ?BEGIN {_KEY_LABEL}",),
        tail=Tail(f"{_HYPHEN}{{4,5}} ?END {_KEY_LABEL}", through=True, most=16_384),
    ),
    Detector(
        "jwt",
        (rf"\beyJ[{_KEY}]{{10,600}}\.[{_KEY}]{{6}}",),
        tail=Tail(f"[^.{_KEY}]", through=False, most=16_384),
    ),
    Detector("anthropic_key", (rf"\bsk{_HYPHEN}ant{_HYPHEN}[{_KEY}]{{20,300}}",)),
    Detector("openai_key", (rf"\bsk{_HYPHEN}[{_KEY}]{{20,300}}",), has_digit, finder=openai_keys),
    Detector(
        "aws_key",
        (
            r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
            r"(?i:aws_?secret_?access_?key)[\"']? {0,3}[:=] {0,3}[\"']?[A-Za-z0-9/+]{40}",
        ),
    ),
    Detector(
        "google_key",
        (rf"\bAIza[{_KEY}]{{35}}", rf"\bya29\.[{_KEY}]{{20,500}}", rf"\bGOCSPX{_HYPHEN}[{_KEY}]{{28}}"),
    ),
    Detector("github_token", (r"\bgh[opsur]_[A-Za-z0-9]{36,255}", r"\bgithub_pat_[A-Za-z0-9_]{22,255}")),
    Detector(
        "slack_token",
        (
            rf"\bxox[abeoprs]{_HYPHEN}[{_KEY}]{{10,250}}",
            rf"\bxapp{_HYPHEN}[{_KEY}]{{10,250}}",
            r"\bhooks\.slack\.com/services/[A-Za-z0-9/]{20,100}",
        ),
    ),
    Detector("iban", (_iban(15, 22), _iban(23, 33)), is_iban, finder=Ibans(_COUNTRIES)),
    Detector("card", _CARD, is_card, finder=cards),
    Detector(
        "email",
        (
            rf"[_%+＋＿{_EMAIL}]{{1,64}}[@＠][A-Za-z{_DIGITS}{_WIDE_LETTERS}]"
            rf"[{_EMAIL}]{{0,127}}[.．][A-Za-z{_WIDE_LETTERS}]{{2,24}}",
        ),
    ),
    Detector("ssn", (f"{_FIRST}{_D}{{2}}{_SSN_GROUP}{_D}{{2}}{_SSN_GROUP}{_D}{{3}}{_LAST}",), is_ssn),
    Detector(
        "phone",
        (
            f"[+＋]{_D}(?:{_PHONE_GAP}{{0,2}}{_D}){{7,14}}",
            rf"(?:[(（]{_D}{{3}}[)）][{_SPACES}]?|{_FIRST}{_D}{{2}}{_GROUP})"
            f"{_D}{{3}}{_GROUP}{_D}{{3}}{_LAST}",
            rf"(?:\b0|０)[0０]{_D}(?:[./{_SPACES}{_DASHES}]?{_D}){{8,11}}[./{_SPACES}{_DASHES}]?{_LAST}",
        ),
    ),
    Detector("ipv4", (rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b", f"(?:{_WIDE_OCTET}[.．]){{3}}{_WIDE_OCTET}")),
)

DETECTORS: Mapping[str, Detector] = {detector.name: detector for detector in _ALL}
DETECTOR_NAMES: tuple[str, ...] = tuple(DETECTORS)
