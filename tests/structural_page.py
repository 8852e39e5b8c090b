"""docs/structural-fields.md, from the tables of the dialects. `python -m tests.structural_page` writes it."""

from __future__ import annotations

from pathlib import Path

from policyd.core.stream.dialects.content import a_model, an_id, base64, media
from policyd.core.stream.dialects.request_fields import REQUESTS

PAGE = Path(__file__).parent.parent / "docs" / "structural-fields.md"
SHAPES = {a_model: "the name of a model", an_id: "an id", base64: "base64", media: "base64 or a data URL"}
HEAD = """# Structural fields of requests

`request.content` holds every string of a request's body, and redaction edits every one, except the fields listed here.
A value in a listed field is content, too, if it does not have the shape that the list names: an id with spaces, of more
than 256 characters or of digits alone; media that is not base64, is shorter than 64 characters or holds text. The names
of members are content unless the dialect defines them. A redaction that finds something in such a name rejects the
call.

Below the fields, `words` lists the field names in which certain words of the dialect (`user`, `text`, `auto`) are
structural.
"""


def markdown() -> str:
    """The page."""
    lines = [HEAD]
    for dialect, structure in REQUESTS.items():
        lines += [f"## {dialect}", "", "| field | shape |", "|---|---|"]
        lines += [
            f"| `{path}` | {SHAPES.get(shape, 'base64, if `type` says so')} |"
            for path, shape in structure.fields.items()
        ]
        lines += ["", f"words: {', '.join(f'`{name}`' for name in sorted(structure.words)) or 'none'}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(markdown())
