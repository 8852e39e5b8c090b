"""More for an answer that outlasts what is held for it: asked for ahead of need, and used when it is needed.

Rule 1: what was spent says when more is asked for, how much, and at which event the answer counts, however early it
        came. So a dry run cuts where the call was cut.
Rule 2: one question a slice. Only one that went without an answer is asked again, under its own key.
Rule 3: text waits for an answer that is late. Late is no refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyd.core.exchange.call import Call
from policyd.core.exchange.metering import usage_of
from policyd.core.model.counters import Readings
from policyd.core.model.facts import ResponseFacts
from policyd.core.model.prices import Usage
from policyd.core.model.steps import Extend


@dataclass(slots=True, eq=False)
class Extending:
    """The extensions of one answer. While `need` is set, somebody brings its answer."""

    call: Call
    need: Extend | None = None
    _asked: Extend | None = None  # about the slice that is being spent
    _answer: Readings | None = None  # it came, and does not count yet

    def ahead(self, response: ResponseFacts) -> None:
        """The slice is nearly spent: ask now, and let the text go on."""
        self.call.meter.asked()
        if self._asked is None and response.usage_source != "provider":
            self.need = self._asked = self._question(usage_of(response))

    def covers(self, response: ResponseFacts) -> bool:
        """The slice is spent. False: the text waits for an answer; a refusal makes `exceeded` true at this event."""
        meter, usage = self.call.meter, usage_of(response)
        while not meter.dry and any(gauge.refuses for gauge in meter.spent_out(usage)):
            if response.usage_source == "provider":
                return True  # the bill is final: nothing is left to be saved
            if self._answer is None:
                self._asked = self._asked or self._question(usage)
                self.need = self._asked
                return False
            meter.extend(self._answer, usage)
            self._asked = self._answer = None
        meter.run_dry(usage)
        return True

    def answered(self, readings: Readings, *, waits: bool) -> None:
        """The answer has come. `waits`: text waits for it; if none does, a store that failed is asked again in time."""
        self.need = None
        if waits or not readings.failure:
            self._answer = readings

    def _question(self, usage: Usage) -> Extend:
        call = self.call
        more, observed = call.meter.more(usage), call.meter.observed(usage)
        return Extend(call.next_op("extend"), call.holder, more, observed, call.options.lease_s)
