"""What an AdmissionReview of a policy is answered: the verdict of `policyd check`, each mistake with its place.

Rule 1: judged is the object as the server holds it, its defaults filled in: text, compiler and places are those of the
        operator's status.
Rule 2: an update that leaves `spec` as it was is never refused: labels and finalizers of a wrong policy must go.
Rule 3: what is no review of a policy has no answer (NoReview); the API server then goes by the webhook's failurePolicy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policyd.adapters.policies_kube.api import GROUP, Object
from policyd.adapters.policies_kube.good import Policy, policy_of
from policyd.adapters.policies_kube.shallow import loads
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.places import Document, Path
from policyd.core.compile.source import read_documents
from policyd.core.compile.words import printable
from policyd.core.errors import Issue, Severity, Span
from policyd.core.review.assume import Effort
from policyd.core.review.review import review

VERSION = "admission.k8s.io/v1"
KINDS = ("LLMPolicy", "ClusterLLMPolicy")
MOST_TOLD = 50  # mistakes of one object
MOST_WARNED = 15  # the API server drops what goes beyond 4096 characters together,
LONGEST = 250  # and cuts what is longer than 256
EFFORT = 40_000  # of looking for doubts: half a second
_NAME = re.compile(r"[!-~]{1,253}")
_OF_THE_SET = frozenset({"POL102", "POL108"})  # said of all policies together, or of files

Beside = Callable[[frozenset[str]], Iterable[Policy]]
"""The policies of these names, wherever they are."""


class NoReview(Exception):  # noqa: N818 - the asker's fault, an ordinary value to us
    """Nothing that could be answered; the words say why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One review. `policy` None: there is nothing to judge, the object goes."""

    uid: str
    policy: Policy | None
    touched: bool = True  # whether its spec is another one than before


def asked(body: bytes) -> Asked:
    """What is asked. Raises NoReview."""
    try:
        review_ = loads(body)
    except ValueError:
        raise NoReview("the body is no JSON") from None
    if not isinstance(review_, dict) or review_.get("kind") != "AdmissionReview":
        raise NoReview("the body is no AdmissionReview")
    if review_.get("apiVersion") != VERSION:
        raise NoReview(f"of AdmissionReview only {VERSION} is spoken here")
    request = _mapping(review_, "request")
    uid = request.get("uid")
    if not isinstance(uid, str) or not uid:
        raise NoReview("request.uid is missing")
    if request.get("operation") not in ("CREATE", "UPDATE"):
        return Asked(uid, None)
    return _of_object(uid, _mapping(request, "object"), request.get("oldObject"))


def _of_object(uid: str, new: Object, old: object) -> Asked:
    metadata = _mapping(new, "metadata")
    known = new.get("kind") in KINDS and str(new.get("apiVersion")).startswith(f"{GROUP}/")
    names = _is_name(metadata.get("name")) and _is_name(metadata.get("namespace") or "none")
    if not known or not names or not isinstance(new.get("spec") or {}, dict):
        raise NoReview("the object is no policy with a name")
    touched = not isinstance(old, dict) or old.get("spec") != new.get("spec")
    return Asked(uid, policy_of({**new, "metadata": {**metadata, "generation": 0}}), touched)


def _is_name(found: object) -> bool:
    """Nothing that could forge a line: names stand in messages, and in the log."""
    return isinstance(found, str) and _NAME.fullmatch(found) is not None


def _mapping(of: Object, name: str) -> Object:
    found = of.get(name)
    if not isinstance(found, dict):
        raise NoReview(f"`{name}` is missing, or no object")
    return found


# ---- the verdict ----------------------------------------------------------------------------------------------------


def judged(one: Asked, beside: Beside) -> Object:
    """The answer to one review."""
    if one.policy is None:
        return answer(one.uid)
    issues = _issues(one.policy, beside)
    wrong = [issue for issue in issues if issue.severity is Severity.ERROR]
    if not wrong:
        return answer(one.uid, _warnings(one.policy, issues))
    if not one.touched:
        return answer(
            one.uid, ["this policy is wrong, and not in force as it is written", *_warnings(one.policy, wrong)]
        )
    return answer(one.uid, refusal=_refusal(one.policy, wrong))


def answer(uid: str, warnings: Sequence[str] = (), refusal: Object | None = None) -> Object:
    """An AdmissionReview that allows, or refuses with a status."""
    response: Object = {"uid": uid, "allowed": refusal is None}
    if refusal is not None:
        response["status"] = refusal
    if warnings:
        response["warnings"] = [_cut(words) for words in warnings[:MOST_WARNED]]
    return {"apiVersion": VERSION, "kind": "AdmissionReview", "response": response}


def unjudged(one: Asked) -> Object:
    """The answer when there was no time: what enforces does not depend on it."""
    return answer(one.uid, ["policyd had no time to judge this; its status will say what came of it"])


def _issues(policy: Policy, beside: Beside) -> list[Issue]:
    """What is said of this policy; of others it needs to know those whose rules it names."""
    alone = compile_documents([(policy.file, policy.text)])
    named = frozenset(target.partition("/")[0] for one in alone.written for _, target in one.known.targets)
    others = [(one.file, one.text) for one in (beside(named) if named else ()) if one.file != policy.file]
    compiled = compile_documents([(policy.file, policy.text), *others]) if others else alone
    found = review(compiled, Effort(EFFORT))
    return [issue for issue in found if issue.span.file == policy.file and issue.code not in _OF_THE_SET]


def _refusal(policy: Policy, wrong: Sequence[Issue]) -> Object:
    document = _document(policy)
    causes = [
        {"reason": "FieldValueInvalid", "field": field_of(document, issue.span), "message": str(issue)}
        for issue in wrong[:MOST_TOLD]
    ]
    if len(wrong) > MOST_TOLD:
        more = f"and {len(wrong) - MOST_TOLD} more mistakes"
        causes.append({"reason": "FieldValueInvalid", "field": "spec", "message": more})
    details = {"group": GROUP, "kind": policy.kind, "name": policy.name, "causes": causes}
    lines = "\n".join(f"{cause['field']}: {cause['message']}" for cause in causes)
    return {"status": "Failure", "code": 422, "reason": "Invalid", "message": lines, "details": details}


def _warnings(policy: Policy, issues: Sequence[Issue]) -> list[str]:
    """Each short, for little of it arrives: the field is place enough."""
    document = _document(policy)
    return [
        f"{field_of(document, issue.span)}: {issue.code}: {issue.message}" + (f" ({issue.hint})" if issue.hint else "")
        for issue in issues
    ]


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


# ---- where in the object --------------------------------------------------------------------------------------------


def _document(policy: Policy) -> Document | None:
    documents, _ = read_documents(policy.file, policy.text)
    return documents[0] if documents else None


def field_of(document: Document | None, span: Span) -> str:
    """The field that a place belongs to, as kubectl writes it: `spec.rules[0].when`."""
    if document is None:
        return "spec"
    here = [
        (place.column if place.line == span.line else 0, path)
        for path, place in document.places.items()
        if place.key_line == span.line and min(place.column, place.key_column) <= span.column
    ]
    return _written(max(here, key=lambda one: (len(one[1]), one[0]))[1]) if here else "spec"


def _written(path: Path) -> str:
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return printable(words.removeprefix(".")) or "spec"
