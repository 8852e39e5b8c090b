"""The story that `policyd demo` plays: its policies, its calls, and what has to come of each.

Rule 1: a scene that does not come out as told raises `NotAsTold`; nothing is shown as done that was not checked.
Rule 2: what reached an upstream is read off that upstream's ledger, never off policyd.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from policyd.cli.emulator import Call

FALLBACK = "This session has used its budget."
CARD = "4111 1111 1111 1111"

_HEAD = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\n"

POLICIES: dict[str, str] = {
    "interns.yaml": _HEAD
    + """\
metadata: {name: interns, namespace: demo}
spec:
  description: Short answers for interns.
  mode: Full
  matchConditions: [{name: interns, expression: caller.team == "interns"}]
  rules:
    - name: short
      constrain: {cap: {max_tokens: 16}}
""",
    "dear-models.yaml": _HEAD
    + """\
metadata: {name: dear-models, namespace: demo}
spec:
  description: Small talk does not need the dear model, and goes to the provider that is paid for.
  mode: Full
  match: {operations: [chat], models: ["o3*"]}
  rules:
    - name: small-talk
      when: request.input_tokens < 200
      reroute: {model: gpt-4o-mini, upstream: backup}
""",
    "secrets.yaml": _HEAD
    + """\
metadata: {name: secrets, namespace: demo}
spec:
  description: Private keys stay in the house.
  mode: Full
  rules:
    - name: private-key
      severity: Critical
      when: request.text.matches("BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY")
      terminate: {status: 403, reason: private_key, message: "This request holds a private key."}
""",
    "session-budget.yaml": _HEAD
    + f"""\
metadata: {{name: session-budget, namespace: demo}}
spec:
  description: Stop a session that has spent its budget, in the middle of a word if need be.
  mode: Full
  matchConditions: [{{name: agents, expression: caller.team == "agents"}}]
  counters:
    - name: spend
      key: session.id
      charge: Cost
      window: {{lifetime: 24h}}
      limit: 0.0005 USD
  rules:
    - name: spent
      severity: Critical
      when: counters.spend.exceeded
      terminate: {{status: 429, reason: session_budget_exceeded, fallback: "{FALLBACK}"}}
""",
}


def finance_policy(mode: str) -> str:
    """One policy with a Critical rule and a lesser one, in the mode that a scene wants."""
    return (
        _HEAD
        + f"""\
metadata: {{name: finance, namespace: demo}}
spec:
  description: Card numbers never leave; answers stay short.
  mode: {mode}
  matchConditions: [{{name: finance, expression: caller.team == "finance"}}]
  rules:
    - name: card-numbers
      severity: Critical
      constrain: {{redact: {{detectors: [card], in: [request]}}}}
    - name: short
      severity: Low
      constrain: {{cap: {{max_tokens: 32}}}}
"""
    )


class NotAsTold(Exception):  # noqa: N818
    """A scene came out otherwise than the story says."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one call: for its caller, in its record, and at the upstreams."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    record: Mapping[str, object]
    calls: Mapping[str, tuple[Call, ...]]  # upstream -> calls that reached it because of this one

    def only(self, upstream: str) -> Call:
        """The one call that reached an upstream, when it reached no other."""
        reached = {name: len(calls) for name, calls in self.calls.items() if calls}
        expect(reached == {upstream: 1}, f"the call reached {reached or 'no upstream'}, not {upstream} once")
        return self.calls[upstream][0]

    def events(self) -> list[str]:
        """The data of each event of a streamed answer."""
        return [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]

    def text(self) -> str:
        """The text of a streamed answer."""
        chunks = (json.loads(data) for data in self.events() if data != "[DONE]")
        deltas = (choice["delta"] for chunk in chunks for choice in chunk["choices"])
        return "".join(delta.get("content") or "" for delta in deltas)


def expect(truth: bool, otherwise: str) -> None:
    """Raises NotAsTold when something is not so."""
    if not truth:
        raise NotAsTold(otherwise)


@dataclass(frozen=True, slots=True)
class Scene:
    """One call of the story. `check` says what came of it, or raises NotAsTold."""

    title: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    verdict: str
    check: Callable[[Seen], str]
    enforced: bool = True
    policies: Mapping[str, str] = field(default_factory=dict)  # put in force before the call

    def play(self, seen: Seen) -> str:
        """What came of the call, in words."""
        told = seen.record.get("verdict")
        expect(told == self.verdict, f"the verdict is {told}, not {self.verdict}")
        done = seen.record.get("enforced") is True
        expect(done == self.enforced, f"the verdict was {'' if done else 'not '}enforced")
        return self.check(seen)


def _body(seen: Call) -> dict[str, object]:
    sent = json.loads(seen.body)
    expect(isinstance(sent, dict), "the upstream got no JSON object")
    return dict(sent)


def _allowed(seen: Seen) -> str:
    call = seen.only("openai")
    expect(seen.status == 200, f"the caller saw {seen.status}")
    return f"answered with {call.output_tokens} tokens, untouched"


def _constrained(seen: Seen) -> str:
    sent = _body(seen.only("openai"))
    expect(sent.get("max_tokens") == 16, f"the upstream got max_tokens {sent.get('max_tokens')}")
    finish = json.loads(seen.body)["choices"][0]["finish_reason"]
    expect(finish == "length", f"the answer ended with {finish}")
    return "asked for max_tokens 4000, the upstream got 16"


def _rerouted(seen: Seen) -> str:
    call = seen.only("backup")
    expect(_body(call).get("model") == "gpt-4o-mini", f"the upstream was asked for {_body(call).get('model')}")
    expect(not call.credentials, f"the caller's {', '.join(call.credentials)} reached the other upstream")
    expect(seen.status == 200, f"the caller saw {seen.status}")
    return "asked for o3 at openai, gpt-4o-mini at backup answered; the caller's key stayed here"


def _rejected(seen: Seen) -> str:
    reached = [name for name, calls in seen.calls.items() if calls]
    expect(not reached, f"the call reached {', '.join(reached)}")
    expect(seen.status == 403, f"the caller saw {seen.status}")
    message = json.loads(seen.body)["error"]["message"]
    return f"403 “{message}”; no upstream was called"


def _cut(seen: Seen) -> str:
    call = seen.only("openai")
    expect(seen.status == 200, f"the caller saw {seen.status}")
    expect(seen.events()[-1:] == ["[DONE]"], "the stream has no proper end")
    expect(seen.text().endswith(FALLBACK), "the fallback is not the last text")
    expect(call.closed_early, "the upstream sent everything")
    event = seen.record.get("event")
    expect(isinstance(event, int) and 0 < event <= call.events, f"cut at event {event} of {call.events} sent")
    spared = call.planned - call.events
    expect(spared > call.planned // 2, f"the upstream was spared {spared} events of {call.planned}")
    return f"cut at event {event}; the upstream was spared {spared} of {call.planned} events"


def _in_mode(card_leaves: bool, limit: int, words: str) -> Callable[[Seen], str]:
    def check(seen: Seen) -> str:
        call = seen.only("openai")
        left = CARD in call.body.decode()
        expect(left == card_leaves, f"the card number {'left' if left else 'did not leave'}")
        expect(_body(call).get("max_tokens") == limit, f"the upstream got max_tokens {_body(call).get('max_tokens')}")
        would = seen.record.get("would")
        expect(would == "constrain", f"the record says it would {would}")
        return words

    return check


def _ask(text: str, model: str = "gpt-4o", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def _from(team: str, session: str, **emulate: str) -> dict[str, str]:
    steer = {f"x-emulate-{name.replace('_', '-')}": value for name, value in emulate.items()}
    return {"x-team-id": team, "x-session-id": session, **steer}


def _finance(mode: str, check: Callable[[Seen], str]) -> Scene:
    return Scene(
        title=f"the same call in {mode}",
        body=_ask(f"Refund the card {CARD}, please.", max_tokens=500),
        headers=_from("finance", "finance-1"),
        verdict="constrain",
        check=check,
        enforced=mode != "Monitor",
        policies={"finance.yaml": finance_policy(mode)},
    )


STORY: tuple[Scene, ...] = (
    Scene(
        "a call that breaks nothing", _ask("What is Envoy?"), _from("research", "research-1"), "allow", _allowed, False
    ),
    Scene(
        "an intern asks for a long answer",
        _ask("Tell me everything.", max_tokens=4000),
        _from("interns", "interns-1", events="60"),
        "constrain",
        _constrained,
    ),
    Scene(
        "small talk with the dear model",
        _ask("Good morning!", model="o3"),
        _from("research", "research-2"),
        "reroute",
        _rerouted,
    ),
    Scene(
        "a prompt that holds a private key",
        _ask("Explain -----BEGIN RSA PRIVATE KEY-----"),
        _from("research", "research-3"),
        "terminate",
        _rejected,
    ),
    Scene(
        "an agent streams past its session's budget",
        _ask("Count for as long as you can.", stream=True),
        _from("agents", "agent-7", events="200", interval_ms="10"),
        "terminate",
        _cut,
    ),
    _finance(
        "Monitor",
        _in_mode(card_leaves=True, limit=500, words="recorded what it would have done, changed nothing"),
    ),
    _finance(
        "Soft",
        _in_mode(card_leaves=False, limit=500, words="the Critical rule held: the card number was redacted"),
    ),
    _finance(
        "Full",
        _in_mode(card_leaves=False, limit=32, words="both held: redacted, and max_tokens 500 became 32"),
    ),
)
