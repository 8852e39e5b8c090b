"""The structural fields of responses of Gemini, Bedrock, Cohere, Ollama, Hugging Face and MCP servers."""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.stream.dialects.content import Shape, Structure, a_model, a_time, an_id, base64, media
from policyd.core.stream.dialects.fields_openai import MIME, ROLES, TIERS, expanded, words
from policyd.core.stream.dialects.fields_others import COHERE, CONVERSE, GEMINI, MCP, OLLAMA, together
from policyd.core.stream.dialects.response_openai import (
    ANTHROPIC_COMPLETE_RESPONSE,
    ANTHROPIC_RESPONSE,
    CHAT_RESPONSE,
    EMBEDDINGS_RESPONSE,
    FINISH,
    padding,
)

# ---- Gemini ---------------------------------------------------------------------------------------------------------

_PART: Mapping[str, Shape] = {
    "thoughtSignature": base64,
    "inlineData.data": media,
    "functionCall.id": an_id,
    "functionResponse.id": an_id,
    "functionResponse.parts[].inlineData.data": media,
    "toolCall.id": an_id,
    "toolResponse.id": an_id,
    "executableCode.id": an_id,
    "codeExecutionResult.id": an_id,
}
_PROBABILITY = words("NEGLIGIBLE LOW MEDIUM HIGH HARM_PROBABILITY_UNSPECIFIED")
GEMINI_RESPONSE = Structure(
    {
        "modelVersion": a_model,
        "responseId": an_id,
        "createTime": a_time,
        **expanded(("candidates[].content.parts[].",), _PART),
    },
    {
        **GEMINI.words,
        "finishReason": words(
            """STOP MAX_TOKENS SAFETY RECITATION LANGUAGE OTHER BLOCKLIST PROHIBITED_CONTENT SPII
            MALFORMED_FUNCTION_CALL
            IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_OTHER NO_IMAGE IMAGE_RECITATION UNEXPECTED_TOOL_CALL
            TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE FINISH_REASON_UNSPECIFIED MALFORMED_RESPONSE"""
        ),
        "blockReason": words("SAFETY OTHER BLOCKLIST PROHIBITED_CONTENT IMAGE_SAFETY BLOCK_REASON_UNSPECIFIED"),
        "category": GEMINI.words["category"] | words("HARM_CATEGORY_JAILBREAK HARM_CATEGORY_UNSPECIFIED"),
        "probability": _PROBABILITY,
        "severity": words(
            """HARM_SEVERITY_NEGLIGIBLE HARM_SEVERITY_LOW HARM_SEVERITY_MEDIUM HARM_SEVERITY_HIGH
            HARM_SEVERITY_UNSPECIFIED"""
        ),
        "modality": words("TEXT IMAGE AUDIO VIDEO DOCUMENT MODALITY_UNSPECIFIED"),
        "trafficType": words("ON_DEMAND PROVISIONED_THROUGHPUT ON_DEMAND_PRIORITY ON_DEMAND_FLEX"),
        "urlRetrievalStatus": words(
            """URL_RETRIEVAL_STATUS_SUCCESS URL_RETRIEVAL_STATUS_ERROR URL_RETRIEVAL_STATUS_UNSPECIFIED
            URL_RETRIEVAL_STATUS_PAYWALL URL_RETRIEVAL_STATUS_UNSAFE"""
        ),
        "modelStage": words("STABLE LEGACY DEPRECATED PREVIEW EXPERIMENTAL RETIRED"),
        "role": ROLES,
        "status": words(
            """INVALID_ARGUMENT UNAUTHENTICATED PERMISSION_DENIED NOT_FOUND ABORTED RESOURCE_EXHAUSTED CANCELLED
            INTERNAL
            UNAVAILABLE DEADLINE_EXCEEDED FAILED_PRECONDITION"""
        ),
        "toolType": words("GOOGLE_SEARCH_WEB GOOGLE_SEARCH_IMAGE URL_CONTEXT GOOGLE_MAPS FILE_SEARCH"),
        "serviceTier": TIERS,
        "@type": words(
            """type.googleapis.com/google.rpc.ErrorInfo type.googleapis.com/google.rpc.Help
            type.googleapis.com/google.rpc.LocalizedMessage type.googleapis.com/google.rpc.QuotaFailure
            type.googleapis.com/google.rpc.RetryInfo type.googleapis.com/google.rpc.BadRequest
            type.googleapis.com/google.rpc.DebugInfo"""
        ),
    },
    GEMINI.names
    | words(
        """candidates promptFeedback usageMetadata modelVersion responseId createTime modelStatus modelStage message
        retirementTime automaticFunctionCallingHistory finishReason finishMessage index safetyRatings citationMetadata
        tokenCount groundingMetadata groundingAttributions avgLogprobs logprobsResult urlContextMetadata score
        urlRetrievalMetadata urlMetadata retrievedUrl urlRetrievalStatus blocked probability probabilityScore severity
        severityScore overwrittenThreshold blockReason blockReasonMessage promptTokenCount candidatesTokenCount
        responseTokenCount totalTokenCount cachedContentTokenCount thoughtsTokenCount toolUsePromptTokenCount
        promptTokensDetails cacheTokensDetails candidatesTokensDetails responseTokensDetails toolUsePromptTokensDetails
        modality trafficType citations citationSources uri title license publicationDate startIndex endIndex
        groundingChunks groundingSupports web domain segment partIndex groundingChunkIndices confidenceScores
        webSearchQueries searchEntryPoint renderedContent sdkBlob retrievalMetadata retrievalQueries
        googleSearchDynamicRetrievalScore sourceId content topCandidates chosenCandidates token logProbability tokenId
        thoughtSignature error code status details @type reason domain metadata links description quotaValue violations
        partialArgs willContinue jsonPath stringValue numberValue boolValue nullValue toolCall toolResponse toolType
        embedding embeddings values statistics truncated billableCharacterCount retrievedContext maps placeId
        groundingSources reviewSnippets googleMapsWidgetContextToken imageSearchQueries image sourceUri imageUri
        fileSearchStore pageNumber mediaId customMetadata retryDelay locale audioMetadata audioTranscription
        authorAttribution body chunkId contentLayers continuationToken day displayName distanceMeters documentMetadata
        documentName duration encodedPolyline endPage fileId finished firstPage flagContentUri googleMapsUri key
        lastPage level logProbabilitySum mediaProcessing month numTokens numericValue pageSpan partMetadata photoUri
        placeAnswerSources ragChunk relativePublishTimeDescription renderedParts review reviewId route sheetIndex
        sourceFlaggingUris speaker speakerLabel speechMetadata spreadsheetMetadata startPage stringListValue style
        visibleCells word words year
        quotaMetric quotaId quotaDimensions flaggedReasons"""
    ),
    words("args response parameters metadata customMetadata quotaDimensions parametersJsonSchema responseSchema"),
)

# ---- Bedrock --------------------------------------------------------------------------------------------------------

_METRICS = words(
    """amazon-bedrock-invocationMetrics inputTokenCount outputTokenCount invocationLatency firstByteLatency
    cacheReadInputTokenCount cacheWriteInputTokenCount amazon-bedrock-trace amazon-bedrock-guardrailAction guardrail
    inputAssessment outputAssessments modelOutput invocationMetrics topicPolicy contentPolicy wordPolicy
    sensitiveInformationPolicy contextualGroundingPolicy automatedReasoningPolicy topics filters customWords
    managedWordLists piiEntities regexes match detected action type confidence filterStrength
    guardrailProcessingLatency usage topicPolicyUnits contentPolicyUnits wordPolicyUnits
    sensitiveInformationPolicyUnits sensitiveInformationPolicyFreeUnits contextualGroundingPolicyUnits
    contentPolicyImageUnits automatedReasoningPolicyUnits automatedReasoningPolicies
    guardrailCoverage textCharacters images guarded total threshold score actionReason
    appliedGuardrailDetails guardrailId guardrailVersion guardrailArn guardrailOrigin guardrailOwnership"""
)
_TRACE_WORDS: Mapping[str, frozenset[str]] = {
    "action": words("BLOCKED NONE ANONYMIZED GUARDRAIL_INTERVENED"),
    "confidence": words("NONE LOW MEDIUM HIGH"),
    "filterStrength": words("NONE LOW MEDIUM HIGH"),
    "amazon-bedrock-guardrailAction": words("NONE INTERVENED GUARDRAIL_INTERVENED"),
}
CONVERSE_RESPONSE = Structure(
    {
        **{
            f"{block}{name}": shape
            for block in ("output.message.content[].", "start.", "delta.")
            for name, shape in {
                "toolUse.toolUseId": an_id,
                "toolResult.toolUseId": an_id,
                "reasoningContent.reasoningText.signature": base64,
                "reasoningContent.redactedContent": base64,
                "reasoningContent.signature": base64,
                "image.source.bytes": media,
                "audio.source.bytes": media,
                "video.source.bytes": media,
            }.items()
        },
        "p": padding,
    },
    {
        **CONVERSE.words,
        **_TRACE_WORDS,
        "stopReason": words(
            """end_turn tool_use max_tokens stop_sequence guardrail_intervened content_filtered malformed_model_output
            malformed_tool_use model_context_window_exceeded"""
        ),
        "type": CONVERSE.words["type"] | words("server_tool_use"),
        "ttl": words("5m 1h"),
        "status": words("success error"),
    },
    CONVERSE.names
    | _METRICS
    | words(
        """output message stopReason metrics latencyMs trace additionalModelResponseFields performanceConfig serviceTier
        inputTokens outputTokens totalTokens cacheReadInputTokens cacheWriteInputTokens cacheDetails usage delta start
        contentBlockIndex citation citations citationsContent location sourceContent p messageStart contentBlockStart
        contentBlockDelta contentBlockStop messageStop metadata promptRouter invokedModelId source searchResultLocation
        documentChar documentPage documentChunk documentIndex end searchResultIndex web url domain
        cacheReadInputTokenCount cacheWriteInputTokenCount originalStatusCode originalMessage Message __type error
        serverName options stream toolAddition toolRemoval internalServerException modelStreamErrorException
        serviceUnavailableException throttlingException validationException"""
    ),
    words("input json additionalModelResponseFields trace amazon-bedrock-trace"),
)
_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")
_NOVA = Structure(
    expanded((f"{event}." for event in _EVENTS), CONVERSE_RESPONSE.fields),
    CONVERSE_RESPONSE.words,
    CONVERSE_RESPONSE.names,
    CONVERSE_RESPONSE.free,
)
TEXT_RESPONSE = Structure(
    {"id": an_id, "model": a_model, "completions[].id": an_id},
    {
        **_TRACE_WORDS,
        "completionReason": words(
            "FINISH FINISHED LENGTH STOP_CRITERIA_MET RAG_QUERY_WHEN_RAG_DISABLED CONTENT_FILTERED"
        ),
        "stop_reason": FINISH,
        "finish_reason": FINISH,
        "finishReason": FINISH,
        "reason": FINISH | words("endoftext length stop"),
        "type": words("completion error"),
        "event_type": words("text-generation stream-end"),
        "object": words("text_completion"),
    },
    _METRICS
    | words(
        """outputText generation completion text results completions data outputs generations choices completionReason
        stop_reason finish_reason finishReason reason index type stop id prompt is_finished event_type model object
        created system_fingerprint response inputTextTokenCount totalOutputTextTokenCount prompt_token_count
        generation_token_count tokenCount tokens generatedToken token logprob raw_logprob topTokens textRange start end
        likelihood token_likelihoods logprobs usage prompt_tokens completion_tokens total_tokens embedding
        embeddingsByType embeddings texts message error response_type images amazon-bedrock-trace
        prompt_token_details request_count"""
    ),
    words("amazon-bedrock-trace"),
)

# ---- Cohere ---------------------------------------------------------------------------------------------------------

COHERE_FINISH = FINISH | words(
    """COMPLETE STOP_SEQUENCE MAX_TOKENS TOOL_CALL ERROR TIMEOUT ERROR_TOXIC ERROR_LIMIT USER_CANCEL complete max_tokens
    tool_call stop_sequence error"""
)
COHERE_RESPONSE = Structure(
    {
        "id": an_id,
        "response_id": an_id,
        "generation_id": an_id,
        "conversation_id": an_id,
        "response.response_id": an_id,
        "response.generation_id": an_id,
        "response.id": an_id,
        "generations[].id": an_id,
        "response.generations[].id": an_id,
        "model": a_model,
        "meta.api_version.version": an_id,
        "response.meta.api_version.version": an_id,
        **expanded(("message.tool_calls[].", "delta.message.tool_calls."), {"id": an_id}),
        "embeddings.base64[]": base64,
        "message.citations[].sources[].id": an_id,
        "delta.message.citations.sources[].id": an_id,
    },
    {
        **COHERE.words,
        "type": COHERE.words["type"]
        | words(
            """message-start content-start content-delta content-end tool-plan-delta tool-call-start tool-call-delta
            tool-call-end citation-start citation-end message-end debug [DONE] tool document text TEXT_CONTENT PLAN
            THINKING_CONTENT"""
        ),
        "event_type": words(
            """stream-start text-generation search-queries-generation search-results citation-generation
            tool-calls-chunk tool-calls-generation stream-end stream-error debug"""
        ),
        "finish_reason": COHERE_FINISH,
        "response_type": words("embeddings_floats embeddings_by_type"),
    },
    COHERE.names
    | words(
        """response_id generation_id chat_history finish_reason meta citations documents search_results search_queries
        is_search_required prompt event_type is_finished preamble conversation_id response delta usage index start end
        sources tool tool_output document_ids api_version version billed_units input_tokens output_tokens tokens
        search_units classifications cached_tokens warnings is_deprecated is_experimental generations likelihood
        token_likelihoods token tool_call_delta content_index embeddings float int8 uint8 binary ubinary base64 error
        search_query connector document_id logprobs token_ids image_tokens images response_type result results text
        width height format bit_depth continue_on_failure error_message connector_id pages text_tokens"""
    ),
    words("parameters tool_output outputs documents document data"),
)

# ---- Ollama, Hugging Face, MCP --------------------------------------------------------------------------------------

OLLAMA_RESPONSE = Structure(
    {
        "model": a_model,
        "remote_model": a_model,
        "created_at": a_time,
        "message.tool_calls[].id": an_id,
        "message.images[]": media,
        "image": media,
    },
    {**OLLAMA.words, "done_reason": FINISH},
    OLLAMA.names
    | words(
        """created_at done done_reason message response thinking remote_model remote_host logprobs context
        total_duration
        load_duration prompt_eval_count prompt_eval_duration eval_count eval_duration token bytes logprob top_logprobs
        images error embedding embeddings completed total image code value"""
    ),
    words("arguments"),
)

HUGGINGFACE_RESPONSE = Structure(
    {},
    {"finish_reason": FINISH, "error_type": words("validation generation overloaded incomplete_generation")},
    words(
        """generated_text details token index top_tokens id text logprob special finish_reason generated_tokens seed
        input_length prefill tokens best_of_sequences error error_type"""
    ),
)

MCP_RESPONSE = Structure(
    {
        **MCP.fields,
        **{
            f"{item}{name}": shape
            for item in ("", "[].")
            for name, shape in {
                "result.content[].resource.blob": media,
                "result.icons[].src": media,
                "params._meta.io.modelcontextprotocol/related-task.taskId": an_id,
            }.items()
        },
    },
    {
        **MCP.words,
        "protocolVersion": words("2024-11-05 2025-03-26 2025-06-18 2025-11-25"),
        "mimeType": MIME,
    },
    MCP.names
    | words(
        """result error tools prompts resources resourceTemplates uriTemplate inputSchema outputSchema annotations title
        description serverInfo instructions nextCursor logging completions subscribe readOnlyHint destructiveHint
        idempotentHint openWorldHint audience priority lastModified size icons src sizes logger data messages
        systemPrompt includeContext temperature maxTokens stopSequences metadata modelPreferences hints completion
        values hasMore task taskId status statusMessage createdAt ttl pollInterval mode url elicitationId
        requestedSchema roots isError"""
    ),
    words("structuredContent inputSchema outputSchema capabilities requestedSchema _meta metadata arguments"),
)

# ---- Bedrock's InvokeModel ------------------------------------------------------------------------------------------

INVOKE_RESPONSE = together(
    (
        CHAT_RESPONSE, ANTHROPIC_RESPONSE, ANTHROPIC_COMPLETE_RESPONSE, CONVERSE_RESPONSE, _NOVA, COHERE_RESPONSE,
        TEXT_RESPONSE,
    )
)  # fmt: skip
_VECTORS = together((EMBEDDINGS_RESPONSE, OLLAMA_RESPONSE, COHERE_RESPONSE, GEMINI_RESPONSE, TEXT_RESPONSE))
EMBEDDING_RESPONSE = Structure(_VECTORS.fields, _VECTORS.words, _VECTORS.names, frozenset())
NOVA_RESPONSE = together((CONVERSE_RESPONSE, _NOVA))
CHUNK = Structure({"p": padding}, {}, words("bytes p"))
"""What stands around a chunk of InvokeModelWithResponseStream."""
