"""Who is calling, and in which session: from headers, Envoy's metadata and the credential that the provider checks.

Rule 1: an identity header sent twice is absent: whoever could add a second one must not be able to choose.
Rule 2: `caller.key` is the pseudonym of the one credential that the call's provider checks. Credentials that it ignores
        do not count; two values of the one that counts are a conflict, and the caller has no key.
Rule 3: the caller's Host header has no part in which credential counts where the deployment declares the provider.
Rule 4: a session belongs to its caller. Its id stays as it was sent, and stores keep it together with its owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policyd.core.model.credentials import (
    AWS_CREDENTIAL,
    CREDENTIAL_HEADERS,
    PSEUDONYM,
    QUERY_KEYS,
    access_key,
    credentials_in,
    jwt_id,
    key_id,
    parameters,
    payload_id,
    pseudonym,
)
from policyd.core.model.facts import CallerFacts, SessionFacts
from policyd.core.model.identity import Identity, Place, claim_at, text_of
from policyd.core.model.steps import Headers

ANONYMOUS = "anonymous"  # the owner of sessions of callers without a credential or a name
RECORDED = "policyd.recorded"  # metadata of a dry run: what a recording says about its caller
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
_HEADERS = frozenset(CREDENTIAL_HEADERS)
_MOST_KEYS = 32  # of `caller.keys`
Metadata = Mapping[str, Mapping[str, object]]


# ---- which credential counts --------------------------------------------------------------------------------------

_BEARER = ("authorization", "?access_token", "?oauth_token")
_AWS = ("authorization", f"?{AWS_CREDENTIAL}")
_GOOGLE = ("x-goog-api-key", "?key", "?$key")
_AZURE = ("api-key", "ocp-apim-subscription-key", "?api-key", "?subscription-key")
_ANY = (_AWS, ("x-api-key",), ("api-key",), ("x-goog-api-key", "?key", "?$key"), ("ocp-apim-subscription-key",))
Groups = tuple[tuple[str, ...], ...]
"""Places of a credential, those of one group equal; the first group that holds one counts. `?` is a query parameter."""


def counting_places(dialect: str, provider: str, path: str) -> Groups:
    """Where this provider looks for the credential, in its order."""
    anthropic = dialect.startswith("anthropic.")
    match provider:
        case "google":
            vertex = "/projects/" in path.lower() or dialect.startswith(("openai.", "anthropic."))
            return (_BEARER, _GOOGLE) if vertex else (_GOOGLE, _BEARER)
        case "anthropic":
            return (("x-api-key",), ("authorization",))
        case "azure":
            return (("x-api-key", *_AZURE) if anthropic else _AZURE, ("authorization",))
        case "bedrock":
            return (_AWS, ("x-api-key",)) if anthropic else (_AWS,)
        case "":
            return _ANY
        case _:
            return (("authorization",), ("x-api-key",)) if anthropic else (("authorization",),)


@dataclass(frozen=True, slots=True)
class Sent:
    """Every credential that a call carries: by its place, in the order of CREDENTIAL_HEADERS and the query."""

    places: Mapping[str, tuple[str, ...]]

    def counted(self, groups: Groups) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(the different credentials that count, the places that hold them)."""
        for group in groups if self.places else ():
            held = tuple([place for place in group if place in self.places])
            if len(held) == 1:
                return self.places[held[0]], held
            if held:
                return tuple(dict.fromkeys(one for place in held for one in self.places[place])), held
        return (), ()

    @property
    def all(self) -> Iterator[str]:
        return (one for found in self.places.values() for one in found)


def credentials_of(headers: Headers, query: str) -> Sent:
    """The credentials of a request."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        if name in _HEADERS and (held := credentials_in(value, name)):
            found[name] = tuple(dict.fromkeys((*found[name], *held))) if name in found else held
    for name, value in parameters(query) if query else ():
        if name == AWS_CREDENTIAL or name in QUERY_KEYS:
            one = access_key(value) if name == AWS_CREDENTIAL else value.strip()
            place = f"?{name}"
            if one and one not in found.get(place, ()):
                found[place] = (*found.get(place, ()), one)
    return Sent(found)


def _key(caller: CallerFacts, sent: Sent, choices: Iterable[Groups], metadata: Metadata) -> None:
    """Fills `key`, `keys` and `conflict`."""
    pseudonyms = RECORDED in metadata and bool(metadata[RECORDED].get("pseudonyms"))
    verified = verified_keys(metadata) if JWT_NAMESPACE in metadata else ()
    names = {one: credential_name(one, (), pseudonyms=pseudonyms) for one in sent.all}
    for groups in choices:
        values, places = sent.counted(groups)
        if len(values) > 1:
            caller.conflict = (
                f"the call carries {len(values)} different credentials in {' and '.join(map(_shown, places))}"
            )
        if values:
            caller.key = "" if caller.conflict else _counted_name(values[0], names, verified)
            break
    else:
        caller.key = verified[0] if verified else ""
    first = (caller.key,) if caller.key else ()
    caller.keys = [*dict.fromkeys((*first, *verified, *names.values()))][:_MOST_KEYS]


def _counted_name(credential: str, names: Mapping[str, str], verified: Sequence[str]) -> str:
    name = jwt_id(credential) if verified else ""
    return name if name in verified else names[credential]


def _shown(place: str) -> str:
    return f"the query parameter {place[1:]}" if place.startswith("?") else f"the header {place}"


def credential_name(credential: str, verified: Sequence[str], *, pseudonyms: bool = False) -> str:
    """The pseudonym of a credential; of a JWT that Envoy has verified, that of its issuer and subject. `pseudonyms`: in
    a recording, a credential may be one already."""
    if verified and (name := jwt_id(credential)) in verified:
        return name
    return credential if pseudonyms and PSEUDONYM.fullmatch(credential) else key_id(credential)


def verified_keys(metadata: Metadata) -> tuple[str, ...]:
    """The pseudonyms of the JWTs that Envoy has verified, by issuer and subject."""
    payloads = metadata.get(JWT_NAMESPACE, {})
    names = (payload_id(payload) for _, payload in sorted(payloads.items()) if isinstance(payload, Mapping))
    return tuple(dict.fromkeys(filter(None, names)))


# ---- user, team, tenant, labels -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """One field's value. `authenticated`: a claim said it, no header."""

    text: str = ""
    authenticated: bool = False


_NOTHING = _Found()


def identify(
    headers: Headers,
    once: Mapping[str, str],
    query: str,
    metadata: Metadata,
    identity: Identity,
    choices: Iterable[Groups],
) -> tuple[CallerFacts, SessionFacts]:
    """The caller and the session. `once`: the headers that were sent exactly once. `choices`: where the credential is
    looked for, the first choice first."""
    claims = claim_at(metadata.get(identity.namespace, {}), identity.path) if identity.namespace else None
    found = {name: _value(places, once, claims) for name, places in identity.places.items() if name != "labels"}
    caller = CallerFacts(found["user"].text, found["team"].text, found["tenant"].text, source=identity.source)
    if identity.namespace or identity.named:
        caller.labels = _labels(identity, found, claims)
        caller.missing = _missing(identity, found, caller.labels)
    _key(caller, credentials_of(headers, query), choices, metadata)
    _own(caller, found["user"], found["tenant"], metadata)
    return caller, _session(caller, found["session"], by_user=found["user"].authenticated)


def sent_once(headers: Headers) -> dict[str, str]:
    """The headers that were sent exactly once."""
    known = dict(headers)
    if len(known) == len(headers):
        return known
    times = Counter(name for name, _ in headers)
    return {name: value for name, value in headers if times[name] == 1}


def _value(places: Iterable[Place], once: Mapping[str, str], claims: object) -> _Found:
    for place in places:
        text = once.get(place.header, "") if place.header else text_of(claim_at(claims, place.claim))
        if text:
            return _Found(text, authenticated=not place.header)
    return _NOTHING


def _labels(identity: Identity, found: Mapping[str, _Found], claims: object) -> dict[str, str]:
    labels: dict[str, str] = {}
    for place in identity.places.get("labels", ()):
        known = claim_at(claims, place.claim) if place.claim else None
        if isinstance(known, Mapping):
            labels = {str(name): _label(value) for name, value in known.items()}
            break
    own = {name.removeprefix("labels."): one.text for name, one in found.items() if name.startswith("labels.")}
    return {**labels, **{name: text for name, text in own.items() if text}}


def _label(value: object) -> str:
    return ",".join(map(text_of, value)) if isinstance(value, list | tuple) else text_of(value)


def _missing(identity: Identity, found: Mapping[str, _Found], labels: Mapping[str, str]) -> tuple[str, ...]:
    """The fields that the mapping lists and that this call has no value for; `any` where metadata told nothing."""
    fields = tuple(
        name for name in sorted(identity.named) if name != "labels" and not found[name].text and identity.places[name]
    )
    nothing = bool(identity.namespace) and not labels and not any(one.text for one in found.values())
    return ("any", *fields) if nothing else fields


def _own(caller: CallerFacts, user: _Found, tenant: _Found, metadata: Metadata) -> None:
    """Whose counters and sessions these are. INVARIANT: a tenant that any client can claim opens no counter space of
    its own; it only parts sessions."""
    recorded = metadata.get(RECORDED, {})
    authenticated = caller.tenant if tenant.authenticated else text_of(recorded.get("tenant"))
    caller.partition = authenticated or "default"
    caller.claimed = pseudonym(caller.tenant) if caller.tenant and caller.tenant != authenticated else ""
    if user.authenticated:
        name = pseudonym(f"{authenticated}\0{caller.user}")
        caller.owner = f"user:{name}"
        return
    user_part = f"user:{pseudonym(caller.user)}" if caller.user else ""
    caller.owner = "+".join(part for part in (caller.key, user_part) if part) or ANONYMOUS


def _session(caller: CallerFacts, sent: _Found, *, by_user: bool) -> SessionFacts:
    """INVARIANT: a session's id is never empty; `source` says where it comes from."""
    if sent.text:
        return SessionFacts(id=sent.text, source="metadata" if sent.authenticated else "header")
    if caller.key and not by_user:
        return SessionFacts(id=f"derived:{caller.key}", source="key")
    if caller.user:
        return SessionFacts(id=f"derived:user:{pseudonym(caller.user)}", source="user")
    return SessionFacts(id="derived:anonymous", source="anonymous")
