"""A record for every decision, and metrics that say the same as the records: a mix of everything that can happen."""

from __future__ import annotations

import json
from collections import Counter

from policyd.adapters.records import RecordFile, Sinks
from policyd.adapters.telemetry import Telemetry
from policyd.core.model.decision import Mode
from tests.driving import Bed, FlatPrices, answer_of, chat, policy, stream_of
from tests.fakes import ListSink

DOCUMENTS = [
    policy(
        """matchConditions: [{name: t, expression: caller.team != "quiet"}]
counters: [{name: cost, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 9 USD}]
rules:
- {name: no, severity: Critical, when: 'request.model == "bad"', terminate: {}}
- {name: move, when: 'request.model == "dear"', reroute: {model: gpt-4o}}
- {name: cap, when: 'request.max_tokens > 100', constrain: {cap: {max_tokens: 5}}}
- {name: cut, severity: Critical, when: 'response.text.contains("secret")', terminate: {}}""",
        "full",
    ),
    policy("rules: [{name: would, when: request.stream, terminate: {}}]", "watching", mode="Monitor"),
    policy(
        'failurePolicy: Ignore\nrules: [{name: err, when: \'request.headers["x-odd"] == "1"\', terminate: {}}]', "odd"
    ),
]
CALLS: list[dict[str, object]] = [
    {"body": chat(), "chunks": [answer_of("hello")]},
    {"body": chat(model="bad")},
    {"body": chat(model="dear"), "chunks": [answer_of("hello")]},
    {"body": chat(max_tokens=200), "chunks": [answer_of("hello")]},
    {"body": chat(stream=True), "chunks": stream_of("a ", "b ", "c ")},
    {"body": chat(stream=True), "chunks": stream_of("a ", "secret ", "c ")},
    {"body": chat(stream=True), "chunks": [*stream_of("a ")[:-1], b"data: {broken\n\n"]},
    {"body": chat(stream=True), "chunks": stream_of("a ", "b "), "finish": False},
    {"body": chat(), "chunks": [b"no json"]},
    {"body": b"{", "chunks": [answer_of("hello")]},
    {"body": chat(), "status": 500, "chunks": [b'{"error": {"message": "x"}}']},
    {"body": b"{}", "path": "/v1/models", "method": "GET", "chunks": [b"{}"]},
    {"body": chat(), "headers": (("x-odd", "1"),)},
]


class Lines:
    """Where the lines of records go."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def put(self, line: object) -> None:
        self.lines.append(json.loads(line()))  # type: ignore[operator]


def played(mode: Mode) -> tuple[Telemetry, list[dict[str, object]], int]:
    """Every call, each by a team that all policies see and by one that some do not."""
    telemetry, lines, seen = Telemetry(), Lines(), ListSink()
    bed = Bed(*DOCUMENTS, mode=mode, prices=FlatPrices("gpt-4o", "dear", "bad"))
    bed.sink = seen
    bed.enforcer.sink = Sinks((seen, telemetry, RecordFile(lines)))
    for call in CALLS:
        for team in ("loud", "quiet"):
            headers = (*call.get("headers", ()), ("x-team-id", team), ("x-session-id", team))  # type: ignore[misc]
            bed.call(**{**call, "headers": headers})
    return telemetry, lines.lines, 2 * len(CALLS)


def sample(telemetry: Telemetry, name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def test_every_decision_has_its_record_and_the_metrics_agree() -> None:
    verdicts: set[object] = set()
    endings: set[object] = set()
    for mode in Mode:
        telemetry, records, calls = played(mode)
        assert len(records) == len({str(record["id"]) for record in records}) == calls
        verdicts |= {record["verdict"] for record in records}
        endings |= {record["ended"] for record in records}
        agree(telemetry, records)
    assert verdicts == {"allow", "constrain", "reroute", "terminate"}
    assert endings == {"complete", "cut", "rejected", "cancelled"}


def agree(telemetry: Telemetry, records: list[dict[str, object]]) -> None:
    total = len(records)
    decided = Counter((str(r["verdict"]), str(r["mode"]), str(r["enforced"]).lower()) for r in records)
    for (verdict, mode, enforced), count in decided.items():
        labels = {"verdict": verdict, "mode": mode, "enforced": enforced}
        assert sample(telemetry, "policyd_decisions_total", **labels) == count
    assert added(telemetry, "policyd_decisions_total") == total
    for field, label in (("would", "verdict"), ("inspection", "inspection"), ("ended", "ended")):
        for value, count in Counter(str(record[field]) for record in records).items():
            assert sample(telemetry, f"policyd_{field}_total", **{label: value}) == count
        assert added(telemetry, f"policyd_{field}_total") == total
    degraded = sum(bool(record["degraded"]) for record in records)
    assert 0 < degraded < total
    assert sample(telemetry, "policyd_degraded_total") == degraded
    events = [record["events"] for record in records]
    assert sample(telemetry, "policyd_events_total") == sum(int(str(count)) for count in events) > 0
    cost = sum(float(str(record["cost_usd"])) for record in records)
    assert abs(sample(telemetry, "policyd_cost_usd_total") - cost) < 1e-9
    assert cost > 0


def added(telemetry: Telemetry, name: str) -> float:
    """One metric over all its labels."""
    return sum(s.value for metric in telemetry.registry.collect() for s in metric.samples if s.name == name)
