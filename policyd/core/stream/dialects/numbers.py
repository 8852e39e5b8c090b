"""Numbers of a JSON document that are content: a card number is one without quotes, too.

Rule 1: a whole number of at least seven digits is content as the string of its digits, unless the dialect knows the
        name of its field and the name is one of `NUMBERS`.
Rule 2: a float counts if its value is whole: 4111111111111111.0 and 4.111111111111111e15 are both 4111111111111111.
        Shorter numbers and fractions are no content: counts, scores, coordinates, embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

LEAST = 1_000_000  # the smallest number of seven digits
MOST = 1e21  # the first float that every client prints with an exponent


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBERS = _words(
    # Times, durations and prices.
    """created createdAt created_at completed_at expires_at retrieved_at lastModified last_updated ttl pollInterval
    keep_alive duration total_duration load_duration prompt_eval_duration eval_duration queue_time prompt_time
    completion_time total_time latencyMs invocationLatency firstByteLatency first_token_latency
    guardrailProcessingLatency frame_duration_ms timeout_ms completion_tokens_per_sec prompt_audio_seconds
    cost request_cost total_cost input_tokens_cost output_tokens_cost upstream_inference_cost
    upstream_inference_prompt_cost upstream_inference_completions_cost cost_in_usd_ticks cost_in_nano_usd
    """
    # Counts that a provider reports.
    """prompt_tokens completion_tokens total_tokens input_tokens output_tokens cached_tokens reasoning_tokens
    audio_tokens text_tokens image_tokens video_tokens citation_tokens thinking_tokens generated_tokens
    estimated_tokens num_cached_tokens accepted_prediction_tokens rejected_prediction_tokens prompt_cache_hit_tokens
    prompt_cache_miss_tokens cache_creation_input_tokens cache_read_input_tokens cache_missed_input_tokens
    cache_missed_tokens cache_creation_tokens cache_read_tokens cache_write_tokens cached_creation_tokens
    cached_image_tokens cached_text_tokens cleared_input_tokens comparison_reusable_tokens ephemeral_1h_input_tokens
    ephemeral_5m_input_tokens ttl_12h_tokens ttl_30m_tokens cleared_thinking_turns cleared_tool_uses tokens numTokens
    inputTokens outputTokens totalTokens cacheReadInputTokens cacheWriteInputTokens tokenCount promptTokenCount
    candidatesTokenCount responseTokenCount totalTokenCount cachedContentTokenCount thoughtsTokenCount
    toolUsePromptTokenCount inputTokenCount outputTokenCount cacheReadInputTokenCount cacheWriteInputTokenCount
    inputTextTokenCount totalOutputTextTokenCount prompt_token_count generation_token_count billableCharacterCount
    textCharacters guarded total completed images image_count request_count num_requests num_search_queries
    num_sources_used num_lines total_lines frame_count eval_count prompt_eval_count input_length search_units
    web_search_requests web_fetch_requests topicPolicyUnits contentPolicyUnits contentPolicyImageUnits wordPolicyUnits
    sensitiveInformationPolicyUnits sensitiveInformationPolicyFreeUnits contextualGroundingPolicyUnits
    automatedReasoningPolicyUnits
    """
    # Places, sizes and sequences.
    """index output_index content_index summary_index annotation_index command_index prompt_index document_index
    search_result_index partial_image_index contentBlockIndex searchResultIndex documentIndex partIndex sheetIndex
    startIndex endIndex start_index end_index start end text_offset start_offset end_offset check_offset
    content_filter_offsets start_char_index end_char_index start_block_index end_block_index start_page_number
    end_page_number pageNumber startPage endPage firstPage lastPage start_line old_start old_lines new_start new_lines
    sequence_number progress size bytes width height display_width display_height display_width_px display_height_px
    display_number distanceMeters
    """
    # What a request sets, and ids that are numbers.
    """max_tokens max_completion_tokens max_output_tokens max_new_tokens max_input_tokens max_content_tokens
    max_tokens_to_sample max_gen_len maxTokens maxOutputTokens maxTokenCount min_tokens budget_tokens token_budget
    thinkingBudget compact_threshold clear_at_least max_characters max_output_length memory_limit seed random_seed
    num_keep num_predict num_ctx num_batch num_gpu main_gpu num_thread outputEmbeddingLength outputDimensionality
    dimensions output_dimension n k topK top_k top_n_tokens numResults max_num_results max_uses max_tool_calls
    candidateCount candidate_count num_generations steps step id requestId progressToken token_id token_ids tokenId
    prompt_token_ids completion_token_ids stop_token_ids embedding embeddings float int8 uint8 binary ubinary
    """
)
"""The names of fields whose numbers are structural, where a dialect knows the name."""

_KINDS = {int, float}


def digits(value: object) -> str:
    """The digits of a number that may be content, with its sign; empty for every other value."""
    kind = type(value)
    if kind is int:
        return str(value) if not -LEAST < value < LEAST else ""  # type: ignore[operator]
    if kind is not float or not LEAST <= abs(value) < MOST or not value.is_integer():  # type: ignore[arg-type, attr-defined]
        return ""
    return f"{Decimal(repr(value)).to_integral_value():f}"


def long_numbers(values: Sequence[object]) -> Iterator[tuple[int, str]]:
    """The numbers of a list that may be content, and their indexes. Most lists of numbers hold none, and are looked at
    in C."""
    numbers = values if set(map(type, values)) <= _KINDS else [one for one in values if type(one) in _KINDS]
    if not numbers or (max(numbers) < LEAST and min(numbers) > -LEAST):  # type: ignore[type-var, operator]
        return
    for index, value in enumerate(values):
        if found := digits(value):
            yield index, found
