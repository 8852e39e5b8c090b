"""Policies from Kubernetes, without one: objects as files, what stays in force, and the way to a cluster."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from policyd.adapters.errors import NotAvailable, UnreadableInput
from policyd.adapters.policies_kube import seen_mark
from policyd.adapters.policies_kube.access import find_access
from policyd.adapters.policies_kube.api import Api, Away, Refused
from policyd.adapters.policies_kube.gateway_api import FILE as ROUTES
from policyd.adapters.policies_kube.gateway_api import Attachments, parents_of
from policyd.adapters.policies_kube.good import Judged, LastGood, policy_of
from policyd.adapters.policies_kube.kept import Keeper, Kept
from policyd.adapters.policies_kube.mirror import Mirror
from policyd.adapters.policies_kube.placeholder import RULE, is_placeholder, placeholder_of
from policyd.core.compile.compiler import Compiler, compile_documents
from policyd.server.sources import replica_name
from tests.driving import Bed, chat
from tests.fakes import ScriptedKube


def written(name: str, when: str = "true", **metadata: Any) -> dict[str, Any]:
    rule = {"name": "no", "when": when, "terminate": {}}
    return {
        "apiVersion": "policyd.dev/v1alpha1",
        "kind": "LLMPolicy",
        "metadata": {"name": name, "namespace": "agents", **metadata},
        "spec": {"mode": "Full", "match": {"operations": ["*"]}, "rules": [rule]},
    }


def texts(**when: str) -> dict[str, str]:
    policies = [policy_of(written(name, expression)) for name, expression in when.items()]
    return {policy.file: policy.text for policy in policies}


def test_an_object_is_the_file_that_its_author_wrote() -> None:
    """What the server adds (uid, managed fields, status) is no part of it: the digest is the file's."""
    served = written("p", uid="u", resourceVersion="7", generation=3, managedFields=[{}]) | {
        "status": {"ancestors": []}
    }
    policy = policy_of(served)
    from_file = compile_documents([("p.yaml", yaml.safe_dump(written("p")))]).policy_set
    from_server = compile_documents([(policy.file, policy.text)]).policy_set
    assert (policy.file, policy.generation) == ("llmpolicy/agents/p", 3)
    assert from_file is not None and from_server is not None
    assert from_server.digest == from_file.digest


def test_a_wrong_text_gives_way_to_the_last_good_one_and_a_new_one_to_nothing() -> None:
    good = LastGood(Compiler())
    first = good.judge(texts(a="true", b="true"))
    assert not first.refused
    judged = good.judge(texts(a="nothing.there", b="1 == 1", c="nothing.there"))
    assert sorted(judged.refused) == ["llmpolicy/agents/a", "llmpolicy/agents/c"]
    assert judged.texts == texts(a="true", b="1 == 1")
    assert judged.policy_set.digest == LastGood(Compiler()).judge(texts(a="true", b="1 == 1")).policy_set.digest
    again = good.judge(texts(a="nothing.there", b="true", c="nothing.there"))
    assert again.texts == first.texts
    assert again.refused == judged.refused, "what was refused stays refused, with its reasons"


def test_a_policy_that_is_gone_is_gone_also_when_its_last_text_was_wrong() -> None:
    good = LastGood(Compiler())
    good.judge(texts(a="true", b="true"))
    good.judge(texts(a="nothing.there", b="true"))
    judged = good.judge(texts(b="true"))
    assert (list(judged.texts), judged.refused) == (["llmpolicy/agents/b"], {})
    assert good.judge(texts(a="nothing.there")).texts == {}


def test_a_last_good_text_that_is_good_no_more_is_left_out() -> None:
    """As after an update of policyd: what was kept on disk need not compile any more."""
    good = LastGood(Compiler(), texts=texts(a="nothing.there"))
    assert good.judge(texts(a="nothing.either")).texts == {}


# ---- what cannot be read, and no good text is known of --------------------------------------------------------------


def standing(judged: Judged) -> set[str]:
    return {file.rsplit("/", 1)[1] for file in judged.placeholders}


def spec_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["spec"]
    return found


def unread(**spec: Any) -> dict[str, Any]:
    """What takes the place of a policy with these parts."""
    one = written("p")
    one["spec"] = {**one["spec"], "new": 1, **spec}
    text = placeholder_of(policy_of(one).text)
    assert is_placeholder(text)
    judged = LastGood(Compiler(), placeholders=True).judge({"llmpolicy/agents/p": text})
    assert not judged.refused
    return spec_of(text)


HISTORIES = [  # generations of a text that is good, wrong, or has a field of another version; what a placeholder is for
    ("wrong when a replica starts", [{"a": ("wrong", 1)}], {"a"}),
    ("a field of another version when a replica starts", [{"a": ("field", 1)}], {"a"}),
    ("created wrong before our eyes", [{}, {"a": ("wrong", 1)}], set()),
    ("and wrong again", [{}, {"a": ("wrong", 1)}, {"a": ("other", 2)}], set()),
    ("and changed twice between two looks", [{}, {"a": ("wrong", 1)}, {"a": ("other", 3)}], {"a"}),
    ("first seen in its second generation", [{}, {"a": ("wrong", 2)}], {"a"}),
    ("created with a field of another version", [{}, {"a": ("field", 1)}], {"a"}),
    ("good, then wrong: the last good text", [{"a": ("good", 1)}, {"a": ("wrong", 2)}], set()),
    ("wrong at the start, then wrong again", [{"a": ("wrong", 1)}, {"a": ("other", 2)}], {"a"}),
    ("wrong at the start, then mended", [{"a": ("wrong", 1)}, {"a": ("good", 2)}], set()),
    ("wrong at the start, mended, wrong", [{"a": ("wrong", 1)}, {"a": ("good", 2)}, {"a": ("wrong", 3)}], set()),
    ("wrong at the start, then gone", [{"a": ("wrong", 1)}, {}], set()),
]
STATES = {"good": "true", "wrong": "nothing.there", "other": "nothing.either"}


@pytest.mark.parametrize(("states", "expected"), [one[1:] for one in HISTORIES], ids=[one[0] for one in HISTORIES])
def test_a_placeholder_is_for_what_may_be_in_force_elsewhere(
    states: list[dict[str, tuple[str, int]]], expected: set[str]
) -> None:
    good = LastGood(Compiler(), placeholders=True)
    for state in states:
        policies = []
        for name, (kind, generation) in state.items():
            one = written(name, STATES.get(kind, "true"), generation=generation)
            one["spec"] |= {"newer": True} if kind == "field" else {}
            policies.append(policy_of(one))
        judged = good.judge({one.file: one.text for one in policies}, {one.file: one.generation for one in policies})
        good.again()  # judged anew, nothing gets laxer
        again = good.judge({one.file: one.text for one in policies}, {one.file: one.generation for one in policies})
        assert again.texts == judged.texts
    assert standing(judged) == expected


def test_what_was_left_out_before_is_kept_on_disk_as_such(tmp_path: Path) -> None:
    first = LastGood(Compiler(), placeholders=True).judge(texts(a="nothing.there", b="true"))
    kept = Kept(tmp_path)
    kept.write(first.texts)
    later = LastGood(Compiler(), texts=kept.read() or {}, placeholders=True).restored()
    assert (later.texts, later.placeholders) == (first.texts, ("llmpolicy/agents/a",))


PARTS = [  # of the policy that cannot be read; what its placeholder has of them
    ({}, {"operations": ["*"]}),
    ({"match": {}}, None),
    ({"match": {"models": ["gpt-4o"]}}, {"models": ["gpt-4o"]}),
    ({"match": {"operations": ["chat"], "hosts": ["a"]}}, {"operations": ["chat"]}),
    ({"match": {"operations": 7, "models": ["m"]}}, {"models": ["m"], "operations": ["*"]}),
    ({"match": "everything"}, {"operations": ["*"]}),
]


@pytest.mark.parametrize(("parts", "match"), PARTS)
def test_a_placeholder_covers_what_the_policy_could_match(parts: dict[str, Any], match: dict[str, Any] | None) -> None:
    assert unread(**parts).get("match") == match


def test_a_placeholder_keeps_what_narrows_it_and_can_be_read() -> None:
    conditions = [{"name": "c", "expression": "caller.team != params.team"}]
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
    kept = unread(matchConditions=conditions, params={"team": "x"}, targetRefs=[target], rollout={"percent": 5.0})
    assert (kept["matchConditions"], kept["targetRefs"], kept["rollout"]) == (conditions, [target], {"percent": 5.0})
    wider = unread(matchConditions=[{**conditions[0], "newer": 1}], targetRefs=[{**target, "sectionName": "s"}])
    assert not wider.keys() & {"matchConditions", "targetRefs"}
    assert "matchConditions" not in unread(matchConditions=[{"name": "c", "expression": "caller.nobody"}])


MODES: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    ({}, ("Full", "Fail", "Medium")),
    ({"mode": "Monitor"}, ("Monitor", "Fail", "Medium")),
    ({"mode": "Soft", "failurePolicy": "Ignore"}, ("Soft", "Ignore", "Medium")),
    ({"mode": "Stricter", "failurePolicy": "Perhaps"}, ("Full", "Fail", "Medium")),
    ({"rules": "none"}, ("Full", "Fail", "Critical")),
    ({"rules": [{"severity": "Low"}, {"severity": "High"}]}, ("Full", "Fail", "High")),
    ({"rules": [{"severity": "Fatal"}]}, ("Full", "Fail", "Critical")),
    ({"counters": [{"name": "c"}]}, ("Full", "Fail", "Critical")),
]


@pytest.mark.parametrize(("spec", "expected"), MODES)
def test_a_placeholder_is_as_strict_as_its_policy(spec: dict[str, Any], expected: tuple[str, str, str]) -> None:
    found = unread(**spec)
    assert (found["mode"], found["failurePolicy"], found["rules"][0]["severity"]) == expected


CALLS = [("Full", "Fail", 503), ("Full", "Ignore", 0), ("Monitor", "Fail", 0), ("Soft", "Fail", 503)]


@pytest.mark.parametrize(("mode", "failure_policy", "status"), CALLS)
def test_calls_of_a_policy_that_cannot_be_read_fail_as_it_says(mode: str, failure_policy: str, status: int) -> None:
    counters = [{"name": "c", "newer": 1}]
    one = written("p")
    one["spec"] |= {"mode": mode, "failurePolicy": failure_policy, "counters": counters}
    record = Bed(placeholder_of(policy_of(one).text)).call(body=chat()).record
    assert record.status == status or not status
    assert (record.reason == "policy_error") == bool(status)
    assert [rule.outcome for rule in record.rules] == ["errored"]
    assert [rule.rule for rule in record.rules] == [RULE]


def test_no_policies_are_a_set_as_well() -> None:
    assert LastGood(Compiler()).judge({}).policy_set.policies == ()


def test_the_mark_of_a_state_does_not_depend_on_its_order() -> None:
    one, two = policy_of(written("a")), policy_of(written("b"))
    assert seen_mark([one, two]) == seen_mark([two, one]) != seen_mark([one])


def test_what_was_kept_is_read_and_what_is_broken_is_not(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "state")
    assert kept.read() is None
    kept.write({"a": "é"})
    assert kept.read() == {"a": "é"}
    whole = kept.path.read_bytes()
    for torn in (whole[:-4], b"", whole.replace(b"u00e9", b"u00e8"), b'{"policies": [', b'{"policies": {}}', b"\xff"):
        kept.path.write_bytes(torn)
        assert kept.read() is None, torn


def test_what_cannot_be_kept_is_said_once_and_leaves_what_was_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Kept(tmp_path / "state")
    kept.write({"a": "good"})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        kept.write({"a": "newer"})
        kept.write({"a": "newest"})
    assert [record.message.rsplit(": ", 1)[1] for record in caplog.records] == ["no space left on device"]
    assert kept.read() == {"a": "good"}
    assert [file.name for file in kept.folder.iterdir()] == [kept.path.name], "nothing half-written lies about"
    kept.write({"a": "newest"})
    assert kept.read() == {"a": "newest"}


def test_a_disk_that_has_room_again_takes_what_is_in_force(tmp_path: Path) -> None:
    """Written behind the policies: at most each second, only the newest, and what failed is tried again."""
    pauses: list[float] = []
    (tmp_path / "state").write_text("in the way")

    async def story() -> None:
        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                (tmp_path / "state").unlink()
            await asyncio.sleep(0)

        keeper = Keeper(Kept(tmp_path / "state"), pause)
        keeper.keep({"a": "older"})
        keeper.keep({"a": "newest"})
        task = asyncio.create_task(keeper.run())
        async with asyncio.timeout(5):
            while keeper.kept.read() is None:  # noqa: ASYNC110 - what is waited for is on the disk
                await asyncio.sleep(0.001)
        assert keeper.kept.read() == {"a": "newest"}
        keeper.keep({"a": "last"})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert keeper.kept.read() == {"a": "last"}, "what is due at the end is written"

    asyncio.run(story())
    assert len(pauses) >= 3
    assert min(pauses) >= 1.0


def test_a_state_that_cannot_be_a_folder_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    kept = Kept(tmp_path / "state")
    kept.write({"a": "good"})
    assert kept.read() is None
    assert "are not kept" in caplog.text


# ---- the way to a cluster -------------------------------------------------------------------------------------------


def config(folder: Path, cluster: dict[str, Any], user: dict[str, Any] | None = None) -> dict[str, str]:
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "agents"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
    }
    (folder / "config").write_text(yaml.safe_dump(document))
    return {"KUBECONFIG": str(folder / "config")}


def test_a_kubeconfig_says_where_and_who(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    access = find_access(environ=config(tmp_path, {"server": "http://127.0.0.1:1/"}, {"tokenFile": "token"}))
    assert (access.url, access.namespace, access.bearer()) == ("http://127.0.0.1:1", "agents", "first")
    (tmp_path / "token").write_text("second\n")
    assert access.bearer() == "second", "tokens are replaced while we run"


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {}, "no URL"),
        ({"server": "https://h", "certificate-authority": "none.crt"}, {}, "certificates"),
        ({"server": "https://h", "certificate-authority-data": "%"}, {}, "certificates"),
        ({"server": "https://h", "certificate-authority-data": base64.b64encode(b"x").decode()}, {}, "certificates"),
        ({"server": "https://h"}, {"exec": {"command": "aws"}}, "`exec` is not supported"),
        ({"server": "https://h"}, {"username": "a", "password": "b"}, "`username` is not supported"),
    ],
)
def test_what_a_kubeconfig_cannot_give_is_named(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnreadableInput, match=words):
        find_access(environ=config(tmp_path, cluster, user))


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no context `elsewhere`"):
        find_access("elsewhere", config(tmp_path, {"server": "https://h"}))


def test_no_cluster_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="neither a service account"):
        find_access(environ={"KUBECONFIG": str(tmp_path / "none")}, account=tmp_path)


def test_each_worker_of_a_host_has_a_name_of_its_own_and_keeps_it() -> None:
    assert replica_name("Pod_1.x", "unix:/a") == replica_name("Pod_1.x", "unix:/a") != replica_name("Pod_1.x", "b:1")
    assert replica_name("Pod_1.x", "unix:/a").startswith("policyd-pod-1-x-")


# ---- in step --------------------------------------------------------------------------------------------------------


def follow(kube: ScriptedKube, shape: Callable[[Any], Any] = lambda one: one["metadata"]["name"]) -> Mirror[Any]:
    """A mirror of the script, once nothing comes any more."""

    async def no_pause(_: float) -> None: ...

    async def story() -> Mirror[Any]:
        mirror: Mirror[Any] = Mirror(cast(Api, kube), "/p", shape, lambda: None, pause=no_pause)
        task = asyncio.create_task(mirror.run())
        async with asyncio.timeout(5):
            await kube.over.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return mirror

    return asyncio.run(story())


def test_a_watch_goes_on_from_the_last_event_however_it_ended() -> None:
    watches = [[("ADDED", "b", "2"), Away("cut")], [("DELETED", "a", "3")], [Away("cut"), ("ADDED", "never", "9")]]
    kube = ScriptedKube([("1", ["a"])], watches)
    assert list(follow(kube).objects.values()) == ["b"]
    assert kube.asked[:4] == ["list", "1", "2", "3"]


def test_a_past_that_is_forgotten_is_listed_anew() -> None:
    """What was deleted while nobody watched is gone, though no event told."""
    kube = ScriptedKube([("1", ["a", "b"]), ("7", ["b", "c"])], [[Refused(410, "too old")], []])
    assert list(follow(kube).objects.values()) == ["b", "c"]
    assert kube.asked[:4] == ["list", "1", "list", "7"]


def test_what_the_server_does_not_know_is_asked_for_rarely_and_is_an_answer() -> None:
    """The Gateway API is not installed everywhere; where it comes later, it is followed."""
    kube = ScriptedKube([Refused(404, "no such kind"), Refused(403, "no"), ("1", ["a"])], [])
    pauses: list[float] = []

    async def story() -> None:
        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            assert mirror.answered.is_set()
            assert bool(mirror.synced.is_set()) == ("1" in kube.asked)

        mirror: Mirror[Any] = Mirror(cast(Api, kube), "/p", lambda _: True, lambda: None, pause=pause, again_s=30.0)
        task = asyncio.create_task(mirror.run())
        async with asyncio.timeout(5):
            await kube.over.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (list(mirror.objects), mirror.refusal, mirror.failure) == ([("", "a")], 0, "")

    asyncio.run(story())
    assert [seconds >= 30 for seconds in pauses if seconds] == [True, True]


REFERENCES = [
    ([{"name": "edge"}], [("agents", "edge")]),
    (
        [{"name": "edge", "namespace": "infra"}, {"name": "edge", "namespace": "infra", "sectionName": "b"}],
        [("infra", "edge")],
    ),
    (
        [{"name": "a"}, {"name": "b", "kind": "Gateway", "group": "gateway.networking.k8s.io"}],
        [("agents", "a"), ("agents", "b")],
    ),
    ([{"name": "a", "kind": "Service", "group": ""}, {"name": "b", "kind": "ListenerSet"}], []),
    (None, []),
    ("nonsense", []),
    ([None, "a", 3], []),
]


@pytest.mark.parametrize(("references", "gateways"), REFERENCES)
def test_where_an_http_route_hangs(references: object, gateways: list[tuple[str, str]]) -> None:
    route = {"metadata": {"name": "chat", "namespace": "agents"}, "spec": {"parentRefs": references}}
    assert list(parents_of(route)) == gateways


def test_where_routes_hang_is_kept_for_a_start_without_a_server(tmp_path: Path) -> None:
    chat, edge = ("agents", "chat"), ("infra", "edge")
    Kept(tmp_path, ROUTES).write({"agents/chat": '[["infra", "edge"]]'})
    nowhere = Attachments(cast(Api, None), state=tmp_path)
    assert (nowhere.parents(chat), nowhere.parents(edge)) == ((edge,), ())
    assert Attachments(cast(Api, None)).parents(chat) == ()
    (tmp_path / ROUTES).write_text("half of it")
    assert Attachments(cast(Api, None), state=tmp_path).parents(chat) == ()


def test_a_bookmark_moves_the_place_and_nothing_else() -> None:
    kube = ScriptedKube([("1", ["a"])], [[("BOOKMARK", "", "5")], []])
    assert list(follow(kube).objects.values()) == ["a"]
    assert kube.asked[2] == "5"


def test_a_list_that_fails_leaves_what_was_there() -> None:
    kube = ScriptedKube([("1", ["a"]), Refused(403, "no"), Away("gone"), ("2", ["a"])], [[Refused(410, "")], []])
    assert list(follow(kube).objects.values()) == ["a"]


def test_an_object_that_nobody_foresaw_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    def shape(one: Any) -> str:
        if one["metadata"]["name"] == "odd":
            raise KeyError("spec")
        return str(one["metadata"]["name"])

    kube = ScriptedKube([("1", ["a"]), ("3", ["a", "b"])], [[("ADDED", "odd", "2")], []])
    assert list(follow(kube, shape).objects.values()) == ["a", "b"]
    assert "KeyError" in caplog.text
