"""The webhook's own certificate on a real API server: each replica's is trusted, and renewed while it is asked."""

from __future__ import annotations

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from policyd.adapters.envoy.config import Address
from policyd.adapters.policies_kube.access import find_access
from policyd.adapters.policies_kube.api import Api, hooks_path
from policyd.adapters.tls_files import Pems
from policyd.operator.certificate import CONFIGURATION, MOST, SERVICE, bundled, made
from policyd.operator.webhook import Webhook
from tests.certificates import Authority
from tests.envoy.harness import free_port
from tests.k8s.accounts import account
from tests.k8s.hooked import WRONG, configured, dry, unconfigured
from tests.k8s.objects import until
from tests.k8s.server import CLUSTER, ApiServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = f"{SERVICE}.policyd.svc"
LASTS_S = 5.0


def certificates(bundle: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(base64.b64decode(bundle))


def test_it_has_the_names_of_the_service_and_signs_no_other() -> None:
    (one,) = x509.load_pem_x509_certificates(made([NAME], NOW, 60).cert)
    assert one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [NAME]
    assert one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert one.not_valid_before_utc < NOW
    assert one.not_valid_after_utc == NOW + timedelta(seconds=60)


def test_a_bundle_gains_ours_and_loses_what_has_ended_and_nothing_of_others() -> None:
    other = Authority().pem
    foreign = base64.b64encode(other).decode()
    first, second = made([NAME], NOW, 60).cert, made([NAME], NOW, 600).cert
    both = bundled(bundled(foreign, [first], NOW), [second], NOW)
    assert bundled(both, [second, first], NOW) == both, "nothing to write"
    assert len(certificates(both)) == 3
    later = bundled(both, [second], NOW + timedelta(seconds=61))
    assert [one.public_bytes for one in certificates(later)] and len(certificates(later)) == 2
    assert certificates(later)[0] == x509.load_pem_x509_certificate(other)
    assert len(certificates(bundled("bm8gUEVN", [first], NOW))) == 1, "what cannot be read trusts nobody"


def test_replicas_that_are_gone_do_not_fill_it() -> None:
    bundle = ""
    for number in range(MOST + 5):
        bundle = bundled(bundle, [made([NAME], NOW, 600 + number).cert], NOW)
    assert len(certificates(bundle)) == MOST


def test_every_replica_is_trusted_and_renewed_without_a_refusal_missed(api: ApiServer, tmp_path: Path) -> None:
    if CLUSTER:
        pytest.skip("a cluster that is not the test's own cannot ask a process here")
    config = account(api, "policyd-operator").kubeconfig(tmp_path / "operator")
    access = find_access(environ={"KUBECONFIG": str(config)})
    port, shown = free_port(), list[Pems]()

    class Watched(Webhook):
        def _present(self, pems: Pems) -> None:
            super()._present(pems)
            shown.append(pems)

    def refused() -> bool:
        with api.access.client() as admin:
            return dry(admin, WRONG).status_code == 422

    async def handshake(one: Webhook, bundle: str) -> None:
        tls = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=tls, server_hostname=NAME)
        writer.close()

    async def story() -> None:
        asked = Api(access, "policyd-operator")
        one = Watched(Address("127.0.0.1", port), asked, lambda _: [], lasts_s=LASTS_S)
        two = Watched(Address("127.0.0.1", 0), asked, lambda _: [], lasts_s=LASTS_S)
        async with one.serving(), two.serving():
            watching = [asyncio.create_task(each.watch()) for each in (one, two)]
            for _ in range(500):
                if await asyncio.to_thread(refused):
                    break
                await asyncio.sleep(0.02)
            while len(shown) < 4:  # two to begin with, and each renewed
                assert await asyncio.to_thread(refused), "a certificate in use was not trusted"
                bundle = (await asked.ask("GET", hooks_path(CONFIGURATION)))["webhooks"][0]["clientConfig"]["caBundle"]
                await handshake(one, bundle)
                await handshake(two, bundle)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        await asked.close()

    with api.access.client() as admin:
        configured(admin, port)
        try:
            asyncio.run(asyncio.wait_for(story(), 40))
        finally:
            unconfigured(admin)
    assert len({pems.cert for pems in shown}) == len(shown)


def test_without_a_configuration_it_is_said_and_tried_again(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = account(api, "policyd-operator").kubeconfig(tmp_path / "operator")
    access = find_access(environ={"KUBECONFIG": str(config)})
    port = free_port()

    async def story() -> None:
        asked = Api(access, "policyd-operator")
        one = Webhook(Address("127.0.0.1", port), asked, lambda _: [], lasts_s=2.0)
        async with one.serving():
            task = asyncio.create_task(one.watch())
            await until(lambda: one.failure.startswith("404"), "the failure to be said")
            with api.access.client() as admin:
                configured(admin, port)
                await until(lambda: not one.failure, "the configuration to be found")
                unconfigured(admin)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asked.close()

    asyncio.run(story())
    assert caplog.text.count("cannot be told to trust") == 1
