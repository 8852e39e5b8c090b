"""`policyd key-id`: the pseudonym of a credential, as rules and records see it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from policyd.core.model.credentials import credentials_in
from policyd.core.model.credentials import key_id as pseudonym


def key_id(
    credential: Annotated[
        str, typer.Argument(help="The credential, as its header carries it; `-` or nothing reads it from stdin.")
    ] = "-",
) -> None:
    """Print what `caller.key` reads for a credential, so that a policy or a search can name it without holding it."""
    text = sys.stdin.readline() if credential == "-" else credential
    found = credentials_in(text)
    if not found:
        raise typer.BadParameter("there is no credential to name")
    if len(found) > 1:
        raise typer.BadParameter("that is more than one credential: write each one by itself")
    typer.echo(pseudonym(found[0]))
