"""Issues of one document, collected: each once, with a place, and none that only follows from another.

Codes of what is written in YAML (expressions have their own, CELnnn):
YAML001 syntax              YAML002 a key set twice         YAML003 a key, alias, anchor or tag that is not understood
YAML004 a number            YAML005 too large or too deep   YAML006 nothing in it, or not a mapping
POL001 another kind         POL002 unknown field            POL003 missing field
POL004 wrong type           POL005 wrong value              POL006 not yet supported
POL007 a name twice         POL008 not exactly one action   POL009 impossible where the rule is judged
POL010 counter, window, limit                               POL011 redaction
POL012 headers              POL013 reads what it may not    POL014 hold-back
POL018 an upstream that the running Envoy does not have (`serve` alone knows)
Warnings:
POL101 enforces nothing     POL102 nothing covers `unknown` POL103 an exemption that exempts nothing
POL104 trusts a forgeable header                            POL105 the beginning of a match may leave
POL106 an operation nobody has                              POL107 a limit that most do not have
POL108 no effect from files POL109 a text that reads too early
POL110 can never match      POL111 shadowed by another rule POL112 a counter that nobody reads
POL113 an unbounded key     POL114 Monitor, and every answer POL115 two rules that contradict
POL116 a limit that is not there
POL121 matches every call   POL122 a placeholder in a text  POL123 a key that may be empty
POL124 neither rules nor counters                           POL126 a field without a value
POL127 a pattern, not a glob                                POL128 a limit of 0, a tiny window
POL129 a key of joined texts
"""

from __future__ import annotations

from collections.abc import Iterable

from policyd.core.compile.cel_problems import CelProblem
from policyd.core.compile.places import Document, Path
from policyd.core.compile.words import printable
from policyd.core.errors import Issue, Severity, Span

_OTHERWISE = {
    "CEL001": "remove it, or put it in quotes if it is text",
    "CEL009": "correct that one first",
}
_NO_HINT = "docs/facts.md lists what an expression may read"


class Findings:
    """What is wrong with one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.issues: list[Issue] = []
        self.broken: set[Path] = set()  # places whose shape is wrong: what follows from them is not said again

    def again(self) -> Findings:
        """The same document, with nothing found yet: for what is looked at once more, beside other documents."""
        new = Findings(self.document)
        new.broken = self.broken
        return new

    def spoilt(self, path: Path) -> bool:
        """Whether something at, below or above this place has the wrong shape."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)

    def error(self, path: Path, code: str, message: str, hint: str, *, key: bool = False) -> None:
        """Reports what is wrong at a place, unless its shape is wrong anyway. `key`: point at the key."""
        if not self.spoilt(path):
            self._add(self._span(path, key), code, Severity.ERROR, message, hint)

    def warn(self, path: Path, code: str, message: str, hint: str, *, key: bool = False) -> None:
        if not self.spoilt(path):
            self._add(self._span(path, key), code, Severity.WARNING, message, hint)

    def shape(self, path: Path, code: str, message: str, hint: str, *, key: bool = False) -> None:
        """Reports a wrong shape, once for a place, what is above it and what is below it."""
        if self.spoilt(path):
            return
        self._add(self._span(path, key), code, Severity.ERROR, message, hint)
        self.broken.add(path)

    def problems(self, path: Path, problems: Iterable[CelProblem], severity: Severity = Severity.ERROR) -> None:
        """Reports what is wrong inside an expression."""
        comment = self.document.comment_after(path)
        for problem in problems:
            if comment is not None and problem.code == "CEL001":
                message = "the expression ends here: YAML reads ` #` and what follows as a comment"
                self._add(comment, "YAML001", severity, message, "put the whole expression in quotes")
                continue
            span = self.document.inside(path, problem.line, problem.column)
            self._add(
                span, problem.code, severity, problem.message, problem.hint or _OTHERWISE.get(problem.code, _NO_HINT)
            )

    def _span(self, path: Path, key: bool) -> Span:
        return self.document.key_span(path) if key else self.document.span(path)

    def _add(self, span: Span, code: str, severity: Severity, message: str, hint: str) -> None:
        # INVARIANT: whatever of the author's text stands in it, an issue is one line, and forges no other.
        issue = Issue(span, code, severity, printable(message), printable(hint))
        if issue not in self.issues:
            self.issues.append(issue)
