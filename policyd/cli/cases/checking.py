"""What is wrong with cases beyond their shape: times, amounts, and names that no policy has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from policyd.cli.cases.model import CallSpec, CaseSpec, Counted, CounterStart, Expect, RequestSpec, ResponseSpec
from policyd.cli.cases.model import TestDocument as Spec
from policyd.cli.cases.words import moment, pause
from policyd.core.compile.findings import Findings
from policyd.core.compile.limits import Mistake, amount
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, PolicySet
from policyd.core.compile.words import listed, quoted, suggestion
from policyd.core.model.counters import Charge

_MADE = ("model", "prompt", "system", "messages", "stream", "max_tokens", "temperature", "tools", "set")


def check_cases(spec: Spec, policies: PolicySet, findings: Findings) -> None:
    """Reports every mistake of one document at its place."""
    check = _Checks(policies, findings)
    check.time(("start",), spec.start)
    check.request(("request",), spec.request)
    check.response(("response",), spec.response)
    seen: dict[str, int] = {}
    for at, case in enumerate(spec.cases):
        check.case(("cases", at), case)
        if case.name in seen:
            findings.error(("cases", at, "name"), "POL007", f"{quoted(case.name)} is twice", "names tell cases apart")
        seen[case.name] = at


class _Checks:
    def __init__(self, policies: PolicySet, findings: Findings) -> None:
        self.policies, self.findings = policies.policies, findings

    def case(self, path: Path, case: CaseSpec) -> None:
        self.time((*path, "start"), case.start)
        self.request((*path, "request"), case.request)
        self.response((*path, "response"), case.response)
        for at, start in enumerate(case.counters):
            self.start((*path, "counters", at), start)
        for at, call in enumerate(case.calls):
            self.call((*path, "calls", at), call)

    def call(self, path: Path, call: CallSpec) -> None:
        self.pause((*path, "after"), call.after)
        self.time((*path, "at"), call.at)
        if call.at is not None and (call.after is not None or call.times > 1):
            self._error((*path, "at"), "`at` stands alone", "write `after`, or `at` on a call that is made once")
        self.request((*path, "request"), call.request)
        self.response((*path, "response"), call.response)
        if call.expect is not None:
            self.expect((*path, "expect"), call.expect)

    def request(self, path: Path, request: RequestSpec | None) -> None:
        if request is None or request.body is None:
            return
        for name in (name for name in _MADE if name in request.model_fields_set):
            self._error((*path, name), f"`{name}` beside `body` says nothing", "write it into the body, or leave one")

    def response(self, path: Path, response: ResponseSpec | None) -> None:
        if response is None:
            return
        for name in ("delay", "every", "silence"):
            self.pause((*path, name), getattr(response, name))
        for at, piece in enumerate(response.text if isinstance(response.text, list) else ()):
            if not isinstance(piece, str):
                self.pause((*path, "text", at, "after"), piece.after)
        times = [chunk.ms for chunk in response.chunks or ()]
        for at, (before, ms) in enumerate(pairwise(times), start=1):
            if ms < before:
                self._error((*path, "chunks", at, "ms"), "goes back in time", "`ms` counts from the call's beginning")

    def expect(self, path: Path, expect: Expect) -> None:
        rules = expect.rules or ()
        for at, name in enumerate(rules):
            self.rule((*path, "rules", at if isinstance(rules, list) else name), name)
        if expect.by is not None:
            self.rule((*path, "by"), expect.by)
        if expect.cost is not None:
            self._mistake((*path, "cost"), lambda text: amount(text, Charge.COST), expect.cost)
        for name, wanted in expect.counters.items():
            self.counted((*path, "counters", name), name, wanted)

    def counted(self, path: Path, name: str, wanted: Counted) -> None:
        counter = self.counter(path, name, None, key=True)
        plain = isinstance(wanted, str)
        text = wanted if isinstance(wanted, str) else wanted.value
        if counter is not None and text is not None:
            self._amount(path if plain else (*path, "value"), text, counter)

    def start(self, path: Path, start: CounterStart) -> None:
        self.pause((*path, "age"), start.age)
        counter = self.counter((*path, "name"), start.name, start.policy)
        if counter is None:
            return
        self._amount((*path, "value"), start.value, counter)
        keys = 1 if isinstance(start.key, str) else len(start.key)
        if len(counter.key) > 1 and keys != len(counter.key):
            self._error((*path, "key"), f"{quoted(start.name)} has a key of {len(counter.key)} parts", "write each")

    def counter(self, path: Path, name: str, policy: str | None, *, key: bool = False) -> CompiledCounter | None:
        found = counters_named(self.policies, name, policy)
        if len(found) == 1:
            return found[0][1]
        names = sorted({each.name for one in self.policies for each in one.counters})
        if found:
            hint = f"it is a counter of {listed(one.name for one, _ in found)}: write policy/{name}, or `policy:`"
            self.findings.error(path, "POL010", f"{quoted(name)} is not clear", hint, key=key)
        else:
            hint = suggestion(name, names) if names else "the policies here have none"
            self.findings.error(path, "POL010", f"no counter is called {quoted(name)}", hint, key=key)
        return None

    def rule(self, path: Path, name: str) -> None:
        rules = [rule for policy in self.policies for rule in policy.rules]
        known = {rule.name for rule in rules} | {f"{rule.policy}/{rule.name}" for rule in rules}
        if name not in known:
            hint = suggestion(name, sorted(rule.name for rule in rules))
            self.findings.error(path, "POL010", f"no rule is called {quoted(name)}", hint, key=True)

    def _amount(self, path: Path, text: str, counter: CompiledCounter) -> None:
        self._mistake(path, lambda given: amount(given, counter.charge), text)

    def time(self, path: Path, text: str | None) -> None:
        self._mistake(path, moment, text)

    def pause(self, path: Path, text: str | None) -> None:
        self._mistake(path, lambda given: pause(given, 0), text)

    def _mistake(self, path: Path, read: Callable[[str], object], text: str | None) -> None:
        try:
            if text is not None:
                read(text)
        except Mistake as mistake:
            self._error(path, mistake.message, mistake.hint)

    def _error(self, path: Path, message: str, hint: str) -> None:
        self.findings.error(path, "POL005", message, hint)


def counters_named(
    policies: Iterable[CompiledPolicy], name: str, policy: str | None = None
) -> list[tuple[CompiledPolicy, CompiledCounter]]:
    """The counters that go by `name`, or `policy/name`."""
    space, _, bare = name.rpartition("/")
    wanted = policy or space
    return [
        (one, counter)
        for one in policies
        for counter in one.counters
        if counter.name == bare and wanted in ("", one.name, one.qualified)
    ]
