"""How rules combine, written from POLICY.md alone: slow, obvious, and sharing nothing with what it judges.

It works over a model of its own. What a rule says of a model is a table; a policy's identity, its counters and its
prices are plain values; a call is a few words. `decide` is the language, sentence by sentence.

Rule 1: nothing of policyd is imported here.
Rule 2: no cleverness: every pass judges every rule anew, every merge looks at every pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

N = TypeVar("N", int, float)

YES, NO, ERROR = "matched", "not_matched", "errored"
EXEMPTED = "exempted"
MODES = ("Monitor", "Soft", "Full")
SEVERITIES = ("Info", "Low", "Medium", "High", "Critical")
GRAVITY = (NO, EXEMPTED, YES, ERROR)
STRICTNESS = ("allow", "constrain", "reroute", "terminate")


# ---- what there is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allow:
    rules: frozenset[str]  # policy/rule


@dataclass(frozen=True)
class Constrain:
    set: Mapping[str, object] = field(default_factory=dict)  # dotted path -> value
    cap: int | None = None  # of max_tokens
    tools_allow: frozenset[str] | None = None
    tools_deny: frozenset[str] = frozenset()
    inject: str = ""
    request_headers: Mapping[str, str | None] = field(default_factory=dict)  # None: removed
    response_headers: Mapping[str, str | None] = field(default_factory=dict)
    redact: frozenset[str] = frozenset()  # words taken out of the request
    pace: float | None = None

    @property
    def edits_body(self) -> bool:
        return bool(
            self.set
            or self.cap is not None
            or self.tools_allow is not None
            or self.tools_deny
            or self.inject
            or self.redact
        )


@dataclass(frozen=True)
class Reroute:
    model: str
    upstream: str = ""
    keep_credentials: bool = False


@dataclass(frozen=True)
class Terminate:
    status: int = 403
    reason: str = ""  # empty: the rule's name


Action = Allow | Constrain | Reroute | Terminate


@dataclass(frozen=True)
class Glance:
    """What a rule reads of a counter of its policy: `exceeded`, or whether `value` is at least so much."""

    counter: str
    at_least: int | None = None  # store units; None: reads `exceeded`


@dataclass(frozen=True)
class Rule:
    name: str
    action: Action
    table: Mapping[str, str] | None = None  # model -> YES | NO | ERROR; None: reads nothing of the request, YES
    glance: Glance | None = None
    either: bool = False  # table or glance, else table and glance
    answer: bool = False  # reads the answer too, and is true of it wherever the rest is
    whose: str = ""  # the user whom it is about; empty: everybody
    severity: str = "Medium"
    mode: str | None = None
    implied: str = ""  # the counter whose limit this is


@dataclass(frozen=True)
class Counter:
    name: str
    charge: str = "Requests"  # Requests | OutputTokens | Cost
    limit: int | None = None  # store units
    denies: bool = True  # onExceeded: Terminate
    by_user: bool = False  # keyed by who calls; else by a word


@dataclass(frozen=True)
class Policy:
    name: str
    namespace: str = ""  # empty: a ClusterLLMPolicy
    mode: str = "Full"
    fails: bool = True  # failurePolicy: Fail
    models: frozenset[str] = frozenset()  # of `match`; empty: all
    condition: Mapping[str, str] | None = None  # of `matchConditions`: model -> YES | NO | ERROR
    whose: str = ""  # the user whom this condition is about, too; empty: everybody
    counters: tuple[Counter, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def qualified(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def every_rule(self) -> tuple[Rule, ...]:
        """As written, then those that the limits imply."""
        return (*self.rules, *(implied(one) for one in self.counters if one.limit is not None and one.denies))


def implied(counter: Counter) -> Rule:
    """A limit denies by itself."""
    refusal = Terminate(429, f"{counter.name}_exceeded")
    glance = Glance(counter.name)
    return Rule(f"{counter.name}.exceeded", refusal, glance=glance, severity="Critical", implied=counter.name)


@dataclass(frozen=True)
class Price:
    request: int  # nano-dollars a call
    token: int  # nano-dollars a token of output


CounterKey = tuple[str, str, str, str]  # policy, counter, key, life


@dataclass
class World:
    """What calls stand on; `spent` grows from call to call."""

    policies: Sequence[Policy]
    prices: Mapping[str, Price]
    mode: str = "Full"  # of the process
    store: bool = True  # it answers
    spent: dict[CounterKey, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    model: str
    user: str = ""
    readable: bool = True  # the body makes sense
    answer_tokens: int = 1


# ---- what is decided ----------------------------------------------------------------------------------------------


@dataclass
class Merged:
    """All constrains that are enforced, as one change."""

    set: dict[str, object] = field(default_factory=dict)
    cap: int | None = None
    tools_allow: frozenset[str] | None = None
    tools_deny: frozenset[str] = frozenset()
    injects: list[str] = field(default_factory=list)
    request_headers: dict[str, str | None] = field(default_factory=dict)
    response_headers: dict[str, str | None] = field(default_factory=dict)
    redact: frozenset[str] = frozenset()
    pace: float | None = None
    conflicts: int = 0


@dataclass
class Decided:
    """What became of a call."""

    verdict: str = "allow"
    would: str = "allow"
    winner: str = ""  # policy/rule that refused or rerouted, or the strictest that changes the call
    status: int = 0
    reason: str = ""
    reroute: Reroute | None = None
    served: str = ""  # the model it left with
    left: bool = False
    degraded: bool = False
    merged: Merged = field(default_factory=Merged)
    outcomes: dict[str, str] = field(default_factory=dict)  # policy/rule -> the gravest of its outcomes
    enforced: dict[str, bool] = field(default_factory=dict)  # policy/rule -> whether that outcome was acted on
    exceeded: dict[tuple[str, str], bool] = field(default_factory=dict)  # of the counters of a call that left
    charged: dict[CounterKey, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """One rule, judged once."""

    policy: Policy
    rule: Rule
    outcome: str

    @property
    def id(self) -> str:
        return f"{self.policy.qualified}/{self.rule.name}"

    @property
    def refuses(self) -> bool:
        """What cannot be judged acts as a terminate under Fail, whatever its own action."""
        if self.outcome == ERROR:
            return self.policy.fails
        return self.outcome == YES and isinstance(self.rule.action, Terminate)

    @property
    def acts_as(self) -> str:
        """The verdict that it stands for."""
        if self.refuses:
            return "terminate"
        return type(self.rule.action).__name__.lower() if self.outcome == YES else "allow"

    @property
    def strictest_first(self) -> tuple[object, ...]:
        """Severity, then Cluster before namespaced, then namespace/name, then the rule's position."""
        grave = -SEVERITIES.index(self.rule.severity)
        names = [rule.name for rule in self.policy.every_rule]
        return grave, bool(self.policy.namespace), self.policy.qualified, names.index(self.rule.name)


def decide(world: World, call: Call) -> Decided:
    """One call, from its request to its settlement."""
    return _Decision(world, call).run()


# ---- how ------------------------------------------------------------------------------------------------------------


class _Decision:
    """One call being decided. A *pass* judges rules over one model: the sender's, or the target of a reroute."""

    def __init__(self, world: World, call: Call) -> None:
        self.world, self.call, self.out = world, call, Decided()
        self.model: str | None = call.model if call.readable else None
        self.models: list[str | None] = [self.model]  # that the call was judged with
        self.constrains: dict[str, Judged] = {}  # of every pass: nothing is overridden
        self.blind: set[str] = set()  # policies that could not tell whether they are about this call
        self.spent = 0  # tokens of the answer

    def run(self) -> Decided:
        if not self._refused_before_leaving():
            self._leave()
        return self.out

    def _refused_before_leaving(self) -> bool:
        """Judge; after a reroute judge once more; reserve; judge what reads `exceeded`; a reroute there repeats it."""
        if self._pass(self._early()):
            return True
        if self._rerouted(self._early()) and self._pass(self._early()):
            return True
        if self._pass(self._reserved()):
            return True
        if not self._rerouted(self._reserved()):
            return False
        return self._pass(self._early()) or self._pass(self._reserved())

    def _leave(self) -> None:
        self.out.left, self.out.served = True, self.model or ""
        self.out.merged = merge(self.constrains.values())
        if self.out.reroute:
            self.out.verdict = "reroute"
        elif self.constrains:
            self.out.verdict = "constrain"
            self.out.winner = min(self.constrains.values(), key=lambda one: one.strictest_first).id
        self._charge()
        self._answer()

    def _answer(self) -> None:
        """The answer's rules see the model that answers, and what the call has spent; what a rule that refuses sees of
        a counter may be true by now. A policy that either pass was about is about the answer too."""
        about: list[Policy] = []
        for model in self.models:
            self.model = model
            about += [policy for policy, _ in self._matching() if policy not in about]
            self.blind |= {policy.qualified for policy in about if self._applies(policy) == ERROR}
        counting = [policy for policy, _ in self._matching()]
        self.spent = self.call.answer_tokens
        late = [(policy, rule) for policy in about for rule in policy.rules if rule.answer]
        late += [
            (policy, rule) for policy in about for rule in policy.rules if policy in counting and _grows(policy, rule)
        ]
        self._judged(late, self._exempted())

    # -- one pass

    def _early(self) -> list[tuple[Policy, Rule]]:
        """What can be judged over the request, and what about the answer is known never to be: the rules of policies
        that cannot tell whether they are about the call. Any other rule may be false of the answer."""
        rules = [(p, r) for p, r in self._matching() if not _reads_exceeded(r)]
        return [(p, r) for p, r in rules if not r.answer or self._applies(p) == ERROR]

    def _reserved(self) -> list[tuple[Policy, Rule]]:
        return [(p, r) for p, r in self._matching() if not r.answer and _reads_exceeded(r)]

    def _matching(self) -> list[tuple[Policy, Rule]]:
        """Every rule of every policy that is not known to be about other calls."""
        return [(p, r) for p in self.world.policies if self._applies(p) != NO for r in p.every_rule]

    def _pass(self, rules: Sequence[tuple[Policy, Rule]]) -> bool:
        return self._judged(rules, self._exempted())

    def _judged(self, rules: Sequence[tuple[Policy, Rule]], exempt: set[str]) -> bool:
        """Judge these rules. True when one refuses: the strictest of them is the refusal."""
        judged = self._judge(rules, exempt)
        for one in judged:
            self._note(one, judged)
        acting = [one for one in judged if self._acts(one, judged)]
        self.constrains |= {one.id: one for one in acting if one.acts_as == "constrain"}
        refusals = [one for one in acting if one.refuses]
        if not refusals:
            return False
        winner = min(refusals, key=lambda one: one.strictest_first)
        self.out.verdict, self.out.winner, self.out.reroute = "terminate", winner.id, None
        self.out.status, self.out.reason = 503, "policy_error"
        if winner.outcome == YES:
            assert isinstance(winner.rule.action, Terminate)
            self.out.status = winner.rule.action.status
            self.out.reason = winner.rule.action.reason or winner.rule.name
        return True

    def _rerouted(self, rules: Sequence[tuple[Policy, Rule]]) -> bool:
        """Whether one of these rules sends the call elsewhere; that happens once."""
        if self.out.reroute:
            return False
        judged = self._judge(rules, self._exempted())
        found = [one for one in judged if self._acts(one, judged) and one.acts_as == "reroute"]
        if not found:
            return False
        winner = min(found, key=lambda one: one.strictest_first)
        assert isinstance(winner.rule.action, Reroute)
        self.out.reroute, self.out.winner, self.model = winner.rule.action, winner.id, winner.rule.action.model
        self.models.append(self.model)
        return True

    def _judge(self, rules: Sequence[tuple[Policy, Rule]], exempt: set[str]) -> list[Judged]:
        judged = [Judged(policy, rule, self._outcome(policy, rule)) for policy, rule in rules]
        return [
            Judged(one.policy, one.rule, EXEMPTED) if one.outcome != NO and one.id in exempt else one for one in judged
        ]

    def _exempted(self) -> set[str]:
        """What an `allow` names: in Soft and Full whatever its severity; of its own namespace, unless Cluster's."""
        every = self._matching()
        exempt: set[str] = set()
        for policy, rule in every:
            if not isinstance(rule.action, Allow) or self._mode(policy, rule) == "Monitor":
                continue
            if self._outcome(policy, rule) != YES:
                continue
            for other in self.world.policies:
                for named in other.every_rule:
                    reaches = not policy.namespace or policy.namespace == other.namespace
                    if reaches and f"{other.name}/{named.name}" in rule.action.rules:
                        exempt.add(f"{other.qualified}/{named.name}")
        return exempt

    def _acts(self, one: Judged, judged: Sequence[Judged], *, if_all_were_enforced: bool = False) -> bool:
        """Whether something is done about it. Where a rule of the author's acts on `exceeded`, the implied one does
        not; after a reroute no other one acts."""
        if one.acts_as == "allow" or not (if_all_were_enforced or self._enforces(one.policy, one.rule)):
            return False
        if one.acts_as == "reroute" and self.out.reroute:
            return False
        return not (one.rule.implied and one.outcome == YES and self._stood_in(one, judged, if_all_were_enforced))

    def _stood_in(self, limit: Judged, judged: Sequence[Judged], if_all_were_enforced: bool) -> bool:
        return any(
            other.outcome == YES and self._acts(other, judged, if_all_were_enforced=if_all_were_enforced)
            for other in judged
            if other.policy == limit.policy
            and not other.rule.implied
            and other.rule.glance == Glance(limit.rule.implied)
        )

    # -- the record

    def _note(self, one: Judged, judged: Sequence[Judged]) -> None:
        """The gravest outcome of a rule is the one that is told, and a limit that another rule speaks for has none."""
        acts = self._acts(one, judged)
        if isinstance(one.rule.action, Allow) and one.outcome == YES:
            acts = self._enforces(one.policy, one.rule)
        spoken_for = one.rule.implied and one.outcome == YES and self._stood_in(one, judged, False)
        outcome = NO if spoken_for else one.outcome
        told = (GRAVITY.index(outcome), acts)
        if told >= (GRAVITY.index(self.out.outcomes.get(one.id, NO)), self.out.enforced.get(one.id, False)):
            self.out.outcomes[one.id], self.out.enforced[one.id] = outcome, acts
        self.out.degraded |= one.outcome == ERROR and not one.policy.fails
        would = one.acts_as if self._acts(one, judged, if_all_were_enforced=True) else "allow"
        self.out.would = max(self.out.would, would, key=STRICTNESS.index)

    # -- one rule

    def _mode(self, policy: Policy, rule: Rule) -> str:
        """The lowest of the process's, the policy's and the rule's own."""
        return min(self.world.mode, policy.mode, rule.mode or policy.mode, key=MODES.index)

    def _enforces(self, policy: Policy, rule: Rule) -> bool:
        """Soft enforces what is Critical, and an `allow` works in it whatever its severity."""
        mode = self._mode(policy, rule)
        if mode == "Soft":
            return rule.severity == "Critical" or isinstance(rule.action, Allow)
        return mode == "Full"

    def _outcome(self, policy: Policy, rule: Rule) -> str:
        if self._applies(policy) == ERROR or policy.qualified in self.blind:
            return ERROR
        said = self._said(policy, rule)
        if said == YES and self.model is None and self._changes_body(rule):
            return ERROR  # a body that could not be read cannot be changed either
        return said

    @staticmethod
    def _changes_body(rule: Rule) -> bool:
        return isinstance(rule.action, Reroute) or (isinstance(rule.action, Constrain) and rule.action.edits_body)

    def _said(self, policy: Policy, rule: Rule) -> str:
        """What the condition gives: an error only where its value depends on what cannot be judged."""
        if rule.whose and rule.whose != self.call.user:
            return NO
        table = YES if rule.table is None else self._read(rule.table)
        if rule.glance is None:
            return table
        seen = self._seen(policy, rule.glance)
        glanced = ERROR if seen is None else YES if seen else NO
        return _either(table, glanced) if rule.either else _both(table, glanced)

    def _read(self, table: Mapping[str, str]) -> str:
        """What a table says of the model; what was never read is errored, never judged over emptiness."""
        return ERROR if self.model is None else table[self.model]

    def _applies(self, policy: Policy) -> str:
        """Whether a policy is about this call; as in ValidatingAdmissionPolicy a condition can fail to say."""
        if policy.models and self.model is not None and self.model not in policy.models:
            return NO
        said = YES if policy.condition is None else self._read(policy.condition)
        if policy.condition is not None and policy.whose and policy.whose != self.call.user:
            said = NO
        return ERROR if said == YES and policy.models and self.model is None else said

    # -- counters

    def _seen(self, policy: Policy, glance: Glance) -> bool | None:
        """What a glance at a counter shows; None: it cannot be seen."""
        counter = next(one for one in policy.counters if one.name == glance.counter)
        value, least, spent = self._value(policy, counter), self._units(counter, 1), self._units(counter, self.spent)
        if value is None or least is None or spent is None:
            return None
        if glance.at_least is not None:
            return value + (spent if self.spent else 0) >= glance.at_least
        return counter.limit is not None and value + least > counter.limit

    def _value(self, policy: Policy, counter: Counter) -> int | None:
        key = self._key(policy, counter)
        return self.world.spent.get(key, 0) if key and self.world.store else None

    def _key(self, policy: Policy, counter: Counter) -> CounterKey | None:
        who = self.call.user if counter.by_user else "everybody"
        monitored = "Monitor" in (policy.mode, self.world.mode)
        return (policy.qualified, counter.name, who, "monitor" if monitored else "live") if who else None

    def _units(self, counter: Counter, tokens: int) -> int | None:
        """What a call of so many tokens counts for. A hold asks at least for a call, or its input and one token."""
        if counter.charge == "Requests":
            return 1
        if counter.charge == "OutputTokens":
            return tokens if self.call.readable else None
        price = self.world.prices.get(self.model or "")
        return None if price is None else price.request + price.token * tokens

    def _charge(self) -> None:
        """What left is charged, exempted or not, at the price of the model that served it."""
        for policy in self.world.policies:
            for counter in policy.counters if self._applies(policy) != NO else ():
                exceeded = self._seen(policy, Glance(counter.name))
                if exceeded is not None:
                    self.out.exceeded[policy.qualified, counter.name] = exceeded
                key, units = self._key(policy, counter), self._units(counter, self.call.answer_tokens)
                if counter.charge == "OutputTokens":
                    units = self.call.answer_tokens
                if key is not None and units is not None and self.world.store:
                    self.out.charged[key] = units


def _reads_exceeded(rule: Rule) -> bool:
    return rule.glance is not None and rule.glance.at_least is None


def _grows(policy: Policy, rule: Rule) -> bool:
    """Whether a refusal may come true while the answer spends. Calls are counted when they leave."""
    if rule.glance is None or rule.glance.at_least is None or not isinstance(rule.action, Terminate):
        return False
    return any(one.name == rule.glance.counter and one.charge != "Requests" for one in policy.counters)


def _both(one: str, other: str) -> str:
    """CEL's `&&`: what is false is false whatever fails beside it."""
    if NO in (one, other):
        return NO
    return ERROR if ERROR in (one, other) else YES


def _either(one: str, other: str) -> str:
    """CEL's `||`: what is true is true whatever fails beside it."""
    if YES in (one, other):
        return YES
    return ERROR if ERROR in (one, other) else NO


def merge(judged: Iterable[Judged]) -> Merged:
    """Lowest cap and pace; allowed tools intersect, denied unite; injects in order; on a conflict the first wins."""
    merged = Merged()
    for one in sorted(judged, key=lambda one: one.strictest_first):
        change = one.rule.action
        assert isinstance(change, Constrain)
        for place, value in change.set.items():
            merged.conflicts += merged.set.setdefault(place, value) != value
        for mine, theirs in (
            (merged.request_headers, change.request_headers),
            (merged.response_headers, change.response_headers),
        ):
            for name, edit in theirs.items():
                merged.conflicts += mine.setdefault(name, edit) != edit
        merged.cap = _lowest(merged.cap, change.cap)
        merged.pace = _lowest(merged.pace, change.pace)
        if change.tools_allow is not None:
            before = change.tools_allow if merged.tools_allow is None else merged.tools_allow
            merged.tools_allow = before & change.tools_allow
        merged.tools_deny |= change.tools_deny
        merged.redact |= change.redact
        merged.injects += [change.inject] if change.inject else []
    return merged


def _lowest(one: N | None, other: N | None) -> N | None:
    return other if one is None else one if other is None else min(one, other)
