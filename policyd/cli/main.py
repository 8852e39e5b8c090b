"""`policyd`: one file a command, each imported only when it is called.

Rule 1: a user's mistake is one clear line on stderr and an exit code, never a stack trace.
Rule 2: exit codes are 0 fine, 1 findings, 2 wrong usage or unreadable input, 3 something needed is not available.
Rule 3: who stops reading (`| head`) ends a command as SIGPIPE would, with 141 and no word: it has found nothing.
Rule 4: with `--format json` stdout gets one document also where policies do not compile: their issues, as of `check`.
Rule 5: a command's module has `app` (a typer.Typer) or a function of the command's name.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from policyd.adapters.errors import FINDINGS, OK, UNAVAILABLE, USAGE, Known, NotAvailable, reason_of, told
from policyd.cli.examples import epilog
from policyd.core.errors import PolicyError

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
    "operator": "Write the status of policies in Kubernetes.",
    "crds": "Print the CRDs LLMPolicy, ClusterLLMPolicy and DataPlaneReport, for kubectl.",
    "promote": "Say whether a policy in Monitor may be enforced, and change its mode.",
    "envoy": "Print the Envoy side of it, as YAML.",
    "key-id": "Print the pseudonym of a credential, as rules and records see it.",
}
PIPE_CLOSED = 141  # 128 + SIGPIPE, as shells tell it
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
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

    def invoke(self, ctx: Any) -> Any:
        with _stdout():
            return super().invoke(ctx)


@contextlib.contextmanager
def _stdout() -> Iterator[None]:
    """What cannot be written is told here, while there is somebody to tell it to."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        raise SystemExit(PIPE_CLOSED) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _give_up_stdout()
        raise NotAvailable(f"the output cannot be written: {reason_of(error)}") from None


def _give_up_stdout() -> None:
    """What is still to be written would fail once more, at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        if isinstance(error, PolicyError) and _wants_json(sys.argv[1:] if args is None else args):
            from policyd.cli.render import as_json

            print(as_json(error.issues))
        sys.exit(code)
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # rich and typer leave with 1, which says findings here
            sys.exit(PIPE_CLOSED)
        raise


def _wants_json(args: Sequence[str]) -> bool:
    return "--format=json" in args or ("--format", "json") in pairwise(args)


if __name__ == "__main__":
    main()
