"""Which of the namespaces' policies would loosen a ClusterLLMPolicy, and cannot: worked out anew where it may differ.

Rule 1: it says why something has no effect; that it has none is the data plane's doing, whether or not anybody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.core.compile.compiler import Written
from policyd.core.model.decision import Allow
from policyd.core.review.assume import Effort
from policyd.core.review.overruled import Overruled, names_of, overruled
from policyd.core.review.reviewed import reviewed

EFFORT = 20_000  # for one policy: a fifth of a second


@dataclass(slots=True)
class Conflicts:
    """Looks at state after state, and remembers what it has found of each policy."""

    _clusters: list[Written] = field(default_factory=list)
    _known: dict[str, tuple[Written, Overruled | None]] = field(default_factory=dict)  # by file

    def of(self, written: Sequence[Written]) -> Mapping[str, Overruled]:
        """What is overruled, by file."""
        clusters = [one for one in written if one.policy.cluster]
        if [id(one) for one in clusters] != [id(one) for one in self._clusters]:
            self._clusters, self._known = clusters, {}
        if not clusters:
            return {}
        beside: dict[str, set[str]] = {}
        for one in written:
            beside.setdefault(one.policy.namespace, set()).update(names_of(one.policy))
        against = reviewed(clusters, Effort(EFFORT))
        known: dict[str, tuple[Written, Overruled | None]] = {}
        for one in written:
            if not one.policy.cluster:
                file = one.findings.document.span(("metadata", "name")).file
                before = self._known.get(file)
                if before is not None and before[0] is one and not _exempts(one):
                    known[file] = before
                else:
                    known[file] = (
                        one,
                        overruled(reviewed([one], Effort(EFFORT))[0], against, beside[one.policy.namespace]),
                    )
        self._known = known
        return {file: found for file, (_, found) in known.items() if found is not None}


def _exempts(one: Written) -> bool:
    """Whether what it comes to hangs on its neighbours."""
    return any(isinstance(rule.action, Allow) for rule in one.policy.rules)
