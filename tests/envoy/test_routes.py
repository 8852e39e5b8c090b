"""By which route a call came: what real Envoys send, and what is made of it, however odd."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.envoy import bootstrap, codec, config
from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import HOST_ATTRIBUTE, ROUTE_ATTRIBUTE
from policyd.adapters.envoy.routes import LATELY_S, Resource, Routes, resource_of
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.model.route import ObjectName, Route
from policyd.core.model.steps import Reject
from tests.envoy.harness import VERSIONS, Envoy, running
from tests.envoy.routed import CHOOSES, metadata, route, with_routes
from tests.envoy.scripted import Background, Processor
from tests.fakes import FakeClock

CHAT, EDGE = ("agents", "chat"), ("infra", "edge")


def policies(*documents: str) -> PolicySet:
    files = [(f"{at}.yaml", text) for at, text in enumerate(documents)]
    found = compile_documents(files).policy_set
    assert found is not None
    return found


def document(namespace: str, *targets: str) -> str:
    """An LLMPolicy that is attached to these; without a namespace a ClusterLLMPolicy."""
    kind = "LLMPolicy" if namespace else "ClusterLLMPolicy"
    where = f", namespace: {namespace}" if namespace else ""
    refs = ", ".join(f"{{kind: {one.split('/')[0]}, name: {one.split('/')[1]}}}" for one in targets)
    head = f"apiVersion: policyd.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: p{len(targets)}{where}}}\nspec:\n"
    return head + f"  targetRefs: [{refs}]\n  rules: [{{name: r, terminate: {{}}}}]\n"


ALL = policies(document(""), document("agents"), document("agents", "HTTPRoute/chat", "Gateway/edge"))


def printed(made: dict[str, Any]) -> str:
    """As Envoy prints metadata."""
    found = pb.Metadata()
    for name, value in made["filter_metadata"].items():
        found.filter_metadata[name].update(value)
    return str(text_format.MessageToString(found, as_one_line=True))


def message(route: str | None = None, host: str | None = None) -> pb.ProcessingRequest:
    """A call's first message, with these attributes."""
    made = pb.ProcessingRequest()
    for name, value in ((ROUTE_ATTRIBUTE, route), (HOST_ATTRIBUTE, host)):
        if value is not None:
            made.attributes["envoy.filters.http.ext_proc"].fields[name].string_value = value
    return made


@dataclass(slots=True)
class Desk:
    """A reader of routes, its clock, and the policies in force."""

    now: FakeClock = field(default_factory=FakeClock)
    policies: PolicySet = ALL
    parents: dict[ObjectName, tuple[ObjectName, ...]] = field(default_factory=dict)

    def routes(self) -> Routes:
        return Routes("home", lambda: self.policies, lambda place: self.parents.get(place, ()), self.now.monotonic)


# ---- one text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (route(*CHAT), Resource("HTTPRoute", *CHAT)),
        (metadata("GRPCRoute", "a", "b.c"), Resource("GRPCRoute", "a", "b.c")),
        (metadata("Gateway", *EDGE), Resource("Gateway", *EDGE)),
        (metadata("", *CHAT), Resource("", *CHAT)),
        (metadata("HTTPRoute", "", "chat"), "its metadata names no object"),
        (metadata("HTTPRoute", "a/b", "chat"), "its metadata names no object"),
        (metadata("HTTPRoute", "a.b", "chat"), "its metadata names no object"),
        (metadata("HTTPRoute", "Agents", "chat"), "its metadata names no object"),
        (metadata("HTTPRoute", "agents", "chat\n"), "its metadata names no object"),
        (metadata("HTTPRoute", "agents", "c" * 254), "its metadata names no object"),
        ({"filter_metadata": {"envoy-gateway": {"resources": []}}}, "its metadata names no resource"),
        ({"filter_metadata": {"envoy-gateway": {"resources": "chat"}}}, "its metadata names no resource"),
        ({"filter_metadata": {"envoy-gateway": {"resources": [1, None]}}}, "its metadata names no object"),
        ({"filter_metadata": {"envoy-gateway": {}}}, "its metadata names no resource"),
        ({"filter_metadata": {"mine": {"namespace": "agents"}}}, "its metadata has no `envoy-gateway`"),
    ],
)
def test_what_metadata_names(made: dict[str, Any], expected: Resource | str) -> None:
    found = resource_of(printed(made))
    assert found == expected if isinstance(expected, Resource) else str(found).startswith(expected)


LONG = printed(metadata("HTTPRoute", *CHAT, annotations={"a": "b" * 9_000}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it has no metadata"),
        ("goo.gle/debugonly  " + printed(route(*CHAT)).replace(" ", "   "), Resource("HTTPRoute", *CHAT)),
        (LONG, Resource("HTTPRoute", *CHAT)),
        (LONG.replace("b" * 9_000, "b" * 70_000), "its metadata is longer than 65536 characters"),
        (
            "typed_filter_metadata { key: 'x' value { type_url: 'y' } } " + printed(route(*CHAT)),
            Resource("HTTPRoute", *CHAT),
        ),
        ("CelMap value", "its metadata cannot be read"),
        (printed(route(*CHAT))[:-3], "its metadata cannot be read"),
        ('filter_metadata { key: "\\377" }', "its metadata cannot be read"),
        ("filter_metadata { value { fields { value { struct_value { " * 900, "its metadata cannot be read"),
    ],
)
def test_texts_however_they_are_written(text: str, expected: Resource | str) -> None:
    assert resource_of(text) == expected


@given(st.text(max_size=60) | st.text('filter_metadata{}key:value" <>[]\\\n', max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert isinstance(resource_of(text), str)


# ---- one call --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "host", "parents", "expected"),
    [
        (route(*CHAT), metadata("Gateway", *EDGE), (), Route(*CHAT, (EDGE,))),
        (route(*CHAT), None, (), Route(*CHAT)),
        (route(*CHAT), None, (EDGE, ("a", "b")), Route(*CHAT, (EDGE, ("a", "b")))),
        (route(*CHAT), metadata("Gateway", *EDGE), (("a", "b"),), Route(*CHAT, (EDGE,))),
        (route(*CHAT), metadata("Listener", *EDGE), (("a", "b"),), Route(*CHAT, (("a", "b"),))),
        (metadata("GRPCRoute", *CHAT), None, (EDGE,), Route("agents")),
        (metadata("", *CHAT), None, (EDGE,), Route(*CHAT, (EDGE,))),
        (metadata("", *CHAT), metadata("", *EDGE), (("a", "b"),), Route(*CHAT, (EDGE,))),
    ],
)
def test_where_a_call_came_in(
    told: dict[str, Any], host: dict[str, Any] | None, parents: tuple[ObjectName, ...], expected: Route
) -> None:
    desk = Desk(parents={CHAT: parents})
    assert desk.routes().of(message(printed(told), host and printed(host))) == expected


def test_neither_headers_nor_dynamic_metadata_tell_a_route() -> None:
    made = message()
    told = printed(route(*CHAT))
    made.request_headers.headers.headers.add(key=ROUTE_ATTRIBUTE, raw_value=told.encode())
    made.request_headers.headers.headers.add(key="x-policyd-route", raw_value=b"agents/chat")
    for name in ("envoy-gateway", "envoy.filters.http.ext_proc"):
        made.metadata_context.filter_metadata[name].update({ROUTE_ATTRIBUTE: told})
        made.metadata_context.filter_metadata[name].update(route(*CHAT)["filter_metadata"]["envoy-gateway"])
    made.attributes["other.filter"].fields[ROUTE_ATTRIBUTE].string_value = told
    assert Desk().routes().of(made) is None
    assert codec.request_headers(made, 0.0, 0.0).route is None


def test_an_attribute_that_is_no_text_is_not_told() -> None:
    made = message("")
    made.attributes["envoy.filters.http.ext_proc"].fields[ROUTE_ATTRIBUTE].struct_value.update(route(*CHAT))
    assert Desk().routes().of(made) is None


# ---- what is not told is said ----------------------------------------------------------------------------------------


def test_a_route_that_is_not_told_is_said_once_and_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    routes = desk.routes()
    with caplog.at_level(logging.WARNING, "policyd"):
        for _ in range(3):
            routes.of(message())
    assert [record.getMessage() for record in caplog.records] == [routes.untold]
    assert routes.untold == (
        "calls come without their route (Envoy was not asked for xds.route_metadata): policies (1 of other namespaces "
        "than home and 1 with targetRefs) do not apply to them"
    )
    desk.now.advance(LATELY_S + 1)
    assert routes.untold == ""


def test_a_gateway_that_is_not_told_is_said_only_where_a_policy_names_one() -> None:
    desk = Desk()
    routes = desk.routes()
    routes.of(message(printed(route(*CHAT))))
    assert "without their Gateway" in routes.untold
    assert "1 with a Gateway among their targetRefs" in routes.untold
    desk.policies = policies(document("agents", "HTTPRoute/chat"))
    assert routes.untold == ""


@pytest.mark.parametrize("harmless", [document(""), document("home")])
def test_nothing_is_said_where_no_policy_asks_for_it(harmless: str, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(policies=policies(harmless))
    routes = desk.routes()
    routes.of(message("nonsense"))
    assert (routes.untold, caplog.records) == ("", [])


# ---- real Envoys -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def probed(version: str, folder: Path, **odd: Any) -> Iterator[tuple[Envoy, Processor]]:
    """An Envoy of what `policyd envoy bootstrap` prints, with routes as Envoy Gateway makes them."""
    background, processor = Background(), Processor()
    processor.script = lambda _: [codec.reject(Reject(403, (), b""))]
    background.run(processor.start())
    routes = {"chat": route(*CHAT), "odd": {"filter_metadata": {"mine": {"a": 1}}}}

    def made(port: int, admin: int) -> str:
        settings = config.settings(
            listener=f"127.0.0.1:{port}",
            admin=f"127.0.0.1:{admin}",
            extproc=f"127.0.0.1:{processor.port}",
            upstreams=["a=127.0.0.1:9"],
        )
        return with_routes(bootstrap.render(bootstrap.bootstrap(settings)), routes, **odd)

    try:
        with running(version, folder, made) as envoy:
            yield envoy, processor
    finally:
        background.run(processor.stop())
        background.stop()


@pytest.mark.envoy
@pytest.mark.parametrize("version", VERSIONS)
def test_real_envoys_tell_route_and_gateway(version: str, tmp_path: Path) -> None:
    forged = {ROUTE_ATTRIBUTE: printed(metadata("HTTPRoute", "victim", "x")), "x-envoy-route": "victim/x"}
    host = metadata("Gateway", *EDGE, sectionName="http")
    with probed(version, tmp_path, host=host) as (envoy, processor), httpx.Client(timeout=5) as client:
        for chosen in ("chat", "odd", "none"):
            client.post(f"{envoy.url}/v1/chat/completions", json={}, headers={CHOOSES: chosen, **forged})
    routes = Desk().routes()
    first = [one for one in processor.messages if one.WhichOneof("request") == "request_headers"]
    assert [routes.of(one) for one in first] == [Route(*CHAT, (EDGE,)), None, None]
    assert all(
        key != ROUTE_ATTRIBUTE for one in first for key in codec.metadata(one).get("envoy.filters.http.ext_proc", ())
    )


@pytest.mark.envoy
def test_a_filter_that_does_not_ask_tells_nothing(tmp_path: Path) -> None:
    with probed(VERSIONS[-1], tmp_path, asked=["request.id"]) as (envoy, processor):
        httpx.post(f"{envoy.url}/v1/chat/completions", json={}, headers={CHOOSES: "chat"}, timeout=5)
    routes = Desk().routes()
    assert routes.of(processor.messages[0]) is None
    assert "Envoy was not asked for" in routes.untold
