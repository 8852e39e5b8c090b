"""The place that a call is sent to: the path that was judged is the path that is forwarded.

Rule 1: where anything is enforced, a path that differs from its normal form is rewritten, and one without a normal form
        is rejected. Under Monitor the path is forwarded as it came.
Rule 2: the route that Envoy has chosen stays: the deployment that was judged is that route's.
"""

from __future__ import annotations

from dataclasses import replace

from policyd.core.exchange.call import Call
from policyd.core.model.credentials import without_credentials
from policyd.core.model.decision import Reroute, Terminate
from policyd.core.model.deployment import Deployment
from policyd.core.model.facts import RequestFacts
from policyd.core.model.headers import HeaderEdit
from policyd.core.model.paths import NormalPath, normal_path
from policyd.core.model.steps import RequestHeaders
from policyd.core.stream.dialects.models import models_after, with_model
from policyd.core.stream.dialects.providers import place_of, provider_for
from policyd.core.stream.dialects.registry import OVERRIDES

BAD_PATH = Terminate(400, "ambiguous_path", "The path of this request can be read in several ways", "")
PATH = ":path"


def path_of(event: RequestHeaders) -> NormalPath:
    """The normal form of the path that was sent."""
    return normal_path(_sent(event).partition("?")[0])


def _sent(event: RequestHeaders) -> str:
    return next((value for name, value in event.headers if name == PATH), "")


def judged_head(event: RequestHeaders, path: NormalPath, edit: HeaderEdit) -> HeaderEdit:
    """The edit, and what makes the request line the one that was judged: its path, and no header that overrides it."""
    before, mark, query = _sent(event).partition("?")
    overriding = tuple(sorted({name for name, _ in event.headers if name in OVERRIDES}))
    sets = () if path.sent == before else ((PATH, f"{path.sent}{mark}{query}"),)
    return HeaderEdit((*edit.set, *sets), (*edit.remove, *overriding)) if sets or overriding else edit


def rerouted(call: Call, reroute: Reroute) -> RequestFacts:
    """The request as the target of a reroute sees it. What nobody has declared of an upstream stays as it was."""
    request = call.facts.request
    model = reroute.model or request.model
    models = models_after(call.document, request, reroute.model) if reroute.model else request.models
    changed = replace(request, model=model, models=models)
    if not reroute.upstream:
        return changed
    target = call.upstreams.get(reroute.upstream)
    place = target or Deployment(upstream=reroute.upstream)
    own = call.dialect.provider("", request.path, request.headers) if call.dialect and target else request.provider
    changed.upstream, changed.provider = reroute.upstream, provider_for(place, "", own)
    changed.host, changed.region = place_of(place, "")
    return changed


def mismatch(call: Call, reroute: Reroute | None) -> str:
    """Why the target of a reroute cannot read this call; empty if nothing is known against it."""
    target = call.upstreams.get(reroute.upstream) if reroute else None
    name = call.facts.request.dialect
    if target is None or not target.dialects or name in target.dialects:
        return ""
    return f"upstream `{target.upstream}` does not take {name or 'this kind of call'}"


def moved_path(call: Call, reroute: Reroute) -> str:
    """The path and query with the model of a reroute in the place of the one that it names, and without the caller's
    credentials where they are not for the target."""
    path = (with_model(call.sent_path, reroute.model) if reroute.model else "") or call.sent_path
    return path if reroute.keep_credentials or not reroute.upstream else without_credentials(path)
