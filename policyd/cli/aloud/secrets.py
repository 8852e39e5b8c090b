"""What is shown of a recording: a developer's own prompts and answers, yes; credentials, never.

Rule 1: every text that is shown passes through here.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyd.adapters.recordings import Recording
from policyd.core.model.credentials import (
    credentials_in,
    is_credential,
    is_credential_parameter,
    key_id,
    parameters,
)
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
        if is_credential(name):
            known.update(_forms(name, value.strip()))
    query = recording.path.partition("?")[2]
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if is_credential_parameter(name):
            plain = next(text for _, text in parameters(part))
            known.update({one: key_id(plain) for one in (value, plain) if _is_secret(plain)})
    return Scrubber(tuple(sorted(known.items(), key=lambda pair: -len(pair[0]))))


def _forms(name: str, value: str) -> dict[str, str]:
    """A credential as its header carries it, and without its scheme."""
    if "cookie" in name:
        return {value: "[cookie]"} if len(value) >= _LEAST else {}
    found = {one: key_id(one) for one in credentials_in(value, name) if _is_secret(one)}
    return {value: ", ".join(found.values()), **found} if found else {}


def _is_secret(text: str) -> bool:
    return len(text) >= _LEAST and not text.startswith("key-")  # a capture's pseudonym already
