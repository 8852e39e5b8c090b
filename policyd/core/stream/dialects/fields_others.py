"""The structural fields of requests to Gemini, Bedrock, Cohere, Ollama, Hugging Face and MCP servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policyd.core.stream.dialects.content import Shape, Structure, a_model, an_id, base64, media, typed
from policyd.core.stream.dialects.fields_openai import ANTHROPIC, CHAT, LEVELS, MIME, ROLES, TIERS, expanded, words

# ---- Gemini ---------------------------------------------------------------------------------------------------------

_GEMINI_PART: Mapping[str, Shape] = {
    "thoughtSignature": base64,
    "thought_signature": base64,
    "inlineData.data": media,
    "inline_data.data": media,
    "functionCall.id": an_id,
    "function_call.id": an_id,
    "functionResponse.id": an_id,
    "function_response.id": an_id,
    "functionResponse.parts[].inlineData.data": media,
    "function_response.parts[].inline_data.data": media,
}
_GEMINI_PARTS = tuple(
    f"{holder}{parts}."
    for holder in (
        "contents[].", "contents.", "systemInstruction.", "system_instruction.", "content.", "requests[].content."
    )
    for parts in ("parts[]", "parts")
)  # fmt: skip
GEMINI = Structure(
    {"model": a_model, "requests[].model": a_model, **expanded(_GEMINI_PARTS, _GEMINI_PART)},
    {
        "role": ROLES,
        "mimeType": MIME,
        "mime_type": MIME,
        "mode": words("AUTO ANY NONE VALIDATED MODE_UNSPECIFIED MODE_DYNAMIC"),
        "responseMimeType": MIME | words("text/x.enum"),
        "response_mime_type": MIME | words("text/x.enum"),
        "language": words("PYTHON LANGUAGE_UNSPECIFIED"),
        "outcome": words("OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED OUTCOME_UNSPECIFIED"),
        "responseModalities": words("TEXT IMAGE AUDIO"),
        "response_modalities": words("TEXT IMAGE AUDIO"),
        "mediaResolution": words("MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH"),
        "thinkingLevel": LEVELS | words("LOW HIGH MEDIUM MINIMAL"),
        "taskType": words(
            """RETRIEVAL_QUERY RETRIEVAL_DOCUMENT SEMANTIC_SIMILARITY CLASSIFICATION CLUSTERING QUESTION_ANSWERING
            FACT_VERIFICATION CODE_RETRIEVAL_QUERY"""
        ),
        "category": words(
            """HARM_CATEGORY_HARASSMENT HARM_CATEGORY_HATE_SPEECH HARM_CATEGORY_SEXUALLY_EXPLICIT
            HARM_CATEGORY_DANGEROUS_CONTENT HARM_CATEGORY_CIVIC_INTEGRITY"""
        ),
        "threshold": words("BLOCK_NONE BLOCK_ONLY_HIGH BLOCK_MEDIUM_AND_ABOVE BLOCK_LOW_AND_ABOVE OFF"),
        "type": words("STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL TYPE_UNSPECIFIED"),
        "behavior": words("BLOCKING NON_BLOCKING UNSPECIFIED"),
        "scheduling": words("SILENT WHEN_IDLE INTERRUPT SCHEDULING_UNSPECIFIED"),
        "serviceTier": TIERS,
    },
    words(
        """contents role parts text thought inlineData inline_data mimeType mime_type data fileData file_data fileUri
        file_uri functionCall function_call functionResponse function_response name args response executableCode
        executable_code language code codeExecutionResult code_execution_result outcome output videoMetadata
        video_metadata startOffset endOffset fps systemInstruction system_instruction tools functionDeclarations
        function_declarations description parameters parametersJsonSchema responseJsonSchema behavior googleSearch
        google_search googleSearchRetrieval google_search_retrieval dynamicRetrievalConfig codeExecution code_execution
        urlContext url_context retrieval googleMaps google_maps computerUse computer_use fileSearch file_search
        mcpServers mcp_servers toolConfig tool_config functionCallingConfig function_calling_config mode
        allowedFunctionNames allowed_function_names retrievalConfig latLng latitude longitude languageCode
        safetySettings safety_settings category threshold method generationConfig generation_config stopSequences
        stop_sequences responseMimeType response_mime_type responseSchema response_schema responseModalities
        response_modalities candidateCount candidate_count maxOutputTokens max_output_tokens temperature topP top_p
        topK top_k seed presencePenalty frequencyPenalty responseLogprobs logprobs speechConfig speech_config
        voiceConfig prebuiltVoiceConfig voiceName thinkingConfig thinking_config includeThoughts thinkingBudget
        thinkingLevel mediaResolution cachedContent cached_content labels content requests taskType task_type title
        outputDimensionality model willContinue scheduling serviceTier enableEnhancedCivicAnswers"""
    ),
    words(
        """args response parameters parametersJsonSchema responseJsonSchema responseSchema response_schema labels
        parameters_json_schema"""
    ),
)

# ---- Bedrock --------------------------------------------------------------------------------------------------------

_CONVERSE_BLOCK: Mapping[str, Shape] = {
    **{f"{kind}.source.bytes": media for kind in ("image", "document", "video", "audio")},
    "toolUse.toolUseId": an_id,
    "toolResult.toolUseId": an_id,
    "reasoningContent.reasoningText.signature": base64,
    "reasoningContent.redactedContent": base64,
    "guardContent.image.source.bytes": media,
}
_CONVERSE_FIELDS = expanded(
    (
        "messages[].content[].",
        "messages[].content[].toolResult.content[].",
        "messages[].content[].document.source.content[].",
        "system[].",
    ),
    _CONVERSE_BLOCK,
)
_CONVERSE_WORDS: Mapping[str, frozenset[str]] = {
    "role": ROLES,
    "format": words("png jpeg gif webp pdf csv doc docx xls xlsx html txt md mp4 mkv mov webm flv mpeg mpg wmv mp3"),
    "status": words("success error"),
    "type": words("default ephemeral"),
    "trace": words("enabled disabled enabled_full"),
    "latency": words("standard optimized"),
    "schemaVersion": words("messages-v1"),
    "streamProcessingMode": words("sync async"),
    "qualifiers": words("grounding_source query guard_content"),
    "ttl": words("5m 1h"),
}
_CONVERSE_NAMES = words(
    """messages role content text image format source bytes s3Location uri bucketOwner document name context citations
    enabled video audio toolUse toolUseId input toolResult json status type guardContent qualifiers cachePoint ttl
    reasoningContent reasoningText signature redactedContent citationsContent searchResult title system inferenceConfig
    maxTokens max_new_tokens temperature topP top_p topK stopSequences toolConfig tools toolSpec description
    inputSchema strict systemTool toolChoice auto any tool guardrailConfig guardrailIdentifier guardrailVersion trace
    streamProcessingMode additionalModelRequestFields additionalModelResponseFieldPaths promptVariables requestMetadata
    performanceConfig latency serviceTier schemaVersion outputConfig location sourceContent"""
)
_CONVERSE_FREE = words("input json inputSchema additionalModelRequestFields promptVariables requestMetadata")
CONVERSE = Structure(_CONVERSE_FIELDS, _CONVERSE_WORDS, _CONVERSE_NAMES, _CONVERSE_FREE)

# ---- Cohere ---------------------------------------------------------------------------------------------------------

_COHERE_PART: Mapping[str, Shape] = {"image_url.url": media, "image_url": media}
COHERE = Structure(
    {
        "model": a_model,
        "messages[].tool_call_id": an_id,
        "messages[].tool_calls[].id": an_id,
        "images[]": media,
        **expanded(("messages[].content[].", "inputs[].content[]."), _COHERE_PART),
    },
    {
        "role": ROLES | words("USER CHATBOT SYSTEM TOOL"),
        "type": words("text image_url document function json_object thinking enabled disabled tool_result"),
        "citation_mode": words("FAST ACCURATE OFF fast accurate off enabled disabled"),
        "mode": words("FAST ACCURATE OFF"),
        "citation_quality": words("fast accurate off"),
        "safety_mode": words("CONTEXTUAL STRICT OFF NONE"),
        "prompt_truncation": words("OFF AUTO AUTO_PRESERVE_ORDER"),
        "truncate": words("NONE START END"),
        "tool_choice": words("REQUIRED NONE"),
        "input_type": words("search_document search_query classification clustering image"),
        "embedding_types": words("float int8 uint8 binary ubinary base64"),
        "return_likelihoods": words("GENERATION ALL NONE"),
        "detail": words("auto low high"),
    },
    words(
        """model messages message role content text type image_url url detail document id data tool_calls tool_call_id
        function name arguments parameters parameter_definitions description tool_plan citations tools strict_tools
        documents citation_options mode response_format schema json_schema safety_mode max_tokens stop_sequences
        temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking token_budget stream
        preamble chat_history conversation_id prompt_truncation connectors search_queries_only citation_quality
        tool_results call outputs raw_prompting force_single_step max_input_tokens prompt num_generations truncate
        end_sequences return_likelihoods preset texts images inputs input_type embedding_types output_dimension options
        raw priority logit_bias required"""
    ),
    words("arguments parameters parameter_definitions documents schema json_schema data outputs options logit_bias"),
)

# ---- Ollama, Hugging Face, MCP --------------------------------------------------------------------------------------

OLLAMA = Structure(
    {
        "model": a_model,
        "messages[].images[]": media,
        "messages[].tool_call_id": an_id,
        "messages[].tool_calls[].id": an_id,
        "images[]": media,
    },
    {"role": ROLES, "type": words("function"), "format": words("json"), "think": LEVELS},
    words(
        """model messages role content thinking images tool_calls tool_call_id tool_name id type function name
        arguments description parameters tools stream format options keep_alive think prompt suffix system template
        context raw input truncate dimensions num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n
        temperature repeat_penalty presence_penalty frequency_penalty penalize_newline stop numa num_ctx num_batch
        num_gpu main_gpu use_mmap num_thread logprobs top_logprobs index width height steps"""
    ),
    words("arguments parameters format"),
)

HUGGINGFACE = Structure(
    {"model": a_model},
    {"type": words("json regex json_schema")},
    words(
        """inputs parameters stream model adapter_id best_of decoder_input_details details do_sample frequency_penalty
        grammar value max_new_tokens repetition_penalty return_full_text seed stop temperature top_k top_n_tokens top_p
        truncate typical_p watermark type"""
    ),
    words("value grammar"),
)

MCP = Structure(
    {
        f"{item}{name}": shape
        for item in ("", "[].")
        for name, shape in {
            "id": an_id,
            "params._meta.progressToken": an_id,
            "params.content[].data": typed(media, "image", "audio"),
            "result.content[].data": typed(media, "image", "audio"),
            "result.content.data": typed(media, "image", "audio"),
            "result.contents[].blob": media,
        }.items()
    },
    {
        "jsonrpc": words("2.0"),
        "role": ROLES,
        "method": words(
            """initialize ping tools/call tools/list resources/list resources/read resources/subscribe
            resources/unsubscribe resources/templates/list prompts/list prompts/get completion/complete
            logging/setLevel notifications/initialized notifications/cancelled notifications/progress
            notifications/roots/list_changed sampling/createMessage elicitation/create roots/list"""
        ),
        "type": words("text image audio resource resource_link ref/prompt ref/resource"),
        "mimeType": MIME,
        "action": words("accept decline cancel"),
        "stopReason": words("endTurn stopSequence maxTokens toolUse"),
        "level": words("debug info notice warning error critical alert emergency"),
    },
    words(
        """jsonrpc id method params name arguments _meta progressToken result error code message data protocolVersion
        capabilities clientInfo version title uri cursor content role type text mimeType blob model stopReason action
        roots isError structuredContent contents resource ref argument value context level requestId reason progress
        total listChanged sampling elicitation experimental"""
    ),
    words("arguments structuredContent capabilities"),
)

# ---- Bedrock's InvokeModel: the bodies of many families -------------------------------------------------------------

_INVOKED = (CHAT, ANTHROPIC, CONVERSE, COHERE)


def together(structures: Iterable[Structure]) -> Structure:
    fields: dict[str, Shape] = {}
    words: dict[str, frozenset[str]] = {}
    names, free = frozenset[str](), frozenset[str]()
    for one in structures:
        fields |= one.fields
        for name, known in one.words.items():
            words[name] = words.get(name, frozenset()) | known
        names, free = names | one.names, free | one.free
    return Structure(fields, words, names, free)


INVOKE = together(
    (
        *_INVOKED,
        Structure(
            {"inputImage": media},
            {"embeddingTypes": words("float binary")},
            words(
                """inputText inputImage textGenerationConfig maxTokenCount stopSequences max_gen_len maxTokens texts
                countPenalty presencePenalty frequencyPenalty scale applyToNumbers numResults embeddingConfig
                outputEmbeddingLength embeddingTypes normalize dimensions"""
            ),
        ),
    )
)
