"""What a caller is told is a sentence, where the author of the policy wrote no message: of every rejection and cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from policyd.adapters.envoy import local_replies
from policyd.adapters.envoy.outgoing import BROKEN
from policyd.core.exchange.place import BAD_PATH
from policyd.core.exchange.refusal import OVERLOADED, not_evaluated
from policyd.core.exchange.withheld import WITHHELD
from policyd.core.stream.dialects import Ending
from tests.driving import Bed, Outcome, chat, policy, stream_of
from tests.fakes import FaultyCounters

TERMINATE = "rules: [{name: stop, terminate: {}}]"
READS = "rules: [{name: reads, when: 'request.text.contains(\"x\")', terminate: {}}]"
COUNTS = "counters: [{name: calls, key: caller.team, charge: Requests, window: {calendar: Day}, limit: 0 requests}]"
TEAM = [("x-team-id", "a")]


def rejected(spec: str, **how: Any) -> Callable[[], Outcome]:
    return lambda: Bed(policy(spec)).call(**{"body": chat(), **how})


def without_store() -> Bed:
    bed = Bed(policy(COUNTS))
    bed.enforcer.counters = FaultyCounters.down(bed.memory)
    return bed


CALLS: dict[str, tuple[str, Callable[[], Outcome]]] = {
    "a rule": ("The call was stopped by rule stop of policy default/p.", rejected(TERMINATE)),
    "a rule on the response": (
        "The call was stopped by rule late of policy default/p.",
        rejected("rules: [{name: late, when: response.status == 200, terminate: {}}]", chunks=stream_of("a")),
    ),
    "a limit": (
        "The limit of 0 requests of counter calls in policy default/p has been reached.",
        rejected(COUNTS, headers=TEAM),
    ),
    "no identity": ("Counter calls needs caller.team. Send header x-team-id.", rejected(COUNTS)),
    "two credentials": (
        "The call carries 2 different credentials in the header authorization. Send one of them.",
        rejected(TERMINATE, headers=[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
    ),
    "an ambiguous path": (
        "The path of this request can be read in several ways: ",
        rejected(TERMINATE, path="/v1/%2e%2e%2fchat/completions"),
    ),
    "an expression that fails": (
        "Rule tag of policy default/p could not be evaluated, so the call was stopped.",
        rejected("rules: [{name: tag, when: 'request.tags.x == \"a\"', terminate: {}}]"),
    ),
    "a body that is no JSON": (
        "Rule reads of policy default/p could not be evaluated, so the call was stopped.",
        rejected(READS, body=b"{"),
    ),
    "a change that is impossible": (
        "The call could not be evaluated, so it was stopped: ",
        rejected("rules: [{name: hide, constrain: {redact: {patterns: [secret]}}}]", body=chat(user={"secret": "a"})),
    ),
    "a store that is down": (
        "could not be evaluated, so the call was stopped.",
        lambda: without_store().call(body=chat(), headers=TEAM),
    ),
}
CONSTANTS = {
    "memory": OVERLOADED.message,
    "a stored response": WITHHELD.message,
    "not evaluated": not_evaluated(),
    "a path": BAD_PATH.message + ": it has a dot segment.",
    "policyd failed": json.loads(BROKEN.body)["error"]["message"],
    "policyd is not reached": local_replies.MESSAGE,
    "a refusal": Ending(origin={"rule": "r", "policy": "p"}).refusal,
    "a refusal by no rule": Ending(origin={"decision": "d"}).refusal,
}
# Words that only those who wrote policyd would use so.
PRIVATE = re.compile(
    r"\b(answers?|judged?|judging|told|heard|veil|aloud|lane|gauge|owed?|depart(ed|ure)?)\b", re.IGNORECASE
)
CODE = re.compile(r"\b[a-z]+_[a-z_]+\b")


def check_sentence(message: str) -> None:
    assert message[0].isupper() and message.endswith(".") and " " in message, message
    assert not PRIVATE.search(message) and not CODE.search(message), message
    assert "::" not in message and ": ." not in message and ".." not in message


@pytest.mark.parametrize("name", CALLS)
def test_a_rejected_call_says_why_in_a_sentence(name: str) -> None:
    expected, call = CALLS[name]
    out = call()
    assert out.rejected is not None
    message = json.loads(out.rejected.body)["error"]["message"]
    assert expected in message
    check_sentence(message)


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_other_message_is_a_sentence(name: str) -> None:
    check_sentence(CONSTANTS[name])


def test_a_cut_response_says_why_in_a_sentence() -> None:
    out = Bed(policy("rules: [{name: stop, when: 'response.text.contains(\"b\")', terminate: {}}]")).call(
        body=chat(stream=True), chunks=stream_of("a", "b")
    )
    assert out.text == "a\n\nThe call was stopped by rule stop of policy default/p."
    last: Any = out.data[-2]
    check_sentence(last["choices"][0]["delta"]["refusal"])
