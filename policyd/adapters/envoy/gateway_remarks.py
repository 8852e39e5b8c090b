"""What Envoy Gateway and Envoy AI Gateway do to a policy set that a user should hear before finding out.

Rule 1: a remark names the rule, and what to do about it. What Envoy AI Gateway does is known to ai_gateway.py, which
        `policyd check --target ai-gateway` asks too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.adapters.envoy.ai_gateway import Doubt, doubts
from policyd.adapters.envoy.config import UPSTREAM_HEADER, Settings
from policyd.adapters.envoy.gateway import GATEWAY, Target, service_of
from policyd.adapters.envoy.gateway_tls import GatewayTls
from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, PolicySet
from policyd.core.compile.words import listed
from policyd.core.model.decision import Reroute


def remarks(
    policies: PolicySet, settings: Settings, targets: Sequence[Target], tls: GatewayTls | None = None
) -> list[str]:
    """What is left to do, and what will not work, in words."""
    rules = [rule for policy in policies.policies for rule in policy.rules]
    return [
        *_about_placing(settings, targets),
        *_about_tls(settings, targets, tls),
        *_about_upstreams(rules),
        *_about_ai_gateway(policies.policies),
    ]


def _about_placing(settings: Settings, targets: Sequence[Target]) -> Iterator[str]:
    if any(one.kind != GATEWAY for one in targets):
        most = settings.max_request
        yield f"a route has no buffer of its own: give its Gateway a ClientTrafficPolicy with bufferLimit {most}"
        yield (
            "of several AIGatewayRoutes on one host the first one's policies hold for all calls, the others' for none: "
            "take the Gateway as target"
        )
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


def _about_ai_gateway(policies: Sequence[CompiledPolicy]) -> Iterator[str]:
    concerned: dict[Doubt, list[str]] = {}
    for policy in policies:
        for _, name, doubt in doubts(policy):
            concerned.setdefault(doubt, []).append(f"{name} of {policy.qualified}")
    for doubt, names in concerned.items():
        yield f"behind Envoy AI Gateway {doubt.fate}: {doubt.hint}. Concerned: {listed(names)}"
