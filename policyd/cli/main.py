"""`policyd`: one file a command, each imported only when it is called.

Rule 1: a user's mistake is one clear line on stderr and an exit code, never a stack trace.
Rule 2: exit codes are 0 fine, 1 findings, 2 wrong usage or unreadable input, 3 something needed is not available.
Rule 3: a command's module has `app` (a typer.Typer) or a function of the command's name.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from policyd.adapters.errors import FINDINGS, OK, UNAVAILABLE, USAGE, Known, told
from policyd.cli.examples import epilog

__all__ = ["FINDINGS", "OK", "UNAVAILABLE", "USAGE", "main"]

COMMANDS = {
    "demo": "Play a short story of the actions and the modes on a real Envoy.",
    "serve": "Run the ext_proc server beside Envoy.",
    "check": "Compile policies and report every issue at once.",
    "test": "Run the cases beside policies, and say which rules they have seen.",
    "replay": "Dry run policies over recorded traffic, through the engine that serves.",
    "diff": "Compare two policy sets on the same traffic.",
    "cost": "Compare what recorded conversations cost with what they did.",
    "explain": "Judge one recorded call aloud, and say why the verdict is this one.",
    "schema": "Print the JSON Schema of a policy or a test file, for editors.",
    "crds": "Print the CRDs LLMPolicy and ClusterLLMPolicy, for kubectl.",
    "promote": "Say whether a policy in Monitor may be enforced, and change its mode.",
    "envoy": "Print the Envoy side of it, as YAML.",
    "key-id": "Print the pseudonym of a credential, as rules and records see it.",
}
MODULES = {"envoy": "envoy_config", "key-id": "key_id"}  # where the file has another name than the command


class LazyCommands(typer.core.TyperGroup):
    """Lists commands without importing them, so that `policyd --help` is quick."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the shape is the parent's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return typer.core.TyperCommand(cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # for "did you mean"
        name, stub, rest = super().resolve_command(ctx, args)
        return name, load(name) if stub and name else stub, rest


def load(name: str) -> Any:
    """The real command behind a name."""
    module = importlib.import_module(f"policyd.cli.{MODULES.get(name, name)}")
    found = getattr(module, "app", None)
    if found is None:
        found = typer.Typer(add_completion=False)
        found.command(name)(getattr(module, name.replace("-", "_")))
    command = typer.main.get_command(found)
    command.name = name
    _show_examples(name, command)
    return command


def _show_examples(name: str, command: Any) -> None:
    for below, one in getattr(command, "commands", {}).items():
        one.epilog = epilog(f"{name} {below}")
    command.epilog = epilog(name)


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The circuit breaker for LLM traffic.",
    epilog="Exit codes: 0 fine, 1 findings, 2 wrong usage or unreadable input, 3 something needed is not available.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"policyd {version('policyd')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main(args: list[str] | None = None) -> None:
    """The console script: runs one command and leaves with its exit code."""
    try:
        app(args, prog_name="policyd")
    except Known as error:
        code, lines = told(error)
        print("\n".join(lines), file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
