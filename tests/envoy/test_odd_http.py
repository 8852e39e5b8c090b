"""Requests and answers that are odd as HTTP, byte for byte through a real Envoy: whatever reaches a provider has been
judged and is recorded, in all three modes, and policyd has no defect over it.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from policyd.cli.emulator import RawAnswer
from policyd.cli.stage import Stage
from policyd.core.model.credentials import pseudonym
from tests.driving import answer_of
from tests.envoy.asking import OPENAI
from tests.envoy.stack import policy, stack, upstream_calls

pytestmark = pytest.mark.envoy

SPEC = """\
rules:
  - {name: model, severity: Critical, when: request.model == "forbidden", terminate: {}}
  - {name: word, severity: Critical, when: 'response.text.contains("launch")', terminate: {status: 403}}
"""
MODES = ("Full", "Soft", "Monitor")
POLICIES = {f"{mode.lower()}.yaml": policy(mode.lower(), SPEC, team=mode, mode=mode) for mode in MODES}
REFUSED = {400, 403, 404, 431}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def up() -> Iterator[Stage]:
    with stack(POLICIES) as stage:
        yield stage
        assert "Traceback" not in (stage.folder / "policyd.log").read_text()


def exchange(stage: Stage, request: bytes) -> bytes:
    """What comes back over one connection until it is closed."""
    host, port = stage.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.settimeout(10)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def status(answer: bytes) -> int:
    """The final status; 0 where Envoy hung up without a word."""
    found = [int(one) for one in re.findall(rb"HTTP/1.1 (\d{3})", answer)]
    return next((one for one in found if one >= 200), 0)


def request_of(
    session: str, mode: str, body: bytes, *lines: bytes, path: bytes = b"/v1/chat/completions", sized: bool = True
) -> bytes:
    head = [b"POST %s HTTP/1.1" % path, b"host: api.openai.com", b"x-team-id: " + mode.encode(), b"connection: close"]
    head.append(b"x-session-id: " + session.encode())
    if not any(line.lower().startswith(b"content-type") for line in lines):
        head.append(b"content-type: application/json")
    if sized:
        head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, *lines]) + b"\r\n\r\n" + body


def new_session() -> str:
    return f"odd-{next(NUMBERS)}"


def record_of(stage: Stage, session: str) -> dict[str, object]:
    def found() -> list[dict[str, object]]:
        return [record for record in stage.records() if record["session"] == pseudonym(session)]

    stage.wait_until(lambda: bool(found()), f"the record of {session}")
    (record,) = found()
    return record


GOOD = OPENAI.body(stream=False)
BAD = GOOD.replace(OPENAI.model.encode(), b"forbidden")
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Odd:
    """`reaches`: whether a call of a model that is allowed gets to the provider; None: Envoy's business."""

    lines: tuple[bytes, ...] = ()
    path: bytes = b"/v1/chat/completions"
    reaches: bool | None = True
    judged: bool = True  # whether the model was read, so that the forbidden one is stopped
    sized: bool = True
    chunked: bool = False


REQUESTS = {
    "length and chunks": Odd((b"transfer-encoding: chunked",), reaches=False, chunked=True),
    "chunks said twice": Odd((b"transfer-encoding: chunked, chunked",), reaches=False, sized=False, chunked=True),
    "two lengths": Odd((b"content-length: 5",), reaches=False),
    "two content types": Odd((b"content-type: application/json", b"content-type: text/plain"), judged=True),
    "text/plain": Odd((b"content-type: text/plain",)),
    "multipart": Odd((b"content-type: multipart/form-data; boundary=x",)),
    "two credentials": Odd((b"authorization: Bearer sk-1", b"authorization: Bearer sk-2"), reaches=False),
    "nul in a header": Odd((b"x-odd: a\0b",), reaches=False),
    "folded header": Odd((b"x-odd: a\r\n b",), reaches=None),
    "bare line feed": Odd((b"x-odd: a\nx-team-id: Other",), reaches=None, judged=False),  # two teams are none
    "not utf-8": Odd((b"x-odd: \xff\xfe",), reaches=None),
    "our own headers": Odd((b"x-policyd-upstream: elsewhere", b"x-policyd-decision: mine")),
    "twin header": Odd((b"X_Team_Id: nobody", b"X-TEAM-ID-: nobody"), reaches=None),
    "large header": Odd((b"x-odd: " + b"v" * 100_000,), reaches=False),
    "a thousand headers": Odd(tuple(b"x-odd-%d: 1" % number for number in range(1000)), reaches=False),
    "dots in the path": Odd(path=b"/v1/models/../chat/completions"),
    "escaped dots": Odd(path=b"/v1/models/%2e%2e/chat/completions"),
    "two slashes": Odd(path=b"//v1//chat/completions"),
    "a path beyond": Odd(path=b"/v1/chat/completions/../completions/../chat/completions?x=/v1/files"),
    "a parameter": Odd(path=b"/v1/chat/completions;x=1", reaches=None, judged=False),
    "waits to be told": Odd((b"expect: 100-continue",)),
}


# What Envoy refuses by itself, and takes a second to hang up on, it refuses in every mode.
TRIED = [(case, mode) for case, odd in REQUESTS.items() for mode in MODES if odd.reaches is not False or mode == "Full"]


@pytest.mark.parametrize(("case", "mode"), TRIED)
def test_an_odd_request(up: Stage, case: str, mode: str) -> None:
    odd = REQUESTS[case]
    for body, allowed in ((GOOD, True), (BAD, mode == "Monitor"))[: 1 if odd.reaches is False else 2]:
        reached, session = len(upstream_calls(up)), new_session()
        sent = CHUNKED % (len(body), body) if odd.chunked else body
        head = request_of(session, mode, body, *odd.lines, path=odd.path, sized=odd.sized)[: -len(body)]
        answer = exchange(up, head + sent)
        calls = upstream_calls(up)[reached:]
        if not calls:
            assert not (allowed and odd.reaches)
            assert status(answer) in ({403} if odd.reaches else {0, *REFUSED})
            continue
        assert odd.reaches is not False
        assert allowed or not odd.judged
        assert [call.body for call in calls] == [body]
        record = record_of(up, session)
        if odd.judged:
            assert (record["operation"], record["mode"]) == ("chat", mode)
        assert calls[0].header("x-policyd-upstream") in ("", "openai")


# ---- answers ---------------------------------------------------------------------------------------------------------


def http(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


WORD = answer_of("now launch it")
SIZED = f"HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: {len(WORD)}"
ANSWERS = {
    "early hints": http("HTTP/1.1 103 Early Hints\nlink: </a>; rel=preload") + http(SIZED, WORD),
    "continue": http("HTTP/1.1 100 Continue") + http(SIZED, WORD),
    "processing, twice": http("HTTP/1.1 102 Processing") * 2 + http(SIZED, WORD),
    "to the end of the connection": http("HTTP/1.1 200 OK\ncontent-type: application/json", WORD),
    "length and chunks": http(f"{SIZED}\ntransfer-encoding: chunked", CHUNKED % (len(WORD), WORD)),
    "two lengths": http(f"{SIZED}\ncontent-length: 7", WORD),
    "more than its length": http(SIZED, WORD + WORD),
    "less than its length": http(SIZED, WORD[:-9]),
    "another protocol": http("HTTP/1.1 101 Switching Protocols\nupgrade: x\nconnection: upgrade", WORD),
    "no content, with some": http(f"HTTP/1.1 204 No Content\ncontent-length: {len(WORD)}", WORD),
    "no http": b"+OK redis\r\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ANSWERS)
def test_an_odd_answer(up: Stage, mode: str, case: str) -> None:
    """The forbidden word gets to the caller in Monitor only, and whatever came is recorded."""
    up.providers[0].raw["odd"] = RawAnswer(0, (), (ANSWERS[case],))
    session = new_session()
    answer = exchange(up, request_of(session, mode, GOOD, b"x-emulate-raw: odd"))
    assert b"launch" not in answer or mode == "Monitor"
    record = record_of(up, session)
    assert record["mode"] == mode
    assert status(answer) in {0, 200, 204, 403, 502, 503}


def test_an_answer_without_content(up: Stage) -> None:
    up.providers[0].raw["odd"] = RawAnswer(204, (), ())
    answer = exchange(up, request_of(new_session(), "Full", GOOD, b"x-emulate-raw: odd"))
    assert status(answer) == 204
