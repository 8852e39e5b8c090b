"""A policy set from objects that come one by one: one that is wrong does not keep the others out.

Rule 1: `policyd check` and this compile by the same compiler; an object is a file with a name of its own.
Rule 2: of a policy that has become wrong the last good text stays in force; a new one that is wrong is left out.
Rule 3: a policy that is gone is gone, good or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.adapters.policies_kube.api import Object
from policyd.adapters.reloads import Compile
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue, Severity

ROUNDS = 4  # wrong texts are known after one; the others are for what is wrong between objects

Texts = dict[str, str]
"""Text by file name."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One object as a file, and what its status has to know."""

    file: str
    text: str
    kind: str
    namespace: str
    name: str
    generation: int
    mark: int = field(compare=False)  # of name and text
    targets: Sequence[Object] = field(default=(), compare=False)  # as written
    status: Object | None = field(default=None, compare=False)


def policy_of(one: Object) -> Policy:
    """An object without what the server adds to it: what its author wrote, as a file."""
    metadata = one["metadata"]
    kind, namespace, name = str(one.get("kind")), str(metadata.get("namespace") or ""), str(metadata["name"])
    said = {"name": name, **({"namespace": namespace} if namespace else {})}
    document = {"apiVersion": one.get("apiVersion"), "kind": kind, "metadata": said, "spec": one.get("spec")}
    if document["apiVersion"] is None:  # in a list the items leave it to the list
        document["apiVersion"] = "policyd.dev/v1alpha1"
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    file = "/".join(part for part in (kind.lower(), namespace, name) if part)
    mark = int.from_bytes(hashlib.sha256(f"{file}\0{text}".encode("utf-8", "replace")).digest()[:16], "big")
    found = (one.get("spec") or {}).get("targetRefs")
    targets = found if isinstance(found, list) else ()
    generation = int(metadata.get("generation") or 0)
    return Policy(file, text, kind, namespace, name, generation, mark, targets, one.get("status"))


@dataclass(frozen=True, slots=True)
class Judged:
    """What a state of the objects came to."""

    policy_set: PolicySet
    issues: tuple[Issue, ...]  # of what is in force: warnings
    refused: Mapping[str, tuple[Issue, ...]]  # file -> why its newest text is not in force
    texts: Texts  # what is in force


@dataclass(slots=True)
class LastGood:
    """Compiles state after state, and remembers the last good text of each object."""

    compile: Compile
    texts: Texts = field(default_factory=dict)
    _wrong: dict[str, tuple[str, tuple[Issue, ...]]] = field(default_factory=dict)  # file -> text, why
    _anew: bool = False

    def again(self) -> None:
        """What was wrong may be right by now: the next state is judged without remembering it."""
        self._anew = True

    def judge(self, newest: Texts) -> Judged:
        """The set of all that compiles."""
        if self._anew:
            self._anew, self._wrong = False, {}
        self._wrong = {file: one for file, one in self._wrong.items() if newest.get(file) == one[0]}
        trying = {file: text for file, text in newest.items() if file not in self._wrong}
        trying |= {file: self.texts[file] for file in self._wrong if file in self.texts}
        for _ in range(ROUNDS):
            compiled = self.compile(list(trying.items()))
            wrong = _errors(compiled.issues)
            if compiled.policy_set is not None and not wrong:
                self.texts = trying
                refused = {file: why for file, (_, why) in self._wrong.items()}
                return Judged(compiled.policy_set, tuple(compiled.issues), refused, trying)
            trying = self._without(trying, wrong, newest)
        raise AssertionError("a set without what is wrong in it is no set")

    def _without(self, trying: Texts, wrong: Mapping[str, tuple[Issue, ...]], newest: Texts) -> Texts:
        """What is left when each wrong text gives way to the last good one, or to nothing."""
        left = dict(trying)
        for file, why in wrong.items():
            text = left.pop(file)
            if text == newest.get(file):
                self._wrong[file] = text, why
            known = self.texts.get(file)
            if known is not None and known != text:
                left[file] = known
        return left


def _errors(issues: Sequence[Issue]) -> dict[str, tuple[Issue, ...]]:
    found: dict[str, list[Issue]] = {}
    for issue in issues:
        if issue.severity is Severity.ERROR:
            found.setdefault(issue.span.file, []).append(issue)
    return {file: tuple(why) for file, why in found.items()}
