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
from policyd.adapters.policies_kube.presence import DIGEST, LASTS_S, SEEN, SPACE
from policyd.core.errors import Issue

CONTROLLER = f"{GROUP}/operator"
MOST = 4_000  # characters of a message
_UNFOLLOWED = "targetRefs are not followed: it applies to every call of the replicas that read its namespace"


@dataclass(frozen=True, slots=True)
class Replica:
    """One data plane, by its own word. `renewed`: seconds since the epoch."""

    digest: str
    seen: str
    namespace: str  # empty: it reads all of them
    renewed: float = field(compare=False)

    def lives(self, now: float) -> bool:
        return now - self.renewed <= LASTS_S


def replica_of(lease: Object) -> Replica:
    """A replica's Lease, read."""
    notes = lease["metadata"].get("annotations") or {}
    told = str((lease.get("spec") or {}).get("renewTime") or "")
    try:
        renewed = datetime.fromisoformat(told.replace("Z", "+00:00")).timestamp()
    except ValueError:
        renewed = 0.0
    return Replica(str(notes.get(DIGEST, "")), str(notes.get(SEEN, "")), str(notes.get(SPACE, "")), renewed)


@dataclass(frozen=True, slots=True)
class State:
    """What is applied, what came of it, and who runs it, at one moment."""

    policies: Sequence[Policy]
    refused: Mapping[str, tuple[Issue, ...]]  # by file
    warnings: Mapping[str, tuple[Issue, ...]]
    replicas: Sequence[Replica]  # that live
    now: datetime
    space: str  # the operator's namespace

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
    running = [one for one in concerned if one.seen == marks[one.namespace]]
    why = state.refused.get(policy.file)
    old = policy.status or {}
    if why is None and _stands(old, policy, len(concerned)):
        return None
    counts = {"programmed": 0 if why else len(running), "total": len(concerned)}
    accepted, programmed = _accepted(policy, state), _programmed(why, running, concerned)
    before = _conditions(old)
    conditions = [_dated(one, before, policy, state) for one in (accepted, programmed)]
    ancestors = [
        {"ancestorRef": place, "controllerName": CONTROLLER, "conditions": conditions}
        for place in _places(policy, state)
    ]
    status = {"ancestors": ancestors, "replicas": counts}
    if programmed["status"] == "True":
        status["digest"] = running[0].digest
    return None if _same(old, status) else status


def _stands(old: Object, policy: Policy, replicas: int) -> bool:
    """Whether this very text was found on as many replicas before."""
    conditions = _conditions(old)
    programmed = conditions.get("Programmed", {})
    return (
        programmed.get("status") == "True"
        and programmed.get("observedGeneration") == policy.generation
        and conditions.get("Accepted", {}).get("status") == "True"
        and old.get("replicas") == {"programmed": replicas, "total": replicas}
    )


def _conditions(status: Object) -> dict[str, Any]:
    """Those of our own entry; they are the same at every place."""
    for ancestor in status.get("ancestors") or ():
        if ancestor.get("controllerName") == CONTROLLER:
            return {str(one.get("type")): one for one in ancestor.get("conditions") or ()}
    return {}


def _accepted(policy: Policy, state: State) -> Object:
    why = state.refused.get(policy.file)
    if why:
        return {"type": "Accepted", "status": "False", "reason": "Invalid", "message": _told(why)}
    doubts = [issue for issue in state.warnings.get(policy.file, ()) if issue.code != "POL108"]
    words = _told(doubts) if doubts else "compiles, without a warning"
    if _targets(policy):
        words = f"{words}\n{_UNFOLLOWED}"
    return {"type": "Accepted", "status": "True", "reason": "Accepted", "message": words}


def _told(issues: Sequence[Issue]) -> str:
    """Line by line, as `policyd check` says it."""
    words = "\n".join(map(str, issues))
    return words if len(words) <= MOST else f"{words[:MOST]}\n… and more"


def _programmed(why: object, running: Sequence[Replica], concerned: Sequence[Replica]) -> Object:
    if why:
        words = "this text is not in force; where an earlier one was good, it stays in force"
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


def _targets(policy: Policy) -> list[Object]:
    found = policy.targets
    return [one for one in found if isinstance(one, dict) and one.get("name") and one.get("kind")][:16]


def _places(policy: Policy, state: State) -> list[Object]:
    if targets := _targets(policy):
        group = "gateway.networking.k8s.io"
        places = [
            {"group": str(one.get("group") or group), "kind": one["kind"], "name": one["name"]} for one in targets
        ]
        return [place for at, place in enumerate(places) if place not in places[:at]]
    if policy.namespace:
        return [{"group": "", "kind": "Namespace", "name": policy.namespace}]
    return [{"group": "", "kind": "Service", "name": "policyd", "namespace": state.space}]


def _same(old: Object, new: Object) -> bool:
    return all(old.get(part) == new.get(part) for part in ("ancestors", "replicas", "digest"))
