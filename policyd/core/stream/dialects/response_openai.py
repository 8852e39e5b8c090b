"""The structural fields of responses of OpenAI's and Anthropic's dialects, whole and event by event.

The paths of an event and of a whole body stand in one table: a path that only one of them has costs the other nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policyd.core.stream.dialects.content import Shape, Structure, a_model, a_time, an_id, base64, media, typed
from policyd.core.stream.dialects.fields_openai import (
    ANTHROPIC,
    LEVELS,
    MIME,
    RESPONSES,
    ROLES,
    TIERS,
    expanded,
    words,
)

_PADDING = re.compile(r"[A-Za-z0-9]{1,256}")


def padding(value: str, _: Mapping[str, object]) -> bool:
    """What only makes events alike in length: letters and digits."""
    return _PADDING.fullmatch(value) is not None


# ---- OpenAI Chat Completions and Completions ------------------------------------------------------------------------

FINISH = words(
    """stop length tool_calls function_call content_filter error end_turn max_tokens model_length eos cancelled abort
    insufficient_system_resource stop_sequence tool_use STOP MAX_TOKENS SAFETY RECITATION repetition_truncation
    eos_token
    COMPLETE refusal null done load unload sensitive network_error pause_turn time_limit"""
)
_HEAD: Mapping[str, Shape] = {
    "id": an_id,
    "model": a_model,
    "system_fingerprint": an_id,
    "obfuscation": padding,
    "p": padding,
    "request_id": an_id,
    "x_groq.id": an_id,
    "generation_id": an_id,
}
_CALL: Mapping[str, Shape] = {"id": an_id, "signature": base64, "extra_content.google.thought_signature": base64}
_MESSAGE: Mapping[str, Shape] = {
    "id": an_id,
    "tool_call_id": an_id,
    "audio.id": an_id,
    "audio.data": base64,
    "signature": base64,
    "reasoning_signature": base64,
    "reasoning_details[].id": an_id,
    "reasoning_details[].data": base64,
    "reasoning_details[].signature": base64,
    "thinking_blocks[].signature": base64,
    "thinking_blocks[].data": base64,
    "images[].image_url.url": media,
    "images[].b64_json": media,
    "content[].image_url": media,
    "content[].image_url.url": media,
    "extra_content.google.thought_signature": base64,
    "obfuscation": padding,
    "padding": padding,
    "p": padding,
    **expanded(("tool_calls[].",), _CALL),
}
_MESSAGES = ("choices[].delta.", "choices[].message.")
_WORDS: Mapping[str, frozenset[str]] = {
    "object": words(
        """chat.completion chat.completion.chunk chat.completion.done chat.reasoning chat.reasoning.done text_completion
        text.completion list embedding"""
    ),
    "role": ROLES,
    "type": words(
        """function text output_text thinking reference tool_reference document_url input_audio image video_url
        summary_text image_url file reasoning reasoning.text reasoning.summary reasoning.encrypted
        url_citation citation custom web_search code_interpreter browser_search audio redacted_thinking""",
        """web_search_call builtin_function error moderation_result moderation_results fetch_url_content""",
    ),
    "finish_reason": FINISH,
    "native_finish_reason": FINISH,
    "stop_reason": FINISH,
    "service_tier": TIERS,
    "channel": words("analysis commentary final"),
    "format": words("unknown openai-responses-v1 anthropic-claude-v1 google-gemini-v1 xai-responses-v1"),
    "severity": words("safe low medium high"),
    "search_context_size": LEVELS,
    "tool_choice": words("auto none required"),
}
_NAMES = words(
    """id object created model system_fingerprint service_tier choices index delta message finish_reason logprobs usage
    role content refusal tool_calls function arguments name custom type text reasoning reasoning_content audio
    transcript data expires_at annotations url_citation url title start_index end_index function_call obfuscation
    citations search_results images image_url context provider error code param metadata x_groq debug
    prompt_filter_results prompt_index content_filter_results content_filter_offsets content_filter_result
    hate self_harm sexual violence severity filtered detected jailbreak profanity indirect_attack
    protected_material_text
    protected_material_code custom_blocklists details citation license error_message
    native_finish_reason stop_reason finish_details matched_stop seed token_ids prompt_token_ids prompt_logprobs
    raw_output completion tool_call_id reasoning_details summary signature thinking_blocks thinking format
    executed_tools extra_content google thought_signature provider_specific_fields copilot_annotations
    reasoning_signature channel prefix padding p reasoning_steps reasoning_tokens prompt_tokens completion_tokens
    total_tokens prompt_tokens_details completion_tokens_details cached_tokens audio_tokens text_tokens image_tokens
    accepted_prediction_tokens rejected_prediction_tokens num_sources_used cost cost_details input_tokens_cost
    output_tokens_cost request_cost total_cost search_context_size citation_tokens num_search_queries
    prompt_cache_hit_tokens prompt_cache_miss_tokens queue_time prompt_time completion_time total_time
    completion_tokens_per_sec time_info is_byok upstream_inference_cost upstream_inference_prompt_cost
    upstream_inference_completions_cost generation_logprobs token_id completion_token_ids completion_logprobs token
    bytes top_logprobs tokens token_logprobs text_offset request_id prompt generation_id date last_updated snippet
    source kv_transfer_params warnings perf_metrics nvext generated_tokens first_token_latency
    cost_in_usd_ticks cost_in_nano_usd cache_write_tokens cached_creation_tokens cache_creation_input_tokens
    cache_read_input_tokens input_tokens output_tokens input_token_details output_token_details reference_ids
    video_tokens cache_creation_tokens cache_read_tokens server_tool_use web_search_requests tool_usage
    server_side_tool_usage_details input_tokens_details output_tokens_details cached_tokens_details
    num_cached_tokens video_tokens image_count usage_breakdown models categories category_applied_input_types
    category_scores flagged input logprob moderation output results thought web_search fetch_url_content file_search
    step prompt_audio_seconds content_parts parsed parsed_arguments messages file hash filepath chunk_id intent end_turn
    rerank_score original_search_score data_source_index filter_reason search_queries search_query link media icon refer
    publish_date related_questions graph_data llm_data image_data sources subqueries prompt_token_details
    estimated_cost provider_metadata gateway routing market_cost costDollars total description videos content_index
    tool_reference tool favicon annotation cited_text file_name page_number document_index web_search_call_id status"""
)

CHAT_RESPONSE = Structure(
    {**_HEAD, **expanded(_MESSAGES, _MESSAGE)}, _WORDS, _NAMES, words("provider_specific_fields perf_metrics")
)
COMPLETIONS_RESPONSE = Structure({**_HEAD}, _WORDS, _NAMES)
EMBEDDINGS_RESPONSE = Structure(
    {**_HEAD, "data[].embedding": base64},
    _WORDS,
    _NAMES | words("embedding embeddings encoding_format prompt_audio_seconds prompt_token_details request_count"),
)

# ---- OpenAI Responses -----------------------------------------------------------------------------------------------

_ITEM: Mapping[str, Shape] = {
    "id": an_id,
    "call_id": an_id,
    "item_id": an_id,
    "container_id": an_id,
    "approval_request_id": an_id,
    "encrypted_content": base64,
    "result": typed(base64, "image_generation_call"),
    "partial_image_b64": base64,
    "created_by": an_id,
    "fingerprint": an_id,
    "content[].image_url": media,
    "content[].file_data": media,
    "content[].file_id": an_id,
    "content[].annotations[].file_id": an_id,
    "content[].annotations[].container_id": an_id,
    "results[].file_id": an_id,
    "output.image_url": media,
    "output.file_id": an_id,
    "output[].image_url": media,
    "outputs[].url": media,
    "pending_safety_checks[].id": an_id,
    "acknowledged_safety_checks[].id": an_id,
    "environment.container_id": an_id,
}
_RESPONSE: Mapping[str, Shape] = {
    "id": an_id,
    "model": a_model,
    "previous_response_id": an_id,
    "conversation.id": an_id,
    "system_fingerprint": an_id,
    "prompt.id": an_id,
    **expanded(("output[].",), _ITEM),
    **expanded(("tools[].",), {"container": an_id, "vector_store_ids[]": an_id}),
    **expanded(("input[].", "instructions[]."), _ITEM),
}
_STATUS = words(
    """steered waiting_for_required_input turn_boundary context_compacted in_progress completed incomplete failed
    cancelled queued searching interpreting calling generating expired max_output_tokens content_filter"""
)
_RESPONSE_WORDS: Mapping[str, frozenset[str]] = {
    **RESPONSES.words,
    "object": words("response list response.deleted conversation conversation.item"),
    "type": RESPONSES.words["type"]
    | words(
        """response.created response.queued response.in_progress response.completed response.incomplete response.failed
        response.cancelled response.output_item.added response.output_item.done response.content_part.added
        response.content_part.done response.output_text.delta response.output_text.done
        response.output_text.annotation.added response.refusal.delta response.refusal.done
        response.function_call_arguments.delta response.function_call_arguments.done
        response.custom_tool_call_input.delta response.custom_tool_call_input.done
        response.reasoning_summary_part.added response.reasoning_summary_part.done
        response.reasoning_summary_text.delta response.reasoning_summary_text.done response.reasoning_text.delta
        response.reasoning_text.done response.reasoning.delta response.reasoning.done
        response.reasoning_summary.delta response.reasoning_summary.done
        response.audio.delta response.audio.done response.audio.transcript.delta response.audio.transcript.done
        response.output_audio_transcript.delta response.output_audio_transcript.done
        response.web_search_call.in_progress response.web_search_call.searching response.web_search_call.completed
        response.file_search_call.in_progress response.file_search_call.searching response.file_search_call.completed
        response.code_interpreter_call.in_progress response.code_interpreter_call.interpreting
        response.code_interpreter_call.completed response.code_interpreter_call_code.delta
        response.code_interpreter_call_code.done response.image_generation_call.in_progress
        response.image_generation_call.generating response.image_generation_call.partial_image
        response.image_generation_call.completed response.mcp_call.in_progress response.mcp_call.completed
        response.mcp_call.failed response.mcp_call_arguments.delta response.mcp_call_arguments.done
        response.mcp_list_tools.in_progress response.mcp_list_tools.completed response.mcp_list_tools.failed
        response.apply_patch_call_operation_diff.delta response.apply_patch_call_operation_diff.done
        response.shell_call_command.delta response.shell_call_command.done
        response.shell_call_output_content.delta response.shell_call_output_content.done
        response.shell_call.in_progress response.shell_call.completed response.apply_patch_call.in_progress
        response.apply_patch_call.completed response.computer_call.in_progress response.computer_call.completed
        response.tool_search_call.in_progress response.tool_search_call.completed response.compaction.in_progress
        response.compaction.compacting response.compaction.completed
        error ping keepalive output_text summary_text reasoning_text refusal output_audio output_image
        container_file_citation file_path memory reasoning program program_output configuration_update message
        input_text computer_screenshot text additional_tools invalid_request_error server_error allowlist base64
        cache_hit cache_miss compaction_trigger container_auto container_reference direct disabled http_error inline
        local mcp_protocol_error mcp_tool_execution_error moderation_result programmatic_tool_calling
        response.shell_call_command.added response.reasoning_part.added response.reasoning_part.done
        x_search_call response.x_search_call.in_progress response.x_search_call.searching
        response.x_search_call.completed skill_reference unavailable url web_search_2025_08_26
        web_search_preview_2025_03_11 eq gt gte in lt lte ne nin and or"""
    ),
    "environment": words("browser linux mac ubuntu windows"),
    "execution": words("client server"),
    "action": words("auto edit generate"),
    "status": _STATUS,
    "reason": _STATUS,
    "role": ROLES,
    "service_tier": TIERS,
    "truncation": words("auto disabled"),
    "generate_summary": words("auto concise detailed"),
    "billing_payer": words("developer openai"),
    "payer": words("developer openai"),
    "context": words("auto current_turn all_turns"),
    "mode": words("auto none required standard pro"),
    "prompt_cache_retention": words("in-memory in_memory 24h"),
    "button": words("left right wheel back forward"),
    "size": words("auto 1024x1024 1024x1536 1536x1024"),
    "output_format": words("png webp jpeg"),
    "background": words("auto transparent opaque"),
    "quality": words("auto low medium high standard hd"),
    "ranker": words("auto default-2024-11-15 default-2024-08-21"),
}
RESPONSES_RESPONSE = Structure(
    {
        **_HEAD,
        **_RESPONSE,
        **expanded(("response.",), _RESPONSE),
        **expanded(("item.",), _ITEM),
        "item_id": an_id,
        "annotation.file_id": an_id,
        "annotation.container_id": an_id,
        "partial_image_b64": base64,
        "part.file_id": an_id,
        "part.image_url": media,
        "delta": typed(base64, "response.audio.delta"),
        "conversation": an_id,
        "data[].id": an_id,
        "first_id": an_id,
        "last_id": an_id,
        "obfuscation": padding,
    },
    _RESPONSE_WORDS,
    RESPONSES.names
    | _NAMES
    | words(
        """response item part annotation sequence_number output_index content_index summary_index item_id delta
        partial_image_b64 partial_image_index annotation_index created_at completed_at incomplete_details billing payer
        max_output_tokens max_tool_calls prompt_cache_key safety_identifier user text verbosity reasoning effort
        generate_summary store tools output output_text reason diff command command_index stdout stderr outcome
        exit_code operation path revised_prompt b64_json filename score attributes has_more first_id last_id
        approval_request_id pending_safety_checks acknowledged_safety_checks arguments server_label
        x y button scroll_x scroll_y keys shell_call_output compaction parallel_tool_calls truncation
        presence_penalty frequency_penalty top_logprobs temperature top_p background moderation created_by fingerprint
        max_output_length execution environment program context mode max_num_results ranking_options ranker
        score_threshold message code param content_filters blocked source_type content_filter_raw
        content_filter_results start_offset end_offset check_offset request_id access_programs allowed_callers
        allowed_domains async cache_missed_tokens cache_write_tokens_details cached_image_tokens cached_text_tokens
        caller caller_id commands comparison_response_id comparison_reusable_tokens complexity context_compression
        cyber detailed_explanation domain domain_secrets embedding_weight error_type external_web_access file_url
        frame_count frame_duration_ms hybrid_search image image_gen input_transformations key logs media_type
        memory_limit misalignment moderation_details moderation_stage network_policy num_requests output_schema pattern
        num_server_side_tools_used web_search_calls x_search_calls code_interpreter_calls file_search_calls
        mcp_calls document_search_calls image_generation_calls collections_search_calls vector_store_id
        upstream_inference_input_cost upstream_inference_output_cost phase prompt_cache_breakpoint
        prompt_cache_diagnostics review_target search_content_types skill_id skills steer svg svg_usage
        text_weight ttl_12h_tokens ttl_30m_tokens tunnel_id value input_audio"""
    ),
    words(
        """metadata parameters schema input_schema annotations_metadata variables headers env filters attributes
        logit_bias output_schema"""
    ),
)

# ---- Anthropic ------------------------------------------------------------------------------------------------------

_BLOCK: Mapping[str, Shape] = {
    "id": an_id,
    "tool_use_id": an_id,
    "file_id": an_id,
    "signature": base64,
    "encrypted_content": base64,
    "encrypted_stdout": base64,
    "encrypted_index": base64,
    "data": typed(base64, "redacted_thinking"),
    "source.data": typed(media, "base64"),
    "source.file_id": an_id,
    "caller.tool_id": an_id,
    "citations[].encrypted_index": base64,
    "citations[].file_id": an_id,
}
_RESULTS = tuple(
    f"{block}{inner}"
    for block in ("content[].", "content_block.", "message.content[].")
    for inner in ("", "content[].", "content.", "content.content[].", "content.content.", "content.content.source.")
)
ANTHROPIC_RESPONSE = Structure(
    {
        "id": an_id,
        "message.id": an_id,
        "model": a_model,
        "message.model": a_model,
        "request_id": an_id,
        "container.id": an_id,
        "container.expires_at": a_time,
        "message.container.id": an_id,
        "message.container.expires_at": a_time,
        "delta.container.id": an_id,
        "delta.container.expires_at": a_time,
        "delta.signature": base64,
        "delta.citation.encrypted_index": base64,
        "delta.citation.file_id": an_id,
        **expanded(_RESULTS, {**_BLOCK, "retrieved_at": a_time}),
    },
    {
        **ANTHROPIC.words,
        "type": ANTHROPIC.words["type"]
        | words(
            """message message_start content_block_start content_block_delta content_block_stop message_delta
            message_stop ping error text_delta input_json_delta thinking_delta signature_delta citations_delta
            compaction_delta model_context_window_exceeded completion fallback mcp_tool_listing
            text_editor_code_execution_tool_result_error bash_code_execution_tool_result_error
            tool_search_tool_result_error overloaded_error invalid_request_error api_error rate_limit_error
            code_execution_20250825 code_execution_20260120 advisor_tool_result iteration message_iteration
            advisor_message advisor_redacted_result advisor_result advisor_tool_result_error
            encrypted_code_execution_result fallback_message mcp_tool_reference mcp_toolset_reference messages_changed
            model_changed not_applied redeemed refusal system_changed thinking_dropped tool_addition tool_definition
            tool_removal tools_changed unavailable tool_search_tool_bm25 tool_search_tool_regex object"""
        ),
        "stop_reason": FINISH
        | words(
            "end_turn max_tokens stop_sequence tool_use pause_turn refusal model_context_window_exceeded compaction"
        ),
        "service_tier": TIERS,
        "inference_geo": words("us global not_available"),
        "speed": words("standard fast"),
        "role": ROLES,
        "file_type": words("text image pdf"),
        "category": words("cyber bio frontier_llm general_harms reasoning_extraction"),
        "error_code": ANTHROPIC.words["error_code"]
        | words(
            """content_too_large execution_time_exceeded file_not_found model_not_found output_file_too_large overloaded
            prompt_too_long request_too_large unsupported_content_type url_not_accessible url_not_allowed
            url_not_in_prior_context"""
        ),
        "media_type": MIME,
    },
    ANTHROPIC.names
    | words(
        """message content_block delta partial_json citation usage stop_reason stop_sequence stop_details explanation
        category index error details request_id applied_edits cleared_tool_uses cleared_thinking_turns
        cleared_input_tokens context_management container expires_at input_tokens output_tokens
        cache_creation_input_tokens cache_read_input_tokens cache_creation ephemeral_5m_input_tokens
        ephemeral_1h_input_tokens server_tool_use web_search_requests web_fetch_requests iterations skills skill_id
        completion log_id truncated lines old_start old_lines new_start new_lines file_type num_lines start_line
        total_lines is_file_update tool_id amazon-bedrock-invocationMetrics inputTokenCount outputTokenCount
        invocationLatency firstByteLatency cacheReadInputTokenCount cacheWriteInputTokenCount model advisor
        amazon-bedrock-trace amazon-bedrock-guardrailAction thinking_tokens output_tokens_details reasoning_tokens
        from to cache_miss_reason cache_missed_input_tokens caching client_tool_results cursor_position definition
        diagnostics eager_input_streaming enable_zoom error_message estimated_tokens fallback_credit
        fallback_credit_token fallback_has_prefill_claim input_transformations path properties reason recommended_model
        remove_to_redeem required response_inclusion server_tool_results status tool tool_changes toolset_name
        url_sources use_cache user_input close_tab double_click file_upload find form_input get_page_text hold_key hover
        javascript_exec key left_click left_click_drag left_mouse_down left_mouse_up list_tabs middle_click mouse_move
        navigate new_tab read_console read_network read_page right_click screenshot scroll scroll_to switch_tab
        triple_click wait zoom"""
    ),
    words("input input_schema metadata schema configs amazon-bedrock-trace"),
)
ANTHROPIC_COMPLETE_RESPONSE = Structure(
    {"id": an_id, "model": a_model, "log_id": an_id},
    {**ANTHROPIC_RESPONSE.words, "stop_reason": FINISH | words("stop_sequence max_tokens")},
    ANTHROPIC_RESPONSE.names | words("exception truncated stop log_id"),
)

EVENT_NAMES = (
    _RESPONSE_WORDS["type"]
    | ANTHROPIC_RESPONSE.words["type"]
    | words(
        """message data error ping done end chat.completion.chunk text_completion completion message-start content-start
        content-delta content-end tool-plan-delta tool-call-start tool-call-delta tool-call-end citation-start
        citation-end message-end debug"""
    )
)
"""The names of server-sent events that a dialect here has."""
