"""Another mode for a policy, in the text that its author wrote: nothing else of it changes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from policyd.adapters.errors import UnreadableInput
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.places import Document
from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.compile.source import read_documents


def with_mode(documents: Sequence[tuple[str, str]], policy: CompiledPolicy, mode: str) -> tuple[str, str]:
    """(file, its new text). Raises UnreadableInput where the mode is not written in a way that can be changed."""
    for file, text in documents:
        for document in read_documents(file, text)[0]:
            if _is(document, policy):
                changed = _changed(document, text, mode)
                if changed is None or not _holds(documents, file, changed, policy, mode):
                    raise UnreadableInput(
                        file, f"the mode of {policy.qualified} cannot be changed here; set `mode: {mode}`"
                    )
                return file, changed
    raise UnreadableInput(policy.qualified, "its file is not there any more")


def _is(document: Document, policy: CompiledPolicy) -> bool:
    value = document.value
    if not isinstance(value, dict) or not isinstance(metadata := value.get("metadata"), dict):
        return False
    cluster = value.get("kind") == "ClusterLLMPolicy"
    namespace = "" if cluster else metadata.get("namespace") or "default"
    return (metadata.get("name"), namespace, cluster) == (policy.name, policy.namespace, policy.cluster)


def _changed(document: Document, text: str, mode: str) -> str | None:
    if place := document.places.get(("spec", "mode")):
        return text[: place.start] + mode + text[place.end :]
    lines = text.split("\n")
    span = document.key_span(("spec",))
    below = lines[span.line] if span.line < len(lines) else ""
    indent = re.match(r" +", below)
    if lines[span.line - 1].split("#")[0].strip() != "spec:" or indent is None:
        return None
    lines.insert(span.line, f"{indent[0]}mode: {mode}")
    return "\n".join(lines)


def _holds(documents: Sequence[tuple[str, str]], file: str, changed: str, policy: CompiledPolicy, mode: str) -> bool:
    """Whether the change is the one that was meant, and no other."""
    compiled = compile_documents([(name, changed if name == file else text) for name, text in documents])
    if compiled.policy_set is None:
        return False
    return any(one.qualified == policy.qualified and one.mode.value == mode for one in compiled.policy_set.policies)
