"""Authorities and certificates for tests: of any name and age, written as the files that servers read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
POLICYD, ENVOY = "policyd.policyd.svc", "spiffe://cluster.local/ns/policyd/sa/envoy"


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes

    def put(self, folder: Path, name: str = "tls") -> tuple[Path, Path]:
        """Writes NAME.crt and NAME.key, each in one step."""
        return replace(folder / f"{name}.crt", self.cert), replace(folder / f"{name}.key", self.key)


def replace(file: Path, data: bytes) -> Path:
    """Writes a file in one step, as whoever rotates certificates does."""
    draft = file.with_name(f".{file.name}")
    draft.write_bytes(data)
    draft.replace(file)
    return file


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs."""

    name: str = "an authority"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    pem: bytes = field(init=False)

    def __post_init__(self) -> None:
        own = self._signed(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))
        object.__setattr__(self, "pem", own.cert)

    def certify(self, *names: str, days: float = 1, key: Key | None = None) -> Certified:
        """A certificate with these names, good for so many days from now, and its key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        sans = [x509.SubjectAlternativeName([_name(name) for name in names])] if names else []
        return self._signed("a subject", key, x509.BasicConstraints(ca=False, path_length=None), *sans, days=days)

    def _signed(self, name: str, key: Key, *extensions: x509.ExtensionType, days: float = 1) -> Certified:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer_name=_common(self.name),
            subject_name=_common(name),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=30),
            not_valid_after=now + timedelta(days=days),
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Certified(pem, in_pem(key))


def in_pem(key: Key, password: bytes = b"") -> bytes:
    """A key as PEM, encrypted where there is a password."""
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def _common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
