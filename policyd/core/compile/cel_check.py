"""From an author's text to a typed tree: parameters inlined, integer literals beside doubles read as doubles.

Rule 1: every position that leaves this file is one of the author's text.
Rule 2: every problem is reported, not only the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policyd.core.compile.cel_coerce import misread_literals
from policyd.core.compile.cel_complaints import Complaint, complaints
from policyd.core.compile.cel_explain import Explainer, Names, suggestion
from policyd.core.compile.cel_literals import NoLiteral, as_double, literal
from policyd.core.compile.cel_native import Checker, Rejected, StaticType
from policyd.core.compile.cel_problems import CelProblem, Refused
from policyd.core.compile.cel_syntax import MAX_DEPTH, Explained
from policyd.core.compile.cel_tokens import Reference, Rewritten, Token, place, references, tokenize
from policyd.core.compile.cel_tree import Node

MAX_BYTES = 16 * 1024
MAX_INLINED = 64 * 1024  # characters, parameters inlined
_ROUNDS = 40  # each reads at least one more literal as a double
_NOT_TEXT = re.compile("[\\0\ud800-\udfff]")
_SCOPED = frozenset({"params", "variables", "counters"})


@dataclass(frozen=True, slots=True)
class Checked:
    """An expression that type-checks."""

    tree: Node
    type: StaticType
    text: Rewritten

    def problem(self, offset: int, code: str, message: str, hint: str = "") -> CelProblem:
        """A problem at an offset of the checked text."""
        return problem(self.text.source, self.text.origin(max(offset, 0)), code, message, hint)


def problem(source: str, offset: int, code: str, message: str, hint: str = "") -> CelProblem:
    """A problem at an offset of the author's text."""
    line, column = place(source, offset)
    return CelProblem(line, column, message, hint, code)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What one expression may name beside the facts; `unusable` variables carry the reason."""

    counters: Sequence[str]
    params: Mapping[str, object]
    variables: Sequence[str]
    unusable: Mapping[str, str]

    @property
    def names(self) -> Names:
        return Names(tuple(self.counters), tuple(self.variables))


def check(source: str, vocabulary: Vocabulary, checker: Checker) -> Checked:
    """The typed tree of an expression; raises Refused."""
    _fits(source)
    text = _Text(source, vocabulary)
    for _ in range(_ROUNDS):
        rewritten = text.rewritten()
        try:
            tree, type_ = checker.check(rewritten.text)
        except Rejected as error:
            found = complaints(rewritten.text, str(error))
            if not text.read_as_doubles(rewritten, found, checker):
                raise Refused(*text.problems, *text.explained(rewritten, found)) from None
            continue
        if text.problems:
            raise Refused(*text.problems)
        return Checked(tree, type_, rewritten)
    raise Refused(problem(source, 0, "CEL003", "too many integer literals beside doubles", "write them as 1.0"))


def _fits(source: str) -> None:
    if not source.strip():
        raise Refused(problem(source, 0, "CEL001", "the expression is empty", "leave the field out, or write true"))
    stray = _NOT_TEXT.search(source)
    if stray is not None:  # the checker would not see what stands behind it
        raise Refused(problem(source, stray.start(), "CEL001", "a character that is no text", "remove it"))
    size = len(source.encode())
    if size > MAX_BYTES:
        label = f"the expression has {size} bytes, more than {MAX_BYTES}"
        raise Refused(problem(source, 0, "CEL006", label, "split it into rules, or move lists into params"))
    if _nesting(source) > 4 * MAX_DEPTH:  # far beyond what the parser takes: not even handed to it
        raise Refused(problem(source, 0, "CEL006", f"nested deeper than {MAX_DEPTH} levels", "split it into variables"))


def _nesting(source: str) -> int:
    deepest = level = 0
    for token in tokenize(source):
        level += (token.text in "([{") - (token.text in ")]}") if token.kind == "mark" else 0
        deepest = max(deepest, level)
    return deepest


class _Text:
    """An author's text with what has been put into it so far."""

    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        self._source, self._vocabulary = source, vocabulary
        self._tokens = tokenize(source)
        self._params: dict[tuple[int, int], str] = {}
        self._as_double: set[tuple[int, int]] = set()
        self._literals: dict[tuple[int, int], str] = {}
        self._hints: dict[Complaint, str] = {}
        self.problems = [found for use in references(self._tokens, _SCOPED) for found in self._use(use)]
        self._stop_if_too_long()

    # ---- names that are resolved before the checker sees them ------------------------------------------------------

    def _use(self, use: Reference) -> Iterator[CelProblem]:
        full = f"{use.root}.{use.name}"
        if use.in_has:
            hint = "leave has() out: a declared name is always there; a field of a counter may be unset"
            yield self._problem(use.start, "CEL010", f"`has({full})` asks for a name, not for a field", hint)
        match use.root:
            case "params":
                yield from self._param(use)
            case "variables" if use.name in self._vocabulary.unusable:
                yield self._problem(use.start, "CEL009", self._vocabulary.unusable[use.name])

    def _param(self, use: Reference) -> Iterator[CelProblem]:
        known, span = self._vocabulary.params, (use.start, use.end)
        self._params[span] = use.name
        if not use.name:
            yield self._problem(
                use.start, "CEL010", "`params` needs the name of a parameter", suggestion("params", "", known)
            )
        elif use.name not in known:
            hint = suggestion("params", use.name, known) or "this policy declares no params"
            yield self._problem(use.start, "CEL002", f"unknown parameter `params.{use.name}`", hint)
        else:
            try:
                literal(known[use.name], doubles=False)
                return
            except NoLiteral as error:
                yield self._problem(use.start, "CEL010", f"`params.{use.name}` cannot be used: {error}")
        del self._params[span]
        self._literals[span] = 'dyn("")'  # so that the rest is checked all the same

    def _stop_if_too_long(self) -> None:
        if len(self.rewritten().text) > MAX_INLINED:
            label = f"the expression has more than {MAX_INLINED} characters once its parameters are inlined"
            raise Refused(self._problem(0, "CEL006", label, "use a shorter list"), *self.problems)

    def _problem(self, offset: int, code: str, message: str, hint: str = "") -> CelProblem:
        return problem(self._source, offset, code, message, hint)

    # ---- edits -----------------------------------------------------------------------------------------------------

    def rewritten(self) -> Rewritten:
        """The text for the checker."""
        params = self._vocabulary.params
        inlined = {span: literal(params[name], doubles=span in self._as_double) for span, name in self._params.items()}
        return Rewritten(self._source, {**inlined, **self._literals})

    def read_as_doubles(self, rewritten: Rewritten, found: Iterable[Complaint], checker: Checker) -> bool:
        """Marks the literals that these complaints are about; says whether there were any."""
        mismatches = [one for one in found if "no matching overload" in one.message and "double" in one.message]
        if not mismatches:
            return False
        tree, changed = checker.parse(rewritten.text), False
        for complaint in mismatches:
            offsets, self._hints[complaint] = misread_literals(tree, complaint)
            for offset in offsets:
                changed |= self._as_a_double(rewritten.origin(offset))
        return changed

    def _as_a_double(self, origin: int) -> bool:
        for span in self._params:
            if span[0] <= origin < span[1]:
                fresh = span not in self._as_double
                self._as_double.add(span)
                return fresh
        token = self._integer_at(origin)
        if token is None or (token.start, token.end) in self._literals:
            return False
        self._literals[(token.start, token.end)] = as_double(token.text)
        return True

    def _integer_at(self, origin: int) -> Token | None:
        """The integer token at an offset, or after the sign that stands there."""
        following = (token for token in self._tokens if token.start >= origin)
        first = next(following, None)
        if first is not None and first.text == "-":
            first = next(following, None)
        return first if first is not None and first.kind == "int" else None

    # ---- problems --------------------------------------------------------------------------------------------------

    def explained(self, rewritten: Rewritten, found: Sequence[Complaint]) -> Iterator[CelProblem]:
        """The complaints in the author's words and places."""
        explainer = Explainer(rewritten.text, self._vocabulary.names)
        hints = {complaint.offset: hint for complaint, hint in self._hints.items() if hint}
        unusable = {f"unknown variable `variables.{name}`" for name in self._vocabulary.unusable}
        taken = {(known.line, known.column) for known in self.problems}
        for one in explainer.explain(found):
            made = self._problem(rewritten.origin(one.offset), one.code, one.message, _hint(one, hints))
            if one.message not in unusable and (made.line, made.column) not in taken:
                yield made


def _hint(one: Explained, hints: Mapping[int, str]) -> str:
    return hints.get(one.offset, one.hint) if one.code == "CEL003" else one.hint
