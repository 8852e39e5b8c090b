"""The policies that are attacked, every attempt, and the table of docs/security/attempts.md.

`python -m tests.attempts.table` runs all of them and writes the page; a test runs them and compares the numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from policyd.cli.stage import Stage
from tests.attempts import elsewhere, in_requests, in_responses, with_tools
from tests.attempts.attempt import Attempt, run
from tests.envoy.stack import policy, stack

PAGE = Path(__file__).parents[2] / "docs" / "security" / "attempts.md"
ALL = 'match: {operations: ["*", unknown, other]}\n'
FORBIDDEN = '{when: request.content.matches("zugzwang|4111111111111111"), terminate: {}}'
REDACT = 'constrain: {redact: {patterns: ["canary-[0-9]{6}"], detectors: [card], in: [request, response]}}'

POLICIES = {
    "forbidden.yaml": policy("forbidden", f"{ALL}rules: [{{name: no, {FORBIDDEN[1:]}]", team="forbidden"),
    "anything.yaml": policy(
        "anything", f'{ALL}rules: [{{name: no, when: request.text == "never", terminate: {{}}}}]', team="anything"
    ),
    "redacted.yaml": policy("redacted", f"{ALL}rules: [{{name: hide, {REDACT}}}]", team="redacted"),
    "hidden.yaml": policy("hidden", f"{ALL}rules: [{{name: hide, {REDACT}}}]", team="hidden"),
    "cut.yaml": policy(
        "cut",
        f'{ALL}rules: [{{name: no, when: response.content.matches("zugzwang|4111111111111111"), terminate: {{}}}}]',
        team="cut",
    ),
    "by-path.yaml": policy(
        "by-path",
        f'match: {{operations: ["*", unknown, other], paths: [/v1/chat/completions]}}\nrules: [{{name: no, '
        f"{FORBIDDEN[1:]}]",
        team="by-path",
    ),
    "models.yaml": policy(
        "models",
        f"{ALL}rules: [{{name: listed, when: '!request.models.all(m, m in [\"gpt-4o\"]) || request.models.size() == 0',"
        " terminate: {}}]",
        team="models",
    ),
    "tools.yaml": policy(
        "tools", f"{ALL}rules: [{{name: few, constrain: {{tools: {{allow: [get_weather]}}}}}}]", team="tools"
    ),
    "few-tools.yaml": policy(
        "few-tools",
        f"{ALL}rules: [{{name: few, constrain: {{tools: {{deny: ['mcp:evil.test', 'search:*']}}}}}}]",
        team="few-tools",
    ),
    "calls.yaml": policy(
        "calls",
        f"{ALL}rules: [{{name: no, when: 'response.tool_calls.exists(c, c.name == \"drop_all\")', terminate: {{}}}}]",
        team="calls",
    ),
    "budget.yaml": policy(
        "budget",
        "counters: [{name: calls, key: caller.key, charge: Requests, window: {lifetime: 1h}, limit: 3 requests}]\n"
        "rules: [{name: never, when: 'false', terminate: {}}]",
        team="budget",
    ),
    "session.yaml": policy(
        "session",
        "counters: [{name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 3 requests}]\n"
        "rules: [{name: never, when: 'false', terminate: {}}]",
        team="session",
    ),
}


def attempts() -> Iterator[Attempt]:
    """Every attempt there is."""
    return chain(in_requests.attempts(), in_responses.attempts(), elsewhere.attempts(), with_tools.attempts())


@contextmanager
def attacked() -> Iterator[Stage]:
    """A real Envoy, and policyd with the policies, in mode Full with failurePolicy Fail."""
    with stack(POLICIES) as stage:
        yield stage


def tried(stage: Stage, wanted: str = "") -> Iterator[tuple[Attempt, str]]:
    """Each attempt of a class (all of them unless one is named), and what went wrong."""
    for attempt in attempts():
        if wanted in ("", attempt.klass):
            yield attempt, run(stage, attempt)


def markdown(found: Counter[str], passed: Counter[str]) -> str:
    """The page."""
    rows = [
        f"| {klass} | {count} | {count - passed[klass]} | {passed[klass]} |" for klass, count in sorted(found.items())
    ]
    total = f"| **all** | **{found.total()}** | **{found.total() - passed.total()}** | **{passed.total()}** |"
    return "\n".join(
        [
            "# Attempts to get past a policy",
            "",
            "Each attempt is a crafted call through a real Envoy, against policies in mode Full, failurePolicy Fail.",
            "`held` means that the call was rejected, changed or cut as the policy says. Run them with",
            "`python -m tests.attempts.table`; `tests/attempts/test_attempts.py` runs them with every test run.",
            "",
            "| class | attempts | held | got past |",
            "|---|---:|---:|---:|",
            *rows,
            total,
            "",
        ]
    )


def main(wanted: str = "") -> None:
    """Runs every attempt, or those of one class; the page is written only when all have run."""
    found: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    with attacked() as stage:
        for attempt, wrong in tried(stage, wanted):
            found[attempt.klass] += 1
            if wrong:
                passed[attempt.klass] += 1
                print(f"{attempt}: {wrong}")
    if not wanted:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(markdown(found, passed))
    print(f"{found.total()} attempts, {passed.total()} got past")


if __name__ == "__main__":
    main(*sys.argv[1:2])
