"""What any official SDK reads in a response is what policyd has judged.

Each odd response is given to the openai and anthropic SDKs for Python and Node.js as it is, and as it leaves policyd
under a rule on `response.content` and under a redaction. No SDK may find the word in what leaves.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from tests.driving import Bed, answer_of, policy
from tests.sdks.asking import BODIES, LANGUAGES, Clients, Reply, clients, node_is_missing
from tests.sdks.documents import IDS, ODD, WORD, encoded, in_two
from tests.sdks.frames import FRAMES
from tests.spoken import VOICES

CUT = "rules: [{name: no, when: 'response.content.contains(\"zugzwang\")', terminate: {message: stopped}}]"
HIDDEN = "rules: [{name: hide, constrain: {redact: {patterns: [zugzwang], in: [response]}}}]"
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
VOICE_OF = {"chat": "openai", "completions": "completions", "responses": "responses", "messages": "anthropic"}
Case = tuple[str, Reply]


@pytest.fixture(scope="module")
def ask() -> Iterator[Clients]:
    with clients() as asking:
        yield asking


def languages() -> list[str]:
    return ["python"] if node_is_missing() else list(LANGUAGES)


def readers(ask: Clients, api: str, reply: Reply, ways: Sequence[str]) -> list[str]:
    """The SDKs that find the word in this response."""
    ways = [way for way in ways if way != "helper" or api != "completions"]
    asked = [(language, way) for language in languages() for way in ways]
    found = {one: ask(one[0], api, one[1], reply=reply).strings for one in asked}
    return [" ".join(one) for one, texts in found.items() if any(WORD in text for text in texts)]


def left(bed: Bed, api: str, reply: Reply, *, stream: bool) -> Reply:
    """The response as it leaves policyd."""
    body = {**BODIES[api], **({"stream": True} if stream else {})}
    kind = [("content-type", reply.kind)] if reply.kind else []
    out = bed.call(
        body=json.dumps(body).encode(), path=PATHS[api], status=reply.status, response_headers=kind, chunks=reply.chunks
    )
    if out.rejected is not None:
        return Reply([out.rejected.body], out.rejected.status, dict(out.rejected.headers)["content-type"])
    return Reply([out.body], reply.status, reply.kind)


def check(ask: Clients, api: str, cases: Iterable[Case], ways: Sequence[str], live: int) -> None:
    """No SDK finds the word in what leaves. At least `live` of these responses are such that one finds it."""
    beds = {"cut": Bed(policy(CUT)), "hidden": Bed(policy(HIDDEN))}
    holes, found = [], Counter[str]()
    for name, reply in cases:
        as_it_came = readers(ask, api, reply, ways)
        found.update(as_it_came)
        for rule, bed in beds.items() if as_it_came else ():
            leaving = left(bed, api, reply, stream="whole" not in ways)
            holes += [f"{name}: {rule}: {one}" for one in readers(ask, api, leaving, ways)]
    assert not holes, "\n".join(holes)
    assert max(found.values(), default=0) >= live, found


STREAMED = ("stream", "helper")


@pytest.mark.parametrize("api", PATHS)
def test_framings(ask: Clients, api: str) -> None:
    """The word in two events, in every framing."""
    blocks = VOICES[VOICE_OF[api]].say(["zug", "zwang"]).decode().split("\n\n")
    events = [_parsed(block) for block in blocks if block]
    check(ask, api, ((name, Reply([frame(events)])) for name, frame in FRAMES.items()), ("stream",), live=25)


def _parsed(block: str) -> tuple[str, str]:
    lines = dict(line.split(": ", 1) for line in block.split("\n"))
    return lines.get("event", ""), lines["data"]


@pytest.mark.parametrize("api", ODD)
def test_odd_events(ask: Clients, api: str) -> None:
    check(ask, api, ((name, Reply([encoded(api, events)])) for name, events in ODD[api].items()), STREAMED, live=15)


@pytest.mark.parametrize("api", ODD)
def test_pieces_that_an_sdk_joins(ask: Clients, api: str) -> None:
    """A word in two pieces, at every place at which an SDK might put them together."""
    check(ask, api, ((name, Reply([encoded(api, events)])) for name, events in in_two(api)), ("helper",), live=2)


def test_more_fields_than_are_followed_cannot_be_judged() -> None:
    """An SDK joins the pieces of every field, however many there are."""
    from tests.sdks.documents import chunk

    fields = {f"f{number}": "zug" for number in range(1100)}
    data = encoded("chat", [chunk(fields), chunk({**fields, "f1099": "zwang"})])
    for rule in (CUT, HIDDEN):
        out = Bed(policy(rule)).call(
            body=json.dumps({**BODIES["chat"], "stream": True}).encode(),
            chunks=[data],
            response_headers=[("content-type", "text/event-stream")],
        )
        assert out.record.verdict == "terminate" and b"f1099" not in out.body


# ---- in one piece ----------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "chat": json.loads(answer_of(WORD)),
    "messages": {
        "id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": WORD}], "model": "c",
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
    "responses": {
        "id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m", "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "output": [
            {"id": "m", "type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": WORD, "annotations": []}]}]},
}  # fmt: skip
ERROR = {"error": {"message": WORD, "type": "x"}}
UTF_7 = b"+" + base64.b64encode(WORD.encode("utf-16-be")).rstrip(b"=") + b"-"
JSON, TEXT = "application/json", "text/plain"
KINDS = (
    JSON, "", TEXT, "text/html", "Application/JSON", "application/vnd.x+json", "application/octet-stream",
    "application/x-ndjson", "application/jsonl", "text/event-stream", f"{JSON}; charset=latin-1",
)  # fmt: skip


def bodies(document: Any) -> Iterator[tuple[str, bytes, str]]:
    """One document, in every encoding and under every content type that an SDK might read."""
    raw = json.dumps(document).encode()
    event = b"data: " + raw + b"\n\n"
    escaped = raw.replace(b"zug", b"\\u007aug")
    for kind in KINDS:
        yield f"as {kind}", raw, kind
    for kind in (JSON, TEXT, ""):
        yield f"an event as {kind}", event, kind
    for kind in (JSON, TEXT, "text/event-stream"):
        yield f"UTF-7 as {kind}", raw.replace(WORD.encode(), UTF_7), f"{kind}; charset=utf-7"
    yield "escaped twice", escaped.replace(b"\\u", b"\\\\u"), f"{JSON}; charset=unicode_escape"
    yield "escaped", escaped, f"{JSON}; charset=raw_unicode_escape"
    for charset in ("utf-16", "utf-32", "cp037"):
        yield charset, raw.decode().encode(charset), f"{JSON}; charset={charset}"
        yield f"{charset}, quoted", raw.decode().encode(charset), f'{JSON}; Charset="{charset}"'
        yield f"{charset}, not declared", raw.decode().encode(charset), JSON
    yield "no Unicode", raw.replace(b"zwang", b"zwang\xe9"), f"{JSON}; charset=iso-8859-1"
    yield "no UTF-8", raw.replace(b"zwang", b"zwang\xff"), JSON
    yield "a BOM", b"\xef\xbb\xbf" + raw, JSON
    yield "white space", b" \n\t" + raw + b"\n", JSON
    yield "more behind it", raw + b" x", JSON
    yield "twice", raw + raw, JSON
    yield "members twice", raw.replace(WORD.encode(), b"a")[:-1] + b"," + raw[1:], JSON
    yield "a page", b"<b>zugzwang</b>", "text/html"


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("api", WHOLE)
def test_whole_responses(ask: Clients, api: str, status: int) -> None:
    document = WHOLE[api] if status == 200 else ERROR
    cases = [(name, Reply([body], status, kind)) for name, body, kind in bodies(document)]
    check(ask, api, cases, ("whole",), live=8)
    check(ask, api, cases, ("stream",), live=0 if api == "messages" and status == 200 else 3)


def test_ids_are_not_text() -> None:
    assert "id" in IDS  # what is left out above is in the closed list: docs/structural-fields.md
