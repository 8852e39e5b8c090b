"""A data plane behind TLS: who is let in, and certificates that change under running calls."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE, Address
from policyd.adapters.envoy.health import SERVING
from policyd.adapters.envoy.names import parse_name
from policyd.adapters.errors import NotAvailable, UnreadableInput
from policyd.adapters.tls_files import TlsFiles, TlsWatch
from policyd.server.plane import DataPlane
from policyd.server.settings import Settings, Tls
from tests.certificates import ENVOY, POLICYD, Authority, Certified, replace
from tests.faults.test_serving import CHECK, WATCH, folder, running, settings

__all__ = ["folder"]  # a fixture

CA, OTHER = Authority(), Authority("another authority")
RIGHT = CA.certify(ENVOY)
ROUNDS = 12


@pytest.fixture
def tls(folder: Path) -> Tls:
    CA.certify(POLICYD, "127.0.0.1").put(folder)
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", replace(folder / "ca.crt", CA.pem))
    return Tls(files, (parse_name(ENVOY), parse_name("*.envoys.svc", patterns=True), parse_name("10.0.0.9")))


def plane_of(tls: Tls, **changes: object) -> DataPlane:
    """A plane that looks at its certificates when a test does, and not by the clock."""
    made: Settings = settings(listen=Address("127.0.0.1", 0), tls=tls, **changes)
    plane = DataPlane(made)
    files_of(plane).pause = forever
    return plane


async def forever(_: float) -> None:
    await asyncio.Event().wait()


def files_of(plane: DataPlane) -> TlsWatch:
    files = plane._transport._files
    assert files
    return files


def channel(address: str, client: Certified | None, *trusted: bytes) -> Any:
    ours = (client.key, client.cert) if client else (None, None)
    roots = b"".join(trusted or (CA.pem,))
    # A channel of its own connection: others to this address would share it.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots, *ours), options)


async def check(address: str, client: Certified | None, *trusted: bytes) -> tuple[grpc.StatusCode, str]:
    """What a health check gives."""
    async with channel(address, client, *trusted) as opened:
        try:
            assert await opened.unary_unary(CHECK)(b"", timeout=10) == SERVING
        except grpc.aio.AioRpcError as refused:
            return refused.code(), str(refused.details())
    return grpc.StatusCode.OK, ""


async def process(address: str, client: Certified) -> grpc.StatusCode:
    """How a call that Envoy begins and ends at once comes out."""
    async with channel(address, client) as opened:
        call = opened.stream_stream(f"/{SERVICE}/{PROCESS_METHOD}")(timeout=10)
        await call.done_writing()
        return await call.code()


OK, DENIED, UNREACHED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE
CLIENTS: dict[str, tuple[Certified | None, grpc.StatusCode]] = {
    "the name that is allowed": (RIGHT, OK),
    "one of two names": (CA.certify("x.svc", "a.envoys.svc"), OK),
    "an address": (CA.certify("10.0.0.9"), OK),
    "another address": (CA.certify("10.0.0.8"), DENIED),
    "another name": (CA.certify(ENVOY + "s"), DENIED),
    "the name in another kind": (CA.certify("https://a.envoys.svc"), DENIED),
    "two identities": (CA.certify(ENVOY, "spiffe://cluster.local/ns/a/sa/b"), DENIED),
    "no name": (CA.certify(), DENIED),
    "another authority": (OTHER.certify(ENVOY), UNREACHED),
    "no certificate": (None, UNREACHED),
    "one that has ended": (CA.certify(ENVOY, days=-1), UNREACHED),
}


@pytest.mark.parametrize(("client", "expected"), CLIENTS.values(), ids=CLIENTS)
def test_who_is_let_in(tls: Tls, client: Certified | None, expected: grpc.StatusCode) -> None:
    plane = plane_of(tls)

    async def story() -> None:
        code, words = await check(plane.address, client)
        assert code is expected
        assert ("--tls-client-san" in words) is (code is DENIED)
        if client and code is not UNREACHED:
            assert await process(plane.address, client) is expected
            assert (f"tls_refused_calls_total {2.0 * (code is DENIED)}" in plane.telemetry.page().decode()) is True

    running(plane, story)


def test_strangers_are_named_once_in_the_log(tls: Tls, caplog: pytest.LogCaptureFixture) -> None:
    plane = plane_of(tls)

    async def story() -> None:
        for name in ("a.svc", "a.svc", "b.svc"):
            await check(plane.address, CA.certify(name))

    running(plane, story)
    said = [text for text in caplog.messages if "a client was refused" in text]
    assert len(said) == 2 and "'a.svc'" in said[0] and "'b.svc'" in said[1]


def test_without_names_the_authority_is_enough_and_without_one_nobody_is_asked(tls: Tls) -> None:
    of_the_authority, anyone = plane_of(Tls(tls.files)), plane_of(Tls(TlsFiles(tls.files.cert, tls.files.key)))

    async def story() -> None:
        assert (await check(of_the_authority.address, CA.certify("whoever")))[0] is OK
        assert (await check(of_the_authority.address, None))[0] is UNREACHED

    async def other() -> None:
        assert (await check(anyone.address, None))[0] is OK

    running(of_the_authority, story)
    running(anyone, other)


def shake_hands(
    address: str, client: Certified, folder: Path, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[str | None, bytes]:
    """The version agreed on, and the certificate that was shown (PEM)."""
    asked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asked.check_hostname, asked.verify_mode = False, ssl.CERT_NONE
    asked.set_ciphers("ALL:@SECLEVEL=0")
    asked.set_alpn_protocols(["h2"])
    asked.load_cert_chain(*client.put(folder, "client"))
    asked.minimum_version, asked.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, most
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as plain, asked.wrap_socket(plain) as spoken:
        shown = spoken.getpeercert(binary_form=True)
        assert shown
        return spoken.version(), ssl.DER_cert_to_PEM_cert(shown).encode()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_are_not_spoken_and_plain_is_not_either(tls: Tls, tmp_path: Path) -> None:
    plane = plane_of(tls)

    async def story() -> None:
        for most, expected in ((ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")):
            assert (await asyncio.to_thread(shake_hands, plane.address, RIGHT, tmp_path, most))[0] == expected
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(shake_hands, plane.address, RIGHT, tmp_path, ssl.TLSVersion.TLSv1_1)
        async with grpc.aio.insecure_channel(plane.address) as opened:
            with pytest.raises(grpc.aio.AioRpcError):
                await opened.unary_unary(CHECK)(b"", timeout=10)

    running(plane, story)


# ---- certificates that change ----------------------------------------------------------------------------------------


def test_certificates_change_under_load_and_break_nothing(tls: Tls, tmp_path: Path) -> None:
    """Both sides change authority, by way of both; between the files stand pairs that do not fit."""
    plane = plane_of(tls)
    done = asyncio.Event()
    fresh: list[tuple[grpc.StatusCode, str]] = []

    async def connect(client: Certified) -> None:
        while not done.is_set():
            fresh.append(await check(plane.address, client, CA.pem, OTHER.pem))

    async def story() -> None:
        assert tls.files.client_ca
        async with channel(plane.address, RIGHT) as opened:
            watches = [opened.unary_stream(WATCH)(b"", timeout=60) for _ in range(50)]
            assert [await one.read() for one in watches] == [SERVING] * 50
            replace(tls.files.client_ca, CA.pem + OTHER.pem)
            await files_of(plane).look()
            load = [asyncio.create_task(connect(one)) for one in (RIGHT, OTHER.certify("a.envoys.svc"))]
            for number in range(ROUNDS):
                new = (OTHER if number % 2 else CA).certify("127.0.0.1")
                replace(tls.files.cert, new.cert)
                await files_of(plane).look()
                assert b"is not the key of" in plane._ready().body
                assert plane._ready().status == 200
                replace(tls.files.key, new.key)
                await files_of(plane).look()
                assert (await asyncio.to_thread(shake_hands, plane.address, RIGHT, tmp_path))[1] == new.cert
            done.set()
            await asyncio.gather(*load)
            replace(tls.files.client_ca, OTHER.pem)
            await files_of(plane).look()
            assert (await check(plane.address, RIGHT, CA.pem, OTHER.pem))[0] is UNREACHED
            assert not any(one.done() for one in watches)
            for one in watches:
                one.cancel()

    running(plane, story)
    assert len(fresh) >= ROUNDS
    assert set(fresh) == {(OK, "")}
    page = plane.telemetry.page().decode()
    assert f'policyd_tls_reload_total{{result="loaded"}} {ROUNDS + 2}.0' in page
    assert f'policyd_tls_reload_total{{result="refused"}} {ROUNDS}.0' in page


def test_a_connection_is_renewed_and_its_calls_go_on(tls: Tls) -> None:
    plane = plane_of(Tls(tls.files, tls.clients, renewed_s=0.2))
    watch = files_of(plane)

    async def story() -> None:
        async with channel(plane.address, RIGHT, CA.pem, OTHER.pem) as opened:
            long = opened.unary_stream(WATCH)(b"", timeout=60)
            assert await long.read() == SERVING
            assert tls.files.client_ca
            replace(tls.files.client_ca, OTHER.pem)
            await watch.look()
            code = OK
            for _ in range(2000):  # on the same channel, until its connection has ended and a new one is refused
                try:
                    await opened.unary_unary(CHECK)(b"", timeout=10)
                    await asyncio.sleep(0.005)
                except grpc.aio.AioRpcError as refused:
                    code = refused.code()
                    break
            assert code is UNREACHED
            assert not long.done()
            long.cancel()

    running(plane, story)


# ---- starting --------------------------------------------------------------------------------------------------------


def test_it_does_not_start_with_half_a_pair(tls: Tls) -> None:
    replace(tls.files.key, OTHER.certify(POLICYD).key)
    with pytest.raises(UnreadableInput, match=r"tls\.key: is not the key of .*tls\.crt"):
        asyncio.run(plane_of(tls).run())


def test_a_port_in_use_is_told_over_tls_too(tls: Tls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = settings(listen=Address("127.0.0.1", taken.getsockname()[1]), tls=tls)
        with pytest.raises(NotAvailable, match="address already in use"):
            asyncio.run(DataPlane(made).run())


def test_the_pages_tell_when_the_certificate_ends(tls: Tls) -> None:
    plane = plane_of(tls)

    async def story() -> None:
        ends = files_of(plane).current.expires
        assert f"tls: certificate good until {ends:%Y-%m-%d %H:%M} UTC".encode() in plane._ready().body
        told = re.search(
            r"^policyd_tls_certificate_expires_seconds (\S+)$", plane.telemetry.page().decode(), re.MULTILINE
        )
        assert told and float(told[1]) == ends.timestamp()

    running(plane, story)
