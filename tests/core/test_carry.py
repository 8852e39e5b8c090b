"""Which policies an Envoy with these upstreams can carry, and what becomes of those that it cannot."""

from __future__ import annotations

import pytest

from policyd.adapters.envoy.carrying import MOST, Carrying
from policyd.adapters.envoy.config import UPSTREAMS_METADATA
from policyd.adapters.policies_kube.good import LastGood
from policyd.core.compile.compiler import Compiler

Files = list[tuple[str, str]]


def policy(name: str, upstream: str = "", note: str = "") -> tuple[str, str]:
    """A file whose second rule reroutes there."""
    action = f"reroute: {{upstream: {upstream}}}" if upstream else "reroute: {model: m}"
    rules = f"[{{name: a, when: request.stream, terminate: {{}}}}, {{name: b, {action}}}]"
    head = f"apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {{name: {name}, namespace: n}}\n"
    return f"{name}.yaml", f"{head}spec:\n  description: '{note}'\n  mode: Full\n  rules: {rules}\n"


def carrying(*told: str) -> Carrying:
    made = Carrying(Compiler())
    for words in told:
        made.hear(((UPSTREAMS_METADATA, words), ("user-agent", "envoy")))
    return made


def refused(made: Carrying, *files: tuple[str, str]) -> list[str]:
    compiled = made(list(files))
    errors = [str(issue) for issue in compiled.issues if issue.code == "POL018"]
    assert (compiled.policy_set is None) == bool(errors)
    return errors


@pytest.mark.parametrize(
    ("told", "wanted", "fits"),
    [
        ((), "backup", True),  # no Envoy has said anything
        (("openai",), "", True),
        (("openai,backup",), "backup", True),
        (("openai", "openai,backup"), "backup", True),  # one after another they get the new one
        ((" openai , backup ",), "backup", True),
        (("openai",), "backup", False),
        (("openai,backup-2",), "backup", False),
        (("", ","), "backup", True),  # nothing is said
    ],
)
def test_what_an_envoy_can_carry(told: tuple[str, ...], wanted: str, fits: bool) -> None:
    assert bool(refused(carrying(*told), policy("p", wanted))) != fits


def test_what_is_said_of_it() -> None:
    (said,) = refused(carrying("openai,spare"), policy("p", "backup"))
    assert said.startswith(
        "p.yaml:7:89: error POL018: the running Envoy has no upstream `backup`: it has openai, spare ("
    )


def test_what_is_in_force_stays_and_lets_others_come() -> None:
    made, kept = carrying(), policy("kept", "backup")
    assert refused(made, kept) == [] == made.words
    made.hear([(UPSTREAMS_METADATA, "openai")])
    assert len(made.words) == 1
    assert "in force all the same" in made.words[0]
    assert refused(made, kept, policy("other")) == []
    assert len(refused(made, policy("kept", "backup", note="changed"), policy("other"))) == 1
    assert refused(made, kept, policy("other", "openai")) == []


def test_news_are_judged_anew_once() -> None:
    asked: list[None] = []
    made = carrying()
    made.again = lambda: asked.append(None)
    for words in ("openai", "openai", "openai,backup", "backup", "openai,backup"):
        made.hear([(UPSTREAMS_METADATA, words)])
    assert len(asked) == 2


def test_tellings_without_end_are_not_kept() -> None:
    made = carrying(*(f"name-{number}" for number in range(5000)), ",".join(["x" * 700] * 100))
    assert [bool(refused(made, policy("p", f"name-{number}"))) for number in (1, 4000, 4999)] == [False, False, True]
    assert len(made._heard) <= MOST
    assert len(refused(made, policy("p", "x" * 60))) == 1


def test_an_object_that_was_refused_comes_in_force_when_an_envoy_has_its_upstream() -> None:
    made = carrying("openai")
    good = LastGood(made)
    texts = dict([policy("a", "backup"), policy("b")])
    first = good.judge(texts)
    assert [one.name for one in first.policy_set.policies] == ["b"]
    assert list(first.refused) == ["a.yaml"]
    made.hear([(UPSTREAMS_METADATA, "openai,backup")])
    assert list(good.judge(texts).refused) == ["a.yaml"], "remembered, until it is asked anew"
    good.again()
    second = good.judge(texts)
    assert sorted(one.name for one in second.policy_set.policies) == ["a", "b"]
    assert second.refused == {}
