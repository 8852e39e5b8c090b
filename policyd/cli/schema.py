"""`policyd schema`: the shape of a policy file or of a test file, as JSON Schema."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from policyd.cli.schemas import text


class Name(StrEnum):
    """The kinds of files that have a schema."""

    POLICY = "policy"
    TEST = "test"


def schema(kind: Annotated[Name, typer.Argument(help="Which kind of file.", metavar="policy|test")]) -> None:
    """Print the JSON Schema of a kind of file, for editors and other tools."""
    print(text(kind), end="")
