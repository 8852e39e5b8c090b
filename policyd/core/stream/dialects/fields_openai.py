"""The structural fields of requests to OpenAI and Anthropic, and the words that all dialects share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policyd.core.stream.dialects.content import Shape, Structure, a_model, an_id, base64, media, typed


def expanded(prefixes: Iterable[str], fields: Mapping[str, Shape]) -> dict[str, Shape]:
    """The fields below each of the prefixes."""
    return {prefix + name: shape for prefix in prefixes for name, shape in fields.items()}


def words(*texts: str) -> frozenset[str]:
    """The words of these texts."""
    return frozenset(word for text in texts for word in text.split())


MIME = words(
    """image/png image/jpeg image/jpg image/gif image/webp image/heic image/heif image/bmp image/tiff application/pdf
    application/json text/plain text/html text/css text/csv text/markdown text/xml audio/wav audio/mp3 audio/mpeg
    audio/ogg audio/flac audio/aac audio/aiff audio/webm audio/mp4 audio/pcm video/mp4 video/mpeg video/webm
    video/quicktime video/x-flv video/3gpp video/avi video/mov video/mpegps video/wmv"""
)
_AUTO = words("auto none any required validated tool")
LEVELS = words("none minimal low medium high xhigh max auto default")
TIERS = words("auto default flex priority scale standard standard_only batch fast reserved on_demand")
ROLES = words("system developer user assistant tool function model chatbot critic ipython")


# ---- OpenAI ---------------------------------------------------------------------------------------------------------

_OPENAI_WORDS: Mapping[str, frozenset[str]] = {
    "role": ROLES,
    "type": words(
        """text image_url input_audio file refusal function custom allowed_tools json_object json_schema text_object
        content approximate ephemeral video_url audio_url document_url thinking grammar reasoning.text
        reasoning.summary reasoning.encrypted enabled disabled adaptive"""
    ),
    "tool_choice": _AUTO,
    "function_call": _AUTO,
    "mode": _AUTO,
    "detail": words("auto low high original"),
    "format": words("wav mp3 flac opus pcm16 aac text markdown json ogg m4a"),
    "service_tier": TIERS,
    "reasoning_effort": LEVELS,
    "effort": LEVELS,
    "verbosity": LEVELS,
    "search_context_size": LEVELS,
    "summary": words("auto concise detailed"),
    "modalities": words("text audio image"),
    "prompt_cache_retention": words("in-memory in_memory 24h"),
    "ttl": words("5m 1h"),
    "truncation": words("auto disabled"),
    "encoding_format": words("float base64"),
}

_CHAT_PART: Mapping[str, Shape] = {
    "image_url": media,
    "image_url.url": media,
    "input_audio.data": media,
    "file.file_data": media,
    "file.file_id": an_id,
    "video_url.url": media,
    "audio_url.url": media,
}

_CHAT_FIELDS: Mapping[str, Shape] = {
    "model": a_model,
    "models[]": a_model,
    "messages[].tool_call_id": an_id,
    "messages[].tool_calls[].id": an_id,
    "messages[].audio.id": an_id,
    "messages[].reasoning_details[].id": an_id,
    "messages[].reasoning_details[].data": base64,
    "messages[].reasoning_details[].signature": base64,
    **expanded(("messages[].content[].", "prediction.content[]."), _CHAT_PART),
}

_CHAT_NAMES = words(
    """model models messages role content name refusal tool_calls tool_call_id function_call audio id type function
    custom arguments input text image_url url detail input_audio data format file file_id file_data filename video_url
    audio_url tools functions description parameters strict grammar definition syntax tool_choice allowed_tools mode
    parallel_tool_calls stream stream_options include_usage include_obfuscation max_tokens max_completion_tokens
    temperature top_p top_k min_p top_a n best_of stop seed random_seed presence_penalty frequency_penalty
    repetition_penalty logit_bias logprobs top_logprobs echo response_format json_schema schema prediction
    reasoning_effort reasoning verbosity modalities voice store metadata user safety_identifier prompt_cache_key
    prompt_cache_retention service_tier web_search_options user_location approximate search_context_size city country
    region timezone cache_control ttl reasoning_content reasoning_details signature summary provider plugins transforms
    route fallbacks prompt suffix safe_prompt prefix document_url image_detail thinking budget_tokens documents
    chat_template chat_template_kwargs extra_body guided_json search_parameters compound_custom exclude enabled effort
    encrypted data suffix min_tokens ignore_eos stop_token_ids use_beam_search length_penalty early_stopping
    add_generation_prompt continue_final_message skip_special_tokens truncation encoding_format dimensions"""
)
_CHAT_FREE = words(
    """metadata arguments parameters schema logit_bias chat_template_kwargs extra_body guided_json documents
    compound_custom search_parameters provider plugins"""
)

CHAT = Structure(_CHAT_FIELDS, _OPENAI_WORDS, _CHAT_NAMES, _CHAT_FREE)
COMPLETIONS = Structure({"model": a_model}, _OPENAI_WORDS, _CHAT_NAMES, _CHAT_FREE)
EMBEDDINGS = Structure(
    {
        "model": a_model,
        **expanded(("input[].", "input[].content[].", "messages[].content[]."), {"image": media, "image_url": media}),
        **expanded(("input[].", "input[].content[].", "messages[].content[]."), {"image_url.url": media}),
    },
    {**_OPENAI_WORDS, "input_type": words("query document search_query search_document passage")},
    _CHAT_NAMES | words("input_type task output_dtype output_dimension image"),
    _CHAT_FREE,
)

# ---- OpenAI Responses -----------------------------------------------------------------------------------------------

_RESPONSES_WORDS = {
    **_OPENAI_WORDS,
    "type": words(
        """message input_text output_text input_image input_file input_audio refusal summary_text reasoning_text text
        reasoning item_reference function_call function_call_output custom_tool_call custom_tool_call_output
        web_search_call file_search_call code_interpreter_call image_generation_call mcp_call mcp_list_tools
        mcp_approval_request mcp_approval_response computer_call computer_call_output local_shell_call
        local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output compaction
        tool_search_call tool_search_output function custom namespace mcp web_search web_search_preview file_search
        code_interpreter image_generation computer_use_preview computer local_shell shell apply_patch tool_search
        allowed_tools json_object json_schema approximate url_citation file_citation computer_screenshot grammar
        input_audio exec create_file update_file delete_file auto click double_click drag keypress move screenshot
        scroll wait exit timeout search open_page find_in_page logs image"""
    ),
    "status": words("in_progress completed incomplete failed searching interpreting calling queued"),
    "phase": words("commentary final_answer"),
    "include": words(
        """file_search_call.results message.input_image.image_url computer_call_output.output.image_url
        reasoning.encrypted_content code_interpreter_call.outputs message.output_text.logprobs
        web_search_call.action.sources web_search_call.results"""
    ),
    "require_approval": words("always never"),
    "connector_id": words(
        """connector_dropbox connector_gmail connector_googlecalendar connector_googledrive
        connector_microsoftteams connector_outlookcalendar connector_outlookemail connector_sharepoint"""
    ),
}
_RESPONSES_PART: Mapping[str, Shape] = {
    "image_url": media,
    "file_data": media,
    "file_id": an_id,
    "input_audio.data": media,
}
_RESPONSES_FIELDS: Mapping[str, Shape] = {
    "model": a_model,
    "previous_response_id": an_id,
    "conversation": an_id,
    "conversation.id": an_id,
    "prompt.id": an_id,
    "tools[].vector_store_ids[]": an_id,
    "tools[].container": an_id,
    "tools[].container.file_ids[]": an_id,
    "input[].id": an_id,
    "input[].call_id": an_id,
    "input[].approval_request_id": an_id,
    "input[].container_id": an_id,
    "input[].encrypted_content": base64,
    "input[].result": base64,
    "input[].output.file_id": an_id,
    "input[].output.image_url": media,
    **expanded(("input[].content[].", "input[].output[]."), _RESPONSES_PART),
}
RESPONSES = Structure(
    _RESPONSES_FIELDS,
    _RESPONSES_WORDS,
    _CHAT_NAMES
    | words(
        """instructions input previous_response_id conversation include max_output_tokens max_tool_calls background
        truncation call_id status output encrypted_content image_url variables version phase annotations
        server_label server_url server_description connector_id authorization headers allowed_tools require_approval
        vector_store_ids max_num_results filters ranking_options container file_ids queries results action actions
        query sources code outputs output error approval_request_id approve reason container_id
        display_width display_height environment pending_safety_checks acknowledged_safety_checks command env
        working_directory timeout_ms operation diff path exit_code stdout stderr outcome max_output_length tool_names
        read_only always never context_management compact_threshold prompt_cache_options namespace defer_loading
        quality size background output_format output_compression moderation input_fidelity input_image_mask
        partial_images result"""
    ),
    _CHAT_FREE | words("variables headers env filters attributes"),
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
}
_BLOCKS = (
    "messages[].content[].",
    "messages[].content[].content[].",
    "messages[].content[].content.",
    "messages[].content[].content.content[].",
    "messages[].content[].source.content[].",
    "messages[].content[].content[].source.content[].",
    "messages[].content[].citations[].",
    "system[].",
)
ANTHROPIC = Structure(
    {"model": a_model, "container": an_id, "container.id": an_id, **expanded(_BLOCKS, _BLOCK)},
    {
        "role": ROLES,
        "type": words(
            """text image document base64 url content file tool_use tool_result thinking redacted_thinking
            search_result server_tool_use mcp_tool_use mcp_tool_result web_search_tool_result web_search_result
            web_search_tool_result_error web_fetch_tool_result web_fetch_result web_fetch_tool_result_error
            code_execution_tool_result code_execution_result code_execution_output code_execution_tool_result_error
            bash_code_execution_tool_result bash_code_execution_result bash_code_execution_output
            text_editor_code_execution_tool_result text_editor_code_execution_view_result
            text_editor_code_execution_create_result text_editor_code_execution_str_replace_result
            tool_search_tool_result tool_search_tool_search_result tool_reference container_upload compaction
            compact_20260112 ephemeral auto any tool none enabled disabled adaptive custom approximate url mcp_toolset
            char_location page_location content_block_location web_search_result_location search_result_location
            clear_tool_uses_20250919 clear_thinking_20251015 input_tokens tool_uses thinking_turns direct
            json_schema anthropic"""
        ),
        "media_type": MIME,
        "ttl": words("5m 1h"),
        "service_tier": TIERS,
        "speed": words("standard fast"),
        "effort": LEVELS,
        "inference_geo": words("us global"),
        "error_code": words(
            "invalid_tool_input unavailable max_uses_exceeded too_many_requests query_too_long url_too_long"
        ),
    },
    words(
        """model max_tokens messages system role content type text source media_type data url id name input tool_use_id
        is_error thinking signature cache_control ttl citations enabled title context tools description input_schema
        tool_choice disable_parallel_tool_use stream stop_sequences temperature top_k top_p metadata user_id
        budget_tokens service_tier container skills skill_id version mcp_servers mcp_server_name authorization_token
        tool_configuration allowed_tools server_name server_tool_use mcp_toolset default_config configs
        context_management edits trigger keep value clear_at_least exclude_tools clear_tool_inputs anthropic_version
        anthropic_beta betas cited_text document_index document_title start_char_index end_char_index
        start_page_number end_page_number start_block_index end_block_index file_id encrypted_content encrypted_index
        page_age stdout stderr return_code error_code retrieved_at display output_config output_format format schema
        effort speed inference_geo max_uses allowed_domains blocked_domains user_location city country region timezone
        display_width_px display_height_px display_number max_characters max_content_tokens defer_loading
        allowed_callers strict input_examples caller tool_references tool_name pause_after_compaction instructions
        search_result_index encrypted_stdout prompt max_tokens_to_sample"""
    ),
    words("input input_schema metadata schema configs input_examples"),
)
ANTHROPIC_COMPLETE = Structure({"model": a_model}, {}, ANTHROPIC.names, words("metadata"))
