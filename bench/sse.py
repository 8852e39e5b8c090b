"""CPU per event of the SSE parser: `python bench/sse.py`."""

from __future__ import annotations

import timeit

from policyd.core.stream.sse import SseParser

CHUNK = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1730000000,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
    b'"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdEf"}\n\n'
)
NAMED = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}\n\n'
SHAPES = {"data only": CHUNK, "named": NAMED, "CRLF": NAMED.replace(b"\n", b"\r\n")}


def micros(event: bytes, together: int, events: int = 20_000) -> float:
    """Microseconds of one event when `together` of them come in one chunk; the best of five runs."""
    chunk = event * together

    def run() -> None:
        parser = SseParser()
        for _ in range(events // together):
            parser.feed(chunk)

    return min(timeit.repeat(run, number=1, repeat=5)) / events * 1e6


if __name__ == "__main__":
    for name, event in SHAPES.items():
        print(f"{name:10}", *(f"{together:3} a chunk: {micros(event, together):.2f} us" for together in (1, 10, 100)))
