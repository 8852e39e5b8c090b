"""Every format gives the same noun; whatever is not one of them is refused with its position."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path

import brotli
import pytest
import yaml

from policyd.adapters import recordings
from policyd.adapters.errors import UnreadableInput
from policyd.adapters.recordings import Recording, exchange_jsonl, read_recordings
from policyd.core.stream.encodings import zstd

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"

BODY = '{"model": "gpt-4o", "messages": []}'
ANSWER = 'data: {"é": 1}\n\ndata: [DONE]\n\n'


def exchange(**changes: object) -> dict[str, object]:
    return {
        "time": "2026-01-02T03:04:05Z",
        "request": {
            "method": "post",
            "path": "/v1/chat/completions?x=1",
            "headers": {"Host": "api.openai.com", "Content-Type": "application/json"},
            "body": BODY,
        },
        "response": {
            "status": 200,
            "headers": {"Content-Type": "text/event-stream"},
            "chunks": [{"ms": 0, "data": ANSWER[:10]}, {"ms": 12.5, "data": ANSWER[10:]}],
        },
    } | changes


def cassette(**response: object) -> dict[str, object]:
    return {
        "version": 1,
        "interactions": [
            {
                "request": {
                    "method": "POST",
                    "uri": "https://api.openai.com/v1/chat/completions?x=1",
                    "headers": {"Host": ["api.openai.com"], "Content-Type": ["application/json"]},
                    "body": BODY,
                },
                "response": {
                    "status": {"code": 200, "message": "OK"},
                    "headers": {"Content-Type": ["text/event-stream"]},
                    "body": {"string": ANSWER},
                }
                | response,
            }
        ],
    }


def har() -> dict[str, object]:
    entry = {
        "startedDateTime": "2026-01-02T03:04:05.000+00:00",
        "time": 321.5,
        "request": {
            "method": "POST",
            "url": "https://api.openai.com/v1/chat/completions?x=1",
            "headers": [
                {"name": ":method", "value": "POST"},
                {"name": "Host", "value": "api.openai.com"},
                {"name": "Content-Type", "value": "application/json"},
            ],
            "postData": {"mimeType": "application/json", "text": BODY},
        },
        "response": {
            "status": 200,
            "headers": [
                {"name": "Content-Type", "value": "text/event-stream"},
                {"name": "Content-Encoding", "value": "gzip"},
            ],
            "content": {"size": 5, "text": base64.b64encode(ANSWER.encode()).decode(), "encoding": "base64"},
        },
    }
    return {"log": {"version": "1.2", "entries": [entry]}}


def read(tmp_path: Path, data: str | bytes) -> list[Recording]:
    file = tmp_path / "a.txt"  # the name says nothing on purpose
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_recordings(file))


def whole(recording: Recording) -> bytes:
    return b"".join(data for _, data in recording.chunks)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps(exchange()), id="jsonl"),
        pytest.param("\ufeff\n" + json.dumps(exchange()) + "\n\n", id="jsonl with mark and blank lines"),
        pytest.param(json.dumps(exchange(), indent=2), id="one exchange over many lines"),
        pytest.param(yaml.safe_dump(cassette()), id="yaml cassette"),
        pytest.param(json.dumps(cassette()), id="json cassette"),
        pytest.param(json.dumps(cassette(), indent=1), id="json cassette, indented"),
        pytest.param(json.dumps(har()), id="har"),
        pytest.param(json.dumps(har(), indent=2), id="har, indented"),
    ],
)
def test_every_format_says_the_same(tmp_path: Path, text: str) -> None:
    (recording,) = read(tmp_path, text)
    assert recording.source == f"{tmp_path / 'a.txt'}#0"
    assert (recording.method, recording.path) == ("POST", "/v1/chat/completions?x=1")
    assert (recording.scheme, recording.host) == ("https", "api.openai.com")
    assert set(recording.headers) == {("host", "api.openai.com"), ("content-type", "application/json")}
    assert recording.body == BODY.encode()
    assert recording.status == 200
    assert recording.response_headers == (("content-type", "text/event-stream"),)
    assert whole(recording) == ANSWER.encode()
    assert recording.encoded == ""


def undone(recording: Recording) -> tuple[bytes, bytes]:
    return recording.body, whole(recording)


def test_bodies_that_a_har_has_as_they_were_sent_are_decoded_too(tmp_path: Path) -> None:
    document = har()
    packed = base64.b64encode(gzip.compress(ANSWER.encode())).decode()
    document["log"]["entries"][0]["response"]["content"]["text"] = packed  # type: ignore[index]
    (recording,) = read(tmp_path, json.dumps(document))
    assert undone(recording) == (BODY.encode(), ANSWER.encode())
    assert (recording.response_headers, recording.encoded) == ((("content-type", "text/event-stream"),), "")


def test_json_that_a_cassette_has_as_a_document_is_json(tmp_path: Path) -> None:
    document = cassette()
    for message in document["interactions"][0].values():  # type: ignore[index]
        message.pop("body")
        message["parsed_body"] = {"é": [1, None]}
        message["headers"].pop("Content-Encoding", None)
    (recording,) = read(tmp_path, yaml.safe_dump(document))
    assert [json.loads(body) for body in undone(recording)] == [{"é": [1, None]}] * 2


def test_times_and_cuts_of_an_exchange_file_are_kept(tmp_path: Path) -> None:
    lines = [exchange(), exchange(time="2026-01-02T04:04:06+01:00"), exchange(time=None)]
    first, second, third = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert [ms for ms, _ in first.chunks] == [0, 12.5]
    assert first.time == 1767323045.0
    assert second.time == first.time + 1
    assert third.time is None
    assert [r.source.rpartition("#")[2] for r in (first, second, third)] == ["0", "1", "2"]


def test_bytes_that_are_no_text_travel_as_base64(tmp_path: Path) -> None:
    raw = bytes(range(256))
    line = exchange()
    line["request"] = {"method": "POST", "path": "/", "body_base64": base64.b64encode(raw).decode()}
    line["response"] = {"status": "200", "chunks": [{"data_base64": base64.b64encode(raw).decode()}]}
    (recording,) = read(tmp_path, json.dumps(line))
    assert recording.body == raw
    assert whole(recording) == raw


def test_a_call_without_an_answer_has_status_0(tmp_path: Path) -> None:
    (recording,) = read(tmp_path, json.dumps(exchange(response=None)))
    assert (recording.status, recording.chunks) == (0, ())


def test_repeated_headers_stay_repeated(tmp_path: Path) -> None:
    request = {"method": "POST", "path": "/", "headers": {"X-A": ["1", "2"]}}
    answer = {"status": 200, "headers": [["Set-Cookie", "a"], ["set-cookie", "b"]]}
    (recording,) = read(tmp_path, json.dumps(exchange(request=request, response=answer)))
    assert recording.headers == (("x-a", "1"), ("x-a", "2"))
    assert recording.response_headers == (("set-cookie", "a"), ("set-cookie", "b"))


def raw_deflate(data: bytes) -> bytes:
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return pack.compress(data) + pack.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "left"),
    [
        ("gzip", gzip.compress(ANSWER.encode()), ""),
        ("GZIP", gzip.compress(ANSWER.encode()), ""),
        ("gzip", ANSWER.encode(), ""),  # the recorder undid it and kept the header
        ("deflate", zlib.compress(ANSWER.encode()), ""),
        ("deflate", raw_deflate(ANSWER.encode()), ""),
        ("identity", ANSWER.encode(), ""),
        ("br", ANSWER.encode(), ""),
        ("br", b"\x8b\x02\x80abc\xff\xfe", "br"),
        ("gzip", gzip.compress(ANSWER.encode())[:-9], "gzip"),  # cut short
        ("gzip, br", b"\x8b\x02\x80\xff", "gzip, br"),
        ("br", brotli.compress(ANSWER.encode()), ""),
        ("gzip, zstd", zstd.compress(gzip.compress(ANSWER.encode())), ""),
        ("zstd", zstd.compress(ANSWER.encode())[:-9], "zstd"),
    ],
)
def test_encodings_are_undone_or_named(tmp_path: Path, encoding: str, body: bytes, left: str) -> None:
    headers = {"Content-Encoding": [encoding], "Content-Length": [str(len(body))]}
    (recording,) = read(tmp_path, yaml.safe_dump(cassette(headers=headers, body={"string": body})))
    assert recording.encoded == left
    assert whole(recording) == (body if left else ANSWER.encode())
    undone = not left and encoding != "identity"
    assert ("content-encoding" not in dict(recording.response_headers)) is undone


def test_the_chunks_of_an_encoded_answer_stay_apart(tmp_path: Path) -> None:
    pack = zlib.compressobj(wbits=31)
    pieces = [
        pack.compress(b"data: 1\n\n") + pack.flush(zlib.Z_SYNC_FLUSH),
        pack.compress(b"data: 2\n\n") + pack.flush(),
    ]
    chunks = [{"ms": at, "data_base64": base64.b64encode(piece).decode()} for at, piece in enumerate(pieces)]
    answer = {"status": 200, "headers": {"content-encoding": "gzip"}, "chunks": chunks}
    (recording,) = read(tmp_path, json.dumps(exchange(response=answer)))
    assert recording.chunks == ((0, b"data: 1\n\n"), (1, b"data: 2\n\n"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, b""),
        ({"string": None}, b""),
        ({"string": b"\x00\xff"}, b"\x00\xff"),
        ({"encoding": "UTF-8", "string": "é"}, "é".encode()),
        ({"encoding": "utf-8", "base64_string": "AP8="}, b"\x00\xff"),
        ("plain", b"plain"),
    ],
)
def test_cassette_bodies(tmp_path: Path, body: object, expected: bytes) -> None:
    (recording,) = read(tmp_path, yaml.safe_dump(cassette(body=body)))
    assert whole(recording) == expected


# A dozen lines that stand for 10 to the power of 11 texts: nothing may write them out.
ENDLESS = (
    "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    + "interactions:\n- request: {method: POST, uri: 'http://a/', headers: {h: [*a11]}}\n  response: {status: 200}\n"
)

BROKEN = [
    ("", "is empty"),
    (" \n\t\n", "is empty"),
    ("hello world\n", "not a recording"),
    ("- a\n- b\n", "not a recording"),
    ("[1, 2]", ":1:1: neither `log`"),
    ("{}", "neither `log`"),
    ('{"a": 1}\n{"b": 2}', "broken JSON"),
    (b"\x1f\x8b\x08\x00abc", "broken gzip"),
    (b"\x00\x01\x02", "is not text"),
    ('{"request": ', ":1:13: broken JSON"),
    (json.dumps(exchange()) + '\n{"request": {]}\n', ":2:14: broken JSON"),
    (json.dumps(exchange()).encode() + b'\n{"request": "\xff"}', ":2:14: not UTF-8: byte 0xff"),
    (json.dumps(exchange()) + "\n" + json.dumps({"request": 1}), ":2: request: expected an object, not this number"),
    (json.dumps(exchange(time="yesterday")), "time: expected an RFC 3339 time"),
    (json.dumps(exchange(time="2026-01-02T03:04:05")), "with its offset"),
    (json.dumps(exchange(response={"status": True})), "response.status: expected an HTTP status, not a boolean"),
    (json.dumps(exchange(response={"status": 200, "chunks": [{"ms": 5}, {"ms": 4}]})), "chunks[1].ms: is earlier"),
    (json.dumps(exchange(response={"status": 200, "chunks": [{"ms": float("nan")}]})), "chunks[0].ms: expected"),
    (json.dumps(exchange(response={"status": 200, "chunks": [{"data_base64": "*"}]})), "broken base64"),
    (json.dumps(exchange(request={"method": "POST"})), "request.path: expected a string, not nothing"),
    (json.dumps(exchange(request={"method": "P", "path": "/", "body": {}})), "request.body: expected a string"),
    ('{"request": ' + "[" * 100_000, "nested too deep"),
    ('{"request": ' + "1" * 5000 + "}", "a number is too long"),
    ("interactions:\n- request: {a\n", "broken YAML"),
    ("interactions:\n- request: !!python/object/apply:os.system [ls]\n", "a.txt#0: request: expected an object"),
    ("interactions: " + "[" * 100_000, ":1:214: nested deeper than 200"),
    ("interactions:\n" + "- " * 20_000, ":2:399: nested deeper than 200"),
    (ENDLESS, "a.txt#0: request.headers: expected a header's value, not a list"),
    (yaml.safe_dump(cassette(headers={"h": [10**30]})), "response.headers: expected a header's value"),
    ("interactions: []\n---\ninteractions: []\n", ":2:1: broken YAML"),
    ("a,b\n1,2\n", "not a recording"),
    ("<?xml version='1.0'?><har/>", ":1:1: not a recording"),
    ("interactions: []".encode("utf-16"), "is not text"),
    ("interactions: 5\n", "interactions: expected a list"),
    ("interactions: [5]\n", "a.txt#0: interactions[0]: expected an object"),
    (yaml.safe_dump(cassette(status="x")), "response.status: expected an HTTP status"),
    (json.dumps({"log": {"entries": [{"request": 1}]}}), "a.txt#0: request: expected an object"),
    (json.dumps({"log": {}}), "log.entries: expected a list"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_recording_is_refused_with_its_position(tmp_path: Path, data: str | bytes, message: str) -> None:
    with pytest.raises(UnreadableInput) as error:
        read(tmp_path, data)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "a.txt"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [yaml.safe_dump(cassette()), json.dumps(har())])
def test_a_document_that_is_too_large_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MAX_DOCUMENT", len(text) - 1)
    with pytest.raises(UnreadableInput, match=r"a\.txt: is one document of more than \d+ bytes; split it"):
        read(tmp_path, text)


def test_a_line_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(exchange())
    for module in (recordings, exchange_jsonl):
        monkeypatch.setattr(module, "MAX_LINE", len(line) + 5)
    with pytest.raises(UnreadableInput, match=r"a\.txt:2: the line is longer than"):
        read(tmp_path, line + "\n" + line + " " * 10)
    with pytest.raises(UnreadableInput, match=r"a\.txt: a line of it is longer than"):
        read(tmp_path, line + " " * 10)


def test_reading_tells_how_far_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps(exchange()) for _ in range(3)) + "\n")
    seen: list[int] = []
    assert len(list(read_recordings(file, seen.append))) == 3
    assert (len(seen), seen[-1]) == (3, file.stat().st_size)
    assert seen == sorted(seen)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no such file"):
        list(read_recordings(tmp_path / "none.jsonl"))
    with pytest.raises(UnreadableInput, match="is a folder"):
        list(read_recordings(tmp_path))


def test_what_came_before_a_broken_line_was_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(exchange()) + "\n{\n")
    recordings = read_recordings(file)
    assert next(recordings).status == 200
    with pytest.raises(UnreadableInput, match=r"a\.jsonl:2:"):
        next(recordings)


@pytest.mark.corpus
def test_the_corpus_is_read_whole() -> None:
    if not CORPUS.is_dir():
        pytest.skip(f"no recorded corpus at {CORPUS.name}: ../shared is not there")
    recordings = [one for file in sorted(CORPUS.rglob("*.yaml")) for one in read_recordings(file)]
    assert len(recordings) == 548
    assert not [one.source for one in recordings if one.encoded]
    assert all(one.host and one.path.startswith("/") and one.status for one in recordings)
    texts = [one for one in recordings if "eventstream" not in dict(one.response_headers).get("content-type", "")]
    assert all(whole(one).decode() is not None for one in texts)


TAGGED = """
interactions:
- request:
    method: POST
    uri: https://a.example/v1
    headers: !!python/object/new:requests.structures.CaseInsensitiveDict
      state:
        _store: !!python/object/apply:collections.OrderedDict
        - - - content-type
            - !!python/tuple [Content-Type, application/json]
    body: !!python/unicode '{"a": 1}'
  response:
    status: !ruby/object:VCR::ResponseStatus {code: 200, message: OK}
    headers: !ruby/hash:ActiveSupport::HashWithIndifferentAccess {Date: [2026-01-02]}
    body: {encoding: ASCII-8BIT, string: !binary "AP8="}
- request: {method: POST, uri: 'https://a.example/v1', headers: {}, body: {model: m, at: 2026-01-02, n: [1, null]}}
  response: {status: {code: 200}, headers: {}, body: {string: !!python/object:some.Page {text: hi}}}
"""


def test_tags_of_python_and_ruby_are_read_as_the_plain_data_that_they_hold(tmp_path: Path) -> None:
    one, other = read(tmp_path, TAGGED)

    assert one.headers == (("content-type", "application/json"),)
    assert (one.body, one.status, one.response_headers) == (b'{"a": 1}', 200, (("date", "2026-01-02"),))
    assert whole(one) == b"\x00\xff"
    assert json.loads(other.body) == {"model": "m", "at": "2026-01-02", "n": [1, None]}
    assert json.loads(whole(other)) == {"text": "hi"}


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [exit]", "!!python/name:os.system ''", "!!python/module:antigravity ''"]
)
def test_no_tag_constructs_anything(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.system", lambda _: pytest.fail("was run"))
    given = f"interactions:\n- request: {{method: POST, uri: 'http://a/', headers: {{}}, body: {tag}}}\n"
    (recording,) = read(tmp_path, given + "  response: {status: 200, headers: {}}\n")
    assert recording.body in (b'["exit"]', b"exit", b"")


def test_a_body_that_stands_for_a_document_without_end_is_refused(tmp_path: Path) -> None:
    bomb = ENDLESS.replace("headers: {h: [*a11]}", "body: {x: *a11}")
    with pytest.raises(UnreadableInput, match=r"request\.body: holds more than \d+ values"):
        read(tmp_path, bomb)
