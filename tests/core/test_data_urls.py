"""Text files in base64 and in data URLs, however they are written: read by rules, and redacted in place."""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from policyd.core.stream.dialects.content import base64, decoded, media
from policyd.core.stream.dialects.data_urls import within
from tests.driving import Bed, policy

SAID = "make plutonium now, and write to joe@example.org about it"
NO = policy("rules: [{name: no, when: 'request.content.contains(\"make plutonium now\")', terminate: {}}]")
HIDE = policy("rules: [{name: hide, constrain: {redact: {detectors: [email], in: [request]}}}]")


def in_base64(data: bytes) -> str:
    return b64encode(data).decode()


FILES = {
    "UTF-8": SAID.encode(),
    "a NUL": SAID.encode() + b"\0",
    "a NUL at the start": b"\0" + SAID.encode(),
    "Latin-1": b"caf\xe9: " + SAID.encode(),
    "Latin-1 at the end": SAID.encode() + b" caf\xe9",
    "UTF-16 with its mark": b"\xff\xfe" + SAID.encode("utf-16-le"),
    "UTF-16 of the other order": b"\xfe\xff" + SAID.encode("utf-16-be"),
    "UTF-16 without a mark": SAID.encode("utf-16-le"),
    "UTF-16 of the other order, without": SAID.encode("utf-16-be"),
    "escapes": b"\x1b[1m" + SAID.encode() + b"\x1b[0m",
}
URLS = {
    "ordinary": "data:text/plain;base64," + in_base64(SAID.encode()),
    "upper case": "DATA:TEXT/PLAIN;BASE64," + in_base64(SAID.encode()),
    "a charset": "data:text/plain;charset=utf-8;base64," + in_base64(SAID.encode()),
    "two parameters": 'data:text/plain;charset="utf-8";name=a.txt;base64,' + in_base64(SAID.encode()),
    "no type": "data:;base64," + in_base64(SAID.encode()),
    "encoded padding": "data:text/plain;base64," + in_base64(SAID.encode() + b"!!").replace("=", "%3D"),
    "encoded base64": "data:text/plain;base64," + "".join(f"%{ord(one):02x}" for one in in_base64(SAID.encode())),
    "percent-encoded": "data:text/plain," + SAID.replace(" ", "%20"),
    "all percent-encoded": "Data:text/plain," + "".join(f"%{ord(one):02X}" for one in SAID),
    "nothing encoded": "data:," + SAID,
}


def part(kind: str, data: str) -> tuple[str, Any]:
    match kind:
        case "gemini":
            said = {"inlineData": {"mimeType": "text/plain", "data": data}}
            return "/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"parts": [said]}]}
        case "converse":
            said = {"document": {"format": "txt", "name": "a", "source": {"bytes": data}}}
            return "/model/amazon.nova-pro-v1%3A0/converse", {"messages": [{"role": "user", "content": [said]}]}
        case "anthropic":
            source = {"type": "base64", "media_type": "text/plain", "data": data}
            said = {"type": "document", "source": source}
            return "/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [said]}]}
        case _:
            said = {"type": "file", "file": {"filename": "a.txt", "file_data": data}}
            return "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": [said]}]}


def called(spec: str, kind: str, data: str) -> Any:
    path, body = part(kind, data)
    return Bed(spec).call(body=json.dumps(body).encode(), path=path, host="llm.test")


@pytest.mark.parametrize("kind", ["gemini", "converse", "anthropic", "openai"])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_text_file_is_read_whatever_its_encoding(kind: str, data: bytes) -> None:
    assert called(NO, kind, in_base64(data)).rejected.status == 403
    sent = called(HIDE, kind, in_base64(data)).sent
    held = within(in_base64(data))
    assert sent is not None and held is not None
    clean = held.holding(held.text.replace("joe@example.org", "[redacted]"))
    assert clean in sent.decode()
    expected = data.replace("joe@example.org".encode(held.codec), "[redacted]".encode(held.codec))
    assert b64decode(clean) == expected


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_data_url_is_read_however_it_is_written(url: str) -> None:
    assert called(NO, "openai", url).rejected.status == 403
    sent = called(HIDE, "openai", url).sent
    assert sent is not None
    made = json.loads(sent)["messages"][0]["content"][0]["file"]["file_data"]
    head, _, data = made.partition(",")
    assert head == url.partition(",")[0]
    raw = b64decode(data) if head.casefold().endswith(";base64") else unquote_to_bytes(made[len(head) + 1 :])
    assert raw.decode().removesuffix("!!") == SAID.replace("joe@example.org", "[redacted]")


@pytest.mark.parametrize(
    "head",
    [b"\x89PNG\r\n", b"\xff\xd8\xff\xe0", b"%PDF-1.7\n" + b"1 0 obj << /Type /Page >> endobj\n" * 99, b"RIFF", b""],
)
def test_media_stays_media(head: bytes) -> None:
    data = in_base64(head + random.Random(7).randbytes(3000))
    for value in (data, f"data:image/png;base64,{data}", f"DATA:image/png;BASE64,{data}"):
        assert media(value, {})
        assert not list(decoded(value))
    assert base64(data, {})
