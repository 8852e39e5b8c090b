"""Requests of OpenAI Completions: facts, editable text, edits.

Rule 1: a prompt is a user's message; several prompts are several. Each gets `n` choices of its own.
Rule 2: a prompt of token ids is no text: it counts as many tokens as it has, and nothing in it can be edited.
Rule 3: there are no tools here, so none is left to be taken away; what is injected stands before the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts
from policyd.core.stream.dialects import Edit, RequestChange, Segment
from policyd.core.stream.dialects.asking import samplings
from policyd.core.stream.dialects.offers import removal, side_doors
from policyd.core.stream.dialects.openai_shared import deployment, estimate_input, prompts_of, read_usage_wish
from policyd.core.stream.dialects.parts import with_runs
from policyd.core.stream.dialects.shared import (
    cap_edit,
    count,
    flag,
    mapping,
    number,
    set_edits,
    text,
    with_sets,
)
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset({"model", "stream", "stream_options", "max_tokens", "temperature", "prompt", "suffix", "n", "best_of"})
LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
MOST_ANSWERS = 4096


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    facts.model = deployment(facts.path) or text(document.get("model"), "model")
    facts.stream = flag(document.get("stream"), "stream")
    facts.max_tokens = count(document.get("max_tokens"), "max_tokens")
    facts.temperature = number(document.get("temperature"), "temperature")
    read_usage_wish(document, facts)
    facts.tools = [one.tool for one in side_doors(document)]
    prompts, tokens = prompts_of(document.get("prompt"), "prompt")
    facts.choices = _choices(document, max(1, len(prompts) + len(tokens)))
    facts.messages = [Message("user", said) for _, said in prompts]
    said = segments(document)
    texts = [segment.text for segment in said]
    facts.text = with_runs(texts, said)
    estimate_input(facts, texts, 0, 0, (), ids=sum(tokens))


def _choices(document: dict[str, object], prompts: int) -> int:
    wanted = samplings(document, MOST_ANSWERS) * prompts
    if wanted > MOST_ANSWERS:
        raise Malformed("n is not a number of answers")
    return wanted


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request; each a channel of its own."""
    prompts, _ = prompts_of(document.get("prompt"), "prompt")
    suffix = document.get("suffix")
    texts = [*prompts, *([(("suffix",), suffix)] if isinstance(suffix, str) else [])]
    return [Segment(("text", place, 0), path, said) for place, (path, said) in enumerate(texts) if said]


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields. Raises Malformed when it cannot be made."""
    document = mapping(doc, "the body")
    out = set_edits(document, change.sets)
    document = with_sets(document, change.sets)
    if change.model:
        out.append(Edit(("model",), change.model))
    for field, cap in change.caps:
        out += cap_edit(document, "max_tokens" if field in LIMITS else field, cap)
    out += removal(document, list(side_doors(document)), change).edits
    out += _inject(document.get("prompt"), change.inject_system)
    if change.include_usage and document.get("stream") is True:
        out.append(Edit(("stream_options", "include_usage"), True))
    return out


def _inject(prompt: object, injected: Sequence[str]) -> list[Edit]:
    if not injected:
        return []
    prompts, tokens = prompts_of(prompt, "prompt")
    if tokens:
        raise Malformed("nothing can be put before a prompt of token ids")
    before = "\n\n".join(injected)
    return [Edit(path, f"{before}\n\n{said}") for path, said in prompts or [(("prompt",), "")]]
