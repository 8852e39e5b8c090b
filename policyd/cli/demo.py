"""`policyd demo`: a short story of the four actions and the three modes, on a real Envoy, checked as it is played."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policyd.adapters.errors import NotAvailable
from policyd.cli.demo_story import POLICIES, STORY, NotAsTold, Scene, Seen, finance_policy
from policyd.cli.emulator import Call, Emulator
from policyd.cli.stage import Stage, envoy_binary, staged

KEY = "sk-demo-of-the-caller"
_TIMEOUT_S = 15.0  # for one call
_LEAVING_S = 5.0  # for an upstream to notice that its caller has gone


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up afterwards, for curl and SDKs.")] = False,
) -> None:
    """Play a short story of the actions and the modes on a real Envoy.

    Exits 0 when every call came out as told, 1 when one did not, 3 when there is no Envoy.
    """
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 150)
    envoy = envoy_binary()
    providers = (Emulator("openai"), Emulator("backup"))
    policies = {**POLICIES, "finance.yaml": finance_policy("Monitor")}
    failed = len(STORY)  # what an interrupt leaves unplayed did not come out as told
    with (
        _interrupts(),
        contextlib.suppress(KeyboardInterrupt),
        staged(policies, envoy=envoy, providers=providers) as stage,
    ):
        console.print(f"Envoy at {stage.url} with policyd and two emulated providers: openai and backup\n")
        failed = _play(stage, console)
        if keep:
            _say_how(stage, console)
            signal.pause()
    if failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Being asked to stop is an interrupt, so that everything is taken down."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _play(stage: Stage, console: Console) -> int:
    """Plays every scene; tells how many did not come out as told."""
    table = Table(title="What came of each call", title_justify="left", show_lines=False)
    for name in ("", "call", "mode", "verdict", "by", "what came of it"):
        table.add_column(name)
    failed = 0
    for scene in STORY:
        row, as_told = _row(stage, scene)
        table.add_row(*row)
        failed += not as_told
    console.print(table)
    done = len(STORY) - failed
    console.print(f"{done} of {len(STORY)} calls came out as told; {len(stage.records())} decision records")
    return failed


def _row(stage: Stage, scene: Scene) -> tuple[tuple[str, ...], bool]:
    """One line of the table, and whether the scene came out as told."""
    record: Mapping[str, object] = {}
    try:
        seen = _send(stage, scene)
        record = seen.record
        mark, words = "[green]✓[/]", escape(scene.play(seen))
    except (NotAsTold, NotAvailable, OSError, http.client.HTTPException) as problem:
        mark, words = "[red]✗[/]", f"[red]not as told: {escape(str(problem) or repr(problem))}[/]"
    row = (mark, scene.title, str(record.get("mode", "")), _verdict(record), _rules(record), words)
    return row, mark.startswith("[green]")


def _verdict(record: Mapping[str, object]) -> str:
    verdict = str(record.get("verdict", ""))
    return verdict if record.get("enforced") or verdict in ("", "allow") else f"would {verdict}"


def _rules(record: Mapping[str, object]) -> str:
    named = record.get("determined_by")
    return "\n".join(map(str, named)) if isinstance(named, list) else ""


def _send(stage: Stage, scene: Scene) -> Seen:
    """Makes the call of one scene, and gathers what came of it."""
    for name, text in scene.policies.items():
        if (stage.policies / name).read_text() != text:
            stage.put_policy(name, text)
    records = len(stage.records())
    before = {provider.name: len(provider.calls) for provider in stage.providers}
    status, headers, body = _call(stage, scene)
    stage.wait_until(lambda: all(_is_over(one) for one in stage.providers), "the upstreams to be done", _LEAVING_S)
    record = stage.wait_for_records(records + 1)[-1]
    calls = {provider.name: tuple(provider.calls[before[provider.name] :]) for provider in stage.providers}
    return Seen(status, headers, body, record, calls)


def _is_over(provider: Emulator) -> bool:
    last: Call | None = provider.calls[-1] if provider.calls else None
    return last is None or last.finished or last.closed_early


def _call(stage: Stage, scene: Scene) -> tuple[int, dict[str, str], bytes]:
    link = http.client.HTTPConnection("127.0.0.1", stage.listener, timeout=_TIMEOUT_S)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}", **scene.headers}
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(scene.body), headers)
        answer = link.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        link.close()


def _say_how(stage: Stage, console: Console) -> None:
    ask = '{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    lines = (
        "",
        "It stays up until you press Ctrl-C. Try:",
        "",
        f"curl -N {stage.url}/v1/chat/completions -H 'content-type: application/json' -H 'x-team-id: agents' \\",
        f"  -H 'x-session-id: mine' -H 'x-emulate-events: 200' -H 'x-emulate-interval-ms: 20' -d '{ask}'",
        f"openai.OpenAI(base_url='{stage.url}/v1', api_key='any')",
        f"anthropic.Anthropic(base_url='{stage.url}', api_key='any')",
        "",
        f"policies (change them, they are reloaded): {stage.policies}",
        f"decision records: {stage.folder / 'records'}",
        f"metrics: http://127.0.0.1:{stage.admin}/metrics",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
