"""The place that a call is sent to."""

from __future__ import annotations

import pytest

from policyd.core.compile.compiler import compile_documents
from policyd.core.model.steps import PassRequestBody, PassRequestHeaders
from tests.driving import Bed, chat, policy

ODD = "/V1/chat/./completions;x=1/?a=b"
CHAT = "/v1/chat/completions"


def path_sent(bed: Bed, path: str) -> str:
    out = bed.call(body=chat(), path=path)
    edits = [step.edit for step in out.steps if isinstance(step, PassRequestHeaders | PassRequestBody)]
    return next((value for edit in edits for name, value in edit.set if name == ":path"), path)


@pytest.mark.parametrize(
    "rule", ["{name: r, when: 'request.model == \"x\"', terminate: {}}", "{name: r, constrain: {cap: {max_tokens: 5}}}"]
)
def test_the_judged_path_is_forwarded_where_something_is_enforced(rule: str) -> None:
    for mode, path in (("Full", f"{CHAT}?a=b"), ("Monitor", ODD)):
        assert path_sent(Bed(policy(f"rules: [{rule}]", mode=mode)), ODD) == path


def test_rules_see_the_normal_path_under_monitor_too() -> None:
    bed = Bed(
        policy(
            f"match: {{paths: [{CHAT}]}}\nrules: [{{name: r, when: 'request.path == \"{CHAT}\"', terminate: {{}}}}]",
            mode="Monitor",
        )
    )
    assert bed.call(body=chat(), path=ODD).rule("r").outcome.value == "matched"


def test_a_path_without_a_normal_form_is_rejected_where_something_is_enforced() -> None:
    spec = "match: {operations: [embedding]}\nrules: [{name: r, terminate: {}}]"
    for mode, status in (("Full", 400), ("Monitor", None)):
        out = Bed(policy(spec, mode=mode)).call(body=chat(), path="/v1/chat%2Fcompletions")
        assert (out.rejected.status if out.rejected else None) == status


@pytest.mark.parametrize(
    ("glob", "warned"),
    [
        (CHAT, False),
        ("/v1/*", False),
        ("*completions", False),
        ("/v1/chat/completions/", True),
        ("/V1/*", True),
        ("/v1/*/", True),
        ("/v1/a%20b", True),
        ("v1/chat", True),
    ],
)
def test_check_warns_of_a_path_that_never_comes(glob: str, warned: bool) -> None:
    text = policy(f"match: {{paths: ['{glob}'], operations: ['*']}}\nrules: [{{name: r, terminate: {{}}}}]")
    assert ("POL120" in [issue.code for issue in compile_documents([("p.yaml", text)]).issues]) is warned


def test_calls_without_a_dialect_of_their_own_are_read_and_cost_nothing() -> None:
    bed = Bed(
        policy(
            """
counters: [{name: spend, key: caller.user, charge: Cost, window: {lifetime: 1h}, limit: 1 USD}]
rules:
  - {name: asked, when: 'request.content.contains("zugzwang")', terminate: {}}
  - {name: told, when: 'response.text.contains("zugzwang")', terminate: {}}
"""
        )
    )
    users = [("x-user-id", "ann")]
    asked = bed.call(body=b'{"prompt": "zugzwang"}', path="/v1/images/generations", headers=users)
    kept = bed.call(body=b'{"instructions": "be kind"}', path="/v1/assistants", headers=users, chunks=[b'{"id": "a"}'])
    told = bed.call(
        path="/v1/threads/t/messages", method="GET", headers=users, chunks=[b'{"data": [{"x": "zugzwang"}]}']
    )
    binary = bed.call(body=b"\x89PNG", path="/v1/files", headers=users)

    assert [one.rejected.status if one.rejected else 0 for one in (asked, kept, told, binary)] == [403, 0, 403, 503]
    assert (kept.record.operation, kept.record.cost_nano) == ("storage", 0)
