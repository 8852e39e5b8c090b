"""Every store remembers how alike a session's answers were, and comes to the same numbers."""

from __future__ import annotations

from policyd.core.model.counters import SessionCharge, SessionId, SessionReading
from policyd.core.model.sketch import likeness, sketch
from policyd.core.model.steps import Reserve
from tests.contracts.test_counters import DAY, Counting, counting, hold

__all__ = ["counting"]  # the stores, as a fixture


def test_a_session_remembers_how_alike_its_answers_were(counting: Counting) -> None:
    id = SessionId("default", "s")
    said = ["the same once more " * (1 + each % 2) + str(each) * (each % 3) for each in range(12)]
    said[5:5] = [" ".join(map(str, range(start, start + 700))) for start in (0, 10, 2000)]
    expected: list[float] = []
    sketches = [sketch(text, id) for text in said]
    for at, each in enumerate(sketches):
        if at:
            expected.insert(0, likeness(each, sketches[at - 1]))
        counting.settle(f"a{at}", op=f"s{at}", session=SessionCharge(id, 1, 1, sketch=each))
        counting.settle(f"a{at}", op=f"s{at}", session=SessionCharge(id, 1, 1, sketch=each))
        counting.settle(f"b{at}", session=SessionCharge(id, 1, 1))  # one that said nothing is not compared
        session = counting.session(id)
        assert session is not None
        assert session.calls == 2 * at + 2
        assert session.similarity == tuple(expected[:8])  # to the last bit
    assert len({*expected}) > 4
    reserved = counting.runner.run(counting.store.reserve(Reserve("r", "c", (hold(1),), session=id)))
    assert reserved.session is not None
    assert reserved.session.similarity == tuple(expected[:8])
    assert counting.session(SessionId("other", "s")) == SessionReading()
    counting.clock.advance(DAY + 1)
    assert counting.session(id) == SessionReading()
