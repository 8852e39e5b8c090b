"""A stream is cut at event k: its caller has exactly what came before and a proper end, its upstream is let go at once.

On every supported Envoy, over HTTP/1.1 and HTTP/2, in both dialects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from policyd.cli.emulator import Call
from policyd.cli.emulator_answers import Wish, answer
from policyd.cli.stage import Stage
from tests.envoy.asking import (
    DIALECTS,
    VERSION_SPOKEN,
    Dialect,
    caller,
    check_ended,
    local_port,
    steering,
    text_of,
)
from tests.envoy.harness import VERSIONS
from tests.envoy.stack import policy, stack, upstream_calls, wait_for_end

pytestmark = pytest.mark.envoy

FALLBACK = "That is enough for today."
EVENTS = 60
GAP_MS = 20
SPARED = 3  # events after the cut, the first of which must not be sent
CUTS = (0, 1, 7)  # 0-based events

SECRET = "launch code"
TEXT = f"Write to bob@example.com and to eve@example.org that the {SECRET} is 4711, and to nobody else. "
BEFORE = "Write to [redacted] and to [redacted] that the "


def cut(k: int) -> str:
    return policy(
        f"cut-{k}",
        f'rules: [{{name: enough, when: response.events > {k}, terminate: {{fallback: "{FALLBACK}"}}}}]',
        team=f"cut-{k}",
    )


POLICIES = {
    **{f"cut-{k}.yaml": cut(k) for k in CUTS},
    "secret.yaml": policy(
        "secret",
        f"""\
        rules:
          - {{name: mask, constrain: {{redact: {{detectors: [email], in: [response]}}}}}}
          - name: secret
            when: response.text.contains("{SECRET}")
            terminate: {{fallback: "{FALLBACK}"}}
        """,
        team="secret",
    ),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """What came of one call that was cut: for its caller, and for its upstream."""

    body: bytes
    call: Call


def spared(cut: Cut) -> int:
    """How many events the upstream did not send."""
    return cut.call.planned - cut.call.events


@pytest.fixture(scope="module", params=VERSIONS)
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stack(POLICIES, version=request.param) as stage:
        yield stage


def ask(up: Stage, dialect: Dialect, protocol: str, team: str, **wishes: object) -> Cut:
    """One streamed call, whose connection must be good for another one afterwards."""
    with caller(up, protocol) as client:
        got = client.post(dialect.path, content=dialect.body(), headers=steering(team, **wishes))
        call = wait_for_end(up, upstream_calls(up)[-1])
        again = client.get("/v1/models")
        assert (again.status_code, local_port(again)) == (200, local_port(got)), "the cut has cost the connection"
    assert (got.status_code, got.http_version) == (200, VERSION_SPOKEN[protocol])
    assert "content-length" not in got.headers
    return Cut(got.content, call)


def in_time(cut: Callable[[], Cut], early: Callable[[Cut], bool]) -> Cut:
    """The cut; one that came late is tried again: a machine that does other work may stand still for a while, and a
    policyd that cuts late does so every time."""
    return next((one for one in (cut() for _ in range(2)) if early(one)), None) or cut()


each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=str)
each_protocol = pytest.mark.parametrize("protocol", VERSION_SPOKEN)


@each_dialect
@each_protocol
@pytest.mark.parametrize("k", CUTS)
def test_a_cut_at_event_k(up: Stage, dialect: Dialect, protocol: str, k: int) -> None:
    def cut() -> Cut:
        return ask(up, dialect, protocol, f"cut-{k}", events=EVENTS, interval_ms=GAP_MS)

    seen = in_time(cut, lambda one: one.call.events <= k + SPARED)
    whole = answer(dialect.path, seen.call.body, Wish(events=EVENTS))
    before = b"".join(event.data for event in whole.events[:k])
    assert seen.body.startswith(before)
    ending = seen.body.removeprefix(before)
    own_text = text_of(dialect, seen.body).removeprefix(text_of(dialect, before))
    assert own_text.strip() == FALLBACK
    assert whole.events[k].data not in ending
    check_ended(dialect, seen.body)
    print(f"cut at {k}: the upstream sent {seen.call.events - k - 1} events more, and was spared {spared(seen)}")
    assert seen.call.closed_early
    assert seen.call.events <= k + SPARED, "the upstream went on"


@each_dialect
@each_protocol
@pytest.mark.parametrize(
    ("chars", "batch"), [(1, 1), (4, 1), (13, 1), (3, 9), (500, 1)], ids=["1", "4", "13", "batch", "whole"]
)
def test_of_what_is_held_back_nothing_leaves(
    up: Stage, dialect: Dialect, protocol: str, chars: int, batch: int
) -> None:
    def cut() -> Cut:
        return ask(up, dialect, protocol, "secret", text=TEXT * 3, token_chars=chars, batch=batch, interval_ms=1)

    seen = in_time(cut, lambda one: one.call.closed_early or chars == 500)
    text = text_of(dialect, seen.body)
    assert text.startswith(BEFORE)
    assert text.removeprefix(BEFORE).strip() == FALLBACK
    check_ended(dialect, seen.body)
    assert seen.call.closed_early or chars == 500
