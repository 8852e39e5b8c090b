"""What is shown of a recording: a developer's own prompts and answers, yes; credentials, never.

Rule 1: every text that is shown passes through here.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyd.adapters.recordings import Recording
from policyd.core.exchange.opening import CREDENTIALS, key_id
from policyd.core.model.decision import Redaction
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.redactor import redactors

_KINDS = (
    "private_key",
    "jwt",
    "anthropic_key",
    "openai_key",
    "aws_key",
    "google_key",
    "github_token",
    "slack_token",
)
_SEARCH = redactors([Redaction(detectors=_KINDS, replacement="[credential]")])
_LEAST = 4  # characters: what is shorter is no credential, and stands in half of all words
_SECRET_HEADERS = CREDENTIALS | {"proxy-authorization", "set-cookie"}
MAX_SCRUBBED = 1024 * 1024  # characters of one text that are looked through; the rest of it is not shown


@dataclass(frozen=True, slots=True)
class Scrubber:
    """Takes credentials out of texts."""

    known: tuple[tuple[str, str], ...]  # (a credential of this call, what stands for it), the longest first

    def text(self, text: str) -> str:
        text = text[:MAX_SCRUBBED]
        for secret, name in self.known:
            text = text.replace(secret, name)
        return redact_text(text, _SEARCH)

    def value(self, value: object) -> object:
        """The same of what lists and maps hold."""
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self.value(item) for item in value]
            case dict():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case _:
                return value


def scrubber(recording: Recording) -> Scrubber:
    """What takes this call's credentials out."""
    known: dict[str, str] = {}
    for name, value in (*recording.headers, *recording.response_headers):
        if name in _SECRET_HEADERS:
            known.update(_forms(name, value.strip()))
    return Scrubber(tuple(sorted(known.items(), key=lambda pair: -len(pair[0]))))


def _forms(name: str, value: str) -> dict[str, str]:
    """A credential as its header carries it, and without its scheme."""
    bare = value.partition(" ")[2].strip() if " " in value else value
    if bare.startswith("key-") or len(bare) < _LEAST:
        return {}  # a capture's pseudonym already
    shown = "[cookie]" if "cookie" in name else key_id(bare)
    return {value: shown, bare: shown}
