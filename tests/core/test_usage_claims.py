"""Usage that the text contradicts is not believed: rules and budgets go by what was seen."""

from __future__ import annotations

import pytest

from tests.driving import Bed, chat, delta, policy, sse

LIMIT = "rules:\n- {name: long, when: 'response.output_tokens > 50', terminate: {fallback: no}}"
WATCH = "rules:\n- {name: never, when: 'response.output_tokens > 100000', terminate: {}}"


def usage(output: int, given: int = 5) -> dict[str, int]:
    return {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output}


def events(count: int, *, each: int | None = None, last: int | None = None, given: int = 5) -> list[bytes]:
    """A stream of so many pieces of text; `each`: the output that every event claims, `last`: that the end claims."""
    more = {} if each is None else {"usage": usage(each)}
    out = [sse({**delta("word "), **more}, done=False) for _ in range(count)]
    end = [] if last is None else [{"id": "c1", "choices": [], "usage": usage(last, given)}]
    return [*out, sse(delta("", "stop"), *end)]


def test_a_claim_of_nothing_in_every_event_does_not_hold_the_count() -> None:
    out = Bed(policy(LIMIT)).call(body=chat(stream=True), chunks=events(400, each=0))

    assert out.record.verdict == "terminate"
    assert len(out.text) < 800


@pytest.mark.parametrize(
    ("last", "source"),
    [(0, "contradicted"), (1, "contradicted"), (1 << 41, "contradicted"), (120, "provider"), (400, "provider")],
)
def test_what_the_end_claims(last: int, source: str) -> None:
    out = Bed(policy(WATCH)).call(body=chat(stream=True), chunks=events(300, last=last))

    assert out.record.usage["source"] == source
    assert (out.record.usage["output_tokens"] >= 300) == (source == "contradicted" or last >= 300)


def test_a_plausible_end_corrects_a_claim_that_came_too_early() -> None:
    chunks = [*events(300, each=0)[:-1], *events(1, last=310)]

    out = Bed(policy(WATCH)).call(body=chat(stream=True), chunks=chunks)

    assert (out.record.usage["source"], out.record.usage["output_tokens"]) == ("provider", 310)


def test_odd_responses_do_not_switch_a_limit_off_for_others() -> None:
    bed = Bed(policy(LIMIT.replace("> 50", "> 300")))
    for _ in range(8):
        bed.call(body=chat(stream=True), chunks=events(60, last=1))

    out = bed.call(body=chat(stream=True), chunks=events(1200))

    assert out.record.verdict == "terminate"


@pytest.mark.parametrize(
    ("words", "given", "source"),
    [(10_000, 0, "contradicted"), (10_000, 1, "contradicted"), (10_000, 9_000, "provider"), (50, 0, "provider")],
)
def test_what_the_end_claims_of_the_request(words: int, given: int, source: str) -> None:
    body = chat("word " * words, stream=True)
    out = Bed(policy(WATCH)).call(body=body, chunks=events(3, last=3, given=given))

    assert out.record.usage["source"] == source
    assert (out.record.usage["input_tokens"] >= 5_000) == (words == 10_000)
