"""What the arguments of a tool call say: JSON in one form, and every string in it, decoded.

Rule 1: `arguments` becomes JSON without needless escapes and blanks, so that one text is looked for in one form.
Rule 2: `strings` are all string leaves, and names of members that are no plain identifiers. JSON text and base64 within
        a string are decoded too.
        A list of strings is there once more joined with spaces, alone and behind a program beside it: `rm -rf /`.
Rule 3: arguments that are no JSON (a shell command, a patch) stay as they are and are one string. Broken JSON has its
        escapes undone wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyd.core.errors import Malformed
from policyd.core.model.facts import ToolCall
from policyd.core.stream.dialects.content import decoded, embedded, leaves, strings_of, unescaped
from policyd.core.stream.dialects.shared import dumped
from policyd.core.stream.json_bounds import check_text
from policyd.core.stream.json_strict import loads_event

_PROGRAM = frozenset({"command", "cmd", "program", "executable", "binary", "file", "path", "name", "tool"})
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.-]{0,63}")


def decode_arguments(text: str) -> tuple[str, list[str]]:
    """The arguments in one form, and their strings. Raises Malformed when they hold too many values."""
    if not text.strip():
        return text, []
    check_text(text)
    try:
        document = loads_event(text)
    except Malformed:
        return _broken(text)
    if isinstance(document, str):
        return dumped(document), [document, *decoded(document)]
    plain: list[str] = []
    for leaf in leaves(document):
        if not leaf.number and (not leaf.key or not _IDENTIFIER.fullmatch(leaf.text)):
            plain += (leaf.text, *decoded(leaf.text))
    return dumped(document), [*plain, *_command_lines(document)]


def _command_lines(document: object) -> Iterator[str]:
    """Lists of words joined with spaces, as a shell would run them, with the program that stands beside them."""
    todo: list[object] = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            if len(value) > 1 and (line := _line(value)):
                yield line
            todo += [one for one in value if isinstance(one, dict | list)]
        elif isinstance(value, dict):
            program = next(
                (one for key, one in value.items() if key.casefold() in _PROGRAM and isinstance(one, str)), ""
            )
            if program:
                yield from (
                    f"{program} {line}" for one in value.values() if isinstance(one, list) and (line := _line(one))
                )
            todo += [one for one in value.values() if isinstance(one, dict | list)]


def _line(words: list[object]) -> str:
    return " ".join(words) if all(isinstance(word, str) for word in words) else ""  # type: ignore[arg-type]


def _broken(text: str) -> tuple[str, list[str]]:
    """Arguments that are no JSON, or that parsers read differently."""
    document = embedded(text)
    if document is not None:
        plain = [one for said in strings_of(document) for one in (said, *decoded(said))]
        return unescaped(text), plain
    if text.lstrip("\ufeff \t\r\n")[:1] not in ("{", "[", '"'):
        return text, [text, *decoded(text)]
    return unescaped(text), [unescaped(text)]


def decode_call(call: ToolCall) -> None:
    """The arguments of a complete call, in one form, and its strings."""
    call.arguments, call.strings = decode_arguments(call.arguments)
