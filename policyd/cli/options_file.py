"""A command's options from a file: YAML or TOML, named as on the command line, which wins over them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import typer
import yaml

from policyd.adapters.errors import UnreadableInput, reason_of


def from_file(ctx: typer.Context, file: Path | None) -> Path | None:
    """The file's options become defaults: the command line wins."""
    if file is not None:
        known = {parameter.name: bool(parameter.multiple) for parameter in ctx.command.params if parameter.name}
        for own in ("config", "help"):
            known.pop(own, None)
        ctx.default_map = {**(ctx.default_map or {}), **_options_in(file, known)}
    return file


def _options_in(file: Path, known: dict[str, bool]) -> dict[str, Any]:
    """By name what the file says; `known`: whether an option takes several values."""
    options: dict[str, Any] = {}
    for key, value in _document(file).items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UnreadableInput(file, f"unknown option `{key}`; options are named as on the command line")
        options[name] = _value(file, name, value, several=known[name])
    return options


def _value(file: Path, name: str, value: object, *, several: bool) -> object:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        raise UnreadableInput(file, f"`{name}`: expected a text or a number")
    if several:
        return [str(one) for one in values]
    if isinstance(value, list):
        raise UnreadableInput(file, f"`{name}`: expected one value, not a list")
    return str(value)


def _document(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text("utf-8")
        document = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    except UnicodeDecodeError:
        raise UnreadableInput(file, "not UTF-8") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UnreadableInput(file, f"broken: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UnreadableInput(file, f"expected options by name, not {json.dumps(type(document).__name__)}")
    return document
