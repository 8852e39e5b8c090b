"""Every detector: what it finds, whole, and what it leaves alone."""

from __future__ import annotations

import pytest

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import DETECTOR_NAMES, DETECTORS, is_card, is_iban, is_ssn
from policyd.core.model.reach import reach
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.redactor import redactor, redactors
from tests.architecture.source import ROOT

BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 20)
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"

# detector, text, the same text redacted with "#"
HITS = [
    ("card", "pay 4111111111111111 now", "pay # now"),
    ("card", "4111 1111 1111 1111 12/27", "# 12/27"),
    ("card", "4111-1111-1111-1111.", "#."),
    ("card", "amex 3782 822463 10005 and 378282246310005", "amex # and #"),
    ("card", "1234 4111 1111 1111 1111 x", "1234 # x"),
    ("card", "_4111111111111111_ and __4111 1111 1111 1111__", "_#_ and __#__"),
    ("card", "CARD4111111111111111, card_4111111111111111x", "CARD#, card_#x"),
    ("card", "5555555555554444,6011111111111117", "#,#"),
    ("iban", "DE89 3704 0044 0532 0130 00 is mine", "# is mine"),
    ("iban", "BE68 5390 0754 7034 THIS", "# THIS"),
    ("iban", "gb82west12345698765432", "#"),
    ("iban", "(FR14 2004 1010 0505 0001 3M02 606)", "(#)"),
    ("email", "write to jane.doe+x@mail.example.co.uk.", "write to #."),
    ("email", "_a@b.io_", "#_"),
    ("email", "<a@b-c.de>,x@y.zz", "<#>,#"),
    ("phone", "call +49 (170) 123-4567 today", "call # today"),
    ("phone", "(415) 555-2671 or 415-555-2671 or 0049 170 1234567", "# or # or #"),
    ("openai_key", "key sk-proj-abcdefghij1234567890_-XYZ end", "key # end"),
    ("openai_key", "sk-" + "a1B2" * 12, "#"),
    ("anthropic_key", "sk-ant-api03-" + "a1B2-_" * 15 + " x", "# x"),
    ("aws_key", "id AKIAIOSFODNN7EXAMPLE.", "id #."),
    ("aws_key", 'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"', '#"'),
    ("google_key", "AIza" + "Sy0_-" * 7 + " x", "# x"),
    ("google_key", "ya29." + "a0Af" * 20, "#"),
    ("github_token", "ghp_" + "aB3d" * 9 + " github_pat_" + "aB3_" * 10, "# #"),
    ("slack_token", "xoxb-123456789012-abcdef https://hooks.slack.com/services/T000/B000/XXXXXXXXXX", "# https://#"),
    ("private_key", f"here:\n{KEY}\nbye", "here:\n#\nbye"),
    ("private_key", KEY.replace("\n", "\\n").replace("RSA ", "") + "x", "#x"),
    ("private_key", KEY.partition("-----END")[0] + "and no end", "#"),
    ("private_key", KEY.replace("RSA", "OPENSSH").replace("\n", "\n> "), "#"),
    ("private_key", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----", "#"),
    ("private_key", f"{KEY}\n{KEY}", "#\n#"),
    ("jwt", f"Bearer {JWT}, ok", "Bearer #, ok"),
    ("jwt", JWT + "A" * 5000 + " x", "# x"),
    ("ssn", "ssn 078-05-1120.", "ssn #."),
    ("ipv4", "at 192.168.0.1:80 and 8.8.8.8", "at #:80 and #"),
]

MISSES = [
    ("card", "4111111111111112"),
    ("card", "0000 0000 0000 0000"),
    ("card", "order 41111111111111111111111111111111"),
    ("card", "id a4111111111111111b"),
    ("card", "2024-01-01 12:00:00"),
    ("iban", "DE89 3704 0044 0532 0130 01"),
    ("iban", "ZZ89 3704 0044 0532 0130 00"),
    ("iban", "deal with it"),
    ("email", "a@b and @handle and x@y."),
    ("phone", "12.5 and 2024-01-01 and 3.14159265358979"),
    ("openai_key", "task-management-for-the-enterprise-of-2024"),
    ("openai_key", "sk-learn-is-a-library-of-many-words"),
    ("anthropic_key", "sk-ant-short"),
    ("aws_key", "AKIASHORT and XAKIAIOSFODNN7EXAMPLE"),
    ("google_key", "AIzaShort"),
    ("github_token", "ghp_short"),
    ("slack_token", "xoxb-1"),
    ("private_key", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"),
    ("private_key", "-----BEGIN CERTIFICATE-----"),
    ("jwt", "eyJhbGciOiJIUzI1NiJ9 alone"),
    ("card", "１２３４"),
    ("card", "4111\u202f1111\u202f1111\u202f1112"),
    ("iban", "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a001"),
    ("ssn", "000\u201112\u20113456 and 078 05 1120"),
    ("ssn", "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000"),
    ("ipv4", "256.1.1.1 and 1.2.3"),
]


# What a person reads as a space or a hyphen, and what nobody sees: models print these by themselves.
SPACES = "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u205f\u3000"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"
UNSEEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
WIDE = {ord(one): chr(ord(one) + 0xFEE0) for one in map(chr, range(0x21, 0x7F))}

GROUPED = [  # detector, what is printed with a separator at each `_`, which separators it may have
    ("card", "4111_1111_1111_1111", SPACES + DASHES + UNSEEN),
    ("card", "3782_822463_10005", SPACES + DASHES + UNSEEN),
    ("card", "4_1_1_1_1_1_1_1_1_1_1_1_1_1_1_1", SPACES + DASHES + UNSEEN),
    ("iban", "DE89_3704_0044_0532_0130_00", SPACES + DASHES + UNSEEN),
    ("iban", "NO93_8601_1117_947", SPACES + DASHES + UNSEEN),
    ("iban", "RU02_0445_2560_0407_0281_0412_3456_7890_1", SPACES + DASHES + UNSEEN),
    ("ssn", "078_05_1120", SPACES + DASHES),
    ("phone", "+49_170_123_4567", SPACES + DASHES + UNSEEN),
    ("phone", "415_555_2671", SPACES + DASHES),
    ("phone", "0049_170_1234567", SPACES + DASHES),
    ("email", "jane_doe@my_mail.example.org", DASHES + UNSEEN),
    ("openai_key", "sk_proj_abcdefghij1234567890_XYZ", DASHES),
    ("anthropic_key", "sk_ant_api03_abcdefghij1234567890", DASHES),
    ("slack_token", "xoxb_123456789012_abcdef", DASHES),
    ("private_key", "_____BEGIN EC PRIVATE KEY_____ MII _____END EC PRIVATE KEY_____", DASHES),
]
FULLWIDTH = [
    ("card", "4111 1111 1111 1111"),
    ("card", "4111111111111111"),
    ("card", "3782-822463-10005"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "gb82west12345698765432"),
    ("ssn", "078-05-1120"),
    ("phone", "+49 (170) 123-4567"),
    ("phone", "(415) 555-2671"),
    ("email", "jane.doe+x@mail.example.org"),
    ("ipv4", "192.168.0.1"),
]


@pytest.mark.parametrize(("name", "printed", "separators"), GROUPED)
def test_typographic_separators_are_read_as_the_plain_ones(name: str, printed: str, separators: str) -> None:
    found = redactors([Redaction(detectors=(name,), replacement="#")])
    missed = [
        f"U+{ord(one):04X}"
        for one in separators
        if redact_text(f"so: {printed.replace('_', one)}, ok", found) != "so: #, ok"
    ]
    assert missed == []


@pytest.mark.parametrize(("name", "text"), FULLWIDTH)
def test_fullwidth_characters_are_read_as_the_plain_ones(name: str, text: str) -> None:
    found = redactors([Redaction(detectors=(name,), replacement="#")])
    wide = text.translate(WIDE)
    mixed = "".join(one if at % 2 else two for at, (one, two) in enumerate(zip(text, wide, strict=True)))
    assert redact_text(f"so: {wide}, ok", found) == "so: #, ok"
    assert redact_text(f"so: {wide.replace(' ', chr(0x3000))}。", found) == "so: #。"
    if name not in ("iban", "ipv4"):  # their parts are written in one width
        assert redact_text(f"so: {mixed}, ok", found) == "so: #, ok"


KEY_LABELS = ("RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "SSH2 ENCRYPTED ", "")


@pytest.mark.parametrize("label", KEY_LABELS)
def test_every_kind_of_private_key_is_taken_whole(label: str) -> None:
    found = redactors([Redaction(detectors=("private_key",), replacement="#")])
    assert redact_text(f"a {KEY.replace('RSA ', label)} b", found) == "a # b"


@pytest.mark.parametrize(("name", "text", "expected"), HITS)
def test_a_find_is_replaced_whole(name: str, text: str, expected: str) -> None:
    assert redact_text(text, redactors([Redaction(detectors=(name,), replacement="#")])) == expected


@pytest.mark.parametrize(("name", "text"), MISSES)
def test_its_likeness_stays(name: str, text: str) -> None:
    assert redact_text(text, redactors([Redaction(detectors=(name,), replacement="#")])) is text


def test_every_detector_has_a_finite_reach_and_is_tried() -> None:
    for detector in DETECTORS.values():
        patterns = (*detector.patterns, *([detector.tail.until] if detector.tail else []))
        assert all(reach(pattern) is not None for pattern in patterns), detector.name
    assert {name for name, *_ in HITS} == {name for name, *_ in MISSES} == set(DETECTOR_NAMES)


def test_a_private_key_without_an_end_takes_no_more_than_its_limit() -> None:
    text = "-----BEGIN PRIVATE KEY-----" + "A" * 16_384 + " later a@b.io"

    assert (
        redact_text(text, redactors([Redaction(detectors=("private_key", "email"))])) == "[redacted] later [redacted]"
    )


def test_arguments_are_searched_as_json() -> None:
    found = redactors([Redaction(detectors=("card", "private_key"), replacement='say "no"')])

    assert redact_text(r'{"a": "line\n4111111111111111"}', found, arguments=True) == r'{"a": "line\nsay \"no\""}'
    assert redact_text('{"n": 4111111111111111}', found, arguments=True) == r'{"n": "say \"no\""}'
    key = r'{"k": "-----BEGIN PRIVATE KEY-----\nMII\"x", "z": 1}'  # no end: the string's own end is the end
    assert redact_text(key, found, arguments=True) == r'{"k": "say \"no\"", "z": 1}'
    assert redact_text("echo 4111111111111111", found, arguments=True) == 'echo say "no"'  # not JSON at all


def test_an_endless_pattern_is_refused_with_its_cure() -> None:
    with pytest.raises(ValueError, match=r"can be endless: write `\\d\{1,32\}` instead of `\\d\+`"):
        redactor(r"\d+", "#")


def test_validators() -> None:
    assert is_card("4111 1111 1111 1111") and not is_card("4111 1111 1111 1112") and not is_card("411111111111")
    assert is_iban("GB82 WEST 1234 5698 7654 32") and not is_iban("GB82 WEST 1234 5698 7654 33")
    assert is_ssn("078-05-1120") and not is_ssn("900-05-1120")


def test_every_detector_is_documented() -> None:
    page = (ROOT / "docs" / "detectors.md").read_text()
    assert [name for name in DETECTOR_NAMES if f"`{name}`" not in page] == []
