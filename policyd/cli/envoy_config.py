"""`policyd envoy bootstrap|extension-policy`: the Envoy side of it, as YAML on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.envoy.config import (
    DEFAULT_EXTPROC,
    DEFAULT_LISTENER,
    DEFAULT_UPSTREAM,
    MAX_REQUEST,
    BadSetting,
    settings,
    tls_to_policyd,
)
from policyd.adapters.envoy.gateway import SERVICE, TARGET, documents, parse_target
from policyd.adapters.envoy.gateway_remarks import remarks
from policyd.adapters.envoy.gateway_tls import parse_tls
from policyd.adapters.policies_dir import read_policies
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import PolicyError
from policyd.core.model.decision import Reroute

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Print the Envoy side of it, as YAML.")


@app.callback()
def _root() -> None:
    """Print the Envoy side of it, as YAML."""


Policies = Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")]
Workers = Annotated[int, typer.Option(metavar="N", help="As many as `serve --workers`.")]
MaxRequest = Annotated[
    int, typer.Option(metavar="BYTES", help="The largest body that is read (`serve --max-request`).")
]
ExtprocCa = Annotated[
    str, typer.Option(metavar="FILE", help="TLS to policyd: whose certificate it must have; a path where Envoy runs.")
]
ExtprocCert = Annotated[str, typer.Option(metavar="FILE", help="Envoy's own certificate for policyd; a path there.")]
ExtprocKey = Annotated[str, typer.Option(metavar="FILE", help="That certificate's key; a path there.")]
ExtprocSan = Annotated[
    list[str] | None,
    typer.Option(metavar="URI|DNS", help="What policyd's certificate must name; repeatable. [default: its host]"),
]
Identity = Annotated[
    str, typer.Option(metavar="headers|metadata:NS", help="As `serve --identity`: its namespace is forwarded too.")
]
FailOpen = Annotated[
    bool,
    typer.Option(
        "--fail-open",
        help="While policyd cannot be reached, let calls pass unevaluated instead of rejecting them with status 503 "
        "and code policyd_unavailable.",
    ),
]


@app.command()
def bootstrap(
    policies: Policies,
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
    workers: Workers = 1,
    max_request: MaxRequest = MAX_REQUEST,
    fail_open: FailOpen = False,
    identity: Identity = "headers",
    admin: Annotated[str, typer.Option(metavar="HOST:PORT", help="Envoy's own admin interface; none by default.")] = "",
    extproc_ca: ExtprocCa = "",
    extproc_cert: ExtprocCert = "",
    extproc_key: ExtprocKey = "",
    extproc_san: ExtprocSan = None,
    extproc_sds: Annotated[
        str, typer.Option(metavar="DIR", help="Follow changed certificates: where `policyd envoy sds` was written.")
    ] = "",
) -> None:
    """A whole Envoy configuration. It fits every later policy set: each call asks for what its own rules read."""
    with _bad_settings():
        wanted = settings(
            listener=listener,
            upstreams=upstream or (),
            extproc=extproc,
            workers=workers,
            max_request=max_request,
            fail_open=fail_open,
            identity=identity,
            admin=admin,
            extproc_tls=tls_to_policyd(extproc_ca, extproc_cert, extproc_key, extproc_san or (), extproc_sds),
        )
        refuse_unknown_upstreams(compiled(policies), {one.name for one in wanted.upstreams})
    if wanted.extproc_tls and not wanted.extproc_tls.sds:
        _say(["Envoy reads these certificates once: with --extproc-sds it follows their changes"])
    from policyd.adapters.envoy.bootstrap import bootstrap as whole
    from policyd.adapters.envoy.bootstrap import render

    print(render(whole(wanted)), end="")


class Secret(StrEnum):
    """What Envoy can be told of by SDS."""

    CERTIFICATE = "certificate"
    AUTHORITY = "authority"


@app.command()
def sds(
    secret: Annotated[Secret, typer.Argument(help="Envoy's own certificate, or the authority of policyd's.")],
    extproc_ca: ExtprocCa = "",
    extproc_cert: ExtprocCert = "",
    extproc_key: ExtprocKey = "",
) -> None:
    """A file for `bootstrap --extproc-sds DIR`: DIR/policyd_certificate.yaml or DIR/policyd_authority.yaml.

    It names the files that Envoy is to follow; these change by being replaced (`mv`, a mounted Secret), not in place.
    """
    from policyd.adapters.envoy.bootstrap import render
    from policyd.adapters.envoy.tls_sockets import authority_file, certificate_file

    if secret is Secret.AUTHORITY:
        if not extproc_ca:
            raise typer.BadParameter("whose certificate must policyd have?", param_hint="--extproc-ca")
        print(render(authority_file(extproc_ca)), end="")
        return
    if not (extproc_cert and extproc_key):
        raise typer.BadParameter("a certificate and its key go together", param_hint="--extproc-cert, --extproc-key")
    print(render(certificate_file(extproc_cert, extproc_key)), end="")


@app.command("extension-policy")
def extension_policy(
    policies: Policies,
    listener: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="No effect: the Gateway has its own listeners.")
    ] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=[https://]HOST[:PORT]",
            help="An upstream that an HTTPRoute of yours serves, by its name in `reroute`; repeatable.",
        ),
    ] = None,
    extproc: Annotated[
        str, typer.Option(metavar="SERVICE[.NS.svc]:PORT|HOST:PORT|unix:PATH", help="Where policyd is to be found.")
    ] = SERVICE,
    workers: Workers = 1,
    max_request: MaxRequest = MAX_REQUEST,
    fail_open: FailOpen = False,
    identity: Identity = "headers",
    admin: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="No effect: Envoy Gateway runs the admin interface.")
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="Gateway|HTTPRoute/NAME", help=f"What it is attached to; repeatable. [default: {TARGET}]"),
    ] = None,
    extproc_ca: Annotated[
        str,
        typer.Option(metavar="Secret|ConfigMap/NAME", help="TLS to policyd: whose certificate it must have (ca.crt)."),
    ] = "",
    extproc_cert: Annotated[
        str,
        typer.Option(metavar="SECRET", help="Envoy's own certificate for policyd: a Secret of type kubernetes.io/tls."),
    ] = "",
    extproc_san: ExtprocSan = None,
) -> None:
    """What Envoy Gateway needs to stream calls through policyd, for every later policy set. docs/ai-gateway.md says
    what works behind Envoy AI Gateway."""
    with _bad_settings():
        wanted = settings(
            listener=listener or DEFAULT_LISTENER,
            upstreams=upstream or (),
            extproc=extproc,
            workers=workers,
            max_request=max_request,
            fail_open=fail_open,
            identity=identity,
            admin=admin,
        )
        places = [parse_target(text) for text in target or (TARGET,)]
        in_force = compiled(policies)
        refuse_unknown_upstreams(in_force, {one.name for one in wanted.upstreams} if upstream else ())
        tls = parse_tls(extproc_ca, extproc_cert, extproc_san or ())
        made = documents(wanted, places, tls)
    _say([*_idle(listener, admin), *remarks(in_force, wanted, places, tls)])
    print(made, end="")


@contextlib.contextmanager
def _bad_settings() -> Iterator[None]:
    try:
        yield
    except BadSetting as error:
        raise typer.BadParameter(str(error)) from None


def _idle(listener: str | None, admin: str) -> list[str]:
    given = {"--listener": listener, "--admin": admin}
    return [f"{name}: no effect here: it is the Gateway's" for name, value in given.items() if value]


def _say(lines: list[str]) -> None:
    for line in lines:
        print(f"policyd: {line}", file=sys.stderr)


def compiled(paths: list[Path]) -> PolicySet:
    """The policies at these paths. Raises UnreadableInput and PolicyError."""
    result = compile_documents(read_policies(paths))
    if result.policy_set is None:
        raise PolicyError(result.issues)
    return result.policy_set


def refuse_unknown_upstreams(policies: PolicySet, have: Collection[str]) -> None:
    """A reroute to an upstream that this Envoy will not have is found now, not by a caller. Raises BadSetting."""
    for policy in policies.policies:
        for rule in policy.rules:
            if isinstance(rule.action, Reroute) and rule.action.upstream and rule.action.upstream not in have:
                there = f"the upstreams are {', '.join(sorted(have))}" if have else "no upstream is named"
                raise BadSetting(
                    f"rule {rule.id} reroutes to `{rule.action.upstream}`, "
                    f"but {there}: add --upstream {rule.action.upstream}=…"
                )
