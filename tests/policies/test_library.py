"""The policies that ship compile, name their intent, and do what their first lines say."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.adapters.prices import load_prices
from policyd.cli.cases.report import as_text
from policyd.cli.test import run
from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Severity
from tests.driving import Bed, answer_of, chat, stream_of

LIBRARY = Path(__file__).parents[2] / "policies"
FILES = sorted(LIBRARY.glob("*/policy.yaml"))


def enforced(name: str) -> str:
    """The text of a policy, enforced: what ships enforces nothing until somebody says so."""
    return (LIBRARY / name / "policy.yaml").read_text().replace("mode: Monitor", "mode: Full")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_it_compiles_and_enforces_nothing_yet(file: Path) -> None:
    compiled = compile_documents([(str(file), file.read_text())])

    assert compiled.policy_set is not None
    assert not [issue for issue in compiled.issues if issue.severity is Severity.ERROR]
    assert {policy.mode for policy in compiled.policy_set.policies} == {"Monitor"}
    assert file.read_text().startswith("# ")


def test_every_policy_has_cases_and_every_rule_is_seen_on_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    report = run([LIBRARY], load_prices(None), least=100)

    assert report.failed == 0, as_text(report)
    assert report.covered, as_text(report)
    assert {case.suite.document.file for case in report.cases} == {
        str(file.with_name("policy.test.yaml")) for file in FILES
    }
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_it_says_why_it_is_there_and_what_to_change(file: Path) -> None:
    reason = [line for line in file.read_text().split("apiVersion:")[0].splitlines() if line.startswith("#")]

    assert len(reason) >= 5
    assert any(line.startswith("# To change: ") for line in reason)
    assert any(line.startswith("# Know: ") for line in reason)
    assert f"({file.parent.name}/policy.yaml)" in (LIBRARY / "README.md").read_text()


def test_credentials_are_replaced_and_a_private_key_never_begins() -> None:
    key = "sk-proj-" + "a1B2" * 12
    bed = Bed(enforced("secrets"))

    out = bed.call(body=chat(f"my key is {key}", stream=True), chunks=stream_of("yours: ", key[:20], key[20:], " ok"))
    cut = bed.call(body=chat(stream=True), chunks=stream_of("here: -----BEGIN RSA ", "PRIVATE KEY-----\n", "MIIabc"))

    assert key not in (out.sent or b"").decode()
    assert out.text == "yours: [credential removed] ok"
    assert "BEGIN" not in cut.text
    assert "MII" not in cut.text


def test_what_is_not_understood_is_refused() -> None:
    bed = Bed(enforced("unknown-traffic"))

    assert bed.call(body=b"{}", path="/v1/brand/new").rejected is not None
    assert bed.call(body=chat(), chunks=[answer_of("x")]).rejected is None


def test_only_models_that_were_agreed_on() -> None:
    bed = Bed(enforced("model-allow-list"))

    refused = bed.call(body=chat(model="gpt-5"))

    assert refused.rejected is not None
    assert b"the model gpt-5 is not allowed here" in refused.body
    assert bed.call(body=chat(model="gpt-4o-2024-08-06"), chunks=[answer_of("x")]).rejected is None


def test_an_answer_that_went_silent_is_ended() -> None:
    out = Bed(enforced("runaway-stream")).call(body=chat(stream=True), chunks=stream_of("a", "b"), silent_s=400)

    assert out.record.reason == "answer_too_slow"
