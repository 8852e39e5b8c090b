"""What a review is answered, without an API server: the verdict of `policyd check`, its places, and its doubts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.policies_kube.good import Policy, policy_of
from policyd.adapters.policies_kube.shallow import DEEPEST, loads
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.source import read_documents
from policyd.operator.admission import KINDS, LONGEST, MOST_TOLD, MOST_WARNED, NoReview, asked, judged
from tests.k8s.objects import policy
from tests.k8s.test_objects import INVALID, LIBRARY, VALID, checked, each


def answered(
    document: dict[str, Any], *beside: Policy, operation: str = "CREATE", old: dict[str, Any] | None = None
) -> dict[str, Any]:
    request = {"uid": "u-1", "operation": operation, "object": document, "oldObject": old}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    made = judged(asked(json.dumps(body).encode()), lambda names: [one for one in beside if one.name in names])
    assert (made["apiVersion"], made["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = made["response"]
    assert response.pop("uid") == "u-1"
    return response


@pytest.mark.parametrize("file", [*VALID, *LIBRARY, *INVALID], **each)
def test_its_verdict_is_that_of_check(file: Any) -> None:
    documents, broken = read_documents(file.name, file.read_text())
    document: Any = documents[0].value if documents and not broken else {}
    if document.get("kind") not in KINDS or "policyd.dev/" not in document["apiVersion"]:
        pytest.skip("no object of a kind that the API server has")
    if "name" not in document["metadata"]:
        pytest.skip("the API server asks nobody about it")
    response = answered(document)
    assert response["allowed"] is not bool(checked(file)), response
    for cause in response.get("status", {}).get("details", {}).get("causes", ()):
        assert cause["field"].startswith(("spec", "metadata", "apiVersion", "kind"))


def test_every_mistake_is_told_with_its_field_and_its_place() -> None:
    document = policy("p", "x", when="request.modle == 1")
    document["spec"]["rules"][0]["name"] = "no good"
    document["spec"]["counters"] = [{"name": "c", "key": "callr.user", "charge": "Cost", "window": {"lifetime": "x"}}]
    status = answered(document)["status"]
    causes = {cause["field"]: cause["message"] for cause in status["details"]["causes"]}
    assert set(causes) == {
        "spec.rules[0].when",
        "spec.rules[0].name",
        "spec.counters[0].key",
        "spec.counters[0].window.lifetime",
    }
    held = policy_of(document)
    line = next(at for at, text in enumerate(held.text.splitlines(), 1) if "modle" in text)
    assert causes["spec.rules[0].when"].startswith(f"llmpolicy/default/p:{line}:")
    assert "did you mean `request.model`" in causes["spec.rules[0].when"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert all(text in status["message"] for text in causes.values())


def test_what_check_doubts_is_a_warning_short_enough_to_arrive() -> None:
    document = policy("p", "x", when="request.max_tokens > 5")
    document["spec"]["mode"] = "Monitor"
    response = answered(document)
    assert response["allowed"] is True
    assert any(words.startswith("spec.mode: POL101") for words in response["warnings"])
    assert all(words.isprintable() and len(words) <= LONGEST for words in response["warnings"])
    many = policy("p", "x")
    rule = many["spec"]["rules"][0]
    many["spec"]["rules"] = [{**rule, "name": f"r{at}", "when": "request.max_tokens > 5"} for at in range(64)]
    assert len(answered(many)["warnings"]) == MOST_WARNED


def test_more_mistakes_than_anybody_reads_are_counted() -> None:
    document = policy("p", "x")
    rule = document["spec"]["rules"][0]
    document["spec"]["rules"] = [{**rule, "name": f"r{at}", "when": "nothing"} for at in range(64)]
    causes = answered(document)["status"]["details"]["causes"]
    assert len(causes) == MOST_TOLD + 1
    assert causes[-1]["message"] == f"and {64 - MOST_TOLD} more mistakes"


def test_what_is_wrong_already_may_lose_its_labels_but_no_more() -> None:
    wrong = policy("p", "x", when="nothing")
    labelled = {**wrong, "metadata": {**wrong["metadata"], "labels": {"a": "b"}, "finalizers": []}}
    response = answered(labelled, operation="UPDATE", old=wrong)
    assert response["allowed"] is True
    assert "not in force" in response["warnings"][0] and "CEL002" in response["warnings"][1]
    worse = policy("p", "y", when="nothing")
    assert answered(worse, operation="UPDATE", old=wrong)["allowed"] is False


def test_what_goes_is_never_refused() -> None:
    assert answered(policy("p", "x", when="nothing"), operation="DELETE") == {"allowed": True}


def test_an_exemption_is_looked_up_among_what_is_applied() -> None:
    other = policy_of(policy("other", "x"))
    theirs = policy_of(policy("other", "x", namespace="elsewhere"))
    document = policy("p", "x")
    document["spec"]["rules"] = [{"name": "free", "allow": {"rules": ["other/no"]}}]
    assert "warnings" not in answered(document, other)
    assert "no rule is called" in answered(document)["warnings"][0]
    assert "another namespace" in answered(document, theirs)["warnings"][0]


def test_nothing_that_an_author_writes_forges_a_line() -> None:
    evil = '"\n2026 ERROR all is well\x1b[31m\u202e'
    for when in (evil, f'request.text.matches("({evil}', f"request[{evil}]"):
        response = answered(policy("p", "x", when=when))
        assert response["allowed"] is False
        assert all(cause["message"].isprintable() for cause in response["status"]["details"]["causes"])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_whatever_stands_anywhere_in_a_review_it_is_answered_or_no_review(data: st.DataObject) -> None:
    body: Any = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u"}}
    body["request"] |= {"operation": "UPDATE", "object": policy("p", "x"), "oldObject": policy("p", "y")}
    at = body
    while isinstance(at, dict | list) and at:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            at[key] = data.draw(JUNK)
            break
        at = at[key]
    try:
        made = judged(asked(json.dumps(body).encode()), lambda _: [])
    except NoReview as error:
        assert str(error).isprintable()
        return
    response = made["response"]
    assert response["uid"] == body["request"]["uid"]
    told = response.get("status", {}).get("message", "").split("\n") + response.get("warnings", [])
    assert all(line.isprintable() for line in told)


@pytest.mark.parametrize("depth", [DEEPEST - 10, 500, 9_000])
def test_what_is_deep_is_refused_and_its_neighbours_are_read(depth: int) -> None:
    deep = json.dumps(policy("deep", "x")).replace(
        '"Full"', '"Full", "params": {"x": ' + "[" * depth + "]" * depth + "}"
    )
    page = loads(f'{{"items": [{deep}, {json.dumps(policy("p", "x"))}]}}'.encode())
    files = [(one.file, one.text) for one in map(policy_of, page["items"])]
    assert [issue.span.file for issue in compile_documents(files).issues if issue.severity == "error"] == [
        "llmpolicy/default/deep"
    ]
    assert page["items"][1] == policy("p", "x")
