"""Which parts of a request are credentials, and the pseudonyms that stand for them.

Rule 1: a credential's scheme, the case of the scheme, white space and order never change its pseudonym.
Rule 2: a name is a credential's if the closed list has it, or if it contains a word that names credentials. So a header
        that merely looks like a credential is removed from captures and reroutes, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "ocp-apim-subscription-key")
GATEWAY_HEADERS = ("cf-aig-authorization", "helicone-auth", "x-portkey-api-key", "proxy-authorization")
CREDENTIAL_HEADERS = (*KEY_HEADERS, *GATEWAY_HEADERS)
"""Headers that hold one credential each."""
QUERY_KEYS = ("key", "$key", "access_token", "oauth_token", "api-key", "subscription-key")
AWS_CREDENTIAL = "x-amz-credential"
PSEUDONYM = re.compile(r"key-[0-9a-f]{20}")

_OTHERS = frozenset({"cookie", "set-cookie", "x-amz-date", "x-amz-content-sha256", "dpop", "sec-websocket-protocol"})
_PREFIXES = ("x-amz-", "x-portkey-")
_KEPT = frozenset({"idempotency-key", "x-idempotency-key", "sec-websocket-key"})
_ALIKE = r"token(?!s\b|-?count|iz)|secret|auth(?!or(?!iz))|signature|credential|passw|cookie|jwt"
_HEADER_WORDS = re.compile(rf"key|{_ALIKE}")
_QUERY_WORDS = re.compile(
    rf"{_ALIKE}|(?:^|[^a-z])(?:sig|code|pwd)(?:[^a-z]|$)"
    r"|(?:^|[^a-z]|api|access|account|app|client|function|license|private|service|subscription)key"
)
_BEARER = "bearer"
_PLAIN = re.compile(r"\s*(?:bearer\s+)?([^\s,]+)\s*", re.IGNORECASE)  # one credential, as nearly every call sends it
_AWS_SCHEME = re.compile(r"aws4-[a-z0-9-]+\s", re.IGNORECASE)
_AWS_PART = re.compile(r"\s*(?:aws4-[a-z0-9-]+\s+)?(credential|signedheaders|signature)\s*=\s*(\S*)\s*", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:?")
_BEDROCK_KEY = "bedrock-api-key-"


def key_id(credential: str) -> str:
    """The stable pseudonym of a credential: what `caller.key` reads and `policyd key-id` prints."""
    return "key-" + hashlib.sha256(b"policyd key\0" + credential.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def pseudonym(text: str) -> str:
    """A stable short name for something that must not be written down; empty for empty."""
    if not text:
        return ""
    return hashlib.sha256(b"policyd name\0" + text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@lru_cache(maxsize=4096)
def is_credential(header: str) -> bool:
    """Whether a header of this name, in lower case, is treated as a credential."""
    if header in _KEPT or header.startswith(":"):
        return False
    if header in CREDENTIAL_HEADERS or header in _OTHERS or header.startswith(_PREFIXES):
        return True
    return _HEADER_WORDS.search(header) is not None


@lru_cache(maxsize=4096)
def is_credential_parameter(name: str) -> bool:
    """Whether a query parameter of this name, as it stands in the path, is treated as a credential."""
    plain = unquote_plus(name).strip().lower()
    if plain in QUERY_KEYS or plain.startswith(_PREFIXES):
        return True
    return _QUERY_WORDS.search(plain) is not None


def parameters(query: str) -> Iterator[tuple[str, str]]:
    """The parameters of a query: names decoded and in lower case, values decoded."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        yield unquote(name).strip().lower(), unquote(value)


def without_credentials(path: str) -> str:
    """A path without the query parameters that are credentials; the rest stays as it was sent."""
    place, mark, query = path.partition("?")
    if not mark:
        return path
    kept = [part for part in query.split("&") if not is_credential_parameter(part.partition("=")[0])]
    return f"{place}?{'&'.join(kept)}" if kept else place


# ---- from a header's value to the credentials in it ---------------------------------------------------------------


def credentials_in(value: str, header: str = "authorization") -> tuple[str, ...]:
    """The different credentials that a header's value holds: none, one, or, where somebody put several into it, all."""
    plain = _PLAIN.fullmatch(value)
    if plain and plain[1].lower().rstrip(":") != _BEARER:
        return (_behind_bedrock(plain[1]),)
    if _AWS_SCHEME.match(value.lstrip()):
        return _access_keys(value)
    schemes = header.endswith(("authorization", "auth"))
    found = (_behind_bedrock(one) for part in value.split(",") for one in _words(part, schemes=schemes))
    return tuple(dict.fromkeys(found))


def _words(part: str, *, schemes: bool) -> list[str]:
    """One credential, or, where white space makes them many, all. No scheme but Basic is a part of a credential."""
    every = part.split()
    words = [word for word in every if word.lower().rstrip(":") != _BEARER]
    if not schemes or len(words) < len(every) or len(words) < 2 or not _SCHEME.fullmatch(words[0]):
        return words
    return [f"Basic {words[1]}", *words[2:]] if words[0].lower() == "basic" else words[1:]


def _access_keys(value: str) -> tuple[str, ...]:
    """The access key ids of a SigV4 header. Whatever is no part of such a header is another credential."""
    found: dict[str, None] = {}
    for part in value.split(","):
        match = _AWS_PART.fullmatch(part)
        if match is None:
            found[part.strip()] = None
        elif match[1].lower() == "credential":
            found[access_key(match[2])] = None
    return tuple(one for one in found if one)


def access_key(scope: str) -> str:
    """The access key id of `AKID/date/region/service/aws4_request`."""
    return scope.partition("/")[0].strip()


def _behind_bedrock(token: str) -> str:
    """A short-term Bedrock API key is a presigned URL, which its owner can sign anew at will: the access key id in it
    is the credential."""
    if not token.startswith(_BEDROCK_KEY):
        return token
    text = token.removeprefix(_BEDROCK_KEY)
    try:
        url = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if "-" in text or "_" in text else None)
    except (binascii.Error, ValueError):
        return token
    query = url.decode("utf-8", "replace").partition("?")[2]
    found = dict.fromkeys(access_key(value) for name, value in parameters(query) if name == AWS_CREDENTIAL)
    return next(iter(found)) if len(found) == 1 and "" not in found else token


# ---- JWTs ---------------------------------------------------------------------------------------------------------


def payload_id(payload: Mapping[str, object]) -> str:
    """The pseudonym of a JWT: of its issuer and subject, which stay while tokens rotate. Empty without a subject."""
    issuer, subject = payload.get("iss", ""), payload.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not subject:
        return ""
    return key_id(f"jwt\0{issuer}\0{subject}")


def jwt_id(token: str) -> str:
    """The same of a token, which is not verified here; empty for what is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return ""
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return ""
    return payload_id(payload) if isinstance(payload, dict) else ""
