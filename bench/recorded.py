"""Recorded traffic without end, made up: `python -m bench.recorded CALLS [--events N] > calls.jsonl`.

Every call is one of a session of ten, by one of a thousand callers, a second after the one before; its answer
streams, an event a chunk, 10 ms apart. The same numbers give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

WORDS = ("The", " circuit", " breaker", " opens", " when", " a", " session", " has", " spent", " its", " budget", ".")
BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
GAP = timedelta(seconds=1)  # between the starts of two calls
CALLERS, SESSION = 1000, 10
BODY = json.dumps(
    {
        "model": "gpt-4o",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Tell me about circuit breakers."}],
        "max_tokens": 500,
    }
)


def _event(**changes: object) -> str:
    chunk = {"id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012", "object": "chat.completion.chunk", "created": 1730000000}
    return f"data: {json.dumps({**chunk, 'model': 'gpt-4o-2024-08-06', **changes})}\n\n"


def _delta(delta: dict[str, str], finish: str | None = None) -> str:
    return _event(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], usage=None)


def answer(events: int) -> tuple[str, ...]:
    """An answer of so many protocol events, `[DONE]` among them; at least four."""
    words = [_delta({"content": WORDS[number % len(WORDS)]}) for number in range(events - 4)]
    usage = {"prompt_tokens": 14, "completion_tokens": len(words), "total_tokens": 14 + len(words)}
    first, last = _delta({"role": "assistant", "content": ""}), _delta({}, "stop")
    return (first, *words, last, _event(choices=[], usage=usage), "data: [DONE]\n\n")


def lines(calls: int, events: int) -> Iterator[str]:
    """The exchanges, a line each, without its end."""
    chunks = [{"ms": 200 + 10 * number, "data": data} for number, data in enumerate(answer(events))]
    answered = json.dumps(
        {"status": 200, "headers": {"content-type": "text/event-stream; charset=utf-8"}, "chunks": chunks}
    )
    for number in range(calls):
        headers = {
            "host": "api.openai.com",
            "content-type": "application/json",
            "authorization": f"Bearer key-{number % CALLERS:020x}",
            "x-session-id": f"s-{number // SESSION}",
            "x-team-id": "bench",
        }
        request = json.dumps({"method": "POST", "path": "/v1/chat/completions", "headers": headers, "body": BODY})
        time = (BEGUN + number * GAP).isoformat(timespec="milliseconds")
        yield f'{{"time": "{time}", "request": {request}, "response": {answered}}}'


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.recorded", description=__doc__)
    parser.add_argument("calls", type=int)
    parser.add_argument("--events", type=int, default=24, help="of each answer, `[DONE]` among them")
    asked = parser.parse_args()
    for line in lines(asked.calls, asked.events):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
