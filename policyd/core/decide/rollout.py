"""Which calls a policy or a rule is enforced for, where only a share of them is.

Rule 1: the share is stable: who is in it stays in it, and raising the percentage only adds.
Rule 2: for the others it is as if its mode were Monitor, its counters' other life included.
Rule 3: who cannot be told (no identity, an error, a request that was not understood) is not in the share.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from policyd.core.compile.policyset import CelFailure, CompiledPolicy, Rollout, Unknown
from policyd.core.decide.plan import Plan
from policyd.core.decide.unknown import unknown_facts
from policyd.core.model.decision import Mode
from policyd.core.model.facts import Facts
from policyd.core.stream.hits import Hits

_WHOLE = 1 << 64
Outside = tuple[bool, frozenset[int]]  # the whole policy, or the positions of some of its rules


class Variants:
    """Policies as they are for calls outside a share. INVARIANT: one object for one variant, so that plans are made
    once; an entry keeps its policy alive, so an id is never reused while it is here."""

    def __init__(self, bound: int = 4096) -> None:
        self._bound = bound
        self._made: dict[tuple[int, Outside], tuple[CompiledPolicy, CompiledPolicy]] = {}

    def of(self, policy: CompiledPolicy, outside: Outside) -> CompiledPolicy:
        """The policy for calls that are outside of these shares."""
        key = (id(policy), outside)
        if key not in self._made:
            if len(self._made) >= self._bound:
                self._made.clear()
            self._made[key] = (policy, _variant(policy, outside))
        return self._made[key][1]


def _variant(policy: CompiledPolicy, outside: Outside) -> CompiledPolicy:
    whole, some = outside
    rules = tuple(replace(rule, mode=Mode.MONITOR) if whole or rule.position in some else rule for rule in policy.rules)
    return replace(policy, mode=Mode.MONITOR if whole else policy.mode, rules=rules)


def rolled_out(plan: Plan, facts: Facts, variants: Variants) -> tuple[CompiledPolicy, ...]:
    """The plan's policies, each as it is for this call. `facts`: as the sender sent them."""
    shares = plan.rollouts
    if not shares:
        return plan.policies
    unknown = Unknown(unknown_facts(facts))
    values = plan.batch([share.by for _, _, share in shares]).evaluate(facts, {}, Hits(), unknown)
    whole: set[str] = set()
    some: dict[str, set[int]] = {}
    for (policy, position, share), value in zip(shares, values, strict=True):
        if in_share(policy.qualified, position, share, value):
            continue
        if position is None:
            whole.add(policy.identity)
        else:
            some.setdefault(policy.identity, set()).add(position)
    return tuple(
        variants.of(policy, (policy.identity in whole, frozenset(some.get(policy.identity, ()))))
        if policy.identity in whole or policy.identity in some
        else policy
        for policy in plan.policies
    )


def in_share(policy: str, position: int | None, share: Rollout, value: object) -> bool:
    """Whether a call with this key is in the share; different policies and rules take different calls first."""
    if isinstance(value, CelFailure) or not value:
        return False
    text = f"{policy}\0{'' if position is None else position}\0{value}"
    place = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return place < share.percent / 100 * _WHOLE
