"""Policies from Kubernetes: LLMPolicy and ClusterLLMPolicy, listed and watched, and the set in force kept in step.

Rule 1: level-triggered: each change leads to one look at all objects, and changes that come meanwhile to one more.
Rule 2: an object that does not compile keeps no other one out; its last good text stays in force.
Rule 3: policies that are all gone stay in force, unless `allow_empty`: a definition that was deleted looks the same as
        policies that somebody has deleted.
Rule 4: a server that is away changes nothing. A start without one takes the last good policies from `--state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policyd.adapters.aside import aside
from policyd.adapters.errors import NotAvailable
from policyd.adapters.policies_kube.access import Access
from policyd.adapters.policies_kube.api import Api, Object, policies_path
from policyd.adapters.policies_kube.gateway_api import Attachments
from policyd.adapters.policies_kube.good import Judged, LastGood, Policy, Texts, policy_of
from policyd.adapters.policies_kube.kept import Keeper, Kept
from policyd.adapters.policies_kube.mirror import RESYNC_S, Mirror
from policyd.adapters.policies_kube.report import Reporter, Running
from policyd.adapters.reloads import Compile, Reload
from policyd.core.compile.carry import CODE
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue
from policyd.core.model.route import ObjectName

log = logging.getLogger("policyd")

NAMESPACED, CLUSTER = "llmpolicies", "clusterllmpolicies"
PATIENCE_S = 20.0  # how long a start waits for the API server
_NONE = "the API server has no policies (`--allow-empty` serves without)"
REST = 4.0  # times as long as a look took, none begins: changes without end leave four fifths of the time to calls
LONGEST_REST_S = 1.0
SKEWED_RESYNC_S = 15.0  # between lists while policies have fields of another version: no event tells when these go


@dataclass(slots=True)
class PolicyObjects:
    """The policy set in force, kept in step with objects. `start` once, then `watch` until cancelled."""

    access: Access
    compile: Compile
    report: Callable[[Reload], None] = lambda _: None
    namespace: str | None = None  # only this namespace's LLMPolicies
    state: Path | None = None
    name: str = ""  # of this replica's report; empty: none is written
    untold: Callable[[], str] = lambda: ""  # what is not known of calls, for the operator
    uncarried: Callable[[], Mapping[str, str]] = dict  # in force, by file: why Envoy cannot carry it
    allow_empty: bool = False  # no policies at all are meant
    patience_s: float = PATIENCE_S
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    refused: Reload | None = None  # the newest reload, if parts of it did not come into force
    _current: PolicySet | None = None
    _judged: Judged | None = None  # the newest state
    _good: LastGood = field(init=False)
    _mirrors: tuple[Mirror[Policy], ...] = ()
    _attachments: Attachments = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _api: Api = field(init=False)
    _reporter: Reporter | None = None
    _keeper: Keeper | None = None

    def __post_init__(self) -> None:
        self._good = LastGood(self.compile, placeholders=True)
        self._keeper = Keeper(Kept(self.state)) if self.state else None

    @property
    def current(self) -> PolicySet:
        """The set in force. INVARIANT: after `start` there always is one."""
        assert self._current is not None, "start() first"
        return self._current

    @property
    def home(self) -> str:
        """The namespace that calls are taken for whose route is not told."""
        return self.namespace or self.access.namespace

    def parents(self, route: ObjectName) -> tuple[ObjectName, ...]:
        """The Gateways that this HTTPRoute is attached to, as far as is known."""
        return self._attachments.parents(route)

    @property
    def away(self) -> str:
        """Why the API server is out of reach; empty while it is not."""
        return next((mirror.failure for mirror in self._mirrors if mirror.failure), "")

    @property
    def unready(self) -> str:
        """Why no new calls should come here; empty while they may."""
        if self.refused is not None and self.refused.lost:
            return self.refused.failure
        if not self.current.policies and not self.allow_empty:
            return f"kube: {_NONE}"
        if self.current.policies and len(self.placeholders) == len(self.current.policies):
            why = next(iter(self.refused.issues), "") if self.refused is not None else ""
            return f"kube: none of {len(self.placeholders)} policies can be read: {why}"
        return ""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The policies of which no text can be read: calls that they could match cannot be judged."""
        return self._judged.placeholders if self._judged is not None else ()

    async def start(self) -> tuple[Issue, ...]:
        """Put the first set in force and give its warnings. Raises NotAvailable without a server and kept policies."""
        self._api = Api(self.access)
        kept = self._keeper.kept.read() if self._keeper else None
        self._good.texts = dict(kept or {})
        places = (policies_path(NAMESPACED, self.namespace), policies_path(CLUSTER))
        self._mirrors = tuple(Mirror(self._api, place, _written, self._news.set) for place in places)
        self._attachments = Attachments(self._api, self.namespace, self.state)
        self._tasks = [asyncio.create_task(mirror.run()) for mirror in self._mirrors]
        self._tasks.append(asyncio.create_task(self._attachments.run()))
        try:
            judged = await self._first(kept)
        except BaseException:
            await self.close()
            raise
        self._judged, self._current = judged, judged.policy_set
        self._tell_refused(judged)
        return judged.issues

    async def _first(self, kept: Texts | None) -> Judged:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience_s if kept is None else min(self.patience_s, 2.0)):
                for mirror in self._mirrors:
                    await mirror.synced.wait()
                await self._attachments.mirror.answered.wait()
        if self._synced:
            self._news.clear()
            if self._newest() or not kept or self.allow_empty:
                return (await self._judge(self._newest()))[0]
            return await aside(self._good.restored)  # the first look says that they are gone
        if kept is None:
            raise NotAvailable(f"kube: {self.access.url}: {_hinted(self.away)}")
        why = self.away or "it takes long to list them"
        log.warning("kube: %s: %s: begun with the last good policies of %s", self.access.url, why, self.state)
        return await aside(self._good.restored)

    @property
    def _synced(self) -> bool:
        return all(mirror.synced.is_set() for mirror in self._mirrors)

    def _newest(self) -> list[Policy]:
        return [policy for mirror in self._mirrors for policy in mirror.objects.values()]

    async def _judge(self, newest: list[Policy]) -> tuple[Judged, str]:
        """What they come to, and the mark of their state."""

        def judge() -> tuple[Judged, str]:
            # Sorted, so that what is compiled does not depend on the order of events.
            newest.sort(key=lambda policy: policy.file)
            generations = {policy.file: policy.generation for policy in newest}
            return self._good.judge(_texts(newest), generations), seen_mark(newest)

        return await aside(judge)

    async def watch(self) -> None:
        """Follow the objects, for ever."""
        if self.name:
            self._reporter = Reporter(self._api, self.name, self.home, self.untold)
            self._tasks.append(asyncio.create_task(self._reporter.run()))
        if self._keeper is not None:
            self._tasks.append(asyncio.create_task(self._keeper.run()))
        self._news.set()  # what has happened since the start, and the first sign of life
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self._synced:
                    began = time.monotonic()
                    await self._looked()
                    await self.pause(min(LONGEST_REST_S, REST * (time.monotonic() - began)))
        finally:
            await self.close()

    def again(self) -> None:
        """Judge anew what was refused."""
        self._good.again()
        self._news.set()

    async def _looked(self) -> None:
        """A look that fails leaves the set in force, and is said: the next change leads to the next one."""
        try:
            await self.look()
        except Exception as error:
            log.exception("kube: changed policies could not be taken")
            failure = f"{type(error).__name__}: {error}"
            self.refused = Reload("refused", self.current.digest, failure=failure)
            self.report(self.refused)

    async def look(self) -> None:
        """One look at all objects."""
        before = self._good.texts
        judged, mark = await self._judge(self._newest())
        new = judged.policy_set
        if self.current.policies and not new.policies and not self.allow_empty:
            self._good.texts = before
            self._tell_lost()
            return
        self._judged = judged
        for mirror in self._mirrors:
            mirror.resync_s = SKEWED_RESYNC_S if judged.other_version else RESYNC_S
        if new.digest != self.current.digest:
            self._current = new
            self.report(Reload("loaded", new.digest, judged.issues))
        self._tell_refused(judged)
        if self._reporter is not None:
            lacking = {**self.uncarried(), **_uncarried(judged)}
            self._reporter.tell(Running(new.digest, mark, self.namespace or "", lacking))
        if self._keeper is not None:
            self._keeper.keep(judged.texts)

    def _tell_lost(self) -> None:
        told = Reload("refused", self.current.digest, failure=f"kube: {_NONE}", lost=True)
        if self.refused != told:
            self.report(told)
        self.refused = told

    def _tell_refused(self, judged: Judged) -> None:
        issues = tuple(issue for why in judged.refused.values() for issue in why)
        told = Reload("refused", judged.policy_set.digest, issues) if issues else None
        if told is not None and (self.refused is None or self.refused.issues != issues):
            self.report(told)
        self.refused = told

    async def close(self) -> None:
        """Leave the API server, and the newest policies on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.close()


def _written(one: Object) -> Policy:
    """Without its status: that is the operator's, and ten thousand are a hundred MiB for the collector to look at."""
    return policy_of({**one, "status": None})


def _uncarried(judged: Judged) -> dict[str, str]:
    """What was refused for the sake of Envoy, by file."""
    found = {file: [str(issue) for issue in why if issue.code == CODE] for file, why in judged.refused.items()}
    return {file: "\n".join(words) for file, words in found.items() if words}


def _texts(policies: Iterable[Policy]) -> Texts:
    return {policy.file: policy.text for policy in policies}


def _hinted(why: str) -> str:
    hint = " (are the CRDs applied?)" if why.startswith("404") else ""
    return f"{why or 'no answer'}{hint}"


def seen_mark(policies: Iterable[Policy]) -> str:
    """A name of a state of the objects, whatever the order: two that judged the same state say the same."""
    return f"{sum(policy.mark for policy in policies) % (1 << 128):032x}"
