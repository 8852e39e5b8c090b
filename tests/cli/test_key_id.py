"""`policyd key-id` names a credential as a call that carries it is named."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from policyd.cli.key_id import key_id
from policyd.cli.main import load
from tests.driving import Bed, answer_of, chat, policy


def _run(*arguments: str, given: str = "") -> tuple[int, str]:
    app = typer.Typer()
    app.command()(key_id)
    result = CliRunner().invoke(app, list(arguments), input=given)
    return result.exit_code, result.output.strip()


def test_it_prints_what_a_record_says_of_the_caller() -> None:
    out = Bed(policy("rules:\n- {name: r, when: 'false', terminate: {}}")).call(
        body=chat(), headers=(("authorization", "Bearer sk-abc"),), chunks=[answer_of("x")]
    )

    assert _run("sk-abc") == (0, out.record.caller_key)
    assert _run(given="Bearer sk-abc\n") == (0, out.record.caller_key)


def test_nothing_has_no_name() -> None:
    assert _run(given="\n")[0] == 2


def test_it_is_a_command() -> None:
    assert load("key-id").name == "key-id"
