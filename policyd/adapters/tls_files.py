"""Certificates from files that may change while they are in use.

Rule 1: what is taken is one state of all files: a key that is not the certificate's, half a file or a broken one
        changes nothing, is told once, and what was good stays.
Rule 2: files are read by the clock, never by a handshake: who connects costs no reading.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

from policyd.adapters.errors import UnreadableInput, reason_of

POLL_S = 0.5
_LARGEST = 1 << 20  # bytes of one file
_PATIENCE = 5  # readings of files that change while they are read
_CENTURY = 50  # X.509's UTCTime: 00 to 49 are of this century
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER
_VALIDITY, _KEY_INFO = 3, 5  # of a certificate's fields
_ED25519 = bytes.fromhex("300506032b6570")
_LONG = 0x80  # a length of more than one byte

Result = Literal["loaded", "refused"]
Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificates are: PEM files, as cert-manager and Kubernetes' TLS Secrets have them."""

    cert: Path  # ours, and the chain behind it
    key: Path
    client_ca: Path | None = None  # whose certificates clients must have; None: nobody is asked

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class Pems:
    """What stands in the files at one time, known to fit together."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None

    @property
    def expires(self) -> datetime:
        """When our own certificate ends."""
        return expiry(_text(self.cert))


def read(files: TlsFiles) -> Pems:
    """The files, all of one time, and good for use. Raises UnreadableInput, which names the file and what it lacks."""
    for _ in range(_PATIENCE):
        before = [_bytes(file) for file in files.all]
        _check(files, before[0], before[-1] if files.client_ca else None)
        if [_bytes(file) for file in files.all] == before:  # what OpenSSL looked at is what we hold
            return Pems(*before)
    raise UnreadableInput(files.cert, "keeps changing while it is read")


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    if len(data) > _LARGEST:
        raise UnreadableInput(file, f"is larger than {_LARGEST >> 20} MiB: no certificate is")
    return data


def _check(files: TlsFiles, cert: bytes, client_ca: bytes | None) -> None:
    _check_certificates(files.cert, cert)
    if _fields(_text(cert))[_KEY_INFO][1].startswith(_ED25519):
        raise UnreadableInput(files.cert, "has an Ed25519 key, which gRPC does not speak: take ECDSA P-256, or RSA")
    if files.client_ca is not None and client_ca is not None:
        _check_certificates(files.client_ca, client_ca)

    def locked() -> NoReturn:
        raise UnreadableInput(files.key, "is encrypted; policyd cannot ask for its password: write it in plain")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, locked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnreadableInput(files.key, f"is not the key of {files.cert}") from None
        raise UnreadableInput(files.key, f"holds no key that can be used with {files.cert}{_hint(error)}") from None
    except OSError as error:
        raise UnreadableInput(files.key, reason_of(error)) from None


def _check_certificates(file: Path, pem: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_text(pem))
        expiry(_text(pem))
        _ = _fields(_text(pem))[_KEY_INFO]
    except (ssl.SSLError, ValueError, IndexError):
        raise UnreadableInput(
            file, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----), or half of one"
        ) from None


def _text(pem: bytes) -> str:
    """What counts in PEM is ASCII; bundles have names of authorities between the certificates, in any encoding."""
    return pem.decode("ascii", "ignore")


def _hint(error: ssl.SSLError) -> str:
    return f" ({error.reason.lower().replace('_', ' ')})" if error.reason else ""


# ---- when a certificate ends ----------------------------------------------------------------------------------------


def expiry(pem: str) -> datetime:
    """When the first certificate of a PEM text ends. Raises ValueError or IndexError where it holds none."""
    _, (tag, text) = _parts(_fields(pem)[_VALIDITY][1])
    return _time(text.decode("ascii"), short=tag == _UTC_TIME)


def _fields(pem: str) -> list[tuple[int, bytes]]:
    """What the first certificate of a text says: serial, algorithm, issuer, validity, subject, key, …"""
    begin, end = pem.index("-----BEGIN CERTIFICATE-----"), pem.index("-----END CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + "-----END CERTIFICATE-----\n")
    (_, whole), *_ = _parts(der)
    (_, signed), *_ = _parts(whole)
    return [part for part in _parts(signed) if part[0] != _VERSION]


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each value in a row of DER."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size >= _LONG:
            width = size - _LONG
            size, at = int.from_bytes(der[at : at + width], "big"), at + width
        yield tag, der[at : at + size]
        at += size


def _time(text: str, *, short: bool) -> datetime:
    if short:
        text = ("20" if int(text[:2]) < _CENTURY else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


# ---- watching -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TlsWatch:
    """The newest good state of the files. `start` once, then `watch` until cancelled."""

    files: TlsFiles
    report: Callable[[Result, str], None] = lambda _result, _words: None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    refused: str = ""  # why the files as they are now are not in use
    _current: Pems | None = field(default=None, init=False)
    _seen: Signature | None = field(default=None, init=False)

    @property
    def current(self) -> Pems:
        """What is in use. INVARIANT: after `start` there always is something."""
        assert self._current is not None, "start() first"
        return self._current

    def start(self) -> None:
        """Raises UnreadableInput."""
        self._current = read(self.files)

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Look every `poll_s` seconds, for ever."""
        while True:
            await self.pause(poll_s)
            try:
                await self.look()
            except Exception as error:  # whatever nobody foresaw must not end the watch in silence
                self._refuse(f"{type(error).__name__}: {error}")

    async def look(self) -> None:
        """One look: nothing moved, new certificates are in use, or what came is refused."""
        seen = _signature(self.files)
        if seen is not None and seen == self._seen:
            return
        try:
            fresh = await asyncio.to_thread(read, self.files)
        except UnreadableInput as error:
            self._refuse(str(error))
            return
        self._seen, self.refused = seen, ""
        if fresh != self._current:
            self._current = fresh
            self.report("loaded", f"good until {fresh.expires:%Y-%m-%d %H:%M} UTC")

    def _refuse(self, why: str) -> None:
        """A writer between two files looks like this, too: it is looked at again, and told once."""
        if why != self.refused:
            self.refused = why
            self.report("refused", why)


def _signature(files: TlsFiles) -> Signature | None:
    try:
        stats = [file.stat() for file in files.all]
    except OSError:
        return None
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
