"""`policyd envoy bootstrap`: the Envoy side of it, as YAML on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.envoy.config import (
    DEFAULT_EXTPROC,
    DEFAULT_LISTENER,
    DEFAULT_UPSTREAM,
    MAX_REQUEST,
    BadSetting,
    Settings,
    settings,
)
from policyd.adapters.policies_dir import read_policies
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import PolicyError
from policyd.core.model.decision import Reroute

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Print the Envoy side of it, as YAML.")


@app.callback()
def _root() -> None:
    """Print the Envoy side of it, as YAML."""


@app.command()
def bootstrap(
    policies: Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")],
    listener: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where callers connect.")] = DEFAULT_LISTENER,
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=[https://]HOST[:PORT]",
            help=f"A provider; repeatable, the first is the default. [default: {DEFAULT_UPSTREAM}]",
        ),
    ] = None,
    extproc: Annotated[
        str, typer.Option(metavar="unix:PATH|HOST:PORT", help="Where policyd listens (`serve --listen`).")
    ] = DEFAULT_EXTPROC,
    workers: Annotated[int, typer.Option(metavar="N", help="As many as `serve --workers`.")] = 1,
    max_request: Annotated[
        int, typer.Option(metavar="BYTES", help="The largest body that is read (`serve --max-request`).")
    ] = MAX_REQUEST,
    fail_open: Annotated[
        bool, typer.Option("--fail-open", help="Without policyd let calls pass, instead of refusing them.")
    ] = False,
    admin: Annotated[str, typer.Option(metavar="HOST:PORT", help="Envoy's own admin interface; none by default.")] = "",
) -> None:
    """A whole Envoy configuration. It fits every later policy set: each call asks for what its own rules read."""
    try:
        wanted = settings(
            listener=listener,
            upstreams=upstream or (),
            extproc=extproc,
            workers=workers,
            max_request=max_request,
            fail_open=fail_open,
            admin=admin,
        )
        refuse_unknown_upstreams(compiled(policies), wanted)
    except BadSetting as error:
        raise typer.BadParameter(str(error)) from None
    from policyd.adapters.envoy.bootstrap import bootstrap as whole
    from policyd.adapters.envoy.bootstrap import render

    print(render(whole(wanted)), end="")


def compiled(paths: list[Path]) -> PolicySet:
    """The policies at these paths. Raises UnreadableInput and PolicyError."""
    result = compile_documents(read_policies(paths))
    if result.policy_set is None:
        raise PolicyError(result.issues)
    return result.policy_set


def refuse_unknown_upstreams(policies: PolicySet, wanted: Settings) -> None:
    """A reroute to an upstream that this Envoy will not have is found now, not by a caller. Raises BadSetting."""
    have = {upstream.name for upstream in wanted.upstreams}
    for policy in policies.policies:
        for rule in policy.rules:
            if isinstance(rule.action, Reroute) and rule.action.upstream and rule.action.upstream not in have:
                raise BadSetting(
                    f"rule {rule.id} reroutes to `{rule.action.upstream}`, "
                    f"but the upstreams are {', '.join(sorted(have))}: add --upstream {rule.action.upstream}=…"
                )
