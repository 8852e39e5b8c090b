"""TLS and passwords, with a real server: who gets in, and what is said to who does not."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters, server_of
from policyd.core.model.counters import CounterId, Hold, Readings, SessionCharge, SessionId, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.architecture.source import ROOT
from tests.redis.servers import MISSING, RedisServer, binary, free_port, redis_server

OF = CounterId("ns/p", "c", (), "Requests", Window(WindowKind.SLIDING, 60.0))
SESSION = SessionId("default", "s")
SECRET = "s3cret:/@"
WRITTEN = "s3cret%3A%2F%40"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server with TLS, a password, and the user that docs/redis.md describes."""
    if binary() is None:
        pytest.skip(MISSING)
    with redis_server() as server:
        with server.client() as client:
            words = next(line for line in (ROOT / "docs/redis.md").read_text().splitlines() if line.startswith("ACL "))
            client.execute_command(*words.replace("PASSWORD", SECRET).split())
            client.config_set("requirepass", SECRET)
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority's, and one of 127.0.0.1 that it has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH: no certificates can be made")
    folder = tmp_path_factory.mktemp("tls")
    (folder / "of").write_text("subjectAltName=IP:127.0.0.1")
    new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=policyd test")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    for words in (
        (*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"),
        (*new, "-keyout", "own.key", "-out", "own.csr"),
        ("openssl", "x509", "-req", "-in", "own.csr", *signed, "-extfile", "of", "-out", "own.crt"),
    ):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    found = binary()
    if found is None:
        pytest.skip(MISSING)
    port = free_port()
    options = {"tls_port": str(port), "tls_auth_clients": "no", "tls_ca_cert_file": str(certificates / "ca.crt")}
    files = {"tls_cert_file": str(certificates / "own.crt"), "tls_key_file": str(certificates / "own.key")}
    try:
        with redis_server(**options, **files) as server:
            assert server.process is not None
            yield port
    except AssertionError as failure:
        if "Bad directive" in str(failure):
            pytest.skip(f"{found} was built without TLS")
        raise


async def whole_call(url: str) -> Readings:
    """Every operation once; the reading afterwards, or the first failure."""
    store = RedisCounters(url, patience=Patience(5, 5))
    try:
        hold = (Hold(OF, 1, 5, 10),)
        settle = Settle("s", "call", ((OF, 3),), SessionCharge(SESSION, 1, 1))
        for ask in (
            partial(store.reserve, Reserve("r", "call", hold, 15.0, SESSION)),
            partial(store.extend, Extend("e", "call", hold, (2,), 15.0)),
            partial(store.settle, settle),
        ):
            found: Readings = await ask()  # type: ignore[operator]
            if found.failure:
                return found
        return await store.read(Read((OF,), SESSION))
    finally:
        await store.close()


@pytest.mark.parametrize("who", ["", "default", "policyd"])
def test_who_has_the_password_gets_in_and_the_user_of_the_docs_may_do_all_that_it_must(
    guarded: RedisServer, who: str
) -> None:
    found = asyncio.run(whole_call(f"redis://{who}:{WRITTEN}@127.0.0.1:{guarded.port}"))
    assert (found.failure, found.counters[0].value) == ("", 3)


@pytest.mark.parametrize(
    ("login", "why"),
    [
        ("", "redis wants a password"),
        (":wrong@", "redis does not take this user and password"),
        (f"nobody:{WRITTEN}@", "redis does not take this user and password"),
    ],
)
def test_a_wrong_login_is_said_to_be_one_and_the_password_to_nobody(
    guarded: RedisServer, login: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "policyd"):
        found = asyncio.run(whole_call(f"redis://{login}127.0.0.1:{guarded.port}"))
    assert why in found.failure
    assert str(guarded.port) in caplog.text
    assert "wrong@" not in caplog.text and SECRET not in caplog.text and WRITTEN not in caplog.text


def test_a_password_where_none_is_wanted_is_said_to_be_one(redis_server: RedisServer) -> None:
    found = asyncio.run(whole_call(f"redis://:{WRITTEN}@127.0.0.1:{redis_server.port}"))
    assert "redis does not take a password" in found.failure


def test_tls_counts_like_any_other(tls: int, certificates: Path) -> None:
    found = asyncio.run(whole_call(f"rediss://127.0.0.1:{tls}?ssl_ca_certs={certificates / 'ca.crt'}"))
    assert (found.failure, found.counters[0].value) == ("", 3)
    found = asyncio.run(whole_call(f"rediss://127.0.0.1:{tls}?ssl_cert_reqs=none"))
    assert not found.failure


def test_an_authority_that_is_not_ours_is_not_trusted(tls: int) -> None:
    found = asyncio.run(whole_call(f"rediss://127.0.0.1:{tls}"))
    assert "redis shows a certificate that is not trusted" in found.failure


def test_a_name_that_is_not_the_certificates_is_not_trusted_unless_it_is_said_to_be(
    tls: int, certificates: Path
) -> None:
    url = f"rediss://localhost:{tls}?ssl_ca_certs={certificates / 'ca.crt'}"
    assert "not trusted" in asyncio.run(whole_call(url)).failure
    assert not asyncio.run(whole_call(f"{url}&ssl_check_hostname=false")).failure


def test_an_authority_that_is_not_there_is_the_urls_mistake() -> None:
    with pytest.raises(OSError, match="No such file"):
        server_of("rediss://127.0.0.1:1?ssl_ca_certs=/none/such")
