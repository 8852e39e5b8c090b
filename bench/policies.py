"""The policies that are loaded: at most ten of them match the benchmark's calls, and three of those read the stream."""

from __future__ import annotations

MATCHING = 10

BUDGET = """  counters:
  - {name: spend, key: session.id, charge: Cost, window: {lifetime: 24h}, limit: 1000 USD}
"""
LENGTH = """  rules:
  - {name: too-long, when: response.output_tokens > 1000000, terminate: {reason: too_long}}
"""
WORDS = """  rules:
  - name: a-key
    when: 'response.text.contains("BEGIN RSA PRIVATE KEY")'
    holdBack: %s
    severity: Critical
    terminate: {reason: a_key}
"""
REQUESTS = (
    "request.max_tokens > 100000",
    "request.messages.size() > 1000",
    'caller.team == "suspended"',
    'request.headers[?"x-experiment"].orValue("") == "off"',
    'request.tools.exists(tool, tool.name == "shell")',
    "request.temperature > 1.9",
    'request.text.contains("ignore all previous instructions")',
)


def policies(count: int, *, held: bool = False) -> str:
    """So many policies as one file. `held`: the rule on the text keeps back what could become a match."""
    readers = (BUDGET, LENGTH, WORDS % (21 if held else 0))
    specs = [f"  match: {{operations: [chat]}}\n{one}" for one in (*readers, *map(_on_request, REQUESTS))]
    specs += [f'  match: {{models: ["other-{n}-*"]}}\n{_on_request(REQUESTS[n % 7])}' for n in range(MATCHING, count)]
    return "---\n".join(_document(f"p{number}", spec) for number, spec in enumerate(specs[:count]))


def _on_request(when: str) -> str:
    return f"  rules:\n  - {{name: refuse, when: '{when}', terminate: {{reason: refused}}}}\n"


def _document(name: str, spec: str) -> str:
    head = f"apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {{name: {name}, namespace: bench}}\n"
    return f"{head}spec:\n  mode: Full\n{spec}"
