"""The commands that docs/replay.md shows are run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from policyd.cli import main as root
from tests.cli.desk import POLICY, RULES, Desk, exchange
from tests.cli.desk import desk as desk
from tests.cli.test_cost import cassette

PAGE = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
SPENT = "{name: spent, severity: Critical, when: counters.spend.exceeded, terminate: {status: 429}}"
LIMIT = "counters: [{name: spend, key: session.id, charge: Cost, window: {lifetime: 24h}, limit: 2.00 USD}]"


def commands() -> list[str]:
    shown = "".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    return [line.removeprefix("$ ") for line in shown.splitlines()]


@pytest.fixture
def folder(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page says is there."""
    for name, rule, counters in (("main", RULES["nothing"], ""), ("policies", SPENT, LIMIT)):
        (desk.folder / name).mkdir()
        text = POLICY.replace("RULE", rule).replace("COUNTERS", counters).replace("name: p,", "name: budget,")
        (desk.folder / name / "budget.yaml").write_text(text)
    (desk.folder / "day.jsonl").write_text(json.dumps(exchange()) + "\n")
    cassette(desk.folder / "cassettes" / "chat.yaml", 10, 20)
    monkeypatch.chdir(desk.folder)
    return desk.folder


def test_every_command_on_the_page_runs(desk: Desk, folder: Path) -> None:
    shown = commands()
    assert {line.split()[1] for line in shown} == {"replay", "diff", "cost"}
    for line in shown:
        command, target = re.fullmatch(r"(.*?)(?: > (\S+\.json))?", line).groups()  # type: ignore[union-attr]
        code, out, err = desk.command(*shlex.split(command)[1:])
        assert code == root.OK, (line, err)
        assert out
        if target:
            (folder / target).write_text(out)


def test_every_change_has_its_row() -> None:
    from policyd.cli.diff_sums import Kind

    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == [kind.value for kind in Kind]
