"""The published table of what is understood of the recorded traffic is the one that the code gives."""

from __future__ import annotations

import pytest

from policyd.core.model.operations import OPERATIONS
from policyd.core.stream.dialects import registry
from tests import corpus_table

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not corpus_table.CORPUS.is_dir(), reason="the recorded traffic in ../shared/corpus is not here"),
]


def test_the_published_table_is_true() -> None:
    text = corpus_table.PAGE.read_text(encoding="utf-8")
    assert text == corpus_table.page(text), "write it anew: python -m tests.corpus_table"


def test_every_call_in_a_known_language_is_understood_whole() -> None:
    names = {dialect.name for dialect in registry.DIALECTS}
    for (provider, dialect), row in corpus_table.counted().items():
        if dialect in names:
            assert row["full"] == row["calls"], (provider, dialect)
        else:
            assert dialect in OPERATIONS


def test_what_is_no_model_call_never_reads_as_one() -> None:
    rows = corpus_table.counted()
    assert rows["cohere", "rerank"]["full"] == 2
    assert rows["openai", "storage"]["calls"] + rows["openai", "retrieval"]["calls"] >= 100
