"""docs/facts.md, written from the table of facts; a test keeps the page fresh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, GROWS, NOT_YET, NOW, ROOTS, Fact

_INTRODUCTION = """# What an expression may read

Written from the types; do not edit. Every name below is known to the checker: another one is an error when policies
are loaded, with its line and column. What was not sent reads as the empty value of its type (`""`, `0`, `false`, `[]`),
and `has()` tells the difference. A map (`headers`, `tags`, `labels`) answers a missing key with an error:
write `request.tags[?"feature"].orValue("")`.

An integer literal beside a double reads as a double: `counters.spend.value > 2`. An integer *fact* beside a double
needs `double(…)`. A value marked *grows* only ever rises while an answer runs (or turns true, or gets longer).

A rule is judged when what it reads is known. A `terminate` rule that reads the response is judged at the request as
well: if it is true whatever the response is, as in `request.text.contains("x") || response.text.contains("x")`, it
rejects the request. The actions of all other rules that read the response apply to the response.
"""

_TITLES = {
    "request": "the call as its sender sent it",
    "caller": "who is calling",
    "session": "what the finished calls of this session add up to",
    "response": "the answer so far",
}


def facts_markdown() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for root in ROOTS:
        yield from _table(
            f"`{root}`: {_TITLES[root]}", (fact for path, fact in FACTS.items() if _under(path, root)), ""
        )
    title = "`counters.NAME`: a counter of the policy, this call so far included; USD, tokens or requests"
    yield from _table(title, COUNTER_FACTS.values(), "counters.NAME.")
    yield "## More names\n"
    yield f"- `now`: {NOW.doc} (timestamp)"
    yield "- `params.NAME`: a parameter of the policy, inlined as a literal of its type"
    yield "- `variables.NAME`: a variable of the policy; it sees those before it"
    yield f"\nNot yet supported: {', '.join(f'`{path}`' for path in sorted(NOT_YET))}.\n"


def _under(path: str, root: str) -> bool:
    return path.startswith(f"{root}.")


def _table(title: str, facts: Iterable[Fact], prefix: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| name | type | |"
    yield "|---|---|---|"
    for fact in facts:
        grows = " · *grows*" if fact.trend == GROWS else ""
        yield f"| `{prefix}{fact.path}` | {fact.type} | {fact.doc}{grows} |"
    yield ""
