"""What a tokenizer counts of a call, in the place of the estimate: as it comes, where a rule reads that, and whole.

Rule 1: the provider's own numbers are never touched.
Rule 2: where nothing reads what is spent nothing is counted while the call runs: once, when it is over.
Rule 3: what is billed beside the text that came (marks around tool calls, reasoning that is not shown) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.model.facts import Facts, RequestFacts, ResponseFacts
from policyd.core.model.tokens import LONGEST, Count, Vocabularies


def count_along(facts: Facts, count: Count | None) -> None:
    """Count this call's tokens as they come; None: do not."""
    facts.response.count, facts.request.exact = count, False
    if count is not None:
        count_input(facts, count)


def count_input(facts: Facts, count: Count) -> None:
    """Count the request. Of tools a model that was heard of has taught what they are billed as: their JSON is not."""
    request = facts.request
    if request.asked is None or (request.tools and facts.response.rate.known):
        return
    tokens = request.asked.tokens(count)
    if tokens is not None:
        request.input_tokens, request.exact = tokens, True


def count_whole(facts: Facts, vocabularies: Vocabularies) -> None:
    """The call is over: what it came to, where its provider has said nothing of it."""
    request, response = facts.request, facts.response
    silent = response.usage_source != "provider" and response.seen.before is None
    if not response.rate.tokenizer or not silent or response.is_error or not 200 <= response.status < 300:
        return
    said = list(_said(response))
    count = vocabularies.count(response.rate.tokenizer)
    if count is None or response.seen.reasoned or sum(map(len, said)) > LONGEST:
        return
    if response.count is None:
        count_input(facts, count)
    response.input_tokens, response.output_tokens = request.input_tokens, sum(map(count, said))
    response.usage_source = _source(request)


def _source(request: RequestFacts) -> str:
    return "tokenizer" if request.exact else "estimate"


def _said(response: ResponseFacts) -> Iterator[str]:
    """Every text of an answer that is billed by its tokens."""
    for choice in response.texts:
        yield response.text(choice)
    for call in response.tool_calls:
        yield call.name + call.arguments
    yield response.refusal or ""
