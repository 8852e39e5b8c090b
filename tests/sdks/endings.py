"""What a program sees of each way in which policyd ends a call, in each SDK and framework: docs/sdks.md is made of it.

`python -m tests.sdks.endings` writes the page.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policyd.cli.emulator import Emulator, RawAnswer
from policyd.cli.stage import Stage, stop
from tests.built import FRAMEWORKS
from tests.envoy.stack import policy, stack
from tests.responses import Script
from tests.sdks.asking import Clients, clients
from tests.streams import sse

PAGE = Path(__file__).parents[2] / "docs" / "sdks.md"
CLIENT = Path(__file__).parents[1] / "frameworks" / "client.py"
FALLBACK = "Stopped."
SENTENCE = "The response was stopped by rule enough of policy cut."

FINISHED, CUT, REJECTED, BUDGET, AWAY = "finished", "cut", "rejected", "budget", "away"
ENDINGS = (FINISHED, CUT, REJECTED, BUDGET, AWAY)
POLICIES = {
    "cut.yaml": policy(
        "cut",
        f'rules: [{{name: enough, when: response.events >= 8, terminate: {{fallback: "{FALLBACK}"}}}}]',
        team=CUT,
    ),
    "rejected.yaml": policy("rejected", "rules: [{name: no, terminate: {reason: not_allowed}}]", team=REJECTED),
    "budget.yaml": policy(
        "budget",
        "counters: [{name: day, key: caller.team, charge: Requests, window: {calendar: Day}, limit: 0 requests}]",
        team=BUDGET,
    ),
    "read.yaml": policy("read", "rules: [{name: r, when: 'response.text.contains(\"never said\")', terminate: {}}]"),
}
WHY = {REJECTED: "not_allowed", BUDGET: "day_exceeded", AWAY: "policyd_unavailable"}


@dataclass(frozen=True, slots=True)
class Row:
    """One SDK or framework. `cut` and `failed`: what a program writes to learn whether and why policyd ended a call."""

    name: str
    way: str  # as the page calls it
    cut: str
    failed: str
    asked: tuple[str, str, str] = ("", "", "")  # language, API, way; of frameworks nothing

    def __str__(self) -> str:
        return f"{self.name}, {self.way}"


def _sdk(language: str, api: str, way: str, shown: str, cut: str) -> Row:
    """An official SDK."""
    sdk = "anthropic" if api == "messages" else "openai"
    python = language == "python"
    body, key = ("error.body", '["{}"]') if python else ("error.error", ".{}")
    # The openai SDKs hand out the error object, those of Anthropic the whole body.
    path = ["policyd", "reason"] if sdk == "openai" else ["error", "policyd", "reason"]
    failed = body + "".join(key.format(one) for one in path)
    return Row(f"{sdk} ({'Python' if python else 'Node.js'})", shown, cut, failed, (language, api, way))


ROWS = (
    _sdk(
        "python",
        "chat",
        "stream",
        "Chat Completions",
        'last.choices[0].finish_reason == "content_filter" and last.policyd["reason"]',
    ),
    _sdk(
        "python",
        "chat",
        "helper",
        "`chat.completions.stream()`",
        'type(error).__name__ == "ContentFilterFinishReasonError" and last.refusal',
    ),
    _sdk(
        "python", "responses", "stream", "Responses", 'last.response.status == "incomplete" and last.policyd["reason"]'
    ),
    _sdk(
        "python",
        "responses",
        "helper",
        "`responses.stream()`",
        'final.status == "incomplete" and final.policyd["reason"]',
    ),
    _sdk("python", "messages", "stream", "Messages", 'hasattr(last, "policyd") and last.policyd["reason"]'),
    _sdk(
        "python",
        "messages",
        "helper",
        "`messages.stream()`",
        'final.stop_reason == "refusal" and final.stop_details.explanation',
    ),
    _sdk(
        "node",
        "chat",
        "stream",
        "Chat Completions",
        'last.choices[0].finish_reason === "content_filter" && last.policyd.reason',
    ),
    _sdk("node", "chat", "helper", "`finalChatCompletion()`", "final.choices[0].message.refusal"),
    _sdk("node", "responses", "stream", "Responses", "last.policyd?.reason"),
    _sdk("node", "responses", "helper", "`finalResponse()`", "final.policyd?.reason"),
    _sdk("node", "messages", "stream", "Messages", "last.policyd?.reason"),
    _sdk(
        "node",
        "messages",
        "helper",
        "`finalMessage()`",
        'final.stop_reason === "refusal" && final.stop_details.explanation',
    ),
    Row(
        "langchain-openai",
        "Chat Completions",
        'final.response_metadata["finish_reason"] == "content_filter" and final.text',
        'error.body["policyd"]["reason"]',
    ),
    Row(
        "langchain-openai",
        "Responses",
        'final.response_metadata.get("incomplete_details") and final.text',
        'error.body["policyd"]["reason"]',
    ),
    Row(
        "langchain-anthropic",
        "Messages",
        '(final.response_metadata.get("stop_details") or {}).get("explanation")',
        'error.body["error"]["policyd"]["reason"]',
    ),
    Row(
        "pydantic-ai",
        "OpenAI",
        'final.finish_reason == "content_filter" and final.provider_details["refusal"]',
        'error.body["policyd"]["reason"]',
    ),
    Row(
        "pydantic-ai",
        "Anthropic",
        'final.finish_reason == "content_filter" and final.provider_details["refusal"]',
        'error.body["error"]["policyd"]["reason"]',
    ),
    Row("openai-agents", "Chat Completions", "error and error.refusal", 'error.body["policyd"]["reason"]'),
    Row(
        "openai-agents",
        "Responses",
        'last.response.status == "incomplete" and last.policyd["reason"]',
        'error.body["policyd"]["reason"]',
    ),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a program saw of one ending. `error`: the class that was raised; `told`: what its expression said."""

    error: str
    told: str
    text: str


Observed = Mapping[tuple[Row, str], Told]


@contextmanager
def _frameworks() -> Iterator[subprocess.Popen[str] | None]:
    """The process with the frameworks, where they are installed."""
    if FRAMEWORKS.missing():
        yield None
        return
    command = [str(FRAMEWORKS.path / "bin" / "python"), "-W", "ignore", str(CLIENT)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def observe(rows: Sequence[Row] = ROWS) -> Observed:
    """Every ending in every SDK that is installed, through a real Envoy."""
    provider = Emulator("openai")
    blocks = sse(*Script().say(*(f"word {number} " for number in range(12))).end(), names=True).split(b"\n\n")
    chunks = tuple(block + b"\n\n" for block in blocks if block)
    provider.raw["responses"] = RawAnswer(200, (("content-type", "text/event-stream"),), chunks)
    found: dict[tuple[Row, str], Told] = {}
    with stack(POLICIES, providers=[provider]) as stage, clients() as ask, _frameworks() as frameworks:
        for ending in ENDINGS:
            if ending == AWAY and stage.policyd is not None:
                stop(stage.policyd)
            for row in rows:
                told = _told(stage, ask, frameworks, row, ending)
                if told is not None:
                    found[row, ending] = told
    return found


def _told(stage: Stage, ask: Clients, frameworks: subprocess.Popen[str] | None, row: Row, ending: str) -> Told | None:
    language, api, way = row.asked
    headers = {"x-team-id": ending, "x-session-id": ending, "x-emulate-events": "12"}
    if api == "responses" or row.way == "Responses":
        headers["x-emulate-raw"] = "responses"
    tells = row.cut if ending in (FINISHED, CUT) else row.failed
    if api:
        if language == "node" and ask.node is None:
            return None
        seen = ask(language, api, way, url=stage.url, headers=headers, tells=tells)
        return Told(seen.error.name if seen.error else "", seen.told, seen.text)
    if frameworks is None:
        return None
    assert frameworks.stdin and frameworks.stdout
    asked = {"framework": str(row), "url": stage.url, "headers": headers, "tells": tells}
    frameworks.stdin.write(json.dumps(asked) + "\n")
    frameworks.stdin.flush()
    told = json.loads(frameworks.stdout.readline())
    return Told(told["error"], str(told["told"]), told["text"])


# ---- the page --------------------------------------------------------------------------------------------------------

HEAD = """\
# What programs see

<!-- Written by `python -m tests.sdks.endings` from calls through a real Envoy: do not edit. -->

policyd ends calls in four ways. The official SDKs and common frameworks show each of them to a program, and
why.

| ending | HTTP | what is sent |
|---|---|---|
| a response is cut | 200 | the fallback as the last text, the dialect's finish word, `policyd` in the last event |
| a call is rejected | the rule's `status`, 403 by default | an error in the provider's shape with a member `policyd` |
| a budget is used up | 429 | the same, with `Retry-After` where waiting helps |
| policyd cannot be reached | 503 | the same from Envoy, with code `policyd_unavailable` and `Retry-After: 1` |

The member `policyd` has `decision` (see `policyd explain`), `policy`, `rule` and `reason`. In Envoy's own 503
it has only `reason`. Every response to a call that policyd judged has the header `x-policyd-decision`.

`finish: refusal`, the default, also says why as a sentence: in `refusal` of the last Chat Completions delta,
and in `stop_details.explanation` of Anthropic. Some frameworks pass on nothing else. Use `finish: stop` or
`finish: length` for a cut that a framework should take for an ordinary end: only the member `policyd` tells it
then.

## What each SDK shows

The cell of a cut is the value of the expression below. The other cells are the class of the error that is
raised.

| SDK | API or method | a response is cut | a call is rejected | a budget is used up | policyd cannot be reached |
|---|---|---|---|---|---|
"""

TELLING = """
## How to tell

`last` is the last event or chunk of a stream, `final` is what the SDK makes of the whole stream, `error` is
what it raises. The expression for a cut is false, undefined or empty for a response that finished by itself.

| SDK | API or method | cut, and why | rejected, and why |
|---|---|---|---|
"""

TAIL = """
With LangChain and Chat Completions the reason of a cut is the fallback in the text.
`ChatOpenAI(include_response_headers=True)` puts `x-policyd-decision` into `response_metadata["headers"]`.

Agents on Chat Completions raise `ModelRefusalError` for a cut: the text that was streamed before is in the
events, not in `final_output`.

## While policyd cannot be reached

`policyd envoy bootstrap` writes `status_on_error: {code: ServiceUnavailable}` into the ext_proc filter and a
`local_reply_config` with one mapper for each error shape (OpenAI, Anthropic, Google, AWS) into the connection
manager. The path tells the shape. Rejections by policyd keep their bodies: the first mapper matches them by
policyd's dynamic metadata.

- For an Envoy configuration of your own, copy `local_reply_config` from the output of `policyd envoy
  bootstrap`. It needs `metadata_options.receiving_namespaces: {untyped: [policyd]}` in the ext_proc filter.
- For Envoy Gateway, add it to the connection manager with an EnvoyPatchPolicy. Without it the 503 has no body,
  and before Envoy Gateway 1.9 the status is 500.
- With `--fail-open` calls pass instead, unevaluated.
"""


def page(observed: Observed) -> str:
    """docs/sdks.md."""
    shown = "".join(_shown(row, observed) for row in ROWS)
    telling = "".join(f"| {row.name} | {row.way} | {_code(row.cut)} | {_code(row.failed)} |\n" for row in ROWS)
    return HEAD + shown + TELLING + telling + TAIL


def _shown(row: Row, observed: Observed) -> str:
    cut = observed[row, CUT]
    value = f"the text, with `{FALLBACK}` at its end" if cut.told.endswith(f"\n{FALLBACK}") else cut.told
    errors = [_code(observed[row, ending].error) for ending in (REJECTED, BUDGET, AWAY)]
    raised = f"{_code(cut.error)}: " if cut.error else ""
    return f"| {row.name} | {row.way} | {raised}{value} | {' | '.join(errors)} |\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(observe()))
