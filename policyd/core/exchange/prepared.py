"""What the first call under a policy set would wait for, done before it comes: patterns compiled and tried once."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.policyset import PolicySet
from policyd.core.model.decision import Constrain, Redaction
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.redactor import redactors

MOST = 64  # redactions: what very many policies look for is compiled when a call needs it
_SAMPLE = "The quick brown fox, 4111 1111 1111 1111 or sk-12ab; user@example.org (+1 555 0100) https://x.y/z?a=b ÄÖ€\n"


def prepare(policies: PolicySet) -> None:
    """Compile what the redactions of these policies look for: each alone, and all of a direction together."""
    found = [redaction for policy in policies.policies for rule in policy.rules if (redaction := _of(rule.action))]
    if len(found) > MOST:
        return
    alone = [[one] for one in found]
    for some in ([one for one in found if one.in_request], [one for one in found if one.in_response], *alone):
        _try(some)


def _of(action: object) -> Redaction | None:
    return action.redact if isinstance(action, Constrain) else None


def _try(redactions: Sequence[Redaction]) -> None:
    """RE2 makes most of what it needs when it first searches."""
    search = redactors(redactions)
    if search:
        redact_text(_SAMPLE, search)
