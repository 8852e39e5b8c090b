"""Where things lie in Redis.

Rule 1: everything of one tenant has one hash tag, so that one script reaches it on a Redis Cluster too.
Rule 2: nothing that comes from outside stands in a key as it came: a tag is a plain word or a digest, the rest digests.
Rule 3: a key holds the whole identity of its counter, and never its limit.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from policyd.core.model.counters import CounterId, SessionId

DEFAULT = "default"
_OWNED = "\0owner"  # before the owner of a session, so that a key of one part more never reads the same
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@lru_cache(maxsize=4096)
def tag_of(tenant: str) -> str:
    """`pd:{tenant}`; a tenant that is no plain word stands there as its digest, after a `~` that no plain word has."""
    name = tenant or DEFAULT
    return f"pd:{{{name if _PLAIN.fullmatch(name) else '~' + _digest(name)}}}"


def leases_key(tag: str) -> str:
    """The sorted set of running calls by the end of their leases."""
    return f"{tag}:l"


def call_key(tag: str, call: str) -> str:
    """What one call holds and what it was answered."""
    return f"{tag}:k:{_digest(call)}"


@lru_cache(maxsize=65536)
def counter_key(counter: CounterId) -> str:
    """One counter; the tenant is in its tag."""
    window = f"{counter.window.seconds!r}:{counter.window}"
    parts = (counter.policy, counter.name, counter.charge, window, counter.scope, counter.life, *counter.key)
    parts = (*parts, _OWNED, counter.owner) if counter.owner else parts
    return f"{tag_of(counter.tenant)}:c:{_digest(*parts)}"


def session_key(session: SessionId) -> str:
    """What the finished calls of one session add up to."""
    return f"{tag_of(session.tenant)}:s:{_digest(session.id, session.owner) if session.owner else _digest(session.id)}"


def _digest(*parts: str) -> str:
    """INVARIANT: each part is preceded by its length, so that no two lists of parts are written alike."""
    digest = blake2b(digest_size=16)
    for part in parts:
        written = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(written) + written)
    return digest.hexdigest()
