"""Policies that are gone: the last good set judges the calls, and the replica is not ready."""

from __future__ import annotations

import httpx
import pytest

from policyd.cli.stage import Stage
from tests.envoy.stack import policy, stack

pytestmark = pytest.mark.envoy

CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
NO = policy("no", "rules: [{name: no, when: 'request.model == \"gpt-4o\"', terminate: {status: 403}}]")


def ready(stage: Stage) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{stage.admin}/readyz", trust_env=False)


def call(stage: Stage) -> int:
    return httpx.post(f"{stage.url}/v1/chat/completions", json=CALL, trust_env=False).status_code


def test_a_folder_that_is_emptied_or_renamed_opens_nothing() -> None:
    with stack({"no.yaml": NO}) as stage:
        assert (ready(stage).status_code, call(stage)) == (200, 403)
        kept = stage.policies.with_name("kept")
        stage.policies.rename(kept)
        stage.wait_until(lambda: ready(stage).status_code == 503, "/readyz to say that the folder is missing")
        assert "no such file or folder" in ready(stage).text
        assert call(stage) == 403
        stage.policies.mkdir()
        stage.wait_until(lambda: "holds no policies" in ready(stage).text, "/readyz to say that it is empty")
        assert (ready(stage).status_code, call(stage)) == (503, 403)
        stage.policies.rmdir()
        kept.rename(stage.policies)
        stage.wait_until(lambda: ready(stage).status_code == 200, "the folder to be back")
        assert call(stage) == 403


def test_an_empty_folder_may_be_asked_for() -> None:
    with stack({"no.yaml": NO}, serve=["--allow-empty"]) as stage:
        (stage.policies / "no.yaml").unlink()
        stage.wait_until(lambda: call(stage) == 200, "calls to pass")
        assert ready(stage).status_code == 200
