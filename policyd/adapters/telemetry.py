"""Metrics for Prometheus. Labels come from closed sets only: nothing that a caller sends becomes a label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from policyd.core.model.counters import NANO
from policyd.core.model.decision import DecisionRecord, Verdict

_LATENCIES = (25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 0.1, 0.5, 2.0)
_ERRORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_INSPECTIONS = ("full", "partial", "none")
_ENDINGS = ("complete", "cut", "rejected", "cancelled", "broken")
_RELOADS = ("loaded", "unchanged", "refused")
_CERTIFICATES = ("loaded", "refused")
_TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cached_input_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}
_OTHER = "other"


class _Latency(Collector):
    """How long messages waited: a histogram that costs a message no lock and no walk over its buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_LATENCIES) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_LATENCIES, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads: each bucket counts all that are no larger."""
        bounds = [*map(floatToGoString, _LATENCIES), "+Inf"]
        buckets = [*zip(bounds, accumulate(self._counts), strict=True)]
        yield HistogramMetricFamily(
            "policyd_added_latency_seconds",
            "from a message's arrival to the answer to it",
            buckets=buckets,
            sum_value=self._sum,
        )


@dataclass(slots=True)
class _Series:
    """A metric's series by their labels, each looked for once: prometheus_client takes a lock and makes strings of
    labels each time. Labels come from closed sets, so this is bounded."""

    metric: Counter
    known: dict[tuple[str, ...], Counter] = field(default_factory=dict)

    def inc(self, *labels: str, by: float = 1) -> None:
        series = self.known.get(labels)
        if series is None:
            series = self.known[labels] = self.metric.labels(*labels)
        if by:
            series.inc(by)


@dataclass(slots=True)
class Telemetry:
    """The metrics of one process, and a sink of the records that most of them are made from."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _decisions: _Series = field(init=False)
    _would: _Series = field(init=False)
    _degraded: Counter = field(init=False)
    _inspection: _Series = field(init=False)
    _ended: _Series = field(init=False)
    _events: Counter = field(init=False)
    _nobody: _Series = field(init=False)
    _tokens: _Series = field(init=False)
    _cost: Counter = field(init=False)
    _off: Histogram = field(init=False)
    _open: Gauge = field(init=False)
    _latency: _Latency = field(init=False)
    _policy_set: Gauge = field(init=False)
    _policies: Gauge = field(init=False)
    _reloads: Counter = field(init=False)
    _given_up: Counter = field(init=False)
    _lost_records: Counter = field(init=False)
    _lost_captures: Counter = field(init=False)
    _certificates: Counter = field(init=False)  # from `tls` on
    _strangers: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._decisions = self._series("decisions", "calls decided", "verdict", "mode", "enforced")
        self._would = self._series("would", "verdicts that all rules together ask for, enforced or not", "verdict")
        self._degraded = self._counter("degraded", "calls on which a rule could not be judged and was ignored")
        self._inspection = self._series("inspection", "calls by how much of them was understood", "inspection")
        self._ended = self._series("ended", "calls by how they ended", "ended")
        self._events = self._counter("events", "protocol events read")
        self._nobody = self._series(
            "identity_missing", "calls without a value for a field that --identity maps", "field"
        )
        self._tokens = self._series("tokens", "tokens of calls; cached and written are part of input", "class")
        self._cost = self._counter("cost_usd", "dollars of calls, as priced here")
        self._off = Histogram(
            "policyd_estimate_error_ratio",
            "how far the running cost of streams was off just before their bill came, either way, as a part of it",
            buckets=_ERRORS,
            registry=self.registry,
        )
        self._open = Gauge("policyd_open_calls", "calls that run now", registry=self.registry)
        self._latency = _Latency()
        self.registry.register(self._latency)
        self._policy_set = Gauge(
            "policyd_policy_set_info", "1 for the policy set in force", ["digest"], registry=self.registry
        )
        self._policies = Gauge("policyd_policies", "policies in force", registry=self.registry)
        self._reloads = self._counter("reload", "looks at changed policies by what came of them", "result")
        self._given_up = self._counter(
            "given_up_calls", "calls that were given up unanswered: Envoy lets them pass where it fails open"
        )
        self._lost_records = self._counter("records_dropped", "decision records that could not be written")
        self._lost_captures = self._counter("captures_dropped", "exchanges that could not be captured")
        self._begin_at_zero()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"policyd_{name}", text, labels, registry=self.registry)

    def _series(self, name: str, text: str, *labels: str) -> _Series:
        return _Series(self._counter(name, text, *labels))

    def _begin_at_zero(self) -> None:
        """A series that appears with its first event has no rate for it."""
        for verdict in Verdict:
            self._would.inc(verdict.value, by=0)
        for value in _INSPECTIONS:
            self._inspection.inc(value, by=0)
        for value in _RELOADS:
            self._reloads.labels(value)

    # ---- what is told -----------------------------------------------------------------------------------------------

    def write(self, record: DecisionRecord) -> None:
        """Count one decision."""
        self._decisions.inc(record.verdict.value, record.mode.value, "true" if record.enforced else "false")
        self._would.inc(record.would.value)
        if record.degraded:
            self._degraded.inc()
        self._inspection.inc(_closed(record.inspection, _INSPECTIONS))
        self._ended.inc(_closed(record.ended, _ENDINGS))
        self._events.inc(record.events)
        for name in record.identity_missing:
            self._nobody.inc(name)
        self._cost.inc(record.cost_nano / NANO)
        if record.estimate_error is not None:
            self._off.observe(abs(record.estimate_error))
        for label, name in _TOKENS.items():
            self._tokens.inc(label, by=_amount(record.usage.get(name)))

    def open_calls(self, count: Callable[[], float]) -> None:
        """Where to ask how many calls run: when the page is read, not on the way of a call."""
        self._open.set_function(count)

    def memory(self, used: Callable[[], float]) -> None:
        """Where to ask what the calls in flight take of the memory budget."""
        words = "what calls in flight are taken to need, of --memory-budget"
        Gauge("policyd_memory_in_flight_bytes", words, registry=self.registry).set_function(used)

    def loop(self, longest: Callable[[], float]) -> None:
        """Where to ask how long a turn of the event loop took at most, where that is watched."""
        words = "processor time of the longest turn of the event loop since this page was last read"
        Gauge("policyd_longest_turn_seconds", words, registry=self.registry).set_function(longest)

    def redis(
        self, up: Callable[[], float], calls: Callable[[], float], owed: Callable[[], float], size: Callable[[], float]
    ) -> None:
        """Where to ask how the counter store is, where there is one of its own."""
        for name, words, ask in (
            ("up", "1 while it can be asked, as seen at the last look", up),
            ("calls", "running calls that have a reservation", calls),
            ("owed_settlements", "settlements that it could not take yet", owed),
            ("journal_bytes", "what these have on disk, with --state", size),
        ):
            Gauge(f"policyd_redis_{name}", f"Redis: {words}", registry=self.registry).set_function(ask)

    def tls(self, expires: Callable[[], float]) -> None:
        """Where to ask when our certificate ends (Unix time, seconds), where there is one."""
        words = "when our own certificate ends, in seconds since 1970"
        Gauge("policyd_tls_certificate_expires_seconds", words, registry=self.registry).set_function(expires)
        self._certificates = self._counter("tls_reload", "changed certificates by what came of them", "result")
        self._strangers = self._counter("tls_refused_calls", "calls of clients that their certificate does not admit")
        for value in _CERTIFICATES:
            self._certificates.labels(value)

    def tls_reload(self, result: str) -> None:
        """Changed certificates were looked at. Only after `tls`."""
        self._certificates.labels(_closed(result, _CERTIFICATES)).inc()

    def tls_refused(self) -> None:
        """A call was refused for its client's certificate. Only after `tls`."""
        self._strangers.inc()

    def message(self, seconds: float) -> None:
        """How long one message of Envoy's waited for its answer."""
        self._latency.observe(seconds)

    def given_up(self) -> None:
        """A call was given up before it was answered, most likely by Envoy's message_timeout."""
        self._given_up.inc()

    def policy_set(self, digest: str, policies: int) -> None:
        """A policy set is in force from now on."""
        self._policy_set.clear()
        self._policy_set.labels(digest).set(1)
        self._policies.set(policies)

    def reload(self, result: str) -> None:
        self._reloads.labels(_closed(result, _RELOADS)).inc()

    def records_dropped(self, count: int) -> None:
        self._lost_records.inc(count)

    def captures_dropped(self, count: int) -> None:
        self._lost_captures.inc(count)

    def page(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)


def _closed(value: str, allowed: tuple[str, ...]) -> str:
    return value if value in allowed else _OTHER


def _amount(value: object) -> float:
    """Providers' numbers may be anything; a counter only takes what does not count back."""
    return value if isinstance(value, int | float) and value > 0 else 0
