"""Exact counts: what a tokenizer makes of an answer as it comes, and where it has a say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording
from policyd.adapters.vocabularies import CL100K, O200K, OpenAIVocabularies, vocabulary_of
from policyd.cli.dry_run import DryRun
from policyd.cli.main import main
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.estimate import Rate
from policyd.core.model.options import Options
from policyd.core.model.tokens import OPEN, Asked, Count, NoVocabularies, Running, Vocabularies

pytest.importorskip("rs_bpe", reason="the extra `tokens` is not installed")

OPENAI = OpenAIVocabularies()
NAMES = (O200K, CL100K)
ALLOW = "rules: [{name: never, when: 'response.status == 599', terminate: {}}]"
CUT = "rules: [{name: long, when: 'response.output_tokens > 20', terminate: {}}]"
STORY = "It's a long story, told in café «Zürich»: 12345 words;\n\n  naïve_code = {'a': [1, 2]}  # 東京、大阪。 "


def counted(name: str) -> Count:
    count = OPENAI.count(name)
    assert count is not None
    return count


# ---- which models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", O200K), ("gpt-4o-mini-2024-07-18", O200K), ("GPT-4.1-nano", O200K), ("gpt-5", O200K),
        ("gpt-5.1-codex", O200K), ("o1", O200K), ("o3-mini", O200K), ("o4-mini", O200K), ("openai/gpt-4o", O200K),
        ("ft:gpt-4o-mini:acme", O200K), ("chatgpt-4o-latest", O200K), ("gpt-4", CL100K), ("gpt-4-turbo", CL100K),
        ("gpt-3.5-turbo", CL100K), ("gpt-35-turbo", CL100K), ("text-embedding-3-small", CL100K),
        ("text-embedding-ada-002", CL100K), ("", ""), ("gpt-oss-120b", ""), ("gpt-40", ""), ("claude-3", ""),
        ("my-gpt-4o", ""), ("o12", ""), ("gpt-4.9", ""), ("ollama", ""), ("gpt-50", ""), ("mistral/gpt-4o", ""),
    ],
)  # fmt: skip
def test_only_models_of_openai_have_a_vocabulary(model: str, name: str) -> None:
    assert vocabulary_of(model) == name


def test_a_vocabulary_nobody_knows_counts_nothing() -> None:
    assert OPENAI.count("p50k_base") is None and OPENAI.count("") is None
    assert NoVocabularies().of("gpt-4o") == "" and NoVocabularies().count(O200K) is None


def test_half_a_surrogate_pair_is_counted() -> None:
    assert counted(O200K)("a \ud83d b") == counted(O200K)("a ? b")


# ---- counting along -------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["It", "'s", "don't", " a", "word", "naïve", "é", "e\u0301", "Ünlü", "東京", "、", "。", "ですか", "12", "345",
     "x_y", "{", "}", '"', ": ", ",", ";\n", "\n\n", "  ", "\t", "\r\n", "🙂", "👩\u200d👧", "//", "-->", "١٢", "हिन्दी",
     "ไทย", "HTTP", "\x1c", " \u00a0", "\u200b", "'LL", "a/b\n", "…", "—"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=60).map("".join))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), max_size=60))
@example(STORY * 3, [1] * 400)
@example("a \n b  c\n\n\nd", [1] * 20)
def test_a_text_in_pieces_counts_as_the_whole(name: str, text: str, sizes: list[int]) -> None:
    """To the token, where no run of OPEN characters lacks a place to cut; each that does may add some."""
    text = text.encode("utf-8", "replace").decode()
    count, at, running = counted(name), 0, Running(counted(name))
    for size in [*sizes, len(text)]:
        piece, at = text[at : at + size], at + size
        if piece:
            running.add(piece)
    runs = len(text) // OPEN
    assert abs(running.tokens - count(text)) <= 3 * runs
    if not runs or text.startswith(STORY):
        assert running.tokens == count(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["東京都庁舎展望室" * 200, "x" * 3000, "3fA9/bC0" * 300, " " * 2000, "=" * 2000])
def test_what_has_no_place_to_cut_is_near(name: str, text: str) -> None:
    running = Running(counted(name))
    for at in range(0, len(text), 3):
        running.add(text[at : at + 3])
    whole = counted(name)(text)
    assert whole <= running.tokens <= whole + -(-len(text) // OPEN) * 2


def test_what_is_counted_again_is_bounded() -> None:
    asked: list[int] = []

    def count(text: str) -> int:
        asked.append(len(text))
        return 1

    running = Running(count)
    for _ in range(1000):
        running.add("x")
    assert max(asked) <= OPEN + 1 and len(asked) == 1000


def test_a_request_is_its_texts_its_marks_and_its_tools() -> None:
    count = counted(O200K)
    assert Asked(["hello world"], messages=1).tokens(count) == 2 + 4 + 3
    assert Asked(["hello world"], ids=7).tokens(count) == 9
    assert Asked(["hello"], tools=[{"name": "f"}]).tokens(count) == 1 + count('{"name":"f"}')
    assert Asked(["hello"], whole=False).tokens(count) is None, "an image is in it"
    assert Asked(["x" * (1 << 20)]).tokens(count) is None, "too long to be counted at once"


# ---- in a call ------------------------------------------------------------------------------------------------------


def recording(
    pieces: Sequence[str], *, model: str = "gpt-4o", usage: int | None = None, rate: Rate | None = None, **more: object
) -> Recording:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello world"}], **more}
    deltas: list[dict[str, object]] = [{"index": 0, "delta": {"content": piece}} for piece in pieces]
    events: list[dict[str, object]] = [{"choices": [one]} for one in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        events.append({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": usage}})
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    data = [*(json.dumps({**head, **event}) for event in events), "[DONE]"]
    return Recording(
        source="made",
        time=1.75e9,
        method="POST",
        scheme="https",
        host="api.openai.com",
        path="/v1/chat/completions",
        headers=(("content-type", "application/json"),),
        body=json.dumps(body).encode(),
        status=200,
        response_headers=(("content-type", "text/event-stream"),),
        chunks=tuple((float(at), f"data: {one}\n\n".encode()) for at, one in enumerate(data)),
        encoded="",
        rates=None if rate is None else {model: rate},
    )


def play(calls: Sequence[Recording], rules: str, vocabularies: Vocabularies | None = OPENAI) -> list[DecisionRecord]:
    text = POLICY.format(rules=rules)
    compiled = compile_documents([("p.yaml", text)])
    assert compiled.policy_set is not None, compiled.issues
    run = DryRun(compiled.policy_set, load_prices(None), Options(observe_all=True), vocabularies=vocabularies)
    return asyncio.run(_play(run, calls))


async def _play(run: DryRun, calls: Sequence[Recording]) -> list[DecisionRecord]:
    return [(await run.play(one)).record for one in calls]


POLICY = """\
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {{name: p, namespace: default}}
spec:
  mode: Full
  {rules}
"""
PIECES = [STORY[at : at + 4] for at in range(0, len(STORY), 4)]


@pytest.mark.parametrize("rules", [ALLOW, "rules: [{name: n, when: 'response.output_tokens > 9999', terminate: {}}]"])
def test_what_the_provider_does_not_tell_is_counted(rules: str) -> None:
    (record,) = play([recording(PIECES)], rules)
    assert record.usage["output_tokens"] == counted(O200K)(STORY)
    assert record.usage["input_tokens"] == 2 + 4 + 3
    assert record.usage["source"] == record.cost_source == "tokenizer"


def test_the_providers_numbers_stand() -> None:
    (record,) = play([recording(PIECES, usage=999)], CUT.replace("20", "2000"))
    assert (record.usage["input_tokens"], record.usage["output_tokens"]) == (50, 999)
    assert record.usage["source"] == "provider"


def test_where_something_else_is_asked_the_input_is_an_estimate_and_says_so() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}]}]
    (record,) = play([recording(PIECES, messages=image)], ALLOW)
    assert record.usage["output_tokens"] == counted(O200K)(STORY)
    assert record.usage["source"] == "estimate"


def test_without_a_vocabulary_nothing_changes() -> None:
    for calls in ([recording(PIECES)], [recording(PIECES, model="llama-3")]):
        for rules in (ALLOW, CUT):
            plain = play(calls, rules, None)
            assert plain == play(calls, rules, NoVocabularies()) and plain[0].usage["source"] == "estimate"
    llama = [recording(PIECES, model="llama-3")]
    assert play(llama, CUT) == play(llama, CUT, None)


def test_a_cut_falls_where_the_count_says() -> None:
    (record,) = play([recording(PIECES)], CUT)
    running, said = Running(counted(O200K)), []
    for piece in PIECES:
        said.append(running.add(piece))
    assert record.event == next(at for at, tokens in enumerate(said) if tokens > 20)


def test_a_capture_tells_what_counted_it() -> None:
    """A dry run counts by what counted, whatever is at hand: by nothing where nothing did."""
    by_nothing, by_o200k = Rate(), Rate(tokenizer=O200K)
    none = play([recording(PIECES)], CUT, None)[0].event
    live = play([recording(PIECES)], CUT)[0].event
    assert none != live
    assert play([recording(PIECES, rate=by_nothing)], CUT)[0].event == none
    assert play([recording(PIECES, rate=by_o200k)], CUT)[0].event == live
    assert play([recording(PIECES, rate=replace(by_o200k, tokenizer="other"))], CUT)[0].event == none
    of_another = replace(recording(PIECES), rates={"llama-3": by_nothing})
    assert play([of_another], CUT)[0].event == live, "of this model nothing is said"


def test_answers_beside_each_other_are_counted_apart() -> None:
    both = recording([])
    deltas = [{"index": choice, "delta": {"content": piece}} for piece in PIECES for choice in (0, 1)]
    ends = [{"index": choice, "delta": {}, "finish_reason": "stop"} for choice in (0, 1)]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    data = [*(json.dumps({**head, "choices": [one]}) for one in (*deltas, *ends)), "[DONE]"]
    both = replace(both, chunks=tuple((0.0, f"data: {one}\n\n".encode()) for one in data))
    rules = f"rules: [{{name: n, when: 'response.output_tokens > {2 * counted(O200K)(STORY)}', terminate: {{}}}}]"
    (record,) = play([both], rules)
    assert record.event is None and record.usage["output_tokens"] == 2 * counted(O200K)(STORY)


def test_nothing_is_counted_while_nobody_reads_it() -> None:
    asked: list[str] = []

    class Watched(OpenAIVocabularies):
        def count(self, name: str) -> Count | None:
            asked.append(name)
            return super().count(name)

    told = [recording(PIECES, usage=9)]
    assert play(told, ALLOW, Watched())[0].usage["output_tokens"] == 9 and not asked
    assert play(told, CUT.replace("20", "2000"), Watched())[0].usage["output_tokens"] == 9 and asked == [O200K]


@pytest.mark.parametrize(("name", "source"), [(O200K, "tokenizer"), ("elsewhere", "estimate")])
def test_a_replay_says_when_it_cannot_count_as_the_capture_did(
    name: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, file, rules = recording(PIECES), tmp_path / "calls.jsonl", tmp_path / "p.yaml"
    request = {"method": "POST", "path": one.path, "headers": {"host": one.host}, "body": one.body.decode()}
    chunks = [{"ms": ms, "data": data.decode()} for ms, data in one.chunks]
    response = {"status": 200, "headers": dict(one.response_headers), "chunks": chunks}
    estimate = {"gpt-4o": asdict(Rate(tokenizer=name))}
    file.write_text(json.dumps({"request": request, "response": response, "estimate": estimate}) + "\n")
    rules.write_text(POLICY.format(rules=ALLOW))
    with pytest.raises(SystemExit):
        main(["replay", "--policies", str(rules), "--format", "json", str(file)])
    said = capsys.readouterr()
    (exchange,) = json.loads(said.out)["exchanges"]
    assert exchange["usage"]["source"] == exchange["cost"]["source"] == source
    assert ("vocabulary that is not at hand" in said.err) == (source == "estimate")


def test_what_only_bears_the_name_is_learned_as_ever() -> None:
    """Somebody's own server calls its model gpt-4o and bills by something else."""
    wrong = play([recording(PIECES, usage=20)] * 12, CUT.replace("20", "2000"))
    first, last = (abs(wrong[at].estimate_error or 0.0) for at in (0, -1))
    assert first > 0.2 and last < 0.1
    true = play([recording(PIECES, usage=counted(O200K)(STORY))] * 12 + [recording(PIECES)], CUT.replace("20", "2000"))
    assert true[-1].usage["source"] == "tokenizer"
