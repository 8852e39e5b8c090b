"""What policies that join a call in flight may do: modes, exemptions, facts that were never read, actions too late."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.model.decision import Mode, Outcome
from policyd.core.model.steps import BodyMode, Tick
from tests.core.test_running_calls import READS, READS_NOTHING, STANDBY, STOP, TEXTS, WATCHES, Flight, broke, kill
from tests.driving import Bed, answer_of, cluster_policy, policy, stream_of
from tests.driving import Outcome as Seen
from tests.fakes import Fault, FaultyCounters

Story = Callable[[Flight], Awaitable[object]]
FOUR = stream_of(*TEXTS)[:4]
REST = stream_of(*TEXTS)[4:]


async def waiting(flight: Flight) -> None:
    await flight.ask()


async def left(flight: Flight) -> None:
    await flight.leave()


async def streaming(flight: Flight) -> None:
    await (await flight.answer()).hear(*FOUR)


async def whole(flight: Flight) -> None:
    await flight.answer(kind="application/json")


PHASES: dict[str, Story] = {"waiting": waiting, "left": left, "streaming": streaming, "whole": whole}
each_phase = pytest.mark.parametrize("phase", PHASES)


async def finished(flight: Flight) -> Seen:
    """The rest of the call, as it comes."""
    await flight.send()
    begun = bool(flight.out.body)
    if flight.out.mode is None and flight.out.rejected is None:
        await flight.answer()
    streams = REST if begun else FOUR + REST
    await flight.hear(*([answer_of("hello")] if flight.out.mode is BodyMode.WHOLE else streams), end=True)
    return await flight.end()


def played(phase: str, base: tuple[str, ...], later: tuple[str, ...], mode: Mode = Mode.FULL) -> Seen:
    async def story() -> Seen:
        flight = Flight(Bed(*base, mode=mode))
        await PHASES[phase](flight)
        flight.put(*later)
        return await finished(flight)

    return asyncio.run(story())


def undisturbed(phase: str, base: tuple[str, ...], mode: Mode = Mode.FULL) -> Seen:
    return played(phase, base, base, mode)


# ---- modes -----------------------------------------------------------------------------------------------------------

CRITICAL = STOP.replace("{name: stop,", "{name: stop, severity: Critical,")
WATCHED = STOP.replace("{name: stop,", "{name: stop, mode: Monitor,")


@each_phase
@pytest.mark.parametrize(
    ("joining", "process", "enforced"),
    [
        (kill(), Mode.FULL, True),
        (kill(mode="Monitor"), Mode.FULL, False),
        (kill(WATCHED), Mode.FULL, False),
        (kill(mode="Soft"), Mode.FULL, False),
        (kill(CRITICAL, mode="Soft"), Mode.FULL, True),
        (kill(), Mode.SOFT, False),
        (kill(CRITICAL), Mode.SOFT, True),
        (kill(CRITICAL), Mode.MONITOR, False),
    ],
)
def test_modes_are_as_ever(phase: str, joining: str, process: Mode, enforced: bool) -> None:
    out, alone = played(phase, (READS,), (READS, joining), process), undisturbed(phase, (READS,), process)
    stop = out.rule("stop")
    assert (stop.outcome, stop.enforced) == (Outcome.MATCHED, enforced)
    assert out.record.joined_digest
    assert (out.body == alone.body and out.rejected is None and not out.broken) is not enforced
    assert out.record.would == "terminate"


def test_what_a_policy_in_monitor_would_have_done_is_told() -> None:
    record = played("streaming", (READS,), (READS, kill(mode="Monitor"))).record
    assert [(one.policy, one.rule, one.event) for one in record.shadow] == [("kill", "stop", 4)]
    assert (record.event, record.ended, record.enforced) == (4, "complete", False)


# ---- what was in force stays, what is in force counts ----------------------------------------------------------------


@each_phase
def test_a_cluster_policy_that_was_in_force_may_exempt_from_a_kill_switch(phase: str) -> None:
    spare = cluster_policy('rules: [{name: spare, when: caller.team == "", allow: {rules: [kill/stop]}}]', "spare")
    out = played(phase, (READS, spare), (READS, spare, kill()))
    assert out.rule("stop").outcome is Outcome.EXEMPTED
    assert out.body == undisturbed(phase, (READS, spare)).body


@each_phase
def test_one_of_a_namespace_may_not(phase: str) -> None:
    spare = policy("rules: [{name: spare, allow: {rules: [kill/stop]}}]", "spare")
    assert played(phase, (READS, spare), (READS, spare, kill())).rule("stop").outcome is Outcome.MATCHED


@each_phase
def test_what_was_pinned_does_not_join_again(phase: str) -> None:
    """The very wording that the call began with is its own already; another wording of it joins."""
    own = kill('rules: [{name: stop, when: caller.team == "x", terminate: {}}]')
    assert played(phase, (READS, own), (own, READS)).record.joined_digest == ""
    other = own.replace('== "x"', '== ""')
    out = played(phase, (READS, own), (READS, other))
    assert out.record.joined_digest != ""
    assert out.record.ended in ("cut", "rejected")


@each_phase
def test_a_policy_for_calls_that_begin_does_not_join(phase: str) -> None:
    out, alone = played(phase, (READS,), (READS, cluster_policy(STOP))), undisturbed(phase, (READS,))
    assert (out.body, out.record.rules, out.record.joined_digest) == (alone.body, alone.record.rules, "")


@each_phase
def test_nor_one_that_is_about_other_calls(phase: str) -> None:
    for more in ("match: {models: [other]}\n", "match: {paths: [/v2]}\n", CONDITION):
        out = played(phase, (READS,), (READS, kill(more=more)))
        assert (out.body, out.record.joined_digest) == (undisturbed(phase, (READS,)).body, "")


CONDITION = "matchConditions: [{name: team, expression: caller.team == 'x'}]\n"


@pytest.mark.parametrize("again", [False, True])
def test_one_that_is_taken_back_is_not_judged_any_more(again: bool) -> None:
    late = kill("rules: [{name: stop, when: response.events > 6, terminate: {fallback: over}}]")

    async def story() -> Seen:
        flight = Flight(Bed(READS))
        await streaming(flight)
        flight.put(READS, late).put(READS)
        await flight.hear(*REST[:1])
        if again:
            flight.put(READS, late)
        await flight.hear(*REST[1:], end=True)
        return await flight.end()

    out = asyncio.run(story())
    assert out.record.ended == ("cut" if again else "complete")
    assert out.record.joined_digest != ""


# ---- from there on ---------------------------------------------------------------------------------------------------

LATER = {
    "events": "response.events > 7",
    "text": 'response.text.contains("w6 w7")',
    "text across the join": 'response.text.contains("w3 w4")',
    "text before it": 'response.text.contains("w1 w2")',
    "tokens": "response.output_tokens > 7",
    "finish": "response.finish_reasons.size() > 0",
}


@pytest.mark.parametrize("base", [READS, WATCHES], ids=["read", "watched"])
@pytest.mark.parametrize("when", LATER.values(), ids=LATER)
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 4000), max_size=9))
def test_law_4_holds_for_the_events_after_the_join(base: str, when: str, cuts: list[int]) -> None:
    late = kill(f"rules: [{{name: stop, when: '{when}', terminate: {{fallback: over}}}}]")

    async def story(chunks: list[bytes]) -> Seen:
        flight = Flight(Bed(base))
        await streaming(flight)
        flight.put(base, late)
        return await (await flight.hear(*chunks, end=True)).end()

    rest = b"".join(REST)
    places = sorted({0, len(rest), *(cut % len(rest) for cut in cuts)})
    pieces = [rest[low:high] for low, high in pairwise(places)]
    whole_, cut = asyncio.run(story([rest])), asyncio.run(story(pieces))
    assert (cut.body, cut.record.event, cut.record.rules) == (whole_.body, whole_.record.event, whole_.record.rules)
    assert whole_.record.ended == "cut"


@pytest.mark.parametrize("base", [READS, WATCHES], ids=["read", "watched"])
def test_a_silent_stream_is_cut_by_a_rule_on_time_that_joins(base: str) -> None:
    late = kill("rules: [{name: stop, when: response.elapsed_ms > 500, terminate: {fallback: over}}]")

    async def story() -> Seen:
        flight = Flight(Bed(base))
        await streaming(flight)
        flight.put(base, late)
        while not flight.over and flight.now < 5:
            at = Bed._wake(flight.out)
            assert at is not None
            flight.bed.clock.advance(max(0.0, at - flight.now))
            await flight.do(Tick(flight.now))
        return await flight.end()

    out = asyncio.run(story())
    assert out.text.endswith("over")
    assert 500 < out.record.duration_ms < 700


def test_a_redaction_that_joins_begins_with_the_next_event() -> None:
    late = kill('rules: [{name: mask, constrain: {redact: {patterns: ["w[0-9]"], in: [response]}}}]')
    for base in (READS, WATCHES):
        out = played("streaming", (base,), (base, late))
        assert out.text.startswith("w0 w1 w2 w3 [redacted] [redacted]")
        assert out.rule("mask").enforced


@pytest.mark.parametrize("at", [1, 20, 60])
def test_a_redaction_that_joins_in_the_middle_of_an_event_begins_with_the_next(at: int) -> None:
    late = kill('rules: [{name: mask, constrain: {redact: {patterns: ["w[0-9]"], in: [response]}}}]')

    async def story() -> Seen:
        flight = Flight(Bed(WATCHES))
        await streaming(flight)
        await flight.hear(REST[0][:at])
        flight.put(WATCHES, late)
        return await (await flight.hear(REST[0][at:], *REST[1:], end=True)).end()

    assert asyncio.run(story()).text.startswith("w0 w1 w2 w3 w4 [redacted] [redacted]")


def test_a_pace_that_joins_begins_where_the_answer_is() -> None:
    late = kill("rules: [{name: slow, constrain: {pace: {tokens_per_second: 10}}}]")
    for base in (READS, WATCHES):
        times = [at for at in played("streaming", (base,), (base, late)).times if at is not None]
        assert len(times) > 3
        assert times[0] < 0.1
        assert 0.05 < times[2] - times[1] < 0.5


def test_an_answer_that_left_compressed_is_broken_off() -> None:
    data = gzip.compress(b"".join(stream_of(*TEXTS)))

    async def story() -> Seen:
        flight = await Flight(Bed(WATCHES)).answer(("content-encoding", "gzip"))
        await flight.hear(data[:60])
        return await flight.put(WATCHES, kill()).end()

    out = asyncio.run(story())
    assert broke(out)
    assert out.body == data[:60]


# ---- what was never read, and what is too late -----------------------------------------------------------------------


@pytest.mark.parametrize("when", ['request.model == "x"', "session.calls > 100", 'request.text.contains("x")'])
@pytest.mark.parametrize("failure", ["Fail", "Ignore"])
def test_what_was_never_read_cannot_be_judged(when: str, failure: str) -> None:
    late = kill(f"rules: [{{name: stop, when: '{when}', terminate: {{}}}}]", more=f"failurePolicy: {failure}\n")

    async def story() -> Seen:
        return await (await Flight(Bed(READS_NOTHING)).leave()).put(READS_NOTHING, late).end()

    out = asyncio.run(story())
    assert out.rule("stop").outcome is Outcome.ERRORED
    assert out.rule("stop").reason.split(":")[0] in ("request not readable", "session")
    assert (out.rejected is not None) is (failure == "Fail")
    assert out.record.degraded is (failure == "Ignore")
    if out.rejected:
        assert (out.rejected.status, out.record.reason) == (503, "policy_error")


def test_a_kill_switch_for_some_models_cannot_tell_whose_body_was_not_read() -> None:
    async def story() -> Seen:
        flight = await Flight(Bed(READS_NOTHING)).leave()
        return await flight.put(READS_NOTHING, kill(more="match: {models: [gpt-4o]}\n")).end()

    assert asyncio.run(story()).rule("stop").outcome is Outcome.ERRORED


@pytest.mark.parametrize(
    "action",
    ["constrain: {cap: {max_tokens: 7}}", "reroute: {model: o3}", "constrain: {headers: {request: {set: {a: b}}}}"],
)
@pytest.mark.parametrize("phase", ["left", "streaming", "whole"])
def test_what_is_too_late_is_recorded_and_not_enforced(action: str, phase: str) -> None:
    out = played(phase, (READS,), (READS, kill(f"rules: [{{name: r, {action}}}]")))
    rule = out.rule("r")
    assert (rule.outcome, rule.enforced, rule.mode) == (Outcome.MATCHED, False, "Full")
    assert out.body == undisturbed(phase, (READS,)).body


def test_headers_of_an_answer_that_has_not_begun_can_still_be_changed() -> None:
    late = kill("rules: [{name: r, constrain: {headers: {response: {set: {x-notice: soon}}}}}]")
    assert played("left", (READS,), (READS, late)).response_headers["x-notice"] == "soon"
    assert not played("streaming", (READS,), (READS, late)).rule("r").enforced


def test_rules_that_read_an_answer_cannot_be_judged_of_one_that_passes_by() -> None:
    late = kill('rules: [{name: end, when: response.text.contains("x"), terminate: {}}]')
    for failure, breaks in (("Fail", True), ("Ignore", False)):

        async def story(later: str) -> Seen:
            base = (READS_NOTHING, STANDBY)
            return await (await Flight(Bed(*base)).answer()).put(*base, later).end()

        out = asyncio.run(story(late.replace("runningCalls", f"failurePolicy: {failure}\n  runningCalls")))
        assert out.rule("end").outcome is Outcome.ERRORED
        assert out.broken is breaks


def test_a_call_that_waits_for_the_store_is_judged_before_it_leaves() -> None:
    limit = "limit: 5 requests"
    keyed = policy(f"counters: [{{name: c, key: request.method, charge: Requests, window: {{idle: 1h}}, {limit}}}]")

    async def story() -> Seen:
        bed = Bed(keyed)
        store = FaultyCounters(bed.memory, {"reserve": [Fault.LATE]})
        bed.enforcer.counters = store
        flight = Flight(bed)
        going = asyncio.ensure_future(flight.ask())
        await asyncio.sleep(0)
        flight.put(keyed, kill())
        assert flight.out.rejected is None
        store.release()
        await going
        return await flight.end()

    out = asyncio.run(story())
    assert out.rejected is not None
    assert out.sent is None
    assert out.record.joined_digest != ""


# ---- a set without any of them ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    phase=st.sampled_from(sorted(PHASES)),
    base=st.lists(st.sampled_from([READS, WATCHES, READS_NOTHING, STANDBY]), min_size=1, max_size=2, unique=True),
    later=st.lists(st.sampled_from([cluster_policy(STOP, "x"), policy(STOP, "y"), STANDBY]), max_size=3, unique=True),
)
def test_a_set_that_has_none_for_calls_in_flight_changes_no_byte(phase: str, base: list[str], later: list[str]) -> None:
    first = tuple({text.split("name: ", 1)[1][:6]: text for text in base}.values())  # one of a name
    kept = tuple(text for text in first if text == STANDBY)
    after = (*kept, *(text for text in later if text != STANDBY or not kept))
    out, alone = played(phase, first, after), undisturbed(phase, first)
    assert out.body == alone.body
    assert out.rejected is None
    assert [rule for rule in out.record.rules if rule.policy != "standby"] == [
        rule for rule in alone.record.rules if rule.policy != "standby"
    ]
