"""What policies ask of Envoy that one Envoy has and another one has not: upstreams by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from policyd.core.compile.compiler import Written
from policyd.core.compile.words import listed, quoted
from policyd.core.errors import Issue
from policyd.core.model.decision import Reroute

CODE = "POL018"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One rule that reroutes to an upstream by its name."""

    written: Written
    position: int  # of the rule in its policy
    upstream: str

    @property
    def said(self) -> tuple[str, str, str]:
        """The policy in this very wording."""
        return self.written.said

    def issue(self, known: Collection[str]) -> Issue:
        """What is to be said where Envoy has only these."""
        findings = self.written.findings.again()
        path = ("spec", "rules", self.position, "reroute", "upstream")
        message = f"the running Envoy has no upstream {quoted(self.upstream)}: it has {listed(sorted(known))}"
        hint = f"start Envoy with `policyd envoy bootstrap … --upstream {self.upstream}=HOST` first"
        findings.error(path, CODE, message, hint)
        return findings.issues[0]


def wanted(written: Iterable[Written]) -> tuple[Wanted, ...]:
    """Every reroute to an upstream, in the order of the files."""
    return tuple(
        Wanted(one, rule.position, rule.action.upstream)
        for one in written
        for rule in one.policy.rules
        if isinstance(rule.action, Reroute) and rule.action.upstream
    )
