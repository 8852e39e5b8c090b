"""The policy language, sentence by sentence, on whole calls."""

from __future__ import annotations

import asyncio
import json

import pytest

from policyd.core.model.decision import Mode, Outcome, Verdict
from policyd.core.model.steps import (
    BodyMode,
    Ended,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
)
from tests.driving import Bed, FlatPrices, answer_of, chat, cluster_policy, policy, stream_of

DENY = "rules:\n- name: no\n  severity: {severity}\n  terminate: {{status: 403, reason: {reason}}}"


def deny(reason: str, severity: str = "Medium", when: str = "true") -> str:
    return f"""rules:
- name: no
  severity: {severity}
  when: '{when}'
  terminate: {{status: 403, reason: {reason}}}"""


# ---- what wins ------------------------------------------------------------------------------------------------------


def test_all_rules_of_all_matching_policies_are_judged() -> None:
    bed = Bed(policy(deny("a"), "a"), policy(deny("b", when='request.model == "other"'), "b"))

    out = bed.call(body=chat())

    assert [(one.policy, one.outcome) for one in out.record.rules] == [
        ("a", Outcome.MATCHED),
        ("b", Outcome.NOT_MATCHED),
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_file_order_never_matters(order: int) -> None:
    documents = [policy(deny("mild", "Low"), "a"), policy(deny("grave", "High"), "b")][::order]

    out = Bed(*documents).call(body=chat())

    assert out.record.reason == "grave"


def test_among_equals_cluster_comes_before_namespaced() -> None:
    out = Bed(policy(deny("mine"), "a"), cluster_policy(deny("theirs"), "z")).call(body=chat())

    assert out.record.reason == "theirs"


def test_among_equals_then_namespace_and_name() -> None:
    out = Bed(policy(deny("late"), "a", namespace="b"), policy(deny("early"), "z", namespace="a")).call(body=chat())

    assert out.record.reason == "early"


def test_among_equals_then_the_position_of_the_rule() -> None:
    spec = "rules:\n- {name: one, terminate: {reason: first}}\n- {name: two, terminate: {reason: second}}"

    assert Bed(policy(spec)).call(body=chat()).record.reason == "first"


def test_terminate_is_stricter_than_reroute_than_constrain() -> None:
    spec = """rules:
- {name: cap, severity: Critical, constrain: {cap: {max_tokens: 5}}}
- {name: move, severity: High, reroute: {model: gpt-4o-mini}}
- {name: no, severity: Info, terminate: {}}"""

    out = Bed(policy(spec)).call(body=chat())

    assert out.record.verdict is Verdict.TERMINATE
    assert out.rejected is not None
    assert out.rule("move").outcome is Outcome.MATCHED


def test_constrains_merge() -> None:
    one = """rules:
- name: a
  severity: High
  constrain:
    cap: {max_tokens: 50}
    set: {temperature: 0.1}
    tools: {allow: [x, y]}
    inject: {system: be brief}
    headers: {request: {set: {x-a: "1"}}}"""
    two = """rules:
- name: b
  constrain:
    cap: {max_tokens: 20}
    set: {temperature: 0.9, user: u}
    tools: {allow: [y, z]}
    headers: {request: {set: {x-a: "2"}}}"""
    tools = [{"type": "function", "function": {"name": name}} for name in "xyz"]

    out = Bed(policy(one, "a"), policy(two, "b")).call(body=chat(max_tokens=100, tools=tools))

    sent = json.loads(out.sent or b"")
    assert (sent["max_tokens"], sent["temperature"], sent["user"]) == (20, 0.1, "u")
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["y"]
    assert sent["messages"][0] == {"role": "system", "content": "be brief"}
    assert out.request_headers["x-a"] == "1"
    assert len(out.record.conflicts) == 2


def test_a_cap_never_raises_and_sets_when_absent() -> None:
    bed = Bed(policy("rules:\n- {name: cap, constrain: {cap: {max_tokens: 50}}}"))

    assert json.loads(bed.call(body=chat(max_tokens=10)).sent or b"")["max_tokens"] == 10
    assert json.loads(bed.call(body=chat()).sent or b"")["max_tokens"] == 50


# ---- reroutes -------------------------------------------------------------------------------------------------------


def test_after_a_reroute_the_rules_are_judged_once_more_with_its_target() -> None:
    spec = """rules:
- {name: move, when: 'request.model == "gpt-4o"', reroute: {model: gpt-4o-mini}}
- {name: again, when: 'request.model == "gpt-4o-mini"', reroute: {model: third}}"""

    out = Bed(policy(spec)).call(body=chat())

    assert out.record.verdict is Verdict.REROUTE
    assert json.loads(out.sent or b"")["model"] == "gpt-4o-mini"
    assert out.moved


def test_a_refusal_in_the_second_pass_refuses() -> None:
    spec = """rules:
- {name: move, when: 'request.model == "gpt-4o"', reroute: {model: bad}}
- {name: no, when: 'request.model == "bad"', terminate: {}}"""

    assert Bed(policy(spec)).call(body=chat()).record.verdict is Verdict.TERMINATE


def test_a_reroute_to_another_upstream_removes_the_callers_credentials() -> None:
    secrets = (("authorization", "Bearer k"), ("x-api-key", "k"), ("cookie", "c"))
    spec = "rules:\n- {name: move, reroute: {upstream: backup%s}}"

    moved = Bed(policy(spec % "")).call(body=chat(), headers=secrets)
    kept = Bed(policy(spec % ", keepCredentials: true")).call(body=chat(), headers=secrets)

    assert {"authorization", "x-api-key", "cookie"} <= moved.removed
    assert moved.request_headers["x-policyd-upstream"] == "backup"
    assert not {"authorization", "x-api-key", "cookie"} & kept.removed


# ---- exemptions -----------------------------------------------------------------------------------------------------

ALLOW = """rules:
- name: pass
  severity: {severity}
  when: '{when}'
  allow: {{rules: [p/no]}}"""


def allow(severity: str = "Info", when: str = "true") -> str:
    return ALLOW.format(severity=severity, when=when)


@pytest.mark.parametrize("mode", ["Soft", "Full"])
def test_an_allow_works_whatever_its_severity(mode: str) -> None:
    out = Bed(policy(deny("x", "Critical")), policy(allow(), "q", mode=mode)).call(body=chat())

    assert out.record.verdict is Verdict.ALLOW
    assert out.rule("no").outcome is Outcome.EXEMPTED


def test_an_allow_exempts_nothing_in_monitor() -> None:
    out = Bed(policy(deny("x")), policy(allow(), "q", mode="Monitor")).call(body=chat())

    assert out.record.verdict is Verdict.TERMINATE


def test_an_allow_that_errs_exempts_nothing() -> None:
    text = policy("failurePolicy: Ignore\n" + allow(when='request.headers["none"] == "x"'), "q")

    assert Bed(policy(deny("x")), text).call(body=chat()).record.verdict is Verdict.TERMINATE


def test_a_namespaced_policy_exempts_only_policies_of_its_own_namespace() -> None:
    other = policy(allow(), "q", namespace="elsewhere")

    assert Bed(policy(deny("x")), other).call(body=chat()).record.verdict is Verdict.TERMINATE
    assert Bed(policy(deny("x")), cluster_policy(allow(), "q")).call(body=chat()).record.verdict is Verdict.ALLOW


def test_a_namespaced_policy_never_loosens_a_cluster_one() -> None:
    out = Bed(cluster_policy(deny("x"), "p"), policy(allow(), "q")).call(body=chat())

    assert out.record.verdict is Verdict.TERMINATE


BUDGET = """counters:
- {name: reqs, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 1 requests}"""


def test_exempted_calls_are_still_counted() -> None:
    free = "rules:\n- {name: free, when: 'request.path != \"/x\"', allow: {rules: [p/reqs.exceeded]}}"
    bed = Bed(policy(BUDGET), policy(free, "q"))

    outs = [bed.call(body=chat(), chunks=[answer_of("x")]) for _ in range(3)]

    assert [out.record.verdict for out in outs] == [Verdict.ALLOW] * 3
    assert list(bed.memory.snapshot().values()) == [3]


# ---- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "own", "rule", "severity", "enforced"),
    [
        (Mode.FULL, "Full", None, "Info", True),
        (Mode.FULL, "Soft", None, "High", False),
        (Mode.FULL, "Soft", None, "Critical", True),
        (Mode.FULL, "Monitor", None, "Critical", False),
        (Mode.FULL, "Full", "Monitor", "Critical", False),
        (Mode.FULL, "Full", "Soft", "High", False),
        (Mode.SOFT, "Full", None, "High", False),
        (Mode.SOFT, "Full", None, "Critical", True),
        (Mode.MONITOR, "Full", "Full", "Critical", False),
    ],
)
def test_the_effective_mode_is_the_lowest(
    process: Mode, own: str, rule: str | None, severity: str, enforced: bool
) -> None:
    spec = f"rules:\n- {{name: no, severity: {severity}, terminate: {{}}{f', mode: {rule}' if rule else ''}}}"

    out = Bed(policy(spec, mode=own), mode=process).call(body=chat(), chunks=[answer_of("x")])

    assert (out.rejected is not None) is enforced
    assert out.record.enforced is enforced
    assert out.record.verdict is Verdict.TERMINATE
    assert out.record.would is Verdict.TERMINATE


def test_under_monitor_nothing_of_the_call_changes() -> None:
    spec = """counters:
- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 3 tokens}
rules:
- {name: cap, constrain: {cap: {max_tokens: 1}, redact: {detectors: [email]}, headers: {response: {set: {x-a: b}}}}}
- {name: no, when: 'response.text.contains("mail")', terminate: {}}"""
    chunks = stream_of("my ", "mail is ", "a@b.example")
    body = chat(stream=True)

    out = Bed(policy(spec, mode="Monitor")).call(body=body, chunks=chunks, headers=(("accept-encoding", "gzip"),))

    assert (out.sent, out.body) == (body, b"".join(chunks))
    assert out.response_headers == {}
    assert out.request_headers == {}
    assert out.record.would is Verdict.TERMINATE


# ---- counters -------------------------------------------------------------------------------------------------------


def test_a_limit_denies_by_itself() -> None:
    bed = Bed(policy(BUDGET))
    first, second = (bed.call(body=chat(), chunks=[answer_of("x")]) for _ in range(2))

    assert first.record.verdict is Verdict.ALLOW
    assert second.rejected is not None
    assert second.rejected.status == 429
    assert second.record.reason == "reqs_exceeded"
    assert second.rule("reqs.exceeded").severity == "Critical"


def test_on_exceeded_continue_never_blocks() -> None:
    bed = Bed(policy(BUDGET.replace("}\n", "}").replace("requests}", "requests, onExceeded: Continue}")))

    outs = [bed.call(body=chat(), chunks=[answer_of("x")]) for _ in range(3)]

    assert [out.record.verdict for out in outs] == [Verdict.ALLOW] * 3
    assert outs[2].record.counters[0].exceeded


def test_a_rule_that_matches_on_exceeded_supplies_the_words() -> None:
    spec = BUDGET + "\nrules:\n- {name: words, when: counters.reqs.exceeded, terminate: {status: 402, reason: pay}}"
    bed = Bed(policy(spec))
    bed.call(body=chat(), chunks=[answer_of("x")])

    out = bed.call(body=chat())

    assert out.rejected is not None
    assert (out.rejected.status, out.record.reason) == (402, "pay")


def test_in_soft_a_rule_that_is_not_enforced_does_not_silence_the_limit() -> None:
    spec = BUDGET + "\nrules:\n- {name: words, when: counters.reqs.exceeded, terminate: {status: 402, reason: pay}}"
    bed = Bed(policy(spec, mode="Soft"))
    bed.call(body=chat(), chunks=[answer_of("x")])

    assert bed.call(body=chat()).record.reason == "reqs_exceeded"


def test_a_reroute_on_exceeded_is_priced_anew() -> None:
    spec = """counters:
- {name: cost, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 0.0001 USD}
rules:
- {name: cheap, when: counters.cost.exceeded, reroute: {model: free}}"""

    class Two(FlatPrices):
        def price(self, provider: str, model: str, at: float):  # type: ignore[no-untyped-def]
            return super().price(provider, model, at) if model == "gpt-4o" else self.cheap

    prices = Two("gpt-4o", input=1_000_000, output=1_000_000)
    prices.cheap = FlatPrices("free", input=1, output=1).price("", "free", 0)  # type: ignore[attr-defined]
    out = Bed(policy(spec), prices=prices).call(body=chat(), chunks=[answer_of("x")])

    assert out.record.verdict is Verdict.REROUTE
    assert json.loads(out.sent or b"")["model"] == "free"
    assert out.record.served_model == "free"


def test_an_unpriced_model_under_a_cost_counter_cannot_be_judged() -> None:
    spec = "counters:\n- {name: cost, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 1 USD}"

    out = Bed(policy(spec)).call(body=chat(model="unheard-of"))
    ignored = Bed(policy("failurePolicy: Ignore\n" + spec)).call(body=chat(), chunks=[answer_of("x")])

    assert out.rejected is not None
    assert (out.rejected.status, out.record.reason) == (503, "policy_error")
    assert (ignored.record.verdict, ignored.record.degraded) == (Verdict.ALLOW, True)


@pytest.mark.parametrize(
    ("fact", "more", "sent"),
    [
        ("request.system", {"messages": [{"role": "system", "content": ""}]}, True),
        ("request.system", {"messages": [{"role": "user", "content": "x"}]}, False),
        ("request.model", {"model": None}, False),
        ("request.stream", {"stream": False}, True),
        ("request.max_tokens", {"max_tokens": None}, False),
    ],
)
def test_has_tells_what_was_sent_from_what_was_not(fact: str, more: dict[str, object], sent: bool) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": [], **more}).encode()

    out = Bed(policy(deny("there", when=f"has({fact})"))).call(body=body, chunks=[answer_of("x")])

    assert (out.record.reason == "there") is sent


@pytest.mark.parametrize(("team", "reason"), [("blue", "policy_error"), ("red", "")])
@pytest.mark.parametrize(("path", "body"), [("/v1/odd", b"{}"), ("/v1/chat/completions", b"no json")])
def test_what_cannot_be_edited_errs_only_where_the_rule_matches(path: str, body: bytes, team: str, reason: str) -> None:
    rule = "{name: cap, when: caller.team == 'blue', constrain: {cap: {max_tokens: 9}}}"
    spec = f"match: {{operations: ['*']}}\nrules: [{rule}]"

    out = Bed(policy(spec)).call(path=path, body=body, headers=[("x-team-id", team)], chunks=[answer_of("x")])

    assert out.record.reason == reason


def test_what_was_asked_for_without_a_price_costs_what_the_model_costs_that_answered() -> None:
    spec = BUDGET.replace("Requests", "Cost").replace("1 requests", "1000 USD")
    deployment = "/openai/deployments/ours/chat/completions"
    bed = Bed(policy(spec), prices=FlatPrices("gpt-4o", input=1_000, output=10_000))

    out = bed.call(path=deployment, host="x.openai.azure.com", body=b'{"messages": []}', chunks=[answer_of("x")])

    assert (out.record.model, out.record.cost_nano, out.record.cost_source) == ("ours", 60_000, "provider")
    assert (out.record.price_source, out.record.degraded) == ("flat", False)
    assert sum(bed.memory.snapshot().values()) == 60_000


def test_a_key_that_is_empty_is_a_missing_identity() -> None:
    bed = Bed(policy(BUDGET.replace("session.id", "caller.user")))

    assert bed.call(body=chat()).record.reason == "missing_identity"
    assert bed.call(body=chat(), headers=(("x-user-id", "u"),), chunks=[answer_of("x")]).rejected is None


def test_refused_calls_charge_nothing() -> None:
    bed = Bed(policy(BUDGET + "\n" + deny("x")))

    bed.call(body=chat())

    assert sum(bed.memory.snapshot().values()) == 0


def test_clamp_lowers_max_tokens_to_the_headroom() -> None:
    spec = """counters:
- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 100 tokens, clamp: MaxTokens}"""
    bed = Bed(policy(spec))

    first = bed.call(body=chat(max_tokens=80), chunks=[answer_of("x", completion=60)])
    second = bed.call(body=chat(max_tokens=80), chunks=[answer_of("x", completion=40)])

    assert json.loads(first.sent or b"")["max_tokens"] == 80
    assert json.loads(second.sent or b"")["max_tokens"] == 40


def test_the_limit_by_map() -> None:
    spec = """counters:
- name: reqs
  key: caller.team
  charge: Requests
  window: {lifetime: 1h}
  limit: {by: caller.team, default: 1 requests, values: {big: 3 requests}}"""
    bed = Bed(policy(spec))

    def run(team: str) -> list[bool]:
        headers = (("x-team-id", team),)
        return [bed.call(body=chat(), headers=headers, chunks=[answer_of("x")]).rejected is None for _ in range(4)]

    assert run("small") == [True, False, False, False]
    assert run("big") == [True, True, True, False]


def test_a_monitor_policys_counters_have_a_life_of_their_own() -> None:
    bed = Bed(policy(BUDGET, mode="Monitor"))

    outs = [bed.call(body=chat(), chunks=[answer_of("x")]) for _ in range(3)]

    assert [out.rejected for out in outs] == [None] * 3
    assert [out.record.would for out in outs] == [Verdict.ALLOW, Verdict.TERMINATE, Verdict.TERMINATE]
    assert {id.life for id in bed.memory.snapshot()} == {"monitor"}


def test_a_refusal_says_when_waiting_cures_it() -> None:
    bed = Bed(policy(BUDGET.replace("lifetime: 1h", "lifetime: 40s")))
    bed.call(body=chat(), chunks=[answer_of("x")])
    bed.clock.advance(10)

    refused = bed.call(body=chat())
    denied = Bed(policy(deny("x"))).call(body=chat())

    assert refused.rejected is not None and denied.rejected is not None
    assert 29 <= int(dict(refused.rejected.headers)["retry-after"]) <= 30
    assert "x-should-retry" not in dict(refused.rejected.headers)
    assert dict(denied.rejected.headers)["x-should-retry"] == "false"


# ---- what cannot be judged ------------------------------------------------------------------------------------------

BROKEN = b'{"model": "gpt-4o", "messages": [}'


def test_a_known_operation_that_cannot_be_read_makes_its_readers_err() -> None:
    reader = "rules:\n- {name: r, when: 'request.model == \"zzz\"', terminate: {}}"
    other = "rules:\n- {name: r, when: 'request.path == \"/x\"', terminate: {}}"

    out = Bed(policy(reader)).call(body=BROKEN)
    ignored = Bed(policy("failurePolicy: Ignore\n" + reader)).call(body=BROKEN)

    assert (out.record.reason, out.rule("r").outcome) == ("policy_error", Outcome.ERRORED)
    assert (ignored.rejected, ignored.sent, ignored.record.degraded) == (None, BROKEN, True)
    assert Bed(policy(other)).call(body=BROKEN).rejected is None


def test_a_fail_policy_acts_as_a_terminate_whatever_its_own_action() -> None:
    spec = 'rules:\n- {name: r, when: \'request.headers["none"] == "x"\', constrain: {cap: {max_tokens: 1}}}'

    out = Bed(policy(spec)).call(body=chat())

    assert out.rejected is not None
    assert (out.rejected.status, out.record.reason) == (503, "policy_error")


@pytest.mark.parametrize(("mode", "severity"), [("Monitor", "Critical"), ("Soft", "High")])
def test_only_rules_that_would_be_enforced_fail_closed(mode: str, severity: str) -> None:
    spec = f'rules:\n- {{name: r, severity: {severity}, when: \'request.headers["none"] == "x"\', terminate: {{}}}}'

    assert Bed(policy(spec, mode=mode)).call(body=chat(), chunks=[answer_of("x")]).rejected is None


def test_a_constrain_that_cannot_be_carried_out_is_not_judged_as_if_it_had_been() -> None:
    spec = "rules:\n- {name: cap, constrain: {cap: {max_tokens: 1}}}"

    assert Bed(policy(spec)).call(body=BROKEN).record.reason == "policy_error"


def test_operations_left_out_mean_all_but_unknown_and_other() -> None:
    bed = Bed(policy(deny("x")))

    assert bed.call(method="GET", path="/v1/models").rejected is None
    assert bed.call(body=b"{}", path="/v1/some/new/call").rejected is None
    assert (
        Bed(policy("match: {operations: [unknown]}\n" + deny("x"))).call(body=b"{}", path="/v1/some/new/call").rejected
    )


# ---- answers --------------------------------------------------------------------------------------------------------


def test_a_call_whose_rules_read_no_body_is_not_read() -> None:
    out = Bed(policy("rules:\n- {name: r, when: 'request.path == \"/x\"', terminate: {}}")).call(body=chat())

    assert (out.sent, out.mode) == (b"", BodyMode.NONE)


def test_a_policy_that_the_headers_rule_out_has_no_body_read() -> None:
    spec = """matchConditions: [{name: team, expression: caller.team == "a"}]
rules:
- {name: r, when: request.text.contains("x") && response.text.contains("y"), terminate: {}}"""
    bed = Bed(policy(spec))

    mine = bed.call(body=chat(), headers=[("x-team-id", "a")], chunks=[answer_of("hello")])
    other = bed.call(body=chat(), headers=[("x-team-id", "b")], chunks=[answer_of("hello")])

    assert (mine.sent, mine.mode) == (chat(), BodyMode.WHOLE)
    assert (other.sent, other.mode) == (b"", BodyMode.NONE)


def test_a_condition_over_headers_that_cannot_be_judged_rules_out_nothing() -> None:
    spec = """matchConditions: [{name: missing, expression: 'request.headers["x-not-there"] == "a"'}]
rules:
- {name: r, when: request.text.contains("x"), terminate: {}}"""

    out = Bed(policy(spec)).call(body=chat())

    assert out.rejected is not None
    assert out.record.reason == "policy_error"


def test_a_stream_is_cut_before_the_event_that_matched() -> None:
    spec = "rules:\n- {name: r, when: response.events > 3, terminate: {fallback: stopped}}"

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("a", "b", "c", "d", "e"))

    assert out.text == "abc\n\nstopped"
    assert out.data[-1] == "[DONE]"
    assert (out.record.event, out.record.ended, out.record.phase) == (3, "cut", "response")


def test_with_hold_back_not_one_character_of_the_match_leaves() -> None:
    spec = "rules:\n- {name: r, when: 'response.text.contains(\"secret\")', terminate: {fallback: '[end]'}}"

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("it is a s", "ecr", "et thing", " more"))

    assert out.text == "it is a \n\n[end]"
    assert out.record.event == 2


def test_a_redaction_runs_across_events() -> None:
    spec = "rules:\n- {name: r, constrain: {redact: {patterns: ['s[a-z]{4}t'], in: [response]}}}"

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("my s", "ecr", "et is"))

    assert out.text == "my [redacted] is"
    assert out.record.verdict is Verdict.CONSTRAIN


def test_a_session_budget_cuts_a_stream() -> None:
    spec = "counters:\n- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 5 tokens}"
    bed = Bed(policy(spec), slice_tokens=2)

    out = bed.call(body=chat(stream=True), chunks=stream_of(*["word "] * 20))

    assert out.record.ended == "cut"
    assert out.record.reason == "out_exceeded"
    assert 3 <= out.text.count("word") <= 6


def test_an_answer_in_one_piece_is_refused_whole() -> None:
    spec = "rules:\n- {name: r, when: 'response.text.contains(\"bad\")', terminate: {status: 451}}"
    bed = Bed(policy(spec))

    assert bed.call(body=chat(), chunks=[answer_of("all good")]).rejected is None
    out = bed.call(body=chat(), chunks=[answer_of("too bad")])

    assert out.rejected is not None
    assert out.rejected.status == 451


def test_a_fallback_as_an_answer() -> None:
    bed = Bed(policy("rules:\n- {name: r, terminate: {status: 200, fallback: sorry}}"))

    plain, streamed = bed.call(body=chat()), bed.call(body=chat(stream=True))

    assert json.loads(plain.body)["choices"][0]["message"]["content"] == "sorry"
    assert (streamed.text, streamed.data[-1]) == ("sorry", "[DONE]")


def test_a_stream_that_goes_silent_is_cut_by_a_timer() -> None:
    spec = "rules:\n- {name: r, when: response.elapsed_ms > 1000, terminate: {fallback: too slow}}"

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("a", "b"), silent_s=5.0)

    assert out.record.ended == "cut"
    assert "too slow" in out.text
    assert 1000 < out.record.duration_ms <= 1200


def test_a_malformed_event_cannot_be_judged() -> None:
    spec = "rules:\n- {name: r, when: 'response.text.contains(\"zzz\")', terminate: {}}"
    chunks = [*stream_of("a")[:-1], b"data: {broken\n\n", *stream_of("b")]

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=chunks)
    ignored = Bed(policy("failurePolicy: Ignore\n" + spec)).call(body=chat(stream=True), chunks=chunks)

    assert (out.record.reason, out.record.inspection) == ("policy_error", "partial")
    assert b"{broken" not in out.body
    assert ignored.body == b"".join(chunks)
    assert ignored.record.degraded


def test_a_tool_call_leaves_only_when_its_arguments_are_judged() -> None:
    when = 'response.tool_calls.exists(t, t.name == "sh" && t.arguments.contains("rm -rf"))'
    spec = f"rules:\n- {{name: r, when: '{when}', terminate: {{fallback: no}}}}"

    def part(**function: str) -> bytes:
        call = {"index": 0, "id": "t", "type": "function", "function": function}
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
        return f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice]})}\n\n".encode()

    chunks = [part(name="sh", arguments=""), part(arguments='{"c": "rm'), part(arguments=' -rf /"}'), *stream_of("x")]
    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=chunks)

    assert b"rm" not in out.body
    assert b'"sh"' not in out.body
    assert out.record.event == 4  # the event that completes the call


def test_the_callers_own_policyd_headers_are_stripped() -> None:
    out = Bed(policy("rules:\n- {name: r, when: 'false', terminate: {}}")).call(
        body=chat(), headers=(("x-policyd-upstream", "evil"),)
    )

    assert "x-policyd-upstream" in out.removed


def test_every_answer_that_may_change_carries_its_decision() -> None:
    out = Bed(policy("rules:\n- {name: r, when: 'false', terminate: {}}")).call(body=chat(), chunks=[answer_of("x")])

    assert out.response_headers["x-policyd-decision"] == out.record.id


def test_a_reroute_gives_back_what_the_first_pass_held() -> None:
    spec = """counters:
- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 100 tokens}
rules:
- {name: move, when: counters.out.value >= 0.0, reroute: {model: gpt-4o-mini}}"""
    bed = Bed(policy(spec))

    out = bed.call(body=chat(max_tokens=100), chunks=[answer_of("x", completion=30)])

    assert out.record.verdict is Verdict.REROUTE
    assert list(bed.memory.snapshot().values()) == [30]
    assert bed.call(body=chat(max_tokens=70), chunks=[answer_of("x", completion=70)]).rejected is None


def test_a_running_call_renews_its_lease_with_what_it_has_spent() -> None:
    spec = "counters:\n- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 100 tokens}"
    bed = Bed(policy(spec), lease_s=15.0)

    async def run() -> tuple[object, ...]:
        call = bed.enforcer.open()
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "x"))
        before = call.renewal()
        await call.handle(RequestHeaders(head, False, 0.0, 0.0))
        await call.handle(RequestBody(chat(stream=True), 0.0))
        sent = call.renewal()
        kind = (("content-type", "text/event-stream"),)
        await call.handle(ResponseHeaders(((":status", "200"), *kind), False, 0.0))
        await call.handle(ResponseChunk(b"".join(stream_of("one two three")[:1]), False, 0.0))
        running = call.renewal()
        assert sent is not None and running is not None
        first = await bed.memory.extend(running)
        await call.handle(Ended(0.0, cancelled=True))
        return before, sent.observed, running.observed, first.failure, call.renewal()

    before, sent, running, failure, after = asyncio.run(run())

    assert (before, sent, failure, after) == (None, (0,), "", None)
    assert running == (bed.memory.snapshot()[next(iter(bed.memory.snapshot()))],)


def test_a_cut_by_another_rule_takes_no_text_but_what_could_begin_a_match() -> None:
    spec = """rules:
- {name: text, when: 'response.text.contains("forbidden")', terminate: {fallback: '[end]'}}
- {name: long, when: response.events > 3, terminate: {fallback: '[end]'}}"""
    bed = Bed(policy(spec))

    innocent = bed.call(body=chat(stream=True), chunks=stream_of("one ", "two ", "three ", "four "))
    beginning = bed.call(body=chat(stream=True), chunks=stream_of("one ", "two ", "this is forb", "idden"))

    assert innocent.text == "one two three \n\n[end]"
    assert beginning.text == "one two this is \n\n[end]"


def test_what_is_kept_back_for_a_rule_that_names_no_text_is_dropped_whole() -> None:
    spec = """rules:
- {name: text, when: 'response.text.size() > 1000', holdBack: 6, terminate: {fallback: '[end]'}}
- {name: long, when: response.events > 3, terminate: {fallback: '[end]'}}"""

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("one ", "two ", "three ", "four "))

    assert out.text == "one two \n\n[end]"
