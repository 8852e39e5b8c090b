"""Drives calls: brings the readings that they need, keeps deadlines, and turns their failures into events.

The exchange decides, the enforcer fetches.

Rule 1: no store makes a call wait longer than `Deadlines.store_s`; a late answer is a failure, and judged as one.
Rule 2: a large message is worked on in a thread or in pieces, so that it holds up no other call.
Rule 3: a message for whose answer Envoy waits is answered within `Deadlines.judging_s`, judged or not.
Rule 4: whatever happens, a call that began is settled once and recorded once.
"""

from policyd.enforcer.call import LARGE, LARGE_ENCODED, Call
from policyd.enforcer.driver import Enforcer
from policyd.enforcer.memory import Memory
from policyd.enforcer.ports import AtOnce, CounterStore, Deadlines, RecordSink, answer_of, within

__all__ = [
    "LARGE",
    "LARGE_ENCODED",
    "AtOnce",
    "Call",
    "CounterStore",
    "Deadlines",
    "Enforcer",
    "Memory",
    "RecordSink",
    "answer_of",
    "within",
]
