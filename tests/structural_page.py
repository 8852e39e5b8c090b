"""docs/structural-fields.md, from the tables of the dialects. `python -m tests.structural_page` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from policyd.core.stream.dialects.content import Structure, a_model, a_time, an_id, base64, media
from policyd.core.stream.dialects.numbers import NUMBERS
from policyd.core.stream.dialects.request_fields import REQUESTS
from policyd.core.stream.dialects.response_fields import RESPONSES
from policyd.core.stream.dialects.response_openai import padding

PAGE = Path(__file__).parent.parent / "docs" / "structural-fields.md"
SHAPES = {
    a_model: "the name of a model",
    a_time: "a date or time of ISO 8601",
    an_id: "an id",
    base64: "base64",
    media: "base64 or a data URL",
    padding: "letters and digits",
}
HEAD = """# Structural fields

`request.content` holds every string of a request's body, and redaction edits every one, except the fields listed here.
A value in a listed field is content, too, if it does not have the shape that the list names: an id with spaces, of more
than 256 characters or of digits alone; media that is not base64, is shorter than 64 characters or holds text. The names
of members are content unless the dialect defines them. A redaction that finds something in such a name rejects the
call.

Below the fields, `words` lists the field names in which certain words of the dialect (`user`, `text`, `auto`) are
structural.

# Numbers

A whole number of at least seven digits is content as the string of its digits: rules and detectors read
`4111111111111111`, also where it is written `4111111111111111.0` or `4.111111111111111e15`. A redaction that finds
something in it replaces the number by a string. Shorter numbers and fractions are no content.

Where the dialect defines a field, numbers in a field of one of these names are structural: {numbers}.
"""


RESPONSES_HEAD = """# Responses

`response.content` holds every string of a response, whole or streamed, except the fields listed here. The same shapes
count. A string in a field that the dialect does not define is content and makes `inspection: partial`; a redaction that
finds something in the name of a member renames the member. The name of a tool that the request offers is structural.

A path that begins with `response.`, `item.`, `delta.` or `message.` is one of an event of a stream.
"""


def markdown() -> str:
    """The page."""
    return "\n".join(
        [
            HEAD.format(numbers=_named(NUMBERS)),
            "# Requests",
            "",
            *_tables(REQUESTS),
            RESPONSES_HEAD,
            *_tables(RESPONSES),
        ]
    )


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _tables(structures: Mapping[str, Structure]) -> Iterator[str]:
    for dialect, structure in structures.items():
        if dialect == "bedrock.invoke":
            yield from (f"## {dialect}", "", "Those of the dialect of the model's family.", "")
            continue
        yield from (f"## {dialect}", "", "| field | shape |", "|---|---|")
        for path, shape in structure.fields.items():
            yield f"| `{path}` | {SHAPES.get(shape, 'base64, if `type` says so')} |"
        yield from ("", f"words: {_named(structure.words) or 'none'}", "")


if __name__ == "__main__":
    PAGE.write_text(markdown())
