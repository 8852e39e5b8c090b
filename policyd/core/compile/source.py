"""YAML text to plain documents that remember where every key and value stands.

Rule 1: nothing here knows what a policy is; a document is JSON data and places.
Rule 2: every mistake is an issue with a place; reading goes on behind it wherever that is possible.
Rule 3: work is linear in the text: the nodes that aliases repeat are counted, nesting is bounded, nothing recurses.

Plain scalars mean what YAML 1.2's core schema says (`on` and `yes` are text), as Kubernetes reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from policyd.core.compile.places import Document, Path, Place
from policyd.core.compile.words import quoted
from policyd.core.errors import Issue, Severity, Span

MAX_TEXT = 32 * 1024 * 1024  # characters of one file
MAX_NODES = 50_000  # values of one document, those that aliases repeat included
MAX_DEPTH = 64

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is thirty times faster; the same events
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0[0-7]+")
_PREFIXED = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 400


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read. `key` None in a mapping: the next scalar is a key."""

    path: Path
    value: dict[str, object] | list[object]
    place: Place
    anchor: str | None
    nodes_before: int
    key: str | None = None
    key_at: tuple[int, int] = (0, 0)
    skipping: bool = False  # the value that follows belongs to a key that was refused


def read_documents(file: str, text: str) -> tuple[list[Document], list[Issue]]:
    """Every document of one file, and what is wrong with the YAML. Documents before a syntax error are kept."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_TEXT:
        hint = f"split it: at most {MAX_TEXT // 1024 // 1024} MiB a file"
        return [], [Issue(Span(file, 1, 1), "YAML005", Severity.ERROR, "the file is too large", hint)]
    reader = _Reader(file, text)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except _Stop:
        pass
    except yaml.YAMLError as error:
        reader.issues.append(_syntax(file, text, error))
    except UnicodeEncodeError as error:
        span = Span(file, *_line_column(text, error.start))
        reader.issues.append(Issue(span, "YAML001", Severity.ERROR, "a lone surrogate is not text", "remove it"))
    return reader.documents, reader.issues


class _Stop(Exception):  # noqa: N818 - not an error of ours: this file cannot be read any further
    """Nothing after this point can be trusted."""


class _Reader:
    """Builds documents from the parser's events, with a stack of its own instead of recursion."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.documents: list[Document] = []
        self.issues: list[Issue] = []
        self._start()

    def _start(self) -> None:
        self.document = Document(self.file, self.text)
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[object, int] | None] = {}
        self.nodes = 0

    def take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._start()
            case yaml.DocumentEndEvent():
                self.documents.append(self.document)
            case _:
                pass  # the stream's own beginning and end

    def _issue(self, event: Any, code: str, message: str, hint: str, severity: Severity = Severity.ERROR) -> None:
        at = Span(self.file, event.start_mark.line + 1, event.start_mark.column + 1)
        self.issues.append(Issue(at, code, severity, message, hint))

    def _scalar(self, event: Any) -> None:
        self._check_tag(event)
        frame = self.stack[-1] if self.stack else None
        if frame and isinstance(frame.value, dict) and frame.key is None:
            self._key(frame, event)
            return
        value = self._value(event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self._put(value, self._place(event, event.style or ""), 1)

    def _key(self, frame: _Frame, event: Any) -> None:
        assert isinstance(frame.value, dict)
        key = str(event.value)
        if event.anchor:
            self.anchors[event.anchor] = (key, 1)
        frame.key, frame.skipping = key, False
        frame.key_at = (event.start_mark.line + 1, event.start_mark.column + 1)
        if key == "<<" and not event.style:
            frame.skipping = True
            self._issue(event, "YAML003", "merge keys are not supported", "write the fields out")
        elif key in frame.value:
            frame.skipping = True
            first = self.document.places[(*frame.path, key)]
            hint = f"it is already set on line {first.key_line}; {_twice(frame.path, key)}"
            self._issue(event, "YAML002", f"{quoted(key)} is set twice", hint)

    def _open(self, event: Any) -> None:
        self._check_tag(event)
        if len(self.stack) >= MAX_DEPTH:
            self._issue(event, "YAML005", f"nested deeper than {MAX_DEPTH} levels", "a policy needs no such depth")
            raise _Stop
        self._refuse_complex_key(event)
        value: dict[str, object] | list[object] = {} if isinstance(event, yaml.MappingStartEvent) else []
        place = self._place(event, "-")
        if event.anchor:
            self.anchors[event.anchor] = None  # until it is closed: an alias inside would be a cycle
        self.stack.append(_Frame(self._path(), value, place, event.anchor, self.nodes))

    def _close(self) -> None:
        frame = self.stack.pop()
        nodes = self.nodes - frame.nodes_before + 1
        if frame.anchor:
            self.anchors[frame.anchor] = (frame.value, nodes)
        self._put(frame.value, frame.place, 1)

    def _alias(self, event: Any) -> None:
        self._refuse_complex_key(event)
        known = self.anchors.get(event.anchor)
        if known is None:
            inside = event.anchor in self.anchors
            message = f"`*{event.anchor}` refers to itself" if inside else f"no anchor `&{event.anchor}` before this"
            hint = "write the value out" if inside else f'text that begins with `*` needs quotes: "*{event.anchor}"'
            self._issue(event, "YAML003", message, hint)
            known = (None, 1)
        self._put(known[0], self._place(event, "-"), known[1])

    def _refuse_complex_key(self, event: Any) -> None:
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self._issue(event, "YAML003", "a key must be plain text", "write it out, in quotes if need be")
            raise _Stop

    def _put(self, value: object, place: Place, nodes: int) -> None:
        self._count(nodes, place)
        path = self._path()
        frame = self.stack[-1] if self.stack else None
        if frame is None:
            self.document.value = value
        elif isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is not None:
            if not frame.skipping:
                frame.value[frame.key] = value
            frame.key = None
        if not self._skipping(frame):
            self.document.places[path] = place

    def _skipping(self, frame: _Frame | None) -> bool:
        return frame is not None and (frame.skipping or any(above.skipping for above in self.stack))

    def _count(self, nodes: int, place: Place) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            span = Span(self.file, place.line, place.column)
            message = f"more than {MAX_NODES} values in one document, aliases written out"
            self.issues.append(Issue(span, "YAML005", Severity.ERROR, message, "split it, or use fewer aliases"))
            raise _Stop

    def _path(self) -> Path:
        """Where the value that is read next will stand."""
        if not self.stack:
            return ()
        frame = self.stack[-1]
        return (*frame.path, len(frame.value) if isinstance(frame.value, list) else frame.key or "")

    def _place(self, event: Any, style: str) -> Place:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        frame = self.stack[-1] if self.stack else None
        key_line, key_column = frame.key_at if frame and isinstance(frame.value, dict) else (line, column)
        return Place(line, column, key_line, key_column, style, mark.index, event.end_mark.index)

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!" and event.tag not in _TAGS:
            if event.tag.startswith("!"):
                hint = "a value that begins with `!` needs quotes: put the whole expression in quotes"
                self._issue(event, "YAML003", f"YAML reads {quoted(event.tag)} as a tag", hint)
                return
            self._issue(
                event, "YAML003", f"tag {quoted(event.tag)} is not known here", "remove the tag, keep the value"
            )

    def _value(self, event: Any) -> object:
        """What a scalar stands for."""
        text: str = event.value
        if event.tag == _CORE + "str" or (event.tag is None and event.style):
            return text
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _OCTAL.fullmatch(text):
            hint = f"write `{text.lstrip('0')}`, or put it in quotes if it is text"
            message = f"`{text}` is read as {int(text, 8)} by kubectl: there a leading zero means octal"
            self._issue(event, "YAML004", message, hint, Severity.WARNING)
        if _INT.fullmatch(text):
            return self._int(event, text, 10)
        if _PREFIXED.fullmatch(text):
            return self._int(event, text, 0)
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            return self._float(event, text)
        return text

    def _int(self, event: Any, text: str, base: int) -> int | None:
        if len(text) <= _MAX_DIGITS:
            return int(text, base)
        message = f"a number of more than {_MAX_DIGITS} digits is not understood"
        self._issue(event, "YAML004", message, "put it in quotes if it is text")
        return None

    def _float(self, event: Any, text: str) -> float | None:
        value = float(text.replace(".inf", "inf")) if len(text) <= _MAX_DIGITS and _FLOAT.fullmatch(text) else None
        if value is not None and abs(value) != float("inf"):
            return value
        self._issue(event, "YAML004", f"{quoted(text)} is not a finite number", "put it in quotes if it is text")
        return None


# ---- syntax errors ------------------------------------------------------------------------------------------------

_SYNTAX_HINTS = (
    ("cannot start any token", "quote the value, and indent with spaces, never with tabs"),
    ("mapping values are not allowed", "put a value that holds `: ` in quotes, or look at the indentation"),
    (
        "expected <block end>",
        "look at the indentation; a value that goes on after a closing quote needs quotes around all of it",
    ),
    ("block end", "look at the indentation of this line; an item of a list begins with a dash and a space"),
    (
        "did not find expected key",
        "put the whole value in quotes: it goes on after a closing quote or bracket; or look at the indentation",
    ),
    (
        "did not find expected '-' indicator",
        "each item of this list begins with a dash; look at the indentation of this line",
    ),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("unexpected end of stream", "a quote is not closed"),
    ("expected ',' or", "a bracket or brace is not closed, or a text inside needs quotes"),
    ("expected node content", "a bracket or brace is not closed, or a text inside needs quotes"),
    ("block scalar", "`>` and `|` begin a text on the lines below; put a value that begins with one in quotes"),
    ("control characters", "remove the character"),
)


_DOCUMENT_FIELDS = frozenset(("apiVersion", "kind", "metadata", "spec"))
_JOINED = {
    "when": "keep one of the two, or join them with && or ||",
    "matchConditions": "write both lists as one",
    "rules": "write both lists as one",
    "counters": "write both lists as one",
}


def _twice(path: Path, key: str) -> str:
    if not path and key in _DOCUMENT_FIELDS:
        return "a second policy in one file begins after a line `---`"
    if key in ("terminate", "reroute", "constrain", "allow", "name"):
        return "keep one of the two; a second rule begins with a dash, as in `- name: …`"
    return _JOINED.get(key, "keep one of the two")


def _syntax(file: str, text: str, error: yaml.YAMLError) -> Issue:
    problem, span = _problem(file, text, error)
    if unquoted := _unquoted(file, text, error):
        return unquoted
    if slip := _no_space(file, text, span.line):
        return slip
    hint = next((hint for part, hint in _SYNTAX_HINTS if part in problem), "a YAML linter shows the structure")
    if "\t" in _line(text, span.line)[: span.column]:
        hint = "indent with spaces, never with tabs"
    return Issue(span, "YAML001", Severity.ERROR, f"not valid YAML: {problem}", hint)


_NO_SPACE = (
    (re.compile(r"^\s*-[A-Za-z]+:"), "a dash needs a space after it"),
    (re.compile(r"^\s*(?:- )?[A-Za-z]+:[^\s:/]"), "a colon needs a space after it"),
)


def _no_space(file: str, text: str, line: int) -> Issue | None:
    """A space that is missing on the line of an error, or on the one before."""
    for at, words in ((one, _line(text, one)) for one in (line, line - 1)):
        for look, hint in _NO_SPACE:
            if look.search(words):
                span = Span(file, at, len(words) - len(words.lstrip()) + 1)
                return Issue(span, "YAML001", Severity.ERROR, "not valid YAML: a space is missing", hint)
    return None


def _unquoted(file: str, text: str, error: yaml.YAMLError) -> Issue | None:
    """A plain value that begins with a character that means something to YAML: `*mini*`, `&a`, `@x`, `%x`."""
    if not isinstance(error, yaml.MarkedYAMLError) or (mark := error.context_mark or error.problem_mark) is None:
        return None
    marks = [one for one in (mark, error.problem_mark) if one is not None]
    for one in marks:
        char = _line(text, one.line + 1)[one.column : one.column + 1]
        if char and char in "*&@%`":
            span = Span(file, one.line + 1, one.column + 1)
            message = f"not valid YAML: a value cannot begin with `{char}`"
            return Issue(span, "YAML001", Severity.ERROR, message, "put it in quotes")
    return None


def _problem(file: str, text: str, error: yaml.YAMLError) -> tuple[str, Span]:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        return problem, Span(file, mark.line + 1, mark.column + 1)
    reason = getattr(error, "reason", "") or "not text"
    return reason, Span(file, *_line_column(text, _first_control(text)))


def _first_control(text: str) -> int:
    # libyaml counts bytes here and PyYAML characters, so the character is looked for again
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return found.start() if found else 0


def _line(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1] if 0 < line <= len(lines) else ""


def _line_column(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1
