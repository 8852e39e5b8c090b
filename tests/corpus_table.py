"""The table of docs/dialects.md: what is understood of the recorded traffic, by provider and dialect.

Run it to write the table anew: python -m tests.corpus_table
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from policyd.adapters.recordings import Recording, read_recordings
from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Dialect, registry
from policyd.core.stream.dialects.generic import is_generic
from policyd.core.stream.dialects.shared import mark_partial
from policyd.core.stream.framing import Framing, framing_of
from policyd.core.stream.json_text import loads

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "recorded"
PAGE = ROOT / "docs" / "dialects.md"
BEGIN, END = "<!-- begin: python -m tests.corpus_table -->", "<!-- end -->"
COLUMNS = ("calls", "streamed", "full", "partial", "none", "errors", "usage named")


def understood(one: Recording) -> tuple[str, str, ResponseFacts | None, bool]:
    """(provider, dialect, the answer, whether it streamed); no answer for a call in no known language."""
    headers = {":authority": one.host, **dict(one.headers)}
    dialect, operation, provider = registry.choose(one.method, one.path, one.host, headers)
    if dialect is None:
        return provider or "?", operation, None, False
    path, _, query = one.path.partition("?")
    request = RequestFacts(path=path, query=query, headers=headers, operation=operation)
    response = ResponseFacts(status=one.status, headers=dict(one.response_headers))
    try:
        if one.body or not is_generic(dialect):
            dialect.read_request(loads(one.body), request)
        streamed = _read(one, dialect, request, response)
    except Malformed as failure:
        mark_partial(response, failure.reason)
        streamed = False
    return provider, operation if is_generic(dialect) else dialect.name, response, streamed


def _read(one: Recording, dialect: Dialect, request: RequestFacts, response: ResponseFacts) -> bool:
    reader = dialect.reader(request, response)
    body = b"".join(data for _, data in one.chunks)
    kind = response.headers.get("content-type", "")
    framing = framing_of(kind, dialect.name, asked=bool(request.stream))
    if framing is None:
        reader.read_json(loads(body))
        return False
    _read_stream(framing, body, reader, response)
    return True


def _read_stream(framing: Framing, body: bytes, reader: AnswerReader, response: ResponseFacts) -> None:
    events = framing.feed(body)
    if (left := framing.finish()) is not None:
        events.append(left)
    for event in events:
        if not event.complete or event.malformed:
            mark_partial(response, framing.damage)
        elif event.data is not None:
            reader.read_event(event.name, event.data)
    reader.finish()


def counted() -> dict[tuple[str, str], Counter[str]]:
    """What became of every recorded call, by provider and dialect."""
    table: dict[tuple[str, str], Counter[str]] = {}
    for path in sorted(CORPUS.rglob("*.yaml")):
        for one in read_recordings(path):
            provider, dialect, response, streamed = understood(one)
            row = table.setdefault((provider, dialect), Counter())
            row["calls"] += 1
            row["streamed"] += streamed
            row[response.inspection if response else "none"] += 1
            row["errors"] += bool(response and response.is_error)
            row["usage named"] += bool(response and response.usage_source == "provider")
    return table


def table() -> str:
    """The table, as Markdown."""
    lines = [
        "| provider | dialect or operation | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]
    for (provider, dialect), row in sorted(counted().items()):
        lines.append(f"| {provider} | {dialect} | " + " | ".join(str(row[column]) for column in COLUMNS) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table in its place."""
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
