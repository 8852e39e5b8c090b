r"""What policyd finds by name: patterns of finite reach, and validators that tell a find from its likeness.

Rule 1: every pattern has a finite reach, so a running stream holds back a bounded number of characters.
Rule 2: a validator sees the matched text alone; what it refuses stays, and the search goes on one character further.
Rule 3: what can be longer than a pattern may reach (a private key, a JWT) is found by its beginning, and goes on as a
        `Tail`: everything up to its end is taken away as it comes, nothing of it is ever held, so not one character of
        it leaves even when the end never comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Validator = Callable[[str], bool]


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


# ---- validators -----------------------------------------------------------------------------------------------------


def is_card(text: str) -> bool:
    """Luhn's sum, 13 to 19 digits, a first digit that payment networks use."""
    digits = [ord(character) - 48 for character in text if character in "0123456789"]
    if not 13 <= len(digits) <= 19 or not 2 <= digits[0] <= 6:
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """ISO 13616: letters as two-digit numbers, the first four characters last, remainder 1 by 97."""
    plain = text.replace(" ", "").upper()
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def is_ssn(text: str) -> bool:
    """Areas 000, 666 and 900 to 999, group 00 and serial 0000 are never given out."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def has_digit(text: str) -> bool:
    """Random keys hold a digit; words joined by hyphens do not."""
    return any(character in "0123456789" for character in text)


# ---- patterns -------------------------------------------------------------------------------------------------------

_CARD = (
    # Grouped as printed first: "4111 1111 1111 1111 12/27" must not be read as one number of 18 digits.
    r"\b\d{4}[ .-]\d{4}[ .-]\d{4}[ .-]\d{4}\b",
    r"\b3\d{3}[ .-]\d{6}[ .-]\d{4,5}\b",
    r"\b\d{13,19}\b",
    r"\b\d(?:[ -]?\d){12,18}\b",
)

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


def _iban() -> str:
    """Each country has one length, so a word that follows is never taken for a part of the number."""
    kinds = (
        rf"(?:{'|'.join(countries.split())})\d{{2}}(?: ?[A-Z0-9]){{{length - 4}}}"
        for length, countries in _IBAN_LENGTHS.items()
    )
    return rf"(?i)\b(?:{'|'.join(kinds)})\b"


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_KEY_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}"

_ALL = (
    # SSH2 writes four dashes and a space. The largest RSA keys in use (16,384 bits) take 12,800 characters; within
    # the tail every character goes, base64 or not, for a key may be quoted, numbered, indented or escaped.
    Detector(
        "private_key",
        (rf"-{{4,5}} ?BEGIN {_KEY_LABEL}",),
        tail=Tail(rf"-{{4,5}} ?END {_KEY_LABEL}", through=True, most=16_384),
    ),
    Detector(
        "jwt",
        (r"\beyJ[A-Za-z0-9_-]{10,600}\.[A-Za-z0-9_-]{6}",),
        tail=Tail(r"[^A-Za-z0-9_.-]", through=False, most=16_384),
    ),
    Detector("anthropic_key", (r"\bsk-ant-[A-Za-z0-9_-]{20,300}",)),
    Detector("openai_key", (r"\bsk-[A-Za-z0-9_-]{20,300}",), has_digit),
    Detector(
        "aws_key",
        (
            r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
            r"(?i:aws_?secret_?access_?key)[\"']? {0,3}[:=] {0,3}[\"']?[A-Za-z0-9/+]{40}",
        ),
    ),
    Detector(
        "google_key",
        (r"\bAIza[A-Za-z0-9_-]{35}", r"\bya29\.[A-Za-z0-9_-]{20,500}", r"\bGOCSPX-[A-Za-z0-9_-]{28}"),
    ),
    Detector("github_token", (r"\bgh[opsur]_[A-Za-z0-9]{36,255}", r"\bgithub_pat_[A-Za-z0-9_]{22,255}")),
    Detector(
        "slack_token",
        (
            r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}",
            r"\bxapp-[A-Za-z0-9-]{10,250}",
            r"\bhooks\.slack\.com/services/[A-Za-z0-9/]{20,100}",
        ),
    ),
    Detector("iban", (_iban(),), is_iban),
    Detector("card", _CARD, is_card),
    Detector("email", (r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,127}\.[A-Za-z]{2,24}",)),
    Detector("ssn", (r"\b\d{3}-\d{2}-\d{4}\b",), is_ssn),
    Detector(
        "phone",
        (
            r"\+\d(?:[ ./()-]{0,2}\d){7,14}",
            r"(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b",
            r"\b00\d(?:[ ./-]?\d){9,12}\b",
        ),
    ),
    Detector("ipv4", (rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b",)),
)

DETECTORS: Mapping[str, Detector] = {detector.name: detector for detector in _ALL}
DETECTOR_NAMES: tuple[str, ...] = tuple(DETECTORS)
