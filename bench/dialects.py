"""CPU per event of parser, reader and accounting together, for each voice: `python bench/dialects.py`.

Accounting is what a rule on cost makes of an event: its tokens, estimated, and their price.
"""

from __future__ import annotations

import timeit

from policyd.adapters.prices import load_prices
from policyd.core.exchange.metering import usage_of
from policyd.core.model.estimate import Rate
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.gemini import GeminiGenerate
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
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
COMPLETION = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1730000000,"model":"gpt-3.5-turbo-instruct","choices":'
    b'[{"index":0,"text":" hello","logprobs":null,"finish_reason":null}]}\n\n'
)
ITEM = (
    b'event: response.output_item.added\ndata: {"type":"response.output_item.added","output_index":0,"item":'
    b'{"id":"m","type":"message","role":"assistant","content":[]}}\n\n'
    b'event: response.content_part.added\ndata: {"type":"response.content_part.added","item_id":"m","output_index":0,'
    b'"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}\n\n'
)
RESPONSE = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,"item_id":"m",'
    b'"output_index":0,"content_index":0,"delta":" hello"}\n\n'
)
GEMINI = (
    b'data: {"candidates":[{"content":{"parts":[{"text":" hello"}],"role":"model"},"index":0}],"usageMetadata":'
    b'{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":15},"modelVersion":"gemini-2.5-pro"}\n\n'
)
KNOWN = Rate(20, off_piece=0.1, off_text=0.2)
PRICE = load_prices().price("openai", "gpt-4o", 1.79e9)
CASES: dict[str, tuple[Dialect, bytes, bytes]] = {
    "openai.chat": (OpenAIChat(), b"", OPENAI),
    "openai.completions": (OpenAICompletions(), b"", COMPLETION),
    "openai.responses": (OpenAIResponses(), ITEM, RESPONSE),
    "anthropic.messages": (AnthropicMessages(), BLOCK, ANTHROPIC),
    "gemini.generate": (GeminiGenerate(), b"", GEMINI),
}


def micros(name: str, *, segments: bool, priced: bool = False, together: int = 10, events: int = 20_000) -> float:
    """Microseconds of one event, its mark included; the best of five runs."""
    dialect, first, event = CASES[name]
    chunk = event * together

    def run() -> None:
        response = ResponseFacts(status=200, rate=KNOWN)
        reader = dialect.reader(RequestFacts(stream=True), response)
        reader.want_segments = segments  # type: ignore[attr-defined]
        parser = SseParser()
        for one in parser.feed(first):
            reader.read_event(one.name, one.data or "")
        for _ in range(events // together):
            for one in parser.feed(chunk):
                reader.read_event(one.name, one.data or "")
                reader.mark()
                if priced and PRICE:
                    PRICE.cost_nano(usage_of(response))

    return min(timeit.repeat(run, number=1, repeat=5)) / events * 1e6


if __name__ == "__main__":
    for name in CASES:
        plain, full = micros(name, segments=False), micros(name, segments=True)
        priced = micros(name, segments=True, priced=True)
        print(f"{name:20} {plain:.2f} us an event, with segments {full:.2f} us, priced at every event {priced:.2f} us")
