"""What `kubectl` answers with the webhook on: the verdict of `policyd check`, for every object of the corpus, and what
comes of bad input, by the numbers of its list.

The operator runs as a process with exactly the roles that ship. There are no signed bundles of policies here, so of
item 66 there is only that a signature counts for nothing. `POLICYD_K8S_APPLIED=10000` applies that many policies.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.adapters.policies_kube.good import policy_of
from tests.envoy.harness import a_moment
from tests.k8s.hooked import HOOKS, NAME, WRONG, Hooked, dry, hooked
from tests.k8s.objects import Desk, path_of, policy, until
from tests.k8s.server import ApiServer, kubectl
from tests.k8s.test_objects import INVALID, LIBRARY, VALID, checked, refused
from tests.k8s.test_objects_served import served
from tests.k8s.test_operator import conditions, says
from tests.k8s.test_policies_kube import reasons, source, watching

MANY = int(os.environ.get("POLICYD_K8S_APPLIED", "0"))
FEW_MS = 500  # for one policy, through the API server, on a busy machine


@pytest.fixture(scope="module")
def hook(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    if not kubectl():
        pytest.skip("no kubectl on this machine")
    with hooked(api, tmp_path_factory.mktemp("hooked")) as found:
        yield found


def test_the_server_says_of_every_object_what_check_says(hook: Hooked) -> None:
    differ: dict[str, object] = {}
    with hook.api.access.client() as client:
        for file in (*VALID, *LIBRARY, *INVALID):
            told, wrong = served(client, file), checked(file)
            if bool(told) is not bool(wrong):
                differ[f"{file.parent.name}/{file.stem}"] = (told, wrong)
            elif wrong and not refused(file):  # the schema lets it pass: the webhook tells all that check finds
                causes = json.loads(told[0])["details"]["causes"]
                codes = sorted(re.findall(r"error (\w+):", " ".join(cause["message"] for cause in causes)))
                if codes != sorted(issue.split()[0] for issue in wrong):
                    differ[f"{file.parent.name}/{file.stem}"] = (causes, wrong)
    assert differ == {}


def test_every_mistake_is_told_with_its_field_line_and_column(hook: Hooked, desk: Desk) -> None:
    document = policy("p", "x", when='request.modle == "m"')
    document["spec"]["rules"].append({"name": "more", "when": "nothing", "terminate": {}})
    for words in ((), ("--server-side",), ("--dry-run=server",)):
        done = hook.apply(document, words=words)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert lines[0] == 'The LLMPolicy "p" is invalid: '
        assert re.match(
            r"\* spec\.rules\[0\]\.when: llmpolicy/default/p:\d+:\d+: error CEL002: .*`request\.modle`", lines[1]
        )
        assert re.match(r"\* spec\.rules\[1\]\.when: llmpolicy/default/p:\d+:\d+: error CEL002: .*`nothing`", lines[2])
        assert len(lines) == 3
    assert desk.client.get(path_of("LLMPolicy", "default", "p")).status_code == 404


@pytest.mark.usefixtures("hook")
def test_the_place_is_that_of_the_status(desk: Desk) -> None:
    stored = desk.apply(policy("p", "x"))
    answer = dry(desk.client, policy("q", "x", when='request.modle == "m"'))
    held = policy_of({**stored, "spec": {**stored["spec"], "rules": []}})
    assert f"{held.file.removesuffix('/p')}/q:" in answer.json()["details"]["causes"][0]["message"]


@pytest.mark.usefixtures("desk")
def test_what_check_doubts_is_a_warning_of_kubectls(hook: Hooked) -> None:
    document = policy("p", "x")
    document["spec"]["mode"] = "Monitor"
    done = hook.apply(document)
    assert (done.returncode, done.stdout) == (0, "llmpolicy.policyd.dev/p created\n")
    assert done.stderr.startswith("Warning: spec.mode: POL101: policy `p` enforces nothing")
    listed = hook.kubectl("get", "llmpolicy", "-A").stdout.splitlines()
    assert listed[0].split() == ["NAMESPACE", "NAME", "MODE", "ACCEPTED", "PROGRAMMED", "AGE"]
    assert listed[1].split()[:3] == ["default", "p", "Monitor"]


@pytest.mark.usefixtures("desk")
def test_the_library_is_applied_as_it_ships(hook: Hooked) -> None:
    done = hook.kubectl("apply", *(word for file in LIBRARY for word in ("-f", file)))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(LIBRARY)


def test_what_was_stored_wrong_may_lose_its_finalizer(hook: Hooked, desk: Desk) -> None:
    """Stored while nobody looked, as before there was a webhook."""
    with hook.api.access.client() as admin:
        config = admin.get(f"{HOOKS}/{NAME}").json()
        rules = config["webhooks"][0]["rules"]
        patch = {"headers": {"content-type": "application/json-patch+json"}}
        place = "/webhooks/0/rules/0/apiGroups"
        admin.patch(f"{HOOKS}/{NAME}", json=[{"op": "replace", "path": place, "value": ["nobody.example"]}], **patch)  # type: ignore[arg-type]
        while dry(admin, WRONG).status_code == 422:
            a_moment()
        kept = {**WRONG, "metadata": {**WRONG["metadata"], "finalizers": ["tests.example/kept"]}}
        desk.apply(kept)
        value = rules[0]["apiGroups"]
        admin.patch(f"{HOOKS}/{NAME}", json=[{"op": "replace", "path": place, "value": value}], **patch)  # type: ignore[arg-type]
        while dry(admin, WRONG).status_code != 422:
            a_moment()
    done = hook.kubectl("patch", "llmpolicy", "wrong", "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
    assert done.returncode == 0, done.stderr
    assert "Warning: this policy is wrong" in done.stderr
    done = hook.kubectl("patch", "llmpolicy", "wrong", "--type=merge", "-p", '{"spec": {"description": "other"}}')
    assert done.returncode == 1 and "CEL002" in done.stderr


def test_status_and_apply_leave_each_other_alone(hook: Hooked, desk: Desk) -> None:
    """The operator writes the status; whoever applies, in either way, meets neither conflict nor difference."""
    document = policy("p", "x")
    text = yaml.safe_dump(document)

    def written() -> bool:
        return bool(desk.get(document).get("status"))

    assert hook.apply(document).returncode == 0
    deadline = time.monotonic() + 20
    while not written() and time.monotonic() < deadline:
        a_moment()
    assert written()
    before = desk.get(document)
    shown = hook.kubectl("diff", "-f", "-", text=text)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
    again = hook.apply(document)
    assert (again.returncode, again.stdout) == (0, "llmpolicy.policyd.dev/p unchanged\n")
    document["spec"]["description"] = "changed"
    done = hook.kubectl("apply", "--server-side", "--field-manager=kubectl-client-side-apply", "-f", "-",
                        text=yaml.safe_dump(document))  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = desk.get(document)
    assert after["status"]["ancestors"] and before["status"]["ancestors"]
    owned = {
        one["manager"]: set(one["fieldsV1"])
        for one in after["metadata"]["managedFields"]
        if "policyd" in one["manager"]
    }
    assert owned == {"policyd-operator": {"f:status"}}


def test_one_review_takes_little(hook: Hooked) -> None:
    files = [yaml.safe_load(file.read_text()) for file in LIBRARY]
    with hook.api.access.client() as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": "agents"}})
        took = []
        for document in files:
            began = time.perf_counter()
            assert dry(client, document).status_code in (201, 409)
            took.append(time.perf_counter() - began)
    took.sort()
    print(f"{len(took)} policies: p50 {took[len(took) // 2] * 1e3:.0f} ms, most {took[-1] * 1e3:.0f} ms")
    assert took[len(took) // 2] * 1e3 < FEW_MS


# ---- bad input ------------------------------------------------------------------------------------------------------


def said_no(hook: Hooked, document: dict[str, Any], *words: str) -> str:
    """What kubectl says to a policy that it must not apply."""
    done = hook.apply(document)
    assert done.returncode == 1, done
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def spec(**parts: Any) -> dict[str, Any]:
    made = policy("p", "x")
    made["spec"] |= parts
    return made


def chain(length: int) -> dict[str, Any]:
    variables = [{"name": "v0", "expression": "1"}]
    variables += [{"name": f"v{at}", "expression": f"variables.v{at - 1} + 1"} for at in range(1, length)]
    rule = {"name": "stop", "when": f"variables.v{length - 1} > 1", "terminate": {}}
    return spec(variables=variables, rules=[rule])


def test_21_versions_in_a_hurry_end_in_the_last_one(hook: Hooked, desk: Desk, tmp_path: Path) -> None:
    versions = [policy("p", f"v{at}") for at in range(30)]

    async def story() -> list[str]:
        seen: list[str] = []
        async with watching(source(hook.api.access, tmp_path)) as policies:
            applying = asyncio.create_task(asyncio.to_thread(hook.apply, *versions))
            while not applying.done():
                now = reasons(policies).get("default/p", "")
                if now and (not seen or seen[-1] != now):
                    seen.append(now)
                await asyncio.sleep(0.002)
            assert applying.result().returncode == 0, applying.result().stderr
            await until(lambda: reasons(policies) == {"default/p": "v29"}, "the last one")
        return seen

    seen = asyncio.run(story())
    assert desk.get(versions[0])["spec"]["rules"][0]["terminate"]["reason"] == "v29"
    assert [int(one[1:]) for one in seen] == sorted(int(one[1:]) for one in seen), "never back to an older one"


def test_22_policies_that_exempt_each_other_or_conflict_are_told_what_that_means(hook: Hooked, desk: Desk) -> None:
    def free(name: str, other: str) -> dict[str, Any]:
        made = policy(name, "x")
        made["spec"]["rules"].append({"name": "free", "allow": {"rules": [f"{other}/free", f"{other}/no"]}})
        return made

    a, b = free("a", "b"), free("b", "a")
    conflict = spec(
        rules=[
            {"name": "one", "when": 'request.model == "m"', "reroute": {"model": "n"}},
            {"name": "two", "when": 'request.model == "n"', "terminate": {}},
        ]
    )
    done = hook.apply(a, conflict)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    assert sum("no rule is called `b/" in line for line in warnings) == 2, "b is not there yet"
    assert any("POL115" in line and "reroutes to `n`" in line for line in warnings)
    asyncio.run(until(lambda: "POL103" not in dry(desk.client, b).headers.get("warning", ""), "a to be known"))
    assert hook.apply(b).stderr == ""


@pytest.mark.skipif(not MANY, reason="minutes long: POLICYD_K8S_APPLIED=10000")
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("desk")
def test_22_as_many_policies_as_are_wanted_are_applied(hook: Hooked) -> None:
    began = time.monotonic()
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy(f"p{at}", "x") for at in range(MANY)]})
    done = subprocess.run(
        [kubectl(), "--kubeconfig", hook.config, "create", "-f", "-"], input=text, capture_output=True, text=True
    )
    took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (0, "")
    began = time.monotonic()
    wrong = hook.apply(WRONG)
    print(f"{MANY} policies created in {took:.0f} s; then one wrong one refused in {time.monotonic() - began:.2f} s")
    assert wrong.returncode == 1
    assert "no time" not in done.stderr


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("request.model > 5", "CEL003"),
        ("request.model", "CEL005"),
        ("9223372036854775808 > 0", "invalid int literal"),
        ("params.missing == 1", "unknown parameter"),
        ("[1].all(x, [1].all(y, [1].all(z, x > z)))", "loops nested deeper"),
    ],
)
def test_61_an_expression_that_cannot_be_judged_is_refused(hook: Hooked, when: str, told: str) -> None:
    said_no(hook, policy("p", "x", when=when), "spec.rules[0].when", told)


@pytest.mark.usefixtures("desk")
def test_61_one_that_may_fail_for_a_call_is_warned_of(hook: Hooked) -> None:
    done = hook.apply(policy("p", "x", when='request.headers["x"] == "y"'), words=("--dry-run=server",))
    assert done.returncode == 0
    assert "CEL102" in done.stderr
    assert "orValue" in done.stderr


def test_62_an_expression_of_64_kb_and_one_of_a_thousand_levels_are_refused(hook: Hooked) -> None:
    said_no(hook, policy("p", "x", when="true || " * 8_192 + "true"), "spec.rules[0].when", "Too long")
    said_no(hook, policy("p", "x", when="(" * 1_000 + "true" + ")" * 1_000), "CEL006", "nested deeper than 32 levels")
    deep: Any = 1
    for _ in range(400):
        deep = {"a": deep}
    said_no(hook, spec(params={"x": deep}), "nested deeper than 64 levels")
    text = json.dumps(policy("p", "x")).replace('"Full"', '"Full", "params": {"x": ' + "[" * 9_000 + "]" * 9_000 + "}")
    done = hook.kubectl("create", "-f", "-", text=text)
    assert done.returncode == 1
    assert "nested deeper than 64 levels" in done.stderr


def test_63_variables_in_a_circle_and_chains_of_them_are_refused(hook: Hooked) -> None:
    circle = [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "variables.a"}]
    said_no(hook, spec(variables=circle), "spec.variables[0].expression", "declared later")
    said_no(hook, chain(1_000), "spec.variables", "Too many")
    said_no(hook, chain(64), "CEL006", "shorten the chain")


def test_64_nothing_that_is_written_forges_a_line_or_obeys_a_terminal(hook: Hooked, desk: Desk) -> None:
    evil = "\n2026-01-01 ERROR all is well\x1b[31m\r\u202e"
    for when in (f'"{evil}"', f'request.text.matches("({evil}")', f"request[{evil}]"):
        lines = said_no(hook, policy("p", "x", when=when), "spec.rules[0].when").split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("2026") for line in lines)
    lines = said_no(hook, spec(params={evil: 1}), "spec.params.", "POL005").split("\n")
    assert all(line.isprintable() and not line.startswith("2026") for line in lines)
    allowed = spec(rules=[{"name": "free", "allow": {"rules": ["\x1b[31mx/\u202ey"]}}])
    done = hook.apply(allowed)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert "POL103" in done.stderr
    asyncio.run(until(lambda: says(desk, allowed, "Accepted", "Accepted"), "its status", 20))
    message = conditions(desk, allowed)["Accepted"]["message"]
    assert "POL103" in message
    assert all(line.isprintable() for line in message.split("\n"))
    assert all(line.isprintable() for line in hook.log.read_text().splitlines())


@pytest.mark.usefixtures("desk")
def test_65_a_policy_of_one_namespace_reaches_no_other(hook: Hooked) -> None:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "namespace": "kube-system"}
    said_no(hook, spec(targetRefs=[target]), "unknown field", "namespace")
    done = hook.apply(policy("p", "x"), words=("-n", "kube-system"))
    assert done.returncode == 1
    assert "does not match" in done.stderr
    assert hook.apply(policy("theirs", "x", namespace="kube-system")).returncode == 0
    done = hook.apply(spec(rules=[{"name": "free", "allow": {"rules": ["theirs/no"]}}]))
    assert "another namespace" in done.stderr
    assert hook.apply(policy("p", "x", namespace="nowhere")).returncode == 1


@pytest.mark.usefixtures("desk")
def test_66_a_signature_counts_for_nothing(hook: Hooked) -> None:
    said_no(hook, spec(signature="MEUC"), "unknown field", "signature")
    signed = policy("p", "x", when="nothing")
    signed["metadata"]["annotations"] = {"policyd.dev/signature": "MEUC"}
    said_no(hook, signed, "CEL002")
