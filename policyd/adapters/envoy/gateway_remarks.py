"""What Envoy Gateway and Envoy AI Gateway do to a policy set that a user should hear before finding out.

Rule 1: a remark names the rule, and what to do about it. What was only read in their sources is said as that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.adapters.envoy.config import UPSTREAM_HEADER, Settings
from policyd.adapters.envoy.gateway import GATEWAY, Target, service_of
from policyd.adapters.envoy.gateway_tls import GatewayTls
from policyd.core.compile.policyset import CompiledRule, PolicySet
from policyd.core.model.decision import Constrain, Reroute

_AI = "behind Envoy AI Gateway"
_IN_FRONT = "put policyd's own Envoy in front (docs/ai-gateway.md)"


def remarks(
    policies: PolicySet, settings: Settings, targets: Sequence[Target], tls: GatewayTls | None = None
) -> list[str]:
    """What is left to do, and what will not work, in words."""
    rules = [rule for policy in policies.policies for rule in policy.rules]
    return [
        *_about_placing(settings, targets),
        *_about_tls(settings, targets, tls),
        *_about_upstreams(rules),
        *_about_ai_gateway(rules),
    ]


def _about_placing(settings: Settings, targets: Sequence[Target]) -> Iterator[str]:
    if any(one.kind != GATEWAY for one in targets):
        most = settings.max_request
        yield f"a route has no buffer of its own: give its Gateway a ClientTrafficPolicy with bufferLimit {most}"
    yield "give the HTTPRoutes `timeouts: {request: 0s}`: an answer may stream for longer than 15 s"
    service = service_of(settings.extproc)
    if service is None:
        yield "a Backend works only where Envoy Gateway's configuration says `extensionApis: {enableBackend: true}`"
    elif service[1]:
        yield f"namespace {service[1]} needs a ReferenceGrant for EnvoyExtensionPolicy, if the policy lies in another"


def _about_tls(settings: Settings, targets: Sequence[Target], tls: GatewayTls | None) -> Iterator[str]:
    if tls is None:
        if not settings.extproc.path:
            yield "prompts and answers go to policyd in plain: --extproc-ca and --extproc-cert make it TLS"
        return
    if not tls.cert:
        yield "without --extproc-cert policyd is not to ask for certificates (`serve --tls-client-ca`)"
    elif service_of(settings.extproc) is not None:
        gateways = " and ".join(one.name for one in targets if one.kind == GATEWAY) or "of the route"
        yield (
            f"Gateway {gateways}: name the EnvoyProxy in `infrastructure.parametersRef`, or write its backendTLS into "
            "the one that is there; every backend that asks for a certificate is then shown this one"
        )


def _about_upstreams(rules: Sequence[CompiledRule]) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule.action, Reroute) and (name := rule.action.upstream):
            yield (
                f"rule {rule.id}: `{name}` is reached by an HTTPRoute rule that matches header {UPSTREAM_HEADER}: "
                f"{name}, removes it, and rewrites the host"
            )


def _about_ai_gateway(rules: Sequence[CompiledRule]) -> Iterator[str]:
    if moving := [rule.id for rule in rules if isinstance(rule.action, Reroute) and rule.action.model]:
        yield (
            f"{_AI} the route is chosen before policyd is asked, and a backend that translates discards the body's "
            f"new model: {_IN_FRONT} for {', '.join(moving)}"
        )
    if changing := [rule.id for rule in rules if isinstance(rule.action, Constrain) and _changes_body(rule.action)]:
        yield (
            f"{_AI} a changed request body is discarded wherever it translates, retries or overrides the model: "
            f"{_IN_FRONT} for {', '.join(changing)}"
        )


def _changes_body(action: Constrain) -> bool:
    redacts = action.redact is not None and action.redact.in_request
    tools = action.tools_allow is not None or action.tools_deny
    return bool(action.set or action.cap or action.inject_system or tools or redacts)
