"""What became of a policy, in GEP-713's words: nothing here asks or writes.

Rule 1: a status changes when this policy's own fate does. That others came into force beside it changes nothing:
        with ten thousand policies each change would rewrite them all.
Rule 2: Accepted is about the text: it compiles. Programmed is about the data plane: every replica runs it.
Rule 3: a time of transition stays while what it is about stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policyd.adapters.policies_kube import seen_mark
from policyd.adapters.policies_kube.api import GROUP, Object
from policyd.adapters.policies_kube.good import Policy
from policyd.adapters.policies_kube.report import by_file, line, lines
from policyd.core.errors import Issue
from policyd.core.model.route import GATEWAY
from policyd.core.review.overruled import Overruled
from policyd.operator.targets import Known, places_of, targets_of

CONTROLLER = f"{GROUP}/operator"
MOST = 4_000  # characters of a message
_PLAIN = "compiles, without a warning"
_NO_GATEWAY = f"calls come without their {GATEWAY}"
_LOOSENS = "nothing of it has an effect: a namespace may tighten what holds for the cluster, never loosen it"


@dataclass(frozen=True, slots=True)
class Replica:
    """One data plane, by its own word. `renewed` says that it lives, by changing; as a time it means nothing here."""

    digest: str
    seen: str
    namespace: str  # empty: it reads all of them
    renewed: str = field(compare=False)
    home: str = ""  # the namespace that it takes calls for whose route it is not told
    untold: tuple[str, ...] = ()  # what it is not told of calls
    uncarried: Mapping[str, str] = field(default_factory=dict)  # by file: why its Envoy cannot carry that policy


def replica_of(report: Object) -> Replica:
    """A replica's report, read; whatever it holds, it comes to bounded lines of text."""
    spec = report.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    digest, seen, space, home = (line(spec.get(name)) for name in ("digest", "seen", "namespace", "home"))
    renewed = line(spec.get("renewed"))
    return Replica(digest, seen, space, renewed, home, lines(spec.get("untold")), by_file(spec.get("uncarried")))


@dataclass(frozen=True, slots=True)
class State:
    """What is applied, what came of it, and who runs it, at one moment."""

    policies: Sequence[Policy]
    refused: Mapping[str, tuple[Issue, ...]]  # by file
    warnings: Mapping[str, tuple[Issue, ...]]
    replicas: Sequence[Replica]  # that live
    now: datetime
    space: str  # the operator's namespace
    known: Known = field(default_factory=Known)
    conflicts: Mapping[str, Overruled] = field(default_factory=dict)  # by file

    def marks(self) -> dict[str, str]:
        """What a replica of each scope says when it has judged this state."""
        scopes = {replica.namespace for replica in self.replicas}
        return {scope: seen_mark(one for one in self.policies if _covers(scope, one)) for scope in scopes}


def _covers(scope: str, policy: Policy) -> bool:
    return not scope or not policy.namespace or policy.namespace == scope


def statuses(state: State) -> Iterable[tuple[Policy, Object]]:
    """Each policy whose status has to be written, and the status."""
    marks = state.marks()
    for policy in state.policies:
        status = _status(policy, state, marks)
        if status is not None:
            yield policy, status


def is_news(policy: Policy) -> bool:
    """Whether nothing is written of its newest text."""
    written = _conditions(policy.status or {}).values()
    return policy.generation not in (one.get("observedGeneration") for one in written)


def _status(policy: Policy, state: State, marks: Mapping[str, str]) -> Object | None:
    """None when what is written is still so."""
    concerned = [one for one in state.replicas if _covers(one.namespace, policy)]
    lacking = [one for one in concerned if policy.file in one.uncarried]
    running = [one for one in concerned if one.seen == marks[one.namespace] and one not in lacking]
    why = state.refused.get(policy.file)
    old = policy.status or {}
    settled = why is None and not lacking
    if settled and _quiet(policy, state, old, concerned):
        return None
    counts = {"programmed": 0 if why else len(running), "total": len(concerned)}
    programmed, digest = _programmed(why, running, concerned), running[0].digest if running else ""
    if why is None and lacking:
        words = f"{len(lacking)} of {len(concerned)} replicas say: {lacking[0].uncarried[policy.file]}"
        programmed = _condition("Programmed", "False", "NotCarried", words[:MOST])
    if settled and _stands(old, policy, len(concerned)):
        # INVARIANT: what others came to beside it since then is no news of this policy.
        counts, digest = old["replicas"], old.get("digest", "")
        programmed = _plain(next(iter(_written(old)))["Programmed"])
    every = [programmed, *_untold(policy, concerned)]
    before = _written(old)
    ancestors = []
    for at, place in enumerate(places_of(policy, state.space)):
        known = before[at] if at < len(before) else {}
        conditions = [_dated(one, known, policy, state) for one in (_accepted(policy, state, place), *every)]
        ancestors.append({"ancestorRef": place, "controllerName": CONTROLLER, "conditions": conditions})
    status = {"ancestors": ancestors, "replicas": counts}
    if programmed["status"] == "True":
        status["digest"] = digest
    return None if _same(old, status) else status


def _quiet(policy: Policy, state: State, old: Object, concerned: Sequence[Replica]) -> bool:
    """Whether it is one of the many of which there is nothing to say, and that is written. What is left out here is
    worked out in full, and compared."""
    said = policy.file in state.warnings or policy.file in state.conflicts or any(one.untold for one in concerned)
    if said or policy.targets or not _stands(old, policy, len(concerned)):
        return False
    written = _conditions(old)
    return len(written) == 2 and _plain(written.get("Accepted", {})) == _condition(
        "Accepted", "True", "Accepted", _PLAIN
    )


def _stands(old: Object, policy: Policy, replicas: int) -> bool:
    """Whether this very text was found on as many replicas before."""
    programmed = _conditions(old).get("Programmed", {})
    return (
        programmed.get("status") == "True"
        and programmed.get("observedGeneration") == policy.generation
        and old.get("replicas") == {"programmed": replicas, "total": replicas}
    )


def _written(status: Object) -> list[dict[str, Any]]:
    """The conditions of our own entries, place by place."""
    ours = [one for one in status.get("ancestors") or () if one.get("controllerName") == CONTROLLER]
    return [{str(one.get("type")): one for one in entry.get("conditions") or ()} for entry in ours]


def _conditions(status: Object) -> dict[str, Any]:
    """Those of our first entry: what they say of the data plane is the same at every place."""
    return next(iter(_written(status)), {})


def _plain(condition: Object) -> Object:
    return {part: condition.get(part) for part in ("type", "status", "reason", "message")}


def _accepted(policy: Policy, state: State, place: Object) -> Object:
    why = state.refused.get(policy.file)
    if why:
        return _condition("Accepted", "False", "Invalid", _told(why))
    bound = bool(targets_of(policy))
    if bound and (lacking := state.known.lacks(policy, place)):
        return _condition("Accepted", "False", "TargetNotFound", f"{lacking}: it is about no call until there is one")
    conflict = state.conflicts.get(policy.file)
    if conflict is not None and conflict.whole:
        words = f"{_told(conflict.issues)}\n{_LOOSENS}"
        return _condition("Accepted", "False", "Conflicted", words)
    doubts = [issue for issue in state.warnings.get(policy.file, ()) if issue.code != "POL108"]
    doubts += conflict.issues if conflict is not None else ()
    words = _told(doubts) if doubts else _PLAIN
    if bound and (doubt := state.known.doubt(place)):
        words = f"{words}\n{doubt}"
    return _condition("Accepted", "True", "Accepted", words)


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _untold(policy: Policy, concerned: Sequence[Replica]) -> list[Object]:
    """A word where replicas get calls whose route they are not told, and this policy is not about these."""
    if not policy.namespace:
        return []
    said = [lines for one in concerned if (lines := _missed(policy, one))]
    if not said:
        return []
    words = "\n".join([f"{len(said)} of {len(concerned)} replicas say:", *said[0]])
    return [_condition("RoutesTold", "False", "RouteUntold", words)]


def _missed(policy: Policy, replica: Replica) -> list[str]:
    """What this replica is not told, and this policy is not about for that."""
    bound = {str(one["kind"]) for one in targets_of(policy)}
    by_route = bool(bound) or replica.home != policy.namespace
    return [said for said in replica.untold if (GATEWAY in bound if said.startswith(_NO_GATEWAY) else by_route)]


def _told(issues: Sequence[Issue]) -> str:
    """Line by line, as `policyd check` says it."""
    words = "\n".join(map(str, issues))
    return words if len(words) <= MOST else f"{words[:MOST]}\n… and more"


def _programmed(why: object, running: Sequence[Replica], concerned: Sequence[Replica]) -> Object:
    if why:
        words = (
            "this text is not in force; where an earlier one was good, it stays in force. "
            "A replica that knows none fails the calls that it could match, by its failurePolicy"
        )
        return {"type": "Programmed", "status": "False", "reason": "Invalid", "message": words}
    if not concerned:
        words = "no replica of the data plane has told that it reads this"
        return {"type": "Programmed", "status": "Unknown", "reason": "NoReplicas", "message": words}
    counts = f"{len(running)} of {len(concerned)} replicas run it"
    digests = sorted({replica.digest for replica in running})
    if len(running) < len(concerned):
        return {"type": "Programmed", "status": "False", "reason": "Pending", "message": counts}
    words = f"{counts}, in policy set {' and '.join(digests[:3])}"
    return {"type": "Programmed", "status": "True", "reason": "Programmed", "message": words}


def _dated(condition: Object, before: Mapping[str, Any], policy: Policy, state: State) -> Object:
    old = before.get(condition["type"], {})
    kept = old.get("lastTransitionTime") if old.get("status") == condition["status"] else None
    at = kept or state.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**condition, "observedGeneration": policy.generation, "lastTransitionTime": at}


def _same(old: Object, new: Object) -> bool:
    return all(old.get(part) == new.get(part) for part in ("ancestors", "replicas", "digest"))
