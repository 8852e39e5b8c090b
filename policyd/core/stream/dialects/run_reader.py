"""Responses of runs: Assistants, interactions and predictions of Google's, which tell text, calls and usage apart.

Rule 1: every string is content, as in all calls that are read by their strings; what the model says and calls is told
        apart from it, so that rules on text and tools see the same as in other dialects.
Rule 2: what nobody knows is content and makes nothing partial: these formats still change.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Ending, Path
from policyd.core.stream.dialects.answer import Answer, Mark
from policyd.core.stream.dialects.generic import MEDIA
from policyd.core.stream.dialects.shared import Bill, dumped
from policyd.core.stream.json_strict import dumps


class RunReader(Answer):
    """Reads one response; a dialect brings `_whole` and `_event`."""

    ends_by_itself = False
    structure = MEDIA

    def _complete(self, why: str) -> None:
        """No field is unknown where all of them are read alike."""

    def _document(self, name: str, data: str) -> dict[str, object]:
        if not data.strip() or data.strip() == "[DONE]":
            return {}
        return super()._document(name, data)

    def _use(self, name: object, path: Path, arguments: object, kind: str = "function") -> None:
        """A tool call that stands here as a whole."""
        value = arguments if isinstance(arguments, str) or arguments is None else dumped(arguments)
        if isinstance(name, str) and name:
            self._open_call(-1, name, path, kind=kind)
            if value:
                self._calls[-1][0].arguments = value
                self._tally.add(value, self._calls[-1][1])
            self._close_call(-1)

    def _paid(self, bill: Bill | None, id: object, *, later: bool) -> None:
        """The usage so far. `later`: whoever fetches the response by this id is charged for it."""
        try:
            self._bill(bill, final=True)
        except Malformed as failure:
            self._partial(failure.reason)
        if bill is not None and later and isinstance(id, str):
            self.response.fetched = id

    def _unpaid(self) -> None:
        """Nothing is known yet of what it costs: that is charged when the response is fetched."""
        self._tally.later()
        self._stand = self._stand._replace(stopped=True)

    def _ending(self, mark: Mark, end: Ending) -> bytes:  # noqa: ARG002
        said = {"error": end.marked({"message": end.text, "type": "policy_refusal"})}
        return b"event: error\ndata: " + dumps(said).encode() + b"\n\n"


def number(said: object, *names: str) -> int | None:
    """The first of these members that is a count."""
    if not isinstance(said, dict):
        return None
    found = (said.get(name) for name in names)
    return next((one for one in found if type(one) is int and 0 <= one < 1 << 53), None)


def members(value: object, name: str) -> list[tuple[int, dict[str, object]]]:
    """The objects of a list, and where they stand in it."""
    listed = value.get(name) if isinstance(value, dict) else None
    return [
        (place, one) for place, one in enumerate(listed if isinstance(listed, list) else []) if isinstance(one, dict)
    ]


def below(value: object, name: str) -> dict[str, object]:
    """A member that is an object; empty for another."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
