"""JSON texts at random around documents that mean something: odd numbers and strings, keys twice, plain damage."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = [
    "0", "-0", "-0.0", "1", "1.0", "1e0", "10E-1", "7", "-1", "0.1", "1e5", "1E+2", "5e-324", "2e-324", "1e-400",
    "1e22", "1e23", "8.5e22", "1e300", "1e308", "1e309", "1e400", "-1e400", "1.7976931348623157e308",
    "1.7976931348623159e308", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993",
    "9007199254740993.0", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "123456789012345678901234567890", "123456789012345678.5",
    "0.30000000000000004", "2.2250738585072011e-308", "01", "1.", ".5", "+1", "1e", "-", "0x10", "1_000", "NaN",
    "Infinity", "-Infinity", "nan", "Inf", "null", "true", "false", "True", "None", "undefined",
]  # fmt: skip
NUMBERS += [
    "9" * 308,
    "9" * 309,
    "9" * 400,
    "9" * 5000,
    "0." + "0" * 400 + "1",
    "1" + "0" * 400 + "e-400",
    "1." + "1" * 900,
]
STRINGS: list[bytes] = [
    b'""', b'"secret"', b'"\\u0073ecret"', b'"a\\/b"', b'"\\u0000"', b'"\x7f"', b'"\\ud83d\\ude00"',
    b'"\\uD83D\\uDE00"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83dx"', b'"\\ud83d\\u0041"', b'"\t"',
    b'"\n"', b'"\0"', b'"\\x41"', b'"\\u12"', b'"\\u{41}"', b'"\\\'"', b"'single'", b'"\xff"', b'"\xc0\xaf"',
    b'"\xe0\x80\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xf0\x9f\x98\x80"', b'"\xe2\x80\xa8"',
    b'"\xef\xbb\xbf"', b'"\xef\xbf\xbe"', b'"\xc3"', b'"\\"', b'"open', '"модель"'.encode(),
    '"e\u0301\u00e9"'.encode(), b'"a\\u0022b"', b'"a\\\\"', b'"</script>"', b'"__proto__"', b'"5"',
]  # fmt: skip
KEYS: list[bytes] = [
    b'"model"', b'"mod\\u0065l"', b'"\\u006dodel"', b'"Model"', b'"MODEL"', b'"model "', b'"model\\u0000"',
    b'"__proto__"', b'"constructor"', b'"toJSON"', b'""', b'"0"', b'"-1"', b'"a.b"', b'"stream"', b'"Stream"',
    b'"messages"', b'"max_tokens"', b'"temperature"', b'"usage"', b'"\\ud800"', b'"\xff"', b"model", b"'model'",
    b"1", '"mоdel"'.encode(), '"ſtream"'.encode(), b'"K"',
]  # fmt: skip
BLANKS = [b" ", b"\n", b"\t", b"\r\n", b"  "]
ODD_BLANKS = [
    b"\x0b",
    b"\x0c",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"/* x */",
    b"// x\n",
    b"# x\n",
    b"\0",
    b",",
]
TAILS = [b" ", b"\n", b"x", b"{}", b"null", b"\0", b",", b"]", b"}", b"// x", b"\x1e", b"\n{}", b"\xef\xbb\xbf"]
HEADS = [b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\n", b"\x1e", b")]}',\n", b"\0", b"\xc2\xa0"]


class Writer:
    """Writes documents as JSON text, now and then not quite. `odds`: of each value to become an odd one."""

    def __init__(self, chance: random.Random, odds: float) -> None:
        self._chance, self._odds = chance, odds

    def body(self, document: Any) -> bytes:
        """A document; one in five is damaged after it was written."""
        chance = self._chance
        data = self._value(document)
        match chance.randrange(40):
            case 0:
                return chance.choice(HEADS) + data
            case 1:
                return data + chance.choice(TAILS)
            case 2:
                return data[: chance.randrange(len(data) + 1)]
            case 3 | 4:
                at = chance.randrange(len(data) + 1)
                return data[:at] + bytes([chance.randrange(256)]) + data[at + chance.randrange(2) :]
            case 5:
                return data.decode("utf-8", "replace").encode(
                    chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
                )
            case 6:
                at = chance.randrange(len(data) + 1)
                return data[:at] + chance.choice(ODD_BLANKS) + data[at:]
            case _:
                return data

    def _value(self, value: Any) -> bytes:
        chance = self._chance
        if chance.random() < self._odds:
            return self._odd()
        if isinstance(value, dict):
            return self._members(value)
        if isinstance(value, list):
            return b"[" + self._joined([self._value(below) for below in value]) + b"]"
        if isinstance(value, str):
            return self._text(value)
        return json.dumps(value).encode()

    def _odd(self) -> bytes:
        chance = self._chance
        match chance.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                return chance.choice(NUMBERS).encode()
            case 5 | 6 | 7:
                return chance.choice(STRINGS)
            case 8:
                depth = chance.choice([1, 2, 5, 100, 195, 199, 200, 201, 202, 300, 1100])
                return b"[" * depth + b"]" * (depth - (chance.random() < 0.1))
            case 9:
                return b'{"a":' * (depth := chance.choice([1, 3, 198, 201])) + b"1" + b"}" * depth
            case 10:
                return chance.choice(
                    [b"[]", b"{}", b"[1,]", b'{"a":1,}', b"[,]", b"[1 2]", b'{"a" 1}', b"{a:1}", b"[[]"]
                )
            case _:
                return b"{%b:%b,%b:%b}" % (self._key(), self._number(), self._key(), self._number())

    def _number(self) -> bytes:
        return self._chance.choice(NUMBERS[:20]).encode()

    def _key(self) -> bytes:
        return self._chance.choice(KEYS)

    def _text(self, value: str) -> bytes:
        if self._chance.random() < 0.9:
            return json.dumps(value, ensure_ascii=self._chance.random() < 0.5).encode("utf-8", "surrogatepass")
        return b'"' + b"".join(b"\\u%04x" % ord(sign) for sign in value if ord(sign) < 0x10000) + b'"'

    def _members(self, value: dict[str, Any]) -> bytes:
        chance = self._chance
        members = [self._text(key) + b":" + self._value(below) for key, below in value.items()]
        if members and chance.random() < self._odds:
            match chance.randrange(4):
                case 0:
                    members.append(chance.choice(members))  # twice
                case 1:
                    key = chance.choice(list(value))
                    members.insert(
                        chance.randrange(len(members) + 1), b'"\\u%04x%b":1' % (ord(key[0]), key[1:].encode())
                    )
                case 2:
                    twin = chance.choice(list(value)).swapcase()
                    members.insert(chance.randrange(len(members) + 1), json.dumps(twin).encode() + b":1")
                case _:
                    members.append(self._key() + b":" + self._odd())
        return b"{" + self._joined(members) + b"}"

    def _joined(self, parts: list[bytes]) -> bytes:
        if self._chance.random() < 0.9:
            return b",".join(parts)
        blank = self._chance.choice(BLANKS)
        return blank + (blank + b"," + blank).join(parts) + blank
