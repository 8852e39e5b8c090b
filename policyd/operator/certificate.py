"""The webhook's own certificate: made here, its key never leaves this process, and the API server is told to trust it.

Rule 1: no Secret is read or written. Each replica adds its certificate to the `caBundle` of the configuration that
        names the webhook, and takes it for what it is: a list to which others add theirs.
Rule 2: a fresh certificate is in the bundle a look before it is in use; the one before stays in it until it ends.
Rule 3: whoever else wrote to the bundle keeps what was written; of ours the newest `MOST` stay.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from policyd.adapters.errors import NotAvailable
from policyd.adapters.policies_kube.api import Api, Away, Object, Refused, hooks_path
from policyd.adapters.tls_files import Pems

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:  # pragma: no cover - an install without the extra
    raise NotAvailable("--webhook: needs the extra: pip install 'policyd[k8s]', or --tls-cert and --tls-key") from None

log = logging.getLogger("policyd")

CONFIGURATION, SERVICE = "policyd-policies", "policyd-webhook"
LOOK_S = 10.0
MOST = 24  # certificates of ours in a bundle: replicas that are gone leave theirs behind
_EARLY = timedelta(minutes=5)  # clocks differ
_CONFLICT = 409
_TRIES = 5


def made(names: Sequence[str], now: datetime, lasts_s: float) -> Pems:
    """A key, and a certificate that it signs itself and that can sign no other."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVICE)])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _EARLY,
        not_valid_after=now + timedelta(seconds=lasts_s),
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    hidden = serialization.NoEncryption()
    return Pems(pem, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))


def bundled(before: str, ours: Sequence[bytes], now: datetime) -> str:
    """A `caBundle` with these certificates in it; the same where they stand in it already."""
    found = _certificates(before)
    missing = [one for one in map(x509.load_pem_x509_certificate, ours) if one not in found]
    own = [one for one in (*found, *missing) if _is_ours(one)]
    ended = [one for one in own if one.not_valid_after_utc < now]
    lasting = sorted((one for one in own if one not in ended), key=lambda one: one.not_valid_after_utc)
    kept = [one for one in found if not _is_ours(one)] + lasting[-MOST:]
    if not missing and not ended:
        return before
    return base64.b64encode(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in kept)).decode()


def _certificates(bundle: str) -> list[x509.Certificate]:
    """None where it cannot be read: the server would trust nobody by it."""
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except (ValueError, binascii.Error):
        return []


def _is_ours(one: x509.Certificate) -> bool:
    names = one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value for name in names] == [SERVICE]


@dataclass(slots=True)
class OwnCertificate:
    """One replica's. `start` once, then `watch` until cancelled; `renewed` is called with each that comes into use."""

    api: Api
    renewed: Callable[[Pems], None]
    lasts_s: float
    look_s: float = LOOK_S
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    failure: str = ""  # why the API server does not trust it yet
    _current: Pems | None = None
    _next: Pems | None = None
    _told: bool = False  # whether the next one was in the bundle a look ago

    def start(self) -> None:
        self._use(self._made())

    async def watch(self) -> None:
        """Keep the bundle and the certificate fresh, for ever."""
        while True:
            await self.look()
            await self.pause(self.look_s)

    async def look(self) -> None:
        """One look: what is missing is put into the bundle, and what was there a look ago comes into use."""
        assert self._current is not None, "start() first"
        if self._next is not None and self._told:
            self._use(self._next)
        if self._next is None and self._current.expires - self.now() < timedelta(seconds=self.lasts_s / 2):
            self._next, self._told = self._made(), False
        both = [one.cert for one in (self._current, self._next) if one is not None]
        told = await self._publish(both)
        self._told = told and self._next is not None

    def _made(self) -> Pems:
        space = self.api.access.namespace
        return made([f"{SERVICE}.{space}.svc", f"{SERVICE}.{space}.svc.cluster.local"], self.now(), self.lasts_s)

    def _use(self, fresh: Pems) -> None:
        self._current, self._next = fresh, None
        self.renewed(fresh)

    async def _publish(self, certificates: Sequence[bytes]) -> bool:
        try:
            for _ in range(_TRIES):
                if await self._published(certificates):
                    if self.failure:
                        log.info("%s trusts this webhook again", CONFIGURATION)
                    self.failure = ""
                    return True
            raise Away("others write to it all the time")
        except (Away, Refused) as error:
            if str(error) != self.failure:
                log.error("the API server cannot be told to trust this webhook: %s: %s", CONFIGURATION, error)
            self.failure = str(error)
            return False

    async def _published(self, certificates: Sequence[bytes]) -> bool:
        """Whether they are in the bundle. False: somebody else wrote meanwhile. Raises Away or Refused."""
        path = hooks_path(CONFIGURATION)
        config = await self.api.ask("GET", path)
        if not self._added(config, certificates):
            return True
        try:
            await self.api.ask("PUT", path, config, query={"fieldManager": self.api.agent})
        except Refused as error:
            if error.status == _CONFLICT:
                return False
            raise
        return True

    def _added(self, config: Object, certificates: Sequence[bytes]) -> bool:
        changed = False
        for hook in config.get("webhooks") or ():
            place = hook["clientConfig"]
            before = str(place.get("caBundle") or "")
            place["caBundle"] = bundled(before, certificates, self.now())
            changed = changed or place["caBundle"] != before
        return changed
