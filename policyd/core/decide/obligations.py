"""Constrains, merged: the first wins a path or a header, the lowest cap and pace win, the rest unites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from policyd.core.model.decision import Constrain, Redaction
from policyd.core.model.headers import HeaderEdit, Headers


@dataclass(frozen=True, slots=True)
class Obligations:
    """Every constrain that is in force, merged."""

    caps: tuple[tuple[str, int], ...] = ()
    sets: tuple[tuple[tuple[str, ...], object], ...] = ()
    tools_allow: tuple[frozenset[str], ...] = ()  # each of these lists must allow a tool
    tools_deny: frozenset[str] = frozenset()
    inject_system: tuple[str, ...] = ()
    request_headers: HeaderEdit = HeaderEdit()
    response_headers: HeaderEdit = HeaderEdit()
    redactions: tuple[Redaction, ...] = ()
    pace: float | None = None


@dataclass(slots=True)
class Merge:
    """Constrains as they are added, strictest first."""

    caps: dict[str, int] = field(default_factory=dict)
    sets: dict[tuple[str, ...], object] = field(default_factory=dict)
    tools_allow: list[frozenset[str]] = field(default_factory=list)
    tools_deny: frozenset[str] = frozenset()
    inject: list[str] = field(default_factory=list)
    headers: dict[tuple[str, str], str | None] = field(default_factory=dict)  # (direction, name) -> value, None removes
    redactions: list[Redaction] = field(default_factory=list)
    pace: float | None = None
    conflicts: list[str] = field(default_factory=list)

    def add(self, who: str, action: Constrain) -> None:
        """One more constrain; `who` asks for it, as a conflict will name it."""
        self._numbers(action.cap, action.pace)
        for path, value in action.set:
            self._set(path, value, who)
        self._tools(action.tools_allow, action.tools_deny)
        self._inject((action.inject_system,) if action.inject_system else ())
        self._headers("request", action.request_headers, who)
        self._headers("response", action.response_headers, who)
        self._redact((action.redact,) if action.redact else ())

    def _numbers(self, caps: Iterable[tuple[str, int]], pace: float | None) -> None:
        for name, value in caps:
            self.caps[name] = min(value, self.caps.get(name, value))
        if pace is not None:
            self.pace = pace if self.pace is None else min(self.pace, pace)

    def _set(self, path: tuple[str, ...], value: object, who: str) -> None:
        for known in self.sets:
            shorter = min(len(known), len(path))
            if known[:shorter] == path[:shorter]:
                if known != path or self.sets[known] != value:
                    self.conflicts.append(f"{who}: set {'.'.join(path)}")
                return
        self.sets[path] = value

    def _tools(self, allow: frozenset[str] | None, deny: frozenset[str]) -> None:
        if allow is not None and allow not in self.tools_allow:
            self.tools_allow.append(allow)
        self.tools_deny |= deny

    def _inject(self, texts: Iterable[str]) -> None:
        self.inject.extend(text for text in texts if text not in self.inject)

    def _headers(self, direction: str, edit: HeaderEdit, who: str) -> None:
        wanted: list[tuple[str, str | None]] = [*edit.set, *((name, None) for name in edit.remove)]
        for name, value in wanted:
            key = (direction, name)
            if key not in self.headers:
                self.headers[key] = value
            elif self.headers[key] != value:
                self.conflicts.append(f"{who}: {direction} header {name}")

    def _redact(self, redactions: Iterable[Redaction]) -> None:
        self.redactions.extend(one for one in redactions if one not in self.redactions)

    def _edit(self, direction: str) -> HeaderEdit:
        mine = [(name, value) for (where, name), value in self.headers.items() if where == direction]
        sets: Headers = tuple((name, value) for name, value in mine if value is not None)
        return HeaderEdit(sets, tuple(name for name, value in mine if value is None))

    def obligations(self) -> Obligations:
        return Obligations(
            caps=tuple(self.caps.items()),
            sets=tuple(self.sets.items()),
            tools_allow=tuple(self.tools_allow),
            tools_deny=self.tools_deny,
            inject_system=tuple(self.inject),
            request_headers=self._edit("request"),
            response_headers=self._edit("response"),
            redactions=tuple(self.redactions),
            pace=self.pace,
        )
