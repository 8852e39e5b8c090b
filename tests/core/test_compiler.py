"""What the compiler derives: phases, actions, counters, implied rules, hold-back, modes, the set and its digest."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from textwrap import indent

import pytest

from policyd.core.compile.compiler import Compiled, Compiler, compile_documents
from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, CompiledRule, Match, Phase, PolicySet
from policyd.core.errors import Severity
from policyd.core.model.counters import NANO, Charge, Window, WindowKind
from policyd.core.model.decision import (
    Allow,
    Constrain,
    FailurePolicy,
    Mode,
    Redaction,
    Reroute,
    RuleSeverity,
    Terminate,
)
from policyd.core.model.steps import HeaderEdit

COUNTERS = """\
counters:
  - {name: spend, key: session.id, charge: Cost, window: {lifetime: 24h}, limit: 2.00 USD}
  - {name: calls, key: [caller.team, caller.user], charge: Requests, window: {sliding: 1m}}
"""


def document(spec: str, name: str = "p", kind: str = "LLMPolicy", namespace: str = "") -> str:
    place = f", namespace: {namespace}" if namespace else ""
    head = f"apiVersion: policyd.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}{place}}}\nspec:\n"
    return head + indent(spec, "  ")


def compiled(*documents: str) -> PolicySet:
    result = compile_documents([(f"{at}.yaml", text) for at, text in enumerate(documents)])
    assert result.policy_set is not None, [str(issue) for issue in result.issues]
    return result.policy_set


def policy_of(spec: str) -> CompiledPolicy:
    return compiled(document(spec)).policies[0]


def rule_of(rule: str, spec: str = "mode: Full\n" + COUNTERS) -> CompiledRule:
    return policy_of(f"{spec}rules:\n  - {{name: r, {rule}}}\n").rules[0]


def counter_of(counter: str) -> CompiledCounter:
    return policy_of(f"mode: Full\ncounters:\n  - {{name: c, {counter}}}\n").counters[0]


def codes(result: Compiled, severity: Severity = Severity.ERROR) -> list[str]:
    return [issue.code for issue in result.issues if issue.severity is severity]


def errors_of(spec: str) -> list[str]:
    return codes(compile_documents([("f.yaml", document(spec))]))


def warnings_of(spec: str) -> list[str]:
    found = codes(compile_documents([("f.yaml", document(spec))]), Severity.WARNING)
    return [code for code in found if code != "POL102"]


# ---- when a rule can be judged --------------------------------------------------------------------------------------

PHASES = [
    ("true", Phase.REQUEST),
    ("request.model == 'x'", Phase.REQUEST),
    ("caller.team == 'x' && session.calls > 2", Phase.REQUEST),
    ("counters.spend.value > 1", Phase.REQUEST),
    ("counters.spend.exceeded", Phase.RESERVED),
    ("counters.spend.exceeded && request.model == 'x'", Phase.RESERVED),
    ("response.status == 500", Phase.RESPONSE_HEADERS),
    ("response.headers[?'x'].orValue('') == 'y'", Phase.RESPONSE_HEADERS),
    ("counters.spend.exceeded && response.status == 500", Phase.RESPONSE_HEADERS),
    ("response.text.contains('x')", Phase.RESPONSE),
    ("response.status == 500 && response.elapsed_ms > 5.0", Phase.RESPONSE),
    ("response.output_tokens > 5", Phase.RESPONSE),
    ("response.inspection != 'full'", Phase.RESPONSE),
]


@pytest.mark.parametrize(("when", "phase"), PHASES)
def test_the_phase_follows_from_what_is_read(when: str, phase: Phase) -> None:
    assert rule_of(f'when: "{when}", terminate: {{}}').phase is phase


def test_a_variable_counts_as_what_it_reads() -> None:
    spec = "mode: Full\nvariables: [{name: bad, expression: \"response.text.contains('x')\"}]\n"
    rule = rule_of("when: variables.bad, terminate: {}", spec)
    assert rule.phase is Phase.RESPONSE
    assert "response.text" in rule.reads


def test_reads_and_exceeded() -> None:
    rule = rule_of("when: counters.spend.exceeded && counters.calls.value > 2, terminate: {}")
    assert rule.reads == {"counters.spend.exceeded", "counters.calls.value"}
    assert rule.reads_exceeded == {"spend"}


def test_a_rule_without_when_always_matches() -> None:
    rule = rule_of("terminate: {}")
    assert (rule.when, rule.phase, rule.reads, rule.monotone) == (None, Phase.REQUEST, frozenset(), True)


# ---- actions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "meant"),
    [
        ("terminate: {}", Terminate(403, "r")),
        ("terminate: {status: 200, reason: why}", Terminate(200, "why")),
        ("terminate: {finish: length}", Terminate(403, "r", finish="length")),
        ("terminate: {message: said}", Terminate(403, "r", "said")),
        ("terminate: {message: said, fallback: ''}", Terminate(403, "r", "said", silent=True)),
        ("reroute: {model: m}", Reroute("m")),
        (
            "reroute: {upstream: eu, keepCredentials: true, headers: {set: {X-A: b}, remove: [C]}}",
            Reroute("", "eu", HeaderEdit((("x-a", "b"),), ("c",)), True),
        ),
        ("allow: {rules: [p/r, q/s.exceeded]}", Allow(frozenset(("p/r", "q/s.exceeded")))),
        ("constrain: {set: {temperature: 0, a.b: [1]}}", Constrain(set=((("temperature",), 0), (("a", "b"), [1])))),
        ("constrain: {set: {stop: null}}", Constrain(set=((("stop",), None),))),
        ("constrain: {cap: {max_tokens: 256}}", Constrain(cap=(("max_tokens", 256),))),
        ("constrain: {tools: {allow: []}}", Constrain(tools_allow=frozenset())),
        ("constrain: {tools: {deny: [a, b]}}", Constrain(tools_deny=frozenset(("a", "b")))),
        ("constrain: {inject: {system: be brief}}", Constrain(inject_system="be brief")),
        (
            "constrain: {headers: {request: {set: {A: b}}, response: {remove: [C]}}}",
            Constrain(request_headers=HeaderEdit((("a", "b"),)), response_headers=HeaderEdit((), ("c",))),
        ),
        ("constrain: {pace: {tokens_per_second: 50}}", Constrain(pace=50)),
        ("constrain: {redact: {detectors: [email, email]}}", Constrain(redact=Redaction(("email",)))),
        (
            "constrain: {redact: {patterns: ['k-[0-9]{4}'], in: [response], replacement: ''}}",
            Constrain(redact=Redaction((), ("k-[0-9]{4}",), in_request=False, replacement="")),
        ),
    ],
)
def test_actions(action: str, meant: object) -> None:
    assert rule_of(action).action == meant


ACTIONS = {
    "reroute: {model: m}": Phase.RESERVED,
    "constrain: {set: {temperature: 0}}": Phase.RESERVED,
    "constrain: {cap: {max_tokens: 1}}": Phase.RESERVED,
    "constrain: {tools: {deny: [a]}}": Phase.RESERVED,
    "constrain: {inject: {system: x}}": Phase.RESERVED,
    "constrain: {headers: {request: {remove: [a]}}}": Phase.RESERVED,
    "constrain: {redact: {detectors: [email], in: [request]}}": Phase.RESERVED,
    "constrain: {redact: {detectors: [email], in: [request, response]}}": Phase.RESERVED,
    "constrain: {headers: {response: {remove: [a]}}}": Phase.RESPONSE_HEADERS,
    "constrain: {redact: {detectors: [email]}}": Phase.RESPONSE,
    "constrain: {redact: {detectors: [email], in: [response]}}": Phase.RESPONSE,
    "constrain: {pace: {tokens_per_second: 1}}": Phase.RESPONSE,
    "terminate: {}": Phase.RESPONSE,
}
WHENS = {
    Phase.REQUEST: "request.model == 'x'",
    Phase.RESERVED: "counters.spend.exceeded",
    Phase.RESPONSE_HEADERS: "response.status == 500",
    Phase.RESPONSE: "response.text.contains('x')",
}


@pytest.mark.parametrize(("action", "phase"), list(itertools.product(ACTIONS, WHENS)))
def test_an_action_that_is_impossible_once_the_inputs_are_known_is_an_error(action: str, phase: Phase) -> None:
    found = errors_of(f'mode: Full\n{COUNTERS}rules:\n  - {{name: r, when: "{WHENS[phase]}", {action}}}\n')
    assert found == ([] if phase <= ACTIONS[action] else ["POL009"])


@pytest.mark.parametrize(
    "when", [WHENS[Phase.RESERVED], WHENS[Phase.RESPONSE], "session.calls > 2", "counters.spend.used > 1"]
)
def test_an_exemption_reads_request_facts_only(when: str) -> None:
    assert errors_of(f'mode: Full\n{COUNTERS}rules:\n  - {{name: r, when: "{when}", allow: {{rules: [p/r]}}}}\n') == [
        "POL013"
    ]


def test_redaction_unsaid_is_wherever_it_is_still_possible() -> None:
    early = rule_of("constrain: {redact: {detectors: [email]}}").action
    late = rule_of("when: response.status == 500, constrain: {redact: {detectors: [email]}}").action
    assert isinstance(early, Constrain) and isinstance(late, Constrain)
    assert (early.edits_request_body, early.edits_response_body) == (True, True)
    assert (late.edits_request_body, late.edits_response_body) == (False, True)


def test_texts_may_be_expressions_and_keep_their_plain_text() -> None:
    rule = rule_of(
        "terminate: {message: plain, messageExpression: \"'spent ' + string(counters.spend.value)\","
        " fallbackExpression: request.model}"
    )
    assert rule.action == Terminate(403, "r", "plain")
    assert rule.message_expression is not None and rule.fallback_expression is not None
    assert rule.reads == {"counters.spend.value", "request.model"}
    assert rule.reads_exceeded == frozenset()
    assert rule.phase is Phase.REQUEST


# ---- hold-back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ("when: \"response.text.contains('secret')\", terminate: {}", 5),
        ("when: \"response.text.contains('a') || response.text.contains('abc')\", terminate: {}", 2),
        ("when: \"response.text.matches('k-[0-9]{8}')\", terminate: {}", 9),
        ("when: \"response.text.matches('k-[0-9]+')\", terminate: {}", 0),
        ("when: \"response.text.matches('k-[0-9]+')\", holdBack: 50, terminate: {}", 50),
        ("when: \"response.text.contains('secret')\", holdBack: 0, terminate: {}", 0),
        ("when: response.text.size() > 100, terminate: {}", 0),
        ("when: \"response.text.contains('secret')\", constrain: {pace: {tokens_per_second: 1}}", 0),
        ("when: response.output_tokens > 5, terminate: {}", 0),
    ],
)
def test_hold_back_is_derived_from_what_the_rule_watches_for(rule: str, held: int) -> None:
    assert rule_of(rule).hold_back == held


def test_a_match_without_end_and_without_hold_back_is_warned_of() -> None:
    endless = "mode: Full\nrules:\n  - {name: r, when: \"response.text.matches('k-[0-9]+')\", terminate: {}%s}\n"
    assert warnings_of(endless % "") == ["POL105"]
    assert warnings_of(endless % ", holdBack: 9") == []


# ---- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "rule"), list(itertools.product(["", *Mode], ["", *Mode])))
def test_a_rule_is_enforced_as_far_as_the_lower_of_both_modes(policy: str, rule: str) -> None:
    spec = f"mode: {policy}\n" if policy else "description: no mode\n"
    made = rule_of(f"{f'mode: {rule}, ' if rule else ''}terminate: {{}}", spec)
    of_policy = Mode(policy or "Monitor")
    assert made.mode is min((of_policy, Mode(rule or of_policy)), key=lambda mode: mode.rank)


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        ("rules: [{name: r, terminate: {}}]", True),
        ("mode: Monitor\nrules: [{name: r, terminate: {}}]", True),
        ("mode: Full\nrules: [{name: r, terminate: {}}]", False),
        ("mode: Soft\nrules: [{name: r, terminate: {}}]", True),
        ("mode: Soft\nrules: [{name: r, severity: Critical, terminate: {}}]", False),
        ("mode: Soft\n" + COUNTERS + "rules: [{name: r, terminate: {}}]", False),
    ],
)
def test_a_policy_that_enforces_nothing_is_said_to(spec: str, warned: bool) -> None:
    assert ("POL101" in warnings_of(spec)) is warned


def test_what_a_rule_inherits() -> None:
    rule = rule_of("severity: High, terminate: {}", "mode: Full\nfailurePolicy: Ignore\n")
    assert rule.severity is RuleSeverity.HIGH
    assert rule.failure_policy is FailurePolicy.IGNORE
    assert (rule.policy, rule.namespace, rule.cluster, rule.position) == ("p", "default", False, 0)
    assert rule.id == "default/p/r"


# ---- counters -------------------------------------------------------------------------------------------------------


def test_a_counter() -> None:
    made = counter_of(
        "key: [caller.team, request.model], charge: Cost, window: {calendar: Month}, limit: 2.00 USD, clamp: MaxTokens"
    )
    assert [program.source for program in made.key] == ["caller.team", "request.model"]
    assert (made.charge, made.amount, made.clamp, made.denies, made.scope) == (Charge.COST, None, True, True, "Tenant")
    assert made.window == Window(WindowKind.CALENDAR, calendar="Month")
    assert made.limit is not None and (made.limit.default, made.limit.by) == (2 * NANO, None)


def test_a_limit_by_key() -> None:
    made = counter_of(
        "key: caller.key, charge: TotalTokens, window: {idle: 1h}, scope: Global,"
        " limit: {by: caller.user, default: 10 tokens, values: {gold: 20 tokens}}"
    )
    assert made.limit is not None and made.limit.by is not None
    assert (made.limit.default, made.limit.values, made.scope) == (10, {"gold": 20}, "Global")


def test_a_charge_by_expression() -> None:
    made = counter_of(
        "key: caller.key, charge: {expression: response.output_tokens * 2}, window: {idle: 1h}, limit: '2.5'"
    )
    assert made.charge is Charge.EXPRESSION
    assert made.amount is not None and made.amount.source == "response.output_tokens * 2"
    assert made.limit is not None and made.limit.default == 2_500_000


def test_a_limit_denies_by_itself() -> None:
    policy = policy_of("mode: Full\nfailurePolicy: Ignore\n" + COUNTERS + "rules: [{name: r, terminate: {}}]\n")
    author, implied = policy.rules
    assert (author.name, author.implied) == ("r", None)
    assert (implied.name, implied.implied, implied.position) == ("spend.exceeded", "spend", 1)
    assert isinstance(implied.action, Terminate)
    assert (implied.action.status, implied.action.reason) == (429, "spend_exceeded")
    assert "counter spend" in implied.action.message
    assert (implied.severity, implied.phase, implied.mode) == (RuleSeverity.CRITICAL, Phase.RESERVED, Mode.FULL)
    assert (implied.when, implied.reads) == (None, {"counters.spend.exceeded"})
    assert (implied.reads_exceeded, implied.failure_policy) == ({"spend"}, FailurePolicy.IGNORE)


def test_a_limit_that_lets_go_on_denies_nothing() -> None:
    spec = COUNTERS.replace("limit: 2.00 USD", "limit: 2.00 USD, onExceeded: Continue")
    policy = policy_of("mode: Full\n" + spec)
    assert policy.rules == ()
    assert [counter.denies for counter in policy.counters] == [False, False]


def test_an_exemption_may_name_the_rule_of_a_limit() -> None:
    spec = "mode: Full\n" + COUNTERS + "rules: [{name: r, allow: {rules: [p/spend.exceeded, p/calls.exceeded]}}]\n"
    assert warnings_of(spec.replace("{sliding: 1m}}", "{sliding: 1m}, onMissing: Refuse}")) == ["POL103"]


# ---- names and scopes -----------------------------------------------------------------------------------------------


def test_namespaces() -> None:
    spec = "mode: Full\nrules: [{name: r, terminate: {}}]\n"
    made = compiled(
        document(spec, "b"),
        document(spec, "b", namespace="a"),
        document(spec, "b", "ClusterLLMPolicy"),
        document(spec, "a"),
    )
    assert [policy.qualified for policy in made.policies] == ["b", "a/b", "default/a", "default/b"]


def test_the_same_name_twice_is_an_issue_also_where_one_leaves_the_namespace_out() -> None:
    spec = "mode: Full\nrules: [{name: r, terminate: {}}]\n"
    files = [("a.yaml", document(spec)), ("b.yaml", document(spec, namespace="default"))]
    result = compile_documents(files)
    assert codes(result) == ["POL007"]
    assert result.issues[-1].span.file == "b.yaml"
    assert "a.yaml:3:18" in result.issues[-1].hint


def test_match_conditions_and_match() -> None:
    policy = policy_of(
        "mode: Full\nmatch: {operations: [chat, unknown], models: ['gpt-*'], providers: [openai], paths: [/v1/*]}\n"
        "matchConditions: [{name: not-research, expression: caller.team != params.team}]\nparams: {team: research}\n"
    )
    assert policy.match == Match(("chat", "unknown"), ("gpt-*",), ("openai",), ("/v1/*",))
    assert [(one.name, one.program.reads) for one in policy.conditions] == [("not-research", {"caller.team"})]


def test_a_namespaced_policy_exempts_rules_of_its_own_namespace_only() -> None:
    plain = "mode: Full\nrules: [{name: r, terminate: {}}]\n"
    exempt = "mode: Full\nrules: [{name: x, allow: {rules: [other/r]}}]\n"
    for kind, expected in [("LLMPolicy", ["POL103"]), ("ClusterLLMPolicy", [])]:
        files = [("a.yaml", document(plain, "other", namespace="far")), ("b.yaml", document(exempt, "e", kind))]
        warned = [code for code in codes(compile_documents(files), Severity.WARNING) if code == "POL103"]
        assert warned == expected


def test_an_exemption_that_trusts_a_header_is_warned_of() -> None:
    spec = "mode: Full\nrules:\n  - {name: r, when: \"%s == 'x'\", allow: {rules: [p/r]}}\n"
    for read in ("caller.user", "caller.team", "caller.tenant", "request.tags[?'a'].orValue('')", "session.id"):
        assert warnings_of(spec % read) == ["POL104"], read
    for read in ("caller.key", "request.model", "session.source"):
        assert warnings_of(spec % read) == [], read


def test_a_set_that_covers_unknown_is_not_warned() -> None:
    spec = "mode: Full\nmatch: {operations: [%s]}\nrules: [{name: r, terminate: {}}]\n"
    for operations, warned in [("chat", True), ("unknown", False), ("'*'", False), ("'un*'", False), ("", True)]:
        result = compile_documents([("f.yaml", document(spec % operations))])
        assert (codes(result, Severity.WARNING) == ["POL102"]) is warned
    both = [("a.yaml", document(spec % "chat", "a")), ("b.yaml", document(spec % "unknown", "b"))]
    assert compile_documents(both).issues == ()


# ---- one mistake does not hide another ------------------------------------------------------------------------------


def test_a_rule_that_reads_a_broken_counter_or_parameter_is_not_blamed() -> None:
    spec = """\
mode: Full
counters:
  - {name: spend, key: session.id, charge: Cash, window: {lifetime: 24h}, limit: 2.00 USD}
  - {name: calls, charge: Requests}
rules:
  - {name: a, when: counters.spend.exceeded, terminate: {}}
  - {name: b, when: counters.calls.value > 2, terminate: {}}
"""
    assert errors_of(spec) == ["POL005", "POL003", "POL003"]


def test_a_rule_that_reads_a_broken_parameter_is_not_blamed() -> None:
    spec = "mode: Full\nparams: {m: {a: 1}}\nvariables: [{name: v, expression: params.m}]\nrules:\n"
    assert errors_of(spec + "  - {name: r, when: request.model == params.m, terminate: {}}\n") == ["POL004"]


def test_issues_come_in_order_of_their_places_over_all_files() -> None:
    bad = document("mode: full\nrules: [{name: r, terminate: {}}, {name: r, terminat: {}}]\n")
    result = compile_documents([("b.yaml", bad), ("a.yaml", bad.replace("name: p", "name: q"))])
    assert result.policy_set is None
    spans = [issue.span for issue in result.issues]
    assert spans == sorted(spans)
    assert codes(result) == ["POL005", "POL007", "POL002"] * 2


def test_an_error_in_one_file_keeps_the_whole_set_out() -> None:
    good = document("mode: Full\nrules: [{name: r, terminate: {}}]\n")
    result = compile_documents([("a.yaml", good), ("b.yaml", "kind: ConfigMap\n")])
    assert result.policy_set is None
    assert codes(result) == ["POL001"]


# ---- the set --------------------------------------------------------------------------------------------------------

SPEC = "mode: Full\nrules: [{name: r, when: request.model == 'x', terminate: {}}]\n"


def test_no_policies_at_all_are_a_set() -> None:
    made = compiled()
    assert made.policies == ()
    assert made.digest.startswith("sha256:") and len(made.digest) == 71


def test_the_digest_names_what_is_said_not_how() -> None:
    one, two = document(SPEC, "a"), document(SPEC, "b")
    rewritten = "# a comment\n" + one.replace("LLMPolicy", '"LLMPolicy"').replace(
        "{name: a}", "{name: a, namespace: default}"
    )
    same = {
        compiled(one, two).digest,
        compiled(two, one).digest,
        compiled(one + "---\n" + two).digest,
        compiled(rewritten, two).digest,
        compiled(one.replace("mode: Full", "mode: Full\n  failurePolicy: Fail\n  variables: []"), two).digest,
    }
    assert len(same) == 1


@pytest.mark.parametrize(
    "change",
    [
        ("mode: Full", "mode: Soft"),
        ("'x'", "'y'"),
        ("name: r", "name: s"),
        ("name: a", "name: b"),
        ("LLM", "ClusterLLM"),
    ],
)
def test_the_digest_names_everything_that_is_said(change: tuple[str, str]) -> None:
    one = document(SPEC, "a")
    assert compiled(one).digest != compiled(one.replace(*change)).digest


def test_compiling_again_compiles_only_what_changed() -> None:
    compiler = Compiler()
    files = [("a.yaml", document(SPEC, "a")), ("b.yaml", document(SPEC, "b"))]
    first = compiler(files).policy_set
    files[1] = ("b.yaml", document(SPEC.replace("'x'", "'y'"), "b"))
    second = compiler(files).policy_set
    assert first is not None and second is not None
    assert second.policies[0] is first.policies[0]
    assert second.policies[1] is not first.policies[1]
    assert second.digest == compiled(*(text for _, text in files)).digest


def test_compiling_again_sees_what_files_are_to_each_other_anew() -> None:
    compiler = Compiler()
    spec = SPEC + "match: {operations: [chat]}\n"
    assert [issue.code for issue in compiler([("a.yaml", document(spec))]).issues] == ["POL102"]
    both = [("a.yaml", document(spec)), ("b.yaml", document(spec))]
    assert codes(compiler(both)) == ["POL007"]
    assert codes(compiler(both[:1])) == []
    covers = ("c.yaml", document(SPEC + "match: {operations: [unknown]}\n", "c"))
    assert compiler([both[0], covers]).issues == ()


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_set_that_is_replaced_waits_for_no_collector() -> None:
    compiler = Compiler()
    first = compiler([("a.yaml", document(SPEC, "a"))]).policy_set
    assert first is not None
    assert first.select("chat", "openai", "/", "m") is first.select("chat", "openai", "/", "m")
    gone = weakref.ref(first)
    del first
    compiler([("a.yaml", document(SPEC.replace("'x'", "'y'"), "a"))])
    assert gone() is None


def test_what_an_exemption_among_many_meant_is_guessed() -> None:
    rules = "mode: Full\nrules:\n" + "".join(f"  - {{name: r{at}, terminate: {{}}}}\n" for at in range(64))
    many = [(f"{at}.yaml", document(rules, f"p{at}")) for at in range(20)]
    wrong = document("mode: Full\nrules: [{name: free, allow: {rules: [p7/rr63]}}]\n", "x")
    result = compile_documents([*many, ("x.yaml", wrong)])
    assert [issue.hint for issue in result.issues if issue.code == "POL103"] == ["did you mean `p7/r63`?"]
