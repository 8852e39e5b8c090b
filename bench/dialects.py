"""CPU per event of parser and reader together: `python bench/dialects.py`."""

from __future__ import annotations

import timeit

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.sse import SseParser

OPENAI = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1730000000,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
    b'"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdEf"}\n\n'
)
BLOCK = (
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}\n\n'
)
ANTHROPIC = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" hello"}}\n\n'
)
CASES: dict[str, tuple[Dialect, bytes, bytes]] = {
    "openai.chat": (OpenAIChat(), b"", OPENAI),
    "anthropic.messages": (AnthropicMessages(), BLOCK, ANTHROPIC),
}


def micros(name: str, *, segments: bool, together: int = 10, events: int = 20_000) -> float:
    """Microseconds of one event, its mark included; the best of five runs."""
    dialect, first, event = CASES[name]
    chunk = event * together

    def run() -> None:
        reader = dialect.reader(RequestFacts(), ResponseFacts(status=200))
        reader.want_segments = segments  # type: ignore[attr-defined]
        parser = SseParser()
        for one in parser.feed(first):
            reader.read_event(one.name, one.data or "")
        for _ in range(events // together):
            for one in parser.feed(chunk):
                reader.read_event(one.name, one.data or "")
                reader.mark()

    return min(timeit.repeat(run, number=1, repeat=5)) / events * 1e6


if __name__ == "__main__":
    for name in CASES:
        plain, full = micros(name, segments=False), micros(name, segments=True)
        print(f"{name:20} {plain:.2f} us an event, with segments {full:.2f} us")
