"""A policy set from objects that come one by one: one that is wrong does not keep the others out.

Rule 1: `policyd check` and this compile by the same compiler; an object is a file with a name of its own.
Rule 2: of a policy that has become wrong the last good text stays in force.
Rule 3: where no good text is known, a placeholder is in force, which fails as the policy's failurePolicy says: other
        replicas may have a good text, or may read this one. Only what was created before our eyes, has not changed
        unseen, and has no field of another version was never in force anywhere: that is left out.
Rule 4: a policy that is gone is gone, good or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.adapters.policies_kube.api import Object
from policyd.adapters.policies_kube.placeholder import is_placeholder, placeholder_of
from policyd.adapters.reloads import Compile
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue, Severity

ROUNDS = 5  # the newest text, the last good one, a placeholder; the others are for what is wrong between objects
_OTHER_VERSION = frozenset(("POL001", "POL002", "POL006"))  # a kind, a field, an action that is not known (yet)

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
    spec = one.get("spec")
    found = spec.get("targetRefs") if isinstance(spec, dict) else None
    targets = found if isinstance(found, list) else ()
    generation = int(metadata.get("generation") or 0)
    return Policy(file, text, kind, namespace, name, generation, mark, targets, one.get("status"))


@dataclass(frozen=True, slots=True)
class Judged:
    """What a state of the objects came to."""

    policy_set: PolicySet
    issues: tuple[Issue, ...]  # of what is in force: warnings
    refused: Mapping[str, tuple[Issue, ...]]  # file -> why its newest text is not in force
    texts: Texts  # what is in force, placeholders included

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The files of policies of which no text can be read."""
        return tuple(file for file, text in self.texts.items() if is_placeholder(text))

    @property
    def other_version(self) -> bool:
        """Whether any was refused for what another version may know."""
        return any(issue.code in _OTHER_VERSION for why in self.refused.values() for issue in why)


@dataclass(slots=True)
class LastGood:
    """Compiles state after state, and remembers the last good text of each object.

    `placeholders`: whether any take the place of what cannot be read; without, that is left out.
    """

    compile: Compile
    texts: Texts = field(default_factory=dict)
    placeholders: bool = False
    _wrong: dict[str, tuple[str, tuple[Issue, ...]]] = field(default_factory=dict)  # file -> text, why
    _left_out: dict[str, int] = field(default_factory=dict)  # file -> the newest generation that was never good
    _began: bool = False  # a state of the server has been judged
    _anew: bool = False

    def again(self) -> None:
        """What was wrong may be right by now: the next state is judged without remembering it."""
        self._anew = True

    def restored(self) -> Judged:
        """The set of the texts that are remembered, without a state of the server."""
        return self._judge(self.texts, {})

    def judge(self, newest: Texts, generations: Mapping[str, int] | None = None) -> Judged:
        """The set of all that compiles. `generations`: of the objects, by file."""
        judged = self._judge(newest, generations or {})
        self._began = True
        return judged

    def _judge(self, newest: Texts, generations: Mapping[str, int]) -> Judged:
        if self._anew:
            self._anew, self._wrong = False, {}
        self._wrong = {file: one for file, one in self._wrong.items() if newest.get(file) == one[0]}
        self._left_out = {file: at for file, at in self._left_out.items() if file in newest}
        trying = {file: text for file, text in newest.items() if file not in self._wrong}
        trying |= {file: self.texts[file] for file in self._wrong if file in self.texts}
        for _ in range(ROUNDS):
            compiled = self.compile(list(trying.items()))
            wrong = _errors(compiled.issues)
            if compiled.policy_set is not None and not wrong:
                return self._judged(compiled.policy_set, compiled.issues, trying)
            trying = self._without(trying, wrong, newest, generations)
        raise AssertionError("a set without what is wrong in it is no set")

    def _judged(self, policy_set: PolicySet, issues: Sequence[Issue], trying: Texts) -> Judged:
        self.texts = trying
        for file, text in trying.items():
            if not is_placeholder(text) and file not in self._wrong:
                self._left_out.pop(file, None)
        refused = {file: why for file, (_, why) in self._wrong.items()}
        ours = tuple(one for one in issues if not is_placeholder(trying.get(one.span.file, "")))
        return Judged(policy_set, ours, refused, trying)

    def _without(
        self,
        trying: Texts,
        wrong: Mapping[str, tuple[Issue, ...]],
        newest: Texts,
        generations: Mapping[str, int],
    ) -> Texts:
        """What is left when each wrong text gives way to the last good one, to a placeholder, or to nothing."""
        left = dict(trying)
        for file, why in wrong.items():
            text = left.pop(file)
            if text == newest.get(file):
                self._wrong[file] = text, why
            known = self.texts.get(file)
            if known is not None and known != text and not is_placeholder(known):
                left[file] = known
            elif not is_placeholder(text) and self._stands_in(file, why, generations.get(file, 0)):
                left[file] = placeholder_of(newest.get(file, text))
        return left

    def _stands_in(self, file: str, why: Sequence[Issue], generation: int) -> bool:
        """Whether a placeholder takes the place of this policy, of which no good text is known."""
        if not self.placeholders:
            return False
        before = self._left_out.get(file)
        fresh = generation == 1 and self._began and file not in self.texts
        never_good = fresh or (before is not None and before <= generation <= before + 1)
        if not never_good or any(issue.code in _OTHER_VERSION for issue in why):
            return True
        self._left_out[file] = generation
        return False


def _errors(issues: Sequence[Issue]) -> dict[str, tuple[Issue, ...]]:
    found: dict[str, list[Issue]] = {}
    for issue in issues:
        if issue.severity is Severity.ERROR:
            found.setdefault(issue.span.file, []).append(issue)
    return {file: tuple(why) for file, why in found.items()}
