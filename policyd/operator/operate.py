"""The operator's life: watch policies and replicas, compile, and write what became of them while leading.

Rule 1: level-triggered, as the data plane is: every look is at everything, and writes only what differs.
Rule 2: only who leads writes; the webhook, where it is wanted, is served by every one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

from policyd.adapters.admin import Admin, Answer, text
from policyd.adapters.envoy.config import Address
from policyd.adapters.policies_kube import CLUSTER, NAMESPACED
from policyd.adapters.policies_kube.access import Access
from policyd.adapters.policies_kube.api import Api, policies_path
from policyd.adapters.policies_kube.gateway_api import exists, mirror_of
from policyd.adapters.policies_kube.good import Judged, LastGood, Policy, policy_of
from policyd.adapters.policies_kube.mirror import Mirror
from policyd.adapters.policies_kube.report import reports_path
from policyd.adapters.reloads import Documents
from policyd.adapters.tls_files import TlsFiles
from policyd.core.compile.compiler import Compiled, Compiler
from policyd.core.errors import Issue
from policyd.core.model.route import GATEWAY, HTTP_ROUTE
from policyd.core.review.overruled import Overruled
from policyd.operator.conflicts import Conflicts
from policyd.operator.leading import Leadership
from policyd.operator.liveness import Liveness
from policyd.operator.status import Replica, State, is_news, replica_of, statuses
from policyd.operator.targets import known_of
from policyd.operator.webhook import Webhook
from policyd.operator.writing import Writer

log = logging.getLogger("policyd")

LOOK_S = 5.0  # replicas lapse without a word
MOST_A_LOOK = 250  # statuses: what is news meanwhile need not wait for all others
GATHER_S = 0.05  # news comes in bursts
AGAIN_S = 5.0  # between attempts while the definition of reports, or the right to read them, is missing
LONGEST_REST_S = 1.0  # between looks, each of which takes its time where there are many policies


@dataclass(slots=True)
class Operator:
    """One process of the operator. `run` returns when it has been told to stop."""

    access: Access
    identity: str
    admin: Address | None = None
    webhook: Address | None = None
    files: TlsFiles | None = None  # the webhook's certificate; None: it makes its own
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _api: Api = field(init=False)
    _policies: tuple[Mirror[Policy], ...] = ()
    _replicas: Mirror[Replica] = field(init=False)
    _targets: dict[str, Mirror[bool]] = field(init=False)  # the Gateway API's objects, by kind
    _leadership: Leadership = field(init=False)
    _webhook: Webhook | None = None
    _compiler: Compiler = field(default_factory=Compiler)
    _compiled: Compiled | None = None  # the last one
    _good: LastGood = field(init=False)
    _living: Liveness = field(default_factory=Liveness)
    _conflicts: Conflicts = field(default_factory=Conflicts)
    _judged: tuple[dict[str, str], Judged, Mapping[str, Overruled]] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self._good = LastGood(self._compile)
        self._api = Api(self.access, "policyd-operator")
        news = self._news.set
        self._policies = tuple(
            Mirror(self._api, policies_path(kind), policy_of, news) for kind in (NAMESPACED, CLUSTER)
        )
        # In our own namespace alone, of a kind that tenants cannot write: a report speaks for every policy.
        self._replicas = Mirror(self._api, reports_path(self.access.namespace), replica_of, news, again_s=AGAIN_S)
        self._targets = {kind: mirror_of(self._api, kind, exists, news) for kind in (GATEWAY, HTTP_ROUTE)}
        self._leadership = Leadership(self._api, self.identity, news)
        self._writer = Writer(self._api, lambda: self._leadership.leads)
        if self.webhook is not None:
            self._webhook = Webhook(self.webhook, self._api, self._named, self.files)

    async def run(self) -> None:
        """Follow and write until told to stop. Raises NotAvailable when the admin port is taken."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._pages())
            stack.push_async_callback(self._api.close)
            follows = [mirror.run() for mirror in self._policies] + [one.run() for one in self._targets.values()]
            parts = [*follows, self._replicas.run(), self._leadership.run(), self._follow()]
            if self._webhook is not None:
                await stack.enter_async_context(self._webhook.serving())
                parts.append(self._webhook.watch())
            running = [asyncio.create_task(part) for part in parts]
            stop = asyncio.create_task(self.stopping.wait())
            try:
                ended, _ = await asyncio.wait((stop, *running), return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # none but `stop` ends by itself: what broke is raised here
            finally:
                for task in (stop, *running):
                    task.cancel()
                await asyncio.gather(stop, *running, return_exceptions=True)

    def _named(self, names: frozenset[str]) -> list[Policy]:
        """The policies of these names, in any namespace."""
        return [one for mirror in self._policies for one in list(mirror.objects.values()) if one.name in names]

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT end it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)

    async def _follow(self) -> None:
        answered = (self._replicas.answered, *(mirror.answered for mirror in self._targets.values()))
        for synced in (*self._synced(), *answered):
            await synced.wait()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # wait_for may swallow a cancellation in Python 3.11
                    await self._news.wait()
            await asyncio.sleep(GATHER_S)
            self._news.clear()
            if self._leadership.leads:
                await self.look()

    async def look(self) -> None:
        """One look at everything, and what has to be written."""
        began = time.monotonic()
        # The newest texts first: somebody waits for what becomes of these, however many others are due.
        due = sorted(statuses(await self._state()), key=lambda one: not is_news(one[0]))
        thought = time.monotonic() - began
        whole = await self._writer.write(due[:MOST_A_LOOK])
        if len(due) > MOST_A_LOOK or not whole:
            self._news.set()
        await asyncio.sleep(min(LONGEST_REST_S, thought))

    async def _state(self) -> State:
        found = (policy for mirror in self._policies for policy in mirror.objects.values())
        policies = sorted(found, key=lambda policy: policy.file)
        texts = {policy.file: policy.text for policy in policies}
        if self._judged is None or self._judged[0] != texts:
            self._judged = texts, *await asyncio.to_thread(self._judge, texts)
        _, judged, conflicts = self._judged
        now = datetime.now(UTC)
        replicas = self._living.living(self._replicas.objects, in_step=not self._replicas.failure)
        space, known = self.access.namespace, known_of(self._targets)
        return State(policies, judged.refused, _by_file(judged.issues), replicas, now, space, known, conflicts)

    def _judge(self, texts: dict[str, str]) -> tuple[Judged, Mapping[str, Overruled]]:
        judged = self._good.judge(texts)
        return judged, self._conflicts.of(self._compiled.written if self._compiled is not None else ())

    def _compile(self, files: Documents) -> Compiled:
        self._compiled = self._compiler(files)
        return self._compiled

    # ---- pages ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _pages(self) -> AsyncIterator[None]:
        if self.admin is None:
            yield
            return
        admin = Admin({"/healthz": lambda: text(HTTPStatus.OK, "alive"), "/readyz": self._ready})
        log.info("admin on %s", Address(self.admin.host, await admin.start(self.admin.host, self.admin.port)))
        try:
            yield
        finally:
            await admin.close()

    def _ready(self) -> Answer:
        failing = self._failing()
        if not all(synced.is_set() for synced in self._synced()):
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "starting: " + "; ".join(failing or ["listing"]))
        words = ["leading" if self._leadership.leads else "standing by: another one leads", *failing]
        return text(HTTPStatus.OK, "\n".join(words))

    def _synced(self) -> list[asyncio.Event]:
        return [mirror.synced for mirror in self._policies]

    def _failing(self) -> list[str]:
        told = [*((mirror.path, mirror.failure) for mirror in self._policies)]
        told.append((self._replicas.path, self._replicas.failure))
        if self._webhook is not None:
            told.append(("webhook", self._webhook.failure))
        return [f"{path}: {failure}" for path, failure in told if failure]


def _by_file(issues: tuple[Issue, ...]) -> dict[str, tuple[Issue, ...]]:
    found: dict[str, list[Issue]] = {}
    for issue in issues:
        found.setdefault(issue.span.file, []).append(issue)
    return {file: tuple(some) for file, some in found.items()}
