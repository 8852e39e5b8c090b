"""What of an answer concerns a rule: which changes it has to be judged again for. Known before any call, from what it
reads.

Rule 1: a rule is judged again only when something that it reads has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from policyd.core.compile.policyset import CompiledRule
from policyd.core.model.reach import VIEWS
from policyd.core.stream.dialects import Changed
from policyd.core.stream.hits import may_cease


class Touch(IntFlag):
    """What can change for a rule between two events; the lower bits are those of `Changed`."""

    EVENT = 1 << 16  # another event came
    SPEND = 1 << 17  # tokens, cost, counters
    HITS = 1 << 18  # a watched text condition came true
    TIME = 1 << 19  # time has passed
    CALLS = 1 << 20  # a tool call is complete: its arguments are known
    CONTENT = 1 << 21  # response.content has grown
    REASONING = 1 << 22  # response.reasoning has grown
    FINDS = 1 << 23  # a detector has found something
    ALL = (1 << 24) - 1


COST_FACTS = frozenset(f"response.{name}" for name in ("cost_usd", "cost_source", "cost_confidence"))
INSPECTION = int(Changed.INSPECTION)

_TOUCHES: dict[str, int] = {
    "response.text": Changed.TEXT,
    "response.content": Touch.CONTENT,
    "response.reasoning": Touch.REASONING,
    "response.detections": Touch.FINDS,
    "response.delta": Changed.TEXT | Touch.EVENT,
    "response.events": Touch.EVENT,
    "response.tool_calls": Changed.TOOLS | Touch.CALLS,
    "response.finish_reasons": Changed.FINISH,
    "response.model": Changed.MODEL,
    "response.refusal": Changed.REFUSAL,
    "response.inspection": Changed.INSPECTION,
    "response.elapsed_ms": Touch.TIME | Touch.EVENT,
    "response.ttft_ms": Changed.TEXT,
    "response.status": Touch.EVENT,
    "response.headers": Touch.EVENT,
}
_GROWS = {"text": int(Changed.TEXT), "content": int(Touch.CONTENT), "reasoning": int(Touch.REASONING)}
_TEXTS = frozenset(f"response.{view}" for view in VIEWS)
_STEADY = ("request.", "caller.", "session.")
_AHEAD = frozenset({"response.events", "response.output_tokens", "response.cost_usd", "response.elapsed_ms"})
_UNCHANGING = frozenset(
    {"response.status", "response.headers", "response.tool_calls", "response.finish_reasons", "now"}
)


@dataclass(frozen=True, slots=True)
class Concern:
    """What of an answer concerns a rule."""

    mask: int  # the changes that it has to be judged again for, of Touch and Changed
    timed: bool  # it looks at the time
    ahead: bool  # false of an answer further on, it is false of everything before: then it is not judged there
    counts: bool  # it looks at counters


def concern_of(rule: CompiledRule) -> Concern:
    """What of an answer concerns this rule."""
    return Concern(
        mask=_touches(rule),
        timed=any(read.startswith("response.elapsed_ms") for read in rule.reads),
        ahead=_looks_ahead(rule),
        counts=rule.implied is not None or any(read.startswith("counters.") for read in rule.reads),
    )


def _touches(rule: CompiledRule) -> int:
    mask = INSPECTION  # what could not be read makes readers err
    if rule.implied:
        return mask | int(Touch.SPEND)
    for read in rule.reads:
        if read.startswith("counters."):
            mask |= Touch.SPEND
        elif read.startswith("response."):
            mask |= _TOUCHES.get(".".join(read.split(".", 2)[:2]), int(Touch.SPEND))
    if rule.when is not None and rule.when.watchers:
        mask |= Touch.HITS
        ceasing = {watcher.of for watcher in rule.when.watchers if may_cease(watcher)}
        for view, bit in _GROWS.items():
            whole = view in rule.when.whole_texts or view in ceasing
            if not whole and not (view == "text" and "response.delta" in rule.reads):
                mask &= ~bit
    return int(mask)


def _looks_ahead(rule: CompiledRule) -> bool:
    if rule.implied:
        return True
    return (
        rule.when is not None
        and rule.monotone
        and not rule.when.whole_texts
        and all(
            read.startswith((*_STEADY, "counters.")) or ".".join(read.split(".", 2)[:2]) in _AHEAD | _UNCHANGING
            for read in rule.reads
            if read not in _TEXTS
        )
    )
