"""The immutable PolicySet, and the index that finds what matches a call.

Rule 1: selecting costs what the matching policies cost, not what is loaded: sets of policies are bits of integers, one
        table a field, and four lookups meet in three ANDs. What a route is about has tables of its own.
Rule 2: the answer does not depend on the cache: it only makes the same answer the same object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from policyd.core.compile.policyset import CompiledPolicy, Engine, Match
from policyd.core.compile.scope import Scopes
from policyd.core.model.globs import glob_matches as glob_matches
from policyd.core.model.operations import NOT_BY_DEFAULT as NOT_BY_DEFAULT
from policyd.core.model.route import Route

CACHE = 4_096  # selections remembered, and routes
INDEXES = 256  # of routes that different policies are about
MAX_CACHED = 512  # characters of path and model: longer ones are selected anew, not remembered

_WILD = re.compile(r"[*?]")


@dataclass(slots=True)
class Field:
    """One field of the match: which policies (bits) fit a value of it."""

    everything: int = 0  # policies without a pattern, once all are added
    listed: int = 0  # policies with one
    exact: dict[str, int] = field(default_factory=dict)
    globs: dict[str, dict[str, int]] = field(default_factory=dict)  # literal beginning -> glob -> policies
    matchers: dict[str, Callable[[str], object]] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()  # of the literal beginnings

    def add(self, bit: int, patterns: Sequence[str]) -> None:
        self.listed |= bit
        for pattern in patterns:
            self._add(bit, pattern)

    def _add(self, bit: int, pattern: str) -> None:
        wild = _WILD.search(pattern)
        if wild is None:
            self.exact[pattern] = self.exact.get(pattern, 0) | bit
            return
        globs = self.globs.setdefault(pattern[: wild.start()], {})
        globs[pattern] = globs.get(pattern, 0) | bit

    def seal(self, every: int) -> None:
        self.everything = every & ~self.listed
        self.lengths = tuple(sorted({len(beginning) for beginning in self.globs}))
        self.matchers = {glob: glob_matches(glob) for globs in self.globs.values() for glob in globs}

    def fitting(self, value: str) -> int:
        """The policies whose patterns name this value."""
        bits = self.exact.get(value, 0)
        for length in self.lengths:
            if length > len(value):
                break
            for glob, policies in self.globs.get(value[:length], {}).items():
                if policies & ~bits and self.matchers[glob](value):
                    bits |= policies
        return bits


class Index:
    """Finds policies by what of a call is static."""

    def __init__(self, policies: tuple[CompiledPolicy, ...]) -> None:
        self.policies = policies
        self.operations, self.providers, self.paths, self.models = (Field() for _ in range(4))
        for index, policy in enumerate(policies):
            self._add(1 << index, policy.match)
        for one in (self.operations, self.providers, self.paths, self.models):
            one.seal((1 << len(policies)) - 1)
        self._answer = lru_cache(CACHE)(partial(_listed, policies))

    def _add(self, bit: int, match: Match) -> None:
        if match.operations:
            self.operations.add(bit, match.operations)
        if match.providers:
            self.providers.add(bit, match.providers)
        if match.paths:
            self.paths.add(bit, match.paths)
        if match.models:
            self.models.add(bit, match.models)

    def find(
        self, operation: str, provider: str, path: str, models: tuple[str, ...] | None
    ) -> tuple[CompiledPolicy, ...]:
        default = 0 if operation in NOT_BY_DEFAULT else self.operations.everything
        bits = default | self.operations.fitting(operation)
        bits &= self.providers.everything | self.providers.fitting(provider)
        bits &= self.paths.everything | self.paths.fitting(path)
        if models is not None:
            fitting = self.models.everything
            for model in models:
                fitting |= self.models.fitting(model)
            bits &= fitting
        return self._answer(bits)


class CompiledSet:
    """Policies in force together; implements policyset.PolicySet.

    INVARIANT: nothing in here refers back to it: a set that is replaced a hundred times a second is gone with the last
    call that holds it, and waits for no collector.
    """

    def __init__(self, digest: str, policies: Iterable[CompiledPolicy], engine: Engine) -> None:
        self._digest = digest
        self._whole = Index(tuple(policies))
        self._running = tuple(policy for policy in self._whole.policies if policy.running)
        self._engine = engine
        self._cached = lru_cache(CACHE)(Index.find)
        within = lru_cache(INDEXES)(partial(_narrowed, self._whole))
        self._of_route = lru_cache(CACHE)(partial(_routed, Scopes(self._whole.policies), within))
        self._reads = _reads(self._whole.policies)

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def policies(self) -> tuple[CompiledPolicy, ...]:
        return self._whole.policies

    @property
    def running(self) -> tuple[CompiledPolicy, ...]:
        return self._running

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def reads(self) -> frozenset[str]:
        return self._reads

    @property
    def remembered(self) -> int:
        """How many selections the cache holds."""
        return self._cached.cache_info().currsize

    def select(
        self,
        operation: str,
        provider: str,
        path: str,
        model: str | tuple[str, ...] | None,
        route: Route | None = None,
    ) -> tuple[CompiledPolicy, ...]:
        models = (model,) if isinstance(model, str) else model
        index = self._whole if route is None else self._of_route(route)
        # A field that no policy lists is no part of the question, so that a client cannot flush the cache with it.
        provider = provider if index.providers.listed else ""
        path = path if index.paths.listed else ""
        models = tuple(dict.fromkeys(models)) if models is not None and index.models.listed else None
        if len(path) + sum(map(len, models or ())) > MAX_CACHED:
            return index.find(operation, provider, path, models)
        return self._cached(index, operation, provider, path, models)


def _routed(scopes: Scopes, within: Callable[[tuple[int, ...]], Index], route: Route) -> Index:
    return within(scopes.of(route))


def _narrowed(whole: Index, numbers: tuple[int, ...]) -> Index:
    """An index of these alone, made when the first call asks: what other namespaces hold costs it nothing."""
    policies = whole.policies
    return whole if len(numbers) == len(policies) else Index(tuple(policies[number] for number in numbers))


def _reads(policies: Iterable[CompiledPolicy]) -> frozenset[str]:
    every = {rule.reads for policy in policies for rule in policy.rules}
    every.update(one.amount.reads for policy in policies for one in policy.counters if one.amount is not None)
    return frozenset[str]().union(*every)


def _listed(policies: tuple[CompiledPolicy, ...], bits: int) -> tuple[CompiledPolicy, ...]:
    return tuple(policies[index] for index in _ones(bits))


def _ones(bits: int) -> Iterable[int]:
    """The indexes of the bits that are set, by bytes: shifting a long integer bit by bit would cost its square."""
    for at, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if byte:
            yield from (at * 8 + bit for bit in range(8) if byte >> bit & 1)
