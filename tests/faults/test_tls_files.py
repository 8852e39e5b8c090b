"""Certificates in files: what is taken, what is refused and in which words, and what stays when they change."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.envoy.config import BadSetting
from policyd.adapters.envoy.names import Kind, Name, parse_name
from policyd.adapters.errors import UnreadableInput
from policyd.adapters.tls_files import Pems, TlsFiles, TlsWatch, expiry, read
from tests.certificates import Authority, Certified, Key, in_pem, replace

CA = Authority()
OURS = CA.certify("policyd.svc")


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    OURS.put(tmp_path)
    return TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", replace(tmp_path / "ca.crt", CA.pem))


def test_what_fits_together_is_taken(files: TlsFiles) -> None:
    assert read(files) == Pems(OURS.cert, OURS.key, CA.pem)


def test_the_names_between_the_certificates_of_a_bundle_may_be_in_any_encoding(files: TlsFiles) -> None:
    bundle = "# Autorité\n".encode("latin-1") + CA.pem + "# Hatóság\n".encode() + Authority().pem
    assert files.client_ca
    files.client_ca.write_bytes(bundle)
    assert read(files).client_ca == bundle


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        (rsa.generate_private_key(65537, 2048), ""),
        (ec.generate_private_key(ec.SECP384R1()), ""),
        (ed25519.Ed25519PrivateKey.generate(), "has an Ed25519 key"),
    ],
    ids=["rsa", "p-384", "ed25519"],
)
def test_kinds_of_keys(files: TlsFiles, key: Key, refused: str) -> None:
    CA.certify("policyd.svc", key=key).put(files.cert.parent)
    if not refused:
        assert read(files).key == in_pem(key)
        return
    with pytest.raises(UnreadableInput, match=refused):
        read(files)


def test_a_key_is_not_shown(files: TlsFiles) -> None:
    assert "PRIVATE" not in repr(read(files))


ENCRYPTED = in_pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
HALF = OURS.cert[: len(OURS.cert) // 2]
BROKEN = {
    "no file": ("tls.crt", None, "tls.crt: no such file"),
    "no key": ("tls.key", None, "tls.key: no such file"),
    "no authority": ("ca.crt", None, "ca.crt: no such file"),
    "another's key": ("tls.key", CA.certify("x").key, "is not the key of"),
    "half a certificate": ("tls.crt", HALF, "tls.crt: holds no certificate in PEM"),
    "a whole one, and half of its chain": ("tls.crt", OURS.cert + HALF, "tls.crt: holds"),
    "half a key": ("tls.key", OURS.key[: len(OURS.key) // 2], "tls.key: holds no key"),
    "an empty certificate": ("tls.crt", b"", "tls.crt: holds no certificate"),
    "an empty key": ("tls.key", b"", "tls.key: holds no key"),
    "an empty authority": ("ca.crt", b"", "ca.crt: holds no certificate"),
    "bytes": ("tls.crt", b"\x00\xff" * 100, "tls.crt: holds no certificate"),
    "a key for an authority": ("ca.crt", OURS.key, "ca.crt: holds no certificate"),
    "no certificate inside": ("ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.crt"),
    "an encrypted key": ("tls.key", ENCRYPTED, "tls.key: is encrypted"),
    "a gigabyte of nothing": ("tls.crt", b"x" * ((1 << 20) + 1), "larger than 1 MiB"),
}


@pytest.mark.parametrize(("name", "data", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_refused_in_words(files: TlsFiles, name: str, data: bytes | None, words: str) -> None:
    file = files.cert.parent / name
    file.unlink() if data is None else file.write_bytes(data)
    with pytest.raises(UnreadableInput) as refused:
        read(files)
    assert words in str(refused.value)
    assert name in str(refused.value)


@given(st.datetimes(datetime(1960, 1, 1), datetime(2400, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC)))
def test_when_a_certificate_ends_is_read_as_others_read_it(end: datetime) -> None:
    pem = CA.certify("a", days=(end - datetime.now(UTC)) / timedelta(days=1)) if end > datetime.now(UTC) else OURS
    assert expiry(pem.cert.decode()) == x509.load_pem_x509_certificate(pem.cert).not_valid_after_utc


@given(st.integers(0, len(OURS.cert)), st.integers(0, 255))
def test_damage_is_a_certificate_or_an_error_that_is_expected(at: int, value: int) -> None:
    damaged = OURS.cert[:at] + bytes([value]) + OURS.cert[at + 1 :]
    with contextlib.suppress(ValueError, IndexError):
        expiry(damaged.decode("latin-1"))


# ---- watching --------------------------------------------------------------------------------------------------------


class Watched(TlsWatch):
    """A watch that looks when it is told, and what it has told."""

    def __init__(self, files: TlsFiles) -> None:
        self.told: list[tuple[str, str]] = []
        super().__init__(files, lambda *words: self.told.append(words))
        self.start()

    def after(self) -> list[str]:
        """One look; the results told since the last one."""
        before = len(self.told)
        asyncio.run(self.look())
        return [result for result, _ in self.told[before:]]


def test_what_changes_whole_comes_into_use(files: TlsFiles) -> None:
    watch, new = Watched(files), CA.certify("policyd.svc")
    assert watch.after() == []
    new.put(files.cert.parent)
    assert watch.after() == ["loaded"]
    assert (watch.current.cert, watch.current.key) == (new.cert, new.key)
    assert watch.after() == []


def test_a_new_authority_alone_comes_into_use(files: TlsFiles) -> None:
    watch, other = Watched(files), Authority("another").pem
    assert files.client_ca
    replace(files.client_ca, other + CA.pem)
    assert watch.after() == ["loaded"]
    assert watch.current.client_ca == other + CA.pem


def test_half_a_change_keeps_what_was_good_and_is_told_once(files: TlsFiles) -> None:
    watch, new = Watched(files), CA.certify("policyd.svc")
    replace(files.cert, new.cert)
    assert watch.after() == ["refused"]
    assert watch.after() == []
    assert watch.current.cert == OURS.cert
    assert "is not the key of" in watch.refused
    replace(files.key, new.key)
    assert watch.after() == ["loaded"]
    assert (watch.current.cert, watch.refused) == (new.cert, "")


def test_what_goes_back_to_what_it_was_is_no_news(files: TlsFiles) -> None:
    watch = Watched(files)
    files.key.unlink()
    assert watch.after() == ["refused"]
    OURS.put(files.key.parent)
    assert watch.after() == []
    assert watch.refused == ""


def test_a_mounted_secret_changes_by_one_link(tmp_path: Path) -> None:
    """As the kubelet does it: files are links through `..data`, which is replaced."""

    def mount(number: int, certified: Certified) -> None:
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        certified.put(folder)
        (tmp_path / "..next").symlink_to(folder.name)
        (tmp_path / "..next").replace(tmp_path / "..data")

    mount(1, OURS)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    watch, new = Watched(TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")), CA.certify("policyd.svc")
    mount(2, new)
    assert watch.after() == ["loaded"]
    assert watch.current == Pems(new.cert, new.key)


def test_what_nobody_foresaw_is_told_and_ends_no_watch(files: TlsFiles) -> None:
    watch, new, looks = Watched(files), CA.certify("policyd.svc"), []

    async def pause(_: float) -> None:
        looks.append(len(watch.told))
        if len(looks) == 3:
            watch.files = files
            new.put(files.cert.parent)
        if len(looks) == 4:
            raise asyncio.CancelledError

    watch.pause, watch.files = pause, Unforeseen(files.cert, files.key)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch.watch())
    assert watch.told[0] == ("refused", "RuntimeError: of a kind that nobody foresaw")
    assert [result for result, _ in watch.told] == ["refused", "loaded"]
    assert watch.current.cert == new.cert


class Unforeseen(TlsFiles):
    @property
    def all(self) -> tuple[Path, ...]:
        raise RuntimeError("of a kind that nobody foresaw")


def test_any_order_of_writes_ends_with_what_was_written(files: TlsFiles) -> None:
    """And what is in use at any time fits together, as `read` found it."""
    watch, pairs = Watched(files), [CA.certify("policyd.svc") for _ in range(4)]
    whole = {OURS.cert: OURS.key, **{pair.cert: pair.key for pair in pairs}}
    for number, pair in enumerate(pairs):
        for step in ((files.key, pair.key), (files.cert, pair.cert))[:: -1 if number % 2 else 1]:
            step[0].write_bytes(step[1])  # in place: the same inode
            os.utime(step[0], ns=(number, number))  # and a clock that stands still
            watch.after()
            assert whole[watch.current.cert] == watch.current.key
        assert watch.current.cert == pair.cert


# ---- names -----------------------------------------------------------------------------------------------------------

URI, DNS, IP = Kind.URI, Kind.DNS, Kind.IP
NAMES = {
    "spiffe://td/ns/a/sa/b": Name(URI, "spiffe://td/ns/a/sa/b"),
    "spiffe://td": Name(URI, "spiffe://td"),
    "https://a.example/x": Name(URI, "https://a.example/x"),
    "Envoy.Policyd.svc": Name(DNS, "envoy.policyd.svc"),
    "envoy": Name(DNS, "envoy"),
    "10.0.0.1": Name(IP, "10.0.0.1"),
    "::1": Name(IP, "::1"),
}
PATTERNS = {
    ("spiffe://td/ns/*/sa/envoy", "spiffe://td/ns/a/sa/envoy"): True,
    ("spiffe://td/ns/*/sa/envoy", "spiffe://td/ns/a/b/sa/envoy"): False,
    ("spiffe://td/ns/*/sa/envoy", "spiffe://td/ns//sa/envoy"): False,
    ("spiffe://td/ns/*/sa/envoy", "spiffe://td/ns/a/sa/envoys"): False,
    ("spiffe://td/ns/a", "spiffe://td/ns/a/sa/b"): False,
    ("spiffe://td/ns/a", "spiffe://TD/ns/a"): False,
    ("*.policyd.svc", "envoy.policyd.svc"): True,
    ("*.policyd.svc", "policyd.svc"): False,
    ("*.policyd.svc", "a.b.policyd.svc"): False,
    ("*.policyd.svc", ".policyd.svc"): False,
    ("ENVOY.svc", "envoy.SVC"): True,
    ("envoy.svc", "xenvoy.svc"): False,
    ("10.0.0.1", "10.0.0.1"): True,
}
NO_NAMES = ("", " ", "a b", "spiffe://", "spiffe://td/a*", "spiffe://*/a", "*", "a.*", "a*.b", "*.*.b", "http:/x", "-a")


@pytest.mark.parametrize("text", NAMES)
def test_a_name(text: str) -> None:
    assert parse_name(text) == NAMES[text]


@pytest.mark.parametrize(("pattern", "name"), PATTERNS)
def test_a_pattern_means_whole_segments(pattern: str, name: str) -> None:
    assert parse_name(pattern, patterns=True).matches([name]) is PATTERNS[pattern, name]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadSetting):
        parse_name(text, patterns=True)


def test_a_pattern_is_no_name() -> None:
    with pytest.raises(BadSetting, match="whole name"):
        parse_name("*.policyd.svc")
