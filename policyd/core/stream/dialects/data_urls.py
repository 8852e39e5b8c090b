"""Text in base64 and in data URLs, and how a changed text is put back.

Rule 1: the parts of a data URL are read in any case; its data may be percent-encoded, and need not be base64.
Rule 2: data is text if it is UTF-8 without control characters, UTF-16, or another text with few bytes that are neither:
        a NUL or a character of Latin-1 makes no text unread. What begins like a known binary format is no text.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

_DATA_URL = re.compile(r"data:(?:[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,100})?(?:;[^;,\s]{1,200})*?(;base64)?,", re.IGNORECASE)
_SHORT = re.compile(r"[A-Za-z0-9+/_\r\n-]{16,}+={0,2}\s?")
_HEAD = 4096  # base64 characters that tell whether it holds text
_BINARY = re.compile(
    rb"%PDF|\x89PNG|\xff\xd8\xff|GIF8|RIFF|PK\x03\x04|OggS|ID3|fLaC|\x1f\x8b|BM|II\*\0|MM\0\*|\xff[\xf2-\xfb]|....ftyp",
    re.DOTALL,
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufffd]")
_ODD = bytes(range(9)) + b"\x0b" + bytes(range(0x0E, 0x20)) + b"\x7f"  # bytes that text hardly has
_FEW = 6  # of so many bytes one may be odd
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


class Within(NamedTuple):
    """The text that a string holds."""

    text: str
    head: str  # what stands before the data
    in_base64: bool
    codec: str

    def holding(self, text: str) -> str:
        """The string, with another text in it."""
        data = text.encode(self.codec, "replace")
        return self.head + (b64encode(data).decode() if self.in_base64 else quote(data))


def data_of(value: str) -> str | None:
    """The base64 of a string that is base64, or a data URL with base64; None for a data URL without."""
    found = _DATA_URL.match(value)
    if found is None:
        return value
    return _unquoted(value[found.end() :]) if found[1] else None


def _unquoted(data: str) -> str:
    return unquote_to_bytes(data).decode("latin-1") if "%" in data else data


def within(value: str) -> Within | None:
    """The text that base64, or a data URL, holds; None if it holds something else, or says it as it stands."""
    found = _DATA_URL.match(value)
    head = found[0] if found else ""
    if found and not found[1]:
        data = value[found.end() :]
        read = _as_text(unquote_to_bytes(data), cut=False) if "%" in data else None
        return Within(read[0], head, in_base64=False, codec=read[1]) if read else None
    data = _unquoted(value[len(head) :])
    if not _SHORT.fullmatch(data):
        return None
    begin = _decoded(data[:_HEAD], cut=True)
    if begin is None or _as_text(begin, cut=True) is None:
        return None
    whole = _decoded(data)
    read = None if whole is None else _as_text(whole, cut=False)
    return Within(read[0], head, in_base64=True, codec=read[1]) if read else None


def _decoded(value: str, *, cut: bool = False) -> bytes | None:
    plain = "".join(value.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if cut:
        plain = plain[: len(plain) // 4 * 4]
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return None


def _as_text(data: bytes, *, cut: bool) -> tuple[str, str] | None:
    """The text of these bytes, and its encoding; `cut`: the last character may be incomplete."""
    if _BINARY.match(data):
        return None
    if (wide := _utf_16(data)) is not None:
        text = data.decode(wide, "replace")
        return (text, wide) if _mostly(text) else None
    try:
        text = data.decode()
    except UnicodeDecodeError as failure:
        if not cut or failure.start < len(data) - 3:
            return _latin(data)
        text = data[: failure.start].decode()
    return (text, "utf-8") if _mostly(text) else None


def _latin(data: bytes) -> tuple[str, str] | None:
    """A text with bytes that are no UTF-8."""
    lost = data.decode("utf-8", "replace").count("\ufffd")
    odd = lost + len(data) - len(data.translate(None, _ODD))
    return (data.decode("latin-1"), "latin-1") if odd * _FEW <= len(data) else None


def _mostly(text: str) -> bool:
    """Whether few of these characters are control characters."""
    return len(_CONTROLS.findall(text)) * _FEW <= len(text)


def _utf_16(data: bytes) -> str | None:
    """The encoding of a text in UTF-16: by its mark, or because every other byte is mostly 0."""
    if (marked := _UTF_16.get(data[:2])) is not None:
        return marked
    half = len(data) // 2
    for start, codec in ((1, "utf-16-le"), (0, "utf-16-be")):
        if half >= 4 and data[start::2].count(0) * 2 > half and data[1 - start :: 2].count(0) * 4 < half:
            return codec
    return None
