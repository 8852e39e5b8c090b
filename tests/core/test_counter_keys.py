"""What a key that the call does not name means: `onMissing`."""

from __future__ import annotations

import json

import pytest

from policyd.core.model.decision import Mode, Outcome, Verdict
from tests.driving import Bed, answer_of, chat, cluster_policy, policy

COUNTER = (
    "counters:\n- {{name: calls, key: {key}, charge: Requests, window: {{lifetime: 24h}}, limit: 1 requests{more}}}"
)


def spec(key: str, more: str = "") -> str:
    return COUNTER.format(key=key, more=more)


KEYS = {
    "caller.user": ("caller.user", "header x-user-id", ("x-user-id", "u")),
    "caller.team": ("caller.team", "header x-team-id", ("x-team-id", "t")),
    "caller.key": (
        "caller.key",
        "a credential, such as header authorization or x-api-key",
        ("authorization", "Bearer k"),
    ),
    "[session.id, caller.user]": ("caller.user", "header x-user-id", ("x-user-id", "u")),
    "'request.headers[\"x-dep\"]'": ('request.headers["x-dep"]', "header x-dep", ("x-dep", "d")),
    "request.tags.feature": ("request.tags.feature", "header x-tag-feature", ("x-tag-feature", "f")),
    '\'request.tags[?"feature"].orValue("")\'': (
        "request.tags.feature",
        "header x-tag-feature",
        ("x-tag-feature", "f"),
    ),
}


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
@pytest.mark.parametrize("key", KEYS)
def test_a_call_without_identity_is_refused_and_told_what_to_send(key: str, failure_policy: str) -> None:
    reads, how, header = KEYS[key]
    bed = Bed(policy(f"failurePolicy: {failure_policy}\n{spec(key)}"))

    out = bed.call(body=chat())
    named = bed.call(body=chat(), headers=[header], chunks=[answer_of("x")])

    assert out.rejected is not None
    assert (out.rejected.status, out.record.reason) == (403, "missing_identity")
    assert json.loads(out.rejected.body)["error"]["message"] == f"Counter calls needs {reads}. Send {how}."
    assert out.record.determined_by == ("p/calls.missing",)
    assert named.rejected is None
    assert sum(bed.memory.snapshot().values()) == 1, "the refused call charged nothing"


def test_the_refusal_says_that_a_retry_will_not_help() -> None:
    out = Bed(policy(spec("caller.user"))).call(body=chat())

    assert out.rejected is not None
    assert ("x-should-retry", "false") in out.rejected.headers


def test_an_authenticated_identity_names_the_claim_and_no_header() -> None:
    out = Bed(policy(spec("caller.user")), identity="metadata:jwt").call(body=chat(), headers=[("x-user-id", "u")])

    assert out.rejected is not None
    assert b"an identity with user (it is read from metadata:jwt)" in out.rejected.body


def test_calls_without_a_key_share_one() -> None:
    bed = Bed(policy(spec("caller.user", ", onMissing: Share")))

    first, second = bed.call(body=chat(), chunks=[answer_of("x")]), bed.call(body=chat())
    named = bed.call(body=chat(), headers=[("x-user-id", "u")], chunks=[answer_of("x")])

    assert (first.rejected, named.rejected) == (None, None)
    assert second.record.reason == "calls_exceeded"


def test_an_absent_part_of_a_composite_key_is_shared_beside_the_others() -> None:
    bed = Bed(policy(spec("[caller.team, caller.user]", ", onMissing: Share")))

    blue = bed.call(body=chat(), headers=[("x-team-id", "blue")], chunks=[answer_of("x")])
    red = bed.call(body=chat(), headers=[("x-team-id", "red")], chunks=[answer_of("x")])
    again = bed.call(body=chat(), headers=[("x-team-id", "blue")])

    assert (blue.rejected, red.rejected) == (None, None)
    assert again.record.reason == "calls_exceeded"


def test_a_counter_that_is_skipped_says_nothing_and_counts_nothing() -> None:
    rule = "\nrules:\n- {name: no, when: counters.calls.exceeded || counters.calls.value > 0.0, terminate: {}}"
    state = "\n- {name: yes, when: '!counters.calls.available', terminate: {}}"
    bed = Bed(policy(spec("caller.user", ", onMissing: Skip") + rule + state))

    outs = [bed.call(body=chat(), chunks=[answer_of("x")]) for _ in range(3)]

    assert [out.rejected for out in outs] == [None, None, None]
    assert not bed.memory.snapshot()
    assert [(one.spent, one.exceeded, one.available) for one in outs[-1].record.counters] == [(0, False, True)]


@pytest.mark.parametrize(
    ("mode", "process", "enforced"),
    [
        ("Full", Mode.FULL, True),
        ("Soft", Mode.FULL, True),
        ("Monitor", Mode.FULL, False),
        ("Full", Mode.MONITOR, False),
    ],
)
def test_the_refusal_follows_the_mode(mode: str, process: Mode, *, enforced: bool) -> None:
    bed = Bed(policy(spec("caller.user"), mode=mode), mode=process)

    out = bed.call(body=chat(), chunks=[answer_of("x")])

    assert (out.rejected is not None, out.record.enforced) == (enforced, enforced)
    assert out.record.would is Verdict.TERMINATE
    assert out.rule("calls.missing").outcome is Outcome.MATCHED


def test_a_counter_without_a_limit_refuses_too() -> None:
    counter = "counters:\n- {name: calls, key: caller.user, charge: Requests, window: {lifetime: 24h}}"
    rule = "\nrules:\n- {name: no, when: counters.calls.value > 3.0, terminate: {}}"

    assert Bed(policy(counter + rule)).call(body=chat()).record.reason == "missing_identity"


@pytest.mark.parametrize(("more", "reason"), [("", ""), (", onMissing: Refuse", "missing_identity")])
def test_a_counter_that_blocks_nothing_refuses_only_where_its_author_says_so(more: str, reason: str) -> None:
    out = Bed(policy(spec("caller.user", ", onExceeded: Continue" + more))).call(body=chat(), chunks=[answer_of("x")])

    assert out.record.reason == reason


def test_a_rule_that_reads_a_counter_that_blocks_nothing_cannot_be_judged_without_identity() -> None:
    rule = "\nrules:\n- {name: no, when: counters.calls.exceeded, terminate: {}}"

    out = Bed(policy(spec("caller.user", ", onExceeded: Continue") + rule)).call(body=chat())

    assert out.record.reason == "policy_error"


def test_a_rule_of_the_authors_that_rejects_the_call_supplies_the_words() -> None:
    rule = '\nrules:\n- {name: no, when: caller.user == "", terminate: {status: 400, reason: who_are_you}}'

    out = Bed(policy(spec("caller.user") + rule)).call(body=chat())

    assert (out.record.reason, out.rejected and out.rejected.status) == ("who_are_you", 400)


def test_an_exemption_may_name_the_refusal() -> None:
    allow = "rules:\n- {name: pass, allow: {rules: [p/calls.missing]}}"

    out = Bed(policy(spec("caller.user")), cluster_policy(allow)).call(body=chat(), chunks=[answer_of("x")])

    assert out.rejected is None
    assert out.rule("calls.missing").outcome is Outcome.EXEMPTED


def test_a_key_over_a_body_that_cannot_be_read_cannot_be_judged() -> None:
    out = Bed(policy(spec("request.model", ", onMissing: Skip"))).call(body=b"no json")

    assert out.record.reason == "policy_error"
