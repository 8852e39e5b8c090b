"""Counters of attempts, of refusals and of different values, on whole calls."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import Mode
from policyd.core.model.steps import Ended, Failed, RequestBody, RequestHeaders
from tests.driving import Bed, Outcome, answer_of, chat, cluster_policy, policy, stream_of

COUNTER = "counters:\n- {{name: c, key: session.id, charge: {charge}, window: {{lifetime: 24h}}{limit}{more}}}"
NO = '\nrules:\n- {name: no, when: request.model == "no", terminate: {}}'
OK, REFUSED = chat(), chat(model="no")


def counter(charge: str, limit: str = "", more: str = "") -> str:
    return COUNTER.format(charge=charge, limit=f", limit: {limit}" if limit else "", more=more)


def call(bed: Bed, body: bytes = OK, **more: object) -> Outcome:
    return bed.call(body=body, chunks=[answer_of("x")], **more)  # type: ignore[arg-type]


def total(bed: Bed) -> int:
    return sum(value for counter, value in bed.memory.snapshot().items() if counter.policy == "default/p")


# ---- attempts -------------------------------------------------------------------------------------------------------

UNREADABLE: dict[str, dict[str, object]] = {
    "malformed": {"body": b"no json"},
    "no object": {"body": b"[]"},
    "encoded, damaged": {"body": b"no gzip", "headers": [("content-encoding", "gzip")]},
    "in an unknown encoding": {"body": OK, "headers": [("content-encoding", "lzma")]},
    "too large": {"body": chat("x" * 5_000)},
    "too large, as it says": {"body": chat("x" * 5_000), "headers": [("content-length", "5100")]},
    "too large when decoded": {"body": gzip.compress(b" " * 50_000), "headers": [("content-encoding", "gzip")]},
}


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
@pytest.mark.parametrize("how", UNREADABLE)
def test_a_request_that_cannot_be_read_is_an_attempt(how: str, failure_policy: str) -> None:
    bed = Bed(policy(f"failurePolicy: {failure_policy}\n{counter('Attempts', '2 attempts')}{NO}"), max_request=4_000)

    outs = [bed.call(chunks=[answer_of("x")], **UNREADABLE[how]) for _ in range(3)]  # type: ignore[arg-type]

    assert [out.record.reason for out in outs[:2]] == (["policy_error"] * 2 if failure_policy == "Fail" else ["", ""])
    assert (outs[2].record.reason, total(bed)) == ("c_exceeded", 3)
    assert outs[2].rejected is not None
    assert (outs[2].rejected.status, dict(outs[2].rejected.headers)["retry-after"]) == (429, "86400")


def test_every_call_is_an_attempt_the_refused_ones_too() -> None:
    bed = Bed(policy(counter("Attempts") + NO))

    for body in (OK, REFUSED, OK, b"no json"):
        call(bed, body)

    assert total(bed) == 4
    assert [one.spent for one in bed.sink.records[1].counters] == [1]


def test_a_limit_on_attempts_refuses_those_beyond_it_and_counts_them() -> None:
    bed = Bed(policy(counter("Attempts", "2 attempts") + NO))

    reasons = [call(bed, body).record.reason for body in (REFUSED, OK, OK, OK)]

    assert reasons == ["no", "", "c_exceeded", "c_exceeded"]
    assert total(bed) == 4


@pytest.mark.parametrize("charge", ["Attempts", "Refusals"])
def test_a_call_that_another_policys_counter_refuses_is_counted(charge: str) -> None:
    other = counter("Requests", "1 requests").replace("name: c", "name: other")
    bed = Bed(policy(counter(charge)), policy(other, "other"))

    reasons = [call(bed).record.reason for _ in range(3)]

    assert reasons == ["", "other_exceeded", "other_exceeded"]
    assert sorted(bed.memory.snapshot().values()) == [1, 3 if charge == "Attempts" else 2]


def test_an_exempted_call_is_an_attempt() -> None:
    allow = "rules:\n- {name: pass, allow: {rules: [p/c.exceeded]}}"
    bed = Bed(policy(counter("Attempts", "1 attempts")), cluster_policy(allow))

    assert [call(bed).rejected for _ in range(3)] == [None, None, None]
    assert total(bed) == 3


def test_a_rerouted_call_is_one_attempt() -> None:
    rule = '\nrules:\n- {name: move, when: request.model == "gpt-4o", reroute: {model: gpt-4o-mini}}'
    bed = Bed(policy(counter("Attempts", "5 attempts") + rule))

    call(bed)

    assert total(bed) == 1


def test_the_value_that_rules_read_is_of_the_calls_before() -> None:
    rule = "\nrules:\n- {name: no, when: counters.c.value >= 2.0, terminate: {reason: enough}}"
    bed = Bed(policy(counter("Attempts") + rule))

    assert [call(bed).record.reason for _ in range(4)] == ["", "", "enough", "enough"]
    assert total(bed) == 4


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_refusals_of_every_kind_count_and_nothing_else_does() -> None:
    cut = "\n- {name: cut, when: 'response.text.contains(\"bad\")', terminate: {}}"
    bed = Bed(policy(counter("Refusals") + NO + cut))

    counts = []
    for body, chunks in (
        (OK, [answer_of("x")]),
        (REFUSED, []),  # by a rule
        (b"no json", []),  # because it cannot be judged
        (OK, [answer_of("bad")]),  # in the upstream's place, when the response is known
        (chat(stream=True), stream_of("a ", "bad", "c")),  # cut
        (OK, [answer_of("x")]),
    ):
        bed.call(body=body, chunks=chunks)
        counts.append(total(bed))

    assert counts == [0, 1, 2, 3, 4, 4]


def test_whoever_was_refused_too_often_is_refused_from_then_on() -> None:
    bed = Bed(policy(counter("Refusals", "2 refusals") + NO))

    reasons = [call(bed, body).record.reason for body in (OK, REFUSED, OK, REFUSED, OK, OK)]

    assert reasons == ["", "no", "", "no", "c_exceeded", "c_exceeded"]
    assert total(bed) == 4


def test_running_calls_take_no_room_of_a_counter_of_refusals() -> None:
    async def story(bed: Bed) -> list[int]:
        calls = [bed.enforcer.open() for _ in range(5)]
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "x"))
        for one in calls:
            await one.handle(RequestHeaders(head, False, 0.0, 0.0))
            await one.handle(RequestBody(OK, 0.0))
        return [one.judging.status for one in calls]

    assert asyncio.run(story(Bed(policy(counter("Refusals", "1 refusals") + NO)))) == [0] * 5


@pytest.mark.parametrize("charge", ["Attempts", "Refusals"])
def test_a_refusal_before_the_rules_were_judged_counts(charge: str) -> None:
    bed = Bed(policy(counter(charge) + NO))

    async def story() -> None:
        one = bed.enforcer.open()
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "x"))
        await one.handle(RequestHeaders(head, False, 0.0, 0.0))
        await one.handle(Failed("deadline", 0.0))
        await one.handle(Ended(0.0))

    asyncio.run(story())

    assert bed.sink.records[0].reason == "policy_error"
    assert total(bed) == 1


def test_the_refusal_says_when_to_come_back() -> None:
    bed = Bed(policy(counter("Refusals", "1 refusals") + NO))
    call(bed, REFUSED)

    out = call(bed)

    assert out.rejected is not None
    assert dict(out.rejected.headers)["retry-after"] == "86400"


# ---- different values -----------------------------------------------------------------------------------------------


def test_a_new_value_beyond_the_limit_is_refused_and_not_counted() -> None:
    bed = Bed(policy(counter("{distinct: request.model}", "2 values")))

    reasons = [call(bed, chat(model=model)).record.reason for model in "abacab"]

    assert reasons == ["", "", "", "c_exceeded", "", ""]
    assert total(bed) == 2


@pytest.mark.parametrize(
    ("expression", "sent", "count"),
    [
        ("request.max_tokens", ({"max_tokens": 1}, {"max_tokens": 2}, {"max_tokens": 1}), 2),
        ("request.stream", ({}, {"stream": False}, {}), 1),
        ("double(request.max_tokens) / 2.0", ({"max_tokens": 1}, {"max_tokens": 2}, {"max_tokens": 1}), 2),
        ("'request.model + \":\" + string(request.max_tokens)'", ({"max_tokens": 1}, {"max_tokens": 2}), 2),
    ],
)
def test_a_value_is_any_scalar(expression: str, sent: tuple[dict[str, object], ...], count: int) -> None:
    bed = Bed(policy(counter(f"{{distinct: {expression}}}")))

    for more in sent:
        call(bed, chat(**more))

    assert total(bed) == count


@pytest.mark.parametrize("expression", ['request.headers["x-none"]', "request.model"])
def test_a_value_that_cannot_be_had_cannot_be_judged(expression: str) -> None:
    bed = Bed(policy(counter(f"{{distinct: '{expression}'}}", "2 values")))

    out = call(bed, b"no json" if expression == "request.model" else OK)

    assert (out.record.reason, total(bed)) == ("policy_error", 0)


def test_rules_read_a_counter_of_values_like_any_other() -> None:
    rule = (
        "counters.c.value == 1.0 && counters.c.limit == 4.0 && counters.c.used == 0.25 && counters.c.remaining == 3.0"
    )
    spec = counter("{distinct: request.model}", "4 values") + f"\nrules:\n- {{name: no, when: {rule}, terminate: {{}}}}"
    bed = Bed(policy(spec))

    assert [call(bed, chat(model=model)).record.reason for model in "ab"] == ["", "no"]


# ---- modes, and what is written wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("charge", ["Attempts", "Refusals", "{distinct: request.model}"])
@pytest.mark.parametrize(("mode", "process"), [("Monitor", Mode.FULL), ("Full", Mode.MONITOR)])
def test_what_is_only_watched_counts_as_it_would_and_refuses_nothing(charge: str, mode: str, process: Mode) -> None:
    bodies = [chat(model=model) for model in ("a", "no", "b", "a", "no", "c")]
    spec = counter(charge, "'2'") + NO
    watched, enforced = Bed(policy(spec, mode=mode), mode=process), Bed(policy(spec))

    there = [call(watched, body) for body in bodies]
    here = [call(enforced, body) for body in bodies]

    assert [out.rejected for out in there] == [None] * 6
    assert [out.record.would for out in there] == [out.record.verdict for out in here]
    asked = [at for at, body in enumerate(bodies) if body != REFUSED]  # a call refused before is not asked about
    exceeded = [[outs[at].record.counters[0].exceeded for at in asked] for outs in (there, here)]
    assert exceeded[0] == exceeded[1]
    assert total(watched) == total(enforced)


def test_soft_enforces_the_limit() -> None:
    bed = Bed(policy(counter("Attempts", "1 attempts"), mode="Soft"))

    assert [call(bed).record.reason for _ in range(2)] == ["", "c_exceeded"]


@pytest.mark.parametrize(
    ("charge", "limit", "hint"),
    [
        ("Attempts", "1 USD", "write it like `60 attempts`"),
        ("Refusals", "1 tokens", "write it like `5 refusals`"),
        ("{distinct: request.model}", "1001 values", "the highest limit is 1,000 values"),
        ("{distinct: response.model}", "5 values", "it can read request"),
        ("{distinct: request.messages}", "5 values", "convert it"),
        (
            "{distinct: request.model, expression: '1'}",
            "",
            "write {expression: a CEL number} or {distinct: a CEL value}",
        ),
        ("{}", "", "write {expression: a CEL number} or {distinct: a CEL value}"),
        ("Attemps", "", "Attempts"),
    ],
)
def test_a_mistake_has_a_hint(charge: str, limit: str, hint: str) -> None:
    issues = compile_documents([("p.yaml", policy(counter(charge, limit)))]).issues

    assert any(hint in (issue.hint or "") + issue.message for issue in issues), issues


@pytest.mark.parametrize("charge", ["Attempts", "Refusals", "{distinct: request.model}"])
def test_clamp_is_for_tokens_and_money(charge: str) -> None:
    issues = compile_documents([("p.yaml", policy(counter(charge, "'5'", ", clamp: MaxTokens")))]).issues

    assert any("max_tokens cannot keep" in issue.message for issue in issues)


def test_the_same_session_id_of_two_callers_is_two_values() -> None:
    spec = "counters:\n- {name: c, key: caller.team, charge: {distinct: session.id}, window: {lifetime: 1h}}"
    bed = Bed(policy(spec))
    for key in ("sk-1", "sk-2", "sk-1"):
        call(bed, headers=[("authorization", f"Bearer {key}"), ("x-session-id", "s"), ("x-team-id", "t")])
    assert total(bed) == 2
