"""The normal form of a path: rules, the choice of the dialect and the provider all see the same path.

Rule 1: the judged path is decoded and has no empty, dot or parameter parts. Fixed segments have their usual case; ids
        and names keep the case that was sent.
Rule 2: the forwarded path is the same path in its normal encoding. An encoded character that needs its encoding keeps
        it, because signatures (SigV4) cover the encoding.
Rule 3: a path that servers can resolve in different ways is ambiguous. It has no normal form and is rejected.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

# Fixed segments of the known APIs in their usual case. A segment that differs from one only in case is that one.
_WORDS = (
    "openai deployments chat completions responses compact input_tokens input_items cancel embeddings fim agents"
    " sonar images generations edits variations videos content remix audio speech transcriptions translations realtime"
    " sessions client_secrets transcription_sessions calls rerank score moderations classifications messages batches"
    " results count_tokens complete models model files uploads parts threads runs steps submit_tool_outputs assistants"
    " vector_stores file_batches search containers conversations items prompts skills versions graders validate run"
    " evals output_items fine_tuning jobs checkpoints permissions pause resume alpha events organization engines"
    " tokenize detokenize apply-template props generate generate_stream embed tags show create pull push copy delete"
    " blobs version ps api compatible-mode inference beta converse converse-stream invoke invoke-with-response-stream"
    " invoke-with-bidirectional-stream count-tokens async-invoke guardrail apply model-invocation-job foundation-"
    " models projects locations publishers endpoints tunedModels cachedContents corpora documents chunks operations"
    " fileSearchStores batchPredictionJobs interactions libraries batch ocr mcp sse health healthz livez readyz ready"
    " ping metrics upload ws gateway classify pooling rank ranking rankingConfigs memory_stores"
)
_FIXED = {word.lower(): word for word in _WORDS.split()}
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta|internal|p)\d*)*")
# After these a name of somebody's own choosing follows. It may look like a fixed segment.
_NAMING = "deployments engines model models tunedmodels endpoints projects locations publishers guardrail"
_NAMED = frozenset(_NAMING.split())
_VERB_WORDS = (
    "generateContent streamGenerateContent embedContent batchEmbedContents countTokens computeTokens"
    " batchGenerateContent asyncBatchEmbedContent generateMessage generateText generateAnswer embedText batchEmbedText"
    " predict predictLongRunning fetchPredictOperation rawPredict streamRawPredict serverStreamingPredict"
    " bidiGenerateContent rank query cancel"
)
_VERBS = {verb.lower(): verb for verb in _VERB_WORDS.split()}
# Servers of these may redirect a path without its trailing slash: it is forwarded as it was sent.
_SLASHED = frozenset({"mcp", "sse"})

_NEEDLESS = re.compile(r"%(?:2[dDeE]|3\d|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
LONGEST = 4096  # characters of a path
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class NormalPath(NamedTuple):
    """A path as it is judged and as it is forwarded. `ambiguous`: why it has no normal form; empty if it has one."""

    judged: str
    sent: str
    ambiguous: str = ""


class _Ambiguous(Exception):  # noqa: N818 - never leaves this file
    pass


def resolve(path: str) -> str:
    """The path that rules see, without its query."""
    return normal_path(path.partition("?")[0]).judged


@lru_cache(maxsize=2048)
def normal_path(path: str) -> NormalPath:
    """The normal form of a path without its query."""
    if path in ("", "*"):
        return NormalPath(path or "/", path)
    try:
        segments = _segments(path)
        judged = _decoded([one for _, one in segments])
    except _Ambiguous as why:
        loose = _loose(path)
        return NormalPath(loose, path, str(why))
    words = _cased(judged)
    sent = [_sent(raw, one, word) for (raw, one), word in zip(segments, words, strict=True)]
    slash = "/" if path.endswith("/") and sent and _keeps_slash(words) else ""
    return NormalPath("/" + "/".join(words), "/" + "/".join(sent) + slash)


def _segments(path: str) -> list[tuple[str, str]]:
    """Each segment as it was sent and decoded. Raises _Ambiguous."""
    if len(path) > LONGEST:
        raise _Ambiguous(f"it is longer than {LONGEST} characters")
    if not path.startswith(("/", "\\")):
        raise _Ambiguous("it does not begin with a slash")
    found: list[tuple[str, str]] = []
    for raw in path.partition("#")[0].replace("\\", "/").split("/"):
        sent = raw.partition(";")[0]
        one = _decode(sent)
        if one == "..":
            del found[-1:]
        elif one not in ("", "."):
            found.append((sent, one))
    return found


def _decode(segment: str) -> str:
    if "%" not in segment:
        decoded = segment.strip(" ")
    else:
        if _ESCAPE.search(segment):
            raise _Ambiguous("it holds a percent sign that encodes nothing")
        try:
            decoded = unquote_to_bytes(segment.encode("utf-8", "surrogateescape")).decode().strip(" ")
        except UnicodeDecodeError:
            raise _Ambiguous("its encoded characters are not UTF-8") from None
        for sign in "\\%?#;":
            if sign in decoded:
                raise _Ambiguous(f"it holds an encoded {sign}")
        if any(part in (".", "..", "") for part in decoded.split("/")) and "/" in decoded:
            raise _Ambiguous("it holds encoded dot segments")
    if _CONTROL.search(decoded):
        raise _Ambiguous("it holds control characters")
    return decoded


def _decoded(segments: list[str]) -> list[str]:
    """INVARIANT: an encoded slash stands only where one segment can be nothing but a name: a Bedrock model's ARN, or
    the model that is asked about. Raises _Ambiguous."""
    for place, one in enumerate(segments):
        if "/" not in one:
            continue
        bedrock = place == 1 and segments[0].lower() == "model" and len(segments) == 3 and "/" not in segments[2]
        asked = place == len(segments) - 1 and place > 0 and segments[place - 1].lower() == "models"
        if not bedrock and not asked:
            raise _Ambiguous("it holds an encoded slash")
    return segments


def _cased(segments: list[str]) -> list[str]:
    out: list[str] = []
    named = False
    for place, one in enumerate(segments):
        if named:
            out.append(_verb(one))
            named = False
            continue
        low = one.lower()
        word = _FIXED.get(low) or (low if _VERSION.fullmatch(low) else None)
        named = word is not None and word.lower() in _NAMED and place + 1 < len(segments)
        out.append(word or _verb(one))
    return out


def _verb(segment: str) -> str:
    """A name, and the verb behind its colon in the usual case."""
    name, colon, verb = segment.rpartition(":")
    known = _VERBS.get(verb.lower()) if colon else None
    return f"{name}:{known}" if known else segment


def _sent(raw: str, decoded: str, word: str) -> str:
    """The segment in its normal encoding."""
    if word != decoded:
        if "%" not in raw:
            return word
        tail = word.rpartition(":")[2]  # only a fixed segment or a verb has another case
        if ":" in word and "%" not in raw[-len(tail) :]:
            return raw[: -len(tail)] + tail
        return word if ":" not in word else quoted(word)
    stripped = re.sub(r"\A(?: |%20)+|(?: |%20)+\Z", "", raw)
    return _NEEDLESS.sub(lambda found: unquote(found[0]), stripped) if "%" in stripped else stripped


def quoted(segment: str) -> str:
    """A decoded segment with every character encoded that has to be."""
    return quote(segment, safe="-._~!$&'()*+,=:@")


def _keeps_slash(words: list[str]) -> bool:
    """Whether the trailing slash is forwarded: of paths that are not known, and of MCP's."""
    last = words[-1]
    if last in _SLASHED:
        return True
    if last == "messages":
        return len(words) < 2 or not (_VERSION.fullmatch(words[-2]) or "threads" in words)
    if ":" in last and last.rpartition(":")[2] in _VERBS.values():
        return False
    return last.lower() not in _FIXED


def _loose(path: str) -> str:
    """An ambiguous path as the most lenient servers in a row would resolve it."""
    path = path.partition("#")[0][:LONGEST]
    for _ in range(3):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    out: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        step = part.partition(";")[0].strip()
        if step == "..":
            del out[-1:]
        elif step not in ("", "."):
            out.append(step)
    return "/" + "/".join(_cased(out))
