"""Policies from files: reading them, and keeping the set in force in step with them.

Rule 1: a set that does not compile never replaces one that does.
Rule 2: what is compiled is one state of the directory, never half of two: read, look again, retry until nothing moved.
Rule 3: a folder without policies never replaces one with policies, unless `allow_empty`: an unmounted volume looks the
        same as a folder that somebody has emptied.
Rule 4: whoever holds the current set holds one immutable object; a reload is one reference swap.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from policyd.adapters.aside import aside
from policyd.adapters.errors import NoPolicies, Place, UnreadableInput, reason_of
from policyd.adapters.reloads import Compilation, Compile, Documents, Reload, forbids
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue, PolicyError
from policyd.core.model.route import ObjectName

SUFFIXES = (".yaml", ".yml")
TEST_SUFFIXES = (".test.yaml", ".test.yml")
MAX_BYTES = 128 * 1024 * 1024  # of one file: what the compiler takes, in four bytes a character
POLL_S = 0.2
SETTLE_S = 0.03
PATIENCE = 8  # looks at a directory that keeps changing, before taking what stands still for the length of one read

Signature = tuple[tuple[str, int, int, int, int], ...]
"""(name, device-wide file number, size, modified, changed) of every file"""


# ---- reading --------------------------------------------------------------------------------------------------------


def policy_files(paths: Sequence[Path | str]) -> list[Path]:
    """Every policy file below these files and folders, sorted, each once. Raises UnreadableInput."""
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        for file in _below(path):
            found.setdefault(os.path.realpath(file), file)
    return sorted(found.values(), key=str)


def read_policies(paths: Sequence[Path | str]) -> Documents:
    """Name and text of every policy file below these paths. Raises UnreadableInput."""
    return [(str(file), _text(file)) for file in policy_files(paths)]


def _below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path)
        return
    if not path.exists():
        raise NoPolicies(path, "no such file or folder")
    if not path.is_file():
        raise UnreadableInput(path, "neither a file nor a folder")
    if path.name.endswith(TEST_SUFFIXES):
        raise UnreadableInput(path, "holds test cases, not policies; run `policyd test` on it")
    yield path


def _walk(folder: Path) -> Iterator[Path]:
    """Names that begin with a dot are left out: a mounted ConfigMap keeps a second copy of each file in `..data`."""
    seen: set[str] = set()
    for at, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(at)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(real)
        for name in files:
            if _is_policy(name) and _is_file(file := Path(at, name)):
                yield file


def _is_file(file: Path) -> bool:
    """Raises UnreadableInput for a link to nowhere: its policies were not deleted."""
    if file.is_symlink() and not file.exists():
        raise UnreadableInput(file, "is a link to a file that does not exist")
    return file.is_file()


def _refuse(error: OSError) -> NoReturn:
    raise NoPolicies(str(error.filename), reason_of(error))


def _is_policy(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.endswith(TEST_SUFFIXES) and not name.startswith(".")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    if len(data) > MAX_BYTES:
        raise UnreadableInput(file, f"is larger than {MAX_BYTES // 1024 // 1024} MiB: no policy is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableInput(_place(file, data, error.start), f"not UTF-8: byte 0x{data[error.start]:02x}") from None


def _place(file: Path, data: bytes, offset: int) -> Place:
    before = data[:offset]
    line_start = before.rfind(b"\n") + 1
    return Place(str(file), before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1)


# ---- watching -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class PolicyDirectory:
    """The policy set in force, kept in step with files. `start` once, then `watch` until cancelled."""

    paths: Sequence[Path | str]
    compile: Compile
    report: Callable[[Reload], None] = lambda _: None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    allow_empty: bool = False  # a folder without policies is meant
    refused: Reload | None = None  # the newest reload, if it did not come into force
    _current: PolicySet | None = field(default=None, init=False)
    _seen: Signature | None = field(default=None, init=False)

    @property
    def current(self) -> PolicySet:
        """The set in force. INVARIANT: after `start` there always is one."""
        assert self._current is not None, "start() first"
        return self._current

    @property
    def placeholders(self) -> tuple[str, ...]:
        """None: a set of files with one that cannot be read is refused as a whole."""
        return ()

    @property
    def home(self) -> None:
        """None: policies from files are about every call, whatever its route."""

    def parents(self, route: ObjectName) -> tuple[ObjectName, ...]:  # noqa: ARG002 - of other sources' concern
        """The Gateways of a route: nothing is known of them here."""
        return ()

    @property
    def away(self) -> str:
        """Why where policies come from is out of reach; files never are: one that cannot be read is refused."""
        return ""

    @property
    def unready(self) -> str:
        """Why no new calls should come here; empty while they may."""
        return self.refused.failure if self.refused is not None and self.refused.lost else ""

    def start(self) -> tuple[Issue, ...]:
        """Put the first set in force and give its warnings. Raises UnreadableInput, or PolicyError with all issues."""
        compilation = self.compile(self._steady())
        issues = tuple(compilation.issues)
        if compilation.policy_set is None or forbids(issues):
            raise PolicyError(issues)
        self._current = compilation.policy_set
        return issues

    def again(self) -> None:
        """Judge the files anew at the next look, though none of them has changed."""
        self._seen = None

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Look every `poll_s` seconds, for ever."""
        while True:
            await self.pause(poll_s)
            await self.look()

    async def look(self) -> Reload | None:
        """One look at the files: None when nothing moved since the last one, else what came of it."""
        try:
            if signature(self.paths) == self._seen:
                return None
            documents = await self._settled()
        except UnreadableInput as error:
            return self._unreadable(error)
        return self._tell(self._swap(await aside(partial(self.compile, documents))))

    async def _settled(self) -> Documents:
        """The files of one state. A writer in full swing is waited for, but not for ever."""
        for _ in range(PATIENCE):
            before = signature(self.paths)
            await self.pause(SETTLE_S)
            if signature(self.paths) == before:
                break
        return self._steady()

    def _steady(self) -> Documents:
        for _ in range(PATIENCE):
            before = signature(self.paths)
            documents = read_policies(self.paths)
            if signature(self.paths) == before:
                self._seen = before
                _refuse_empty(before)
                if not self.allow_empty:
                    _refuse_none(self.paths)
                return documents
        raise UnreadableInput(Place(", ".join(map(str, self.paths))), "files keep changing while they are read")

    def _swap(self, compilation: Compilation) -> Reload:
        issues = tuple(compilation.issues)
        new = compilation.policy_set
        if new is None or forbids(issues):
            return Reload("refused", self.current.digest, issues)
        if new.digest == self.current.digest:
            return Reload("unchanged", new.digest, issues)
        self._current = new
        return Reload("loaded", new.digest, issues)

    def _unreadable(self, error: UnreadableInput) -> Reload | None:
        failure = str(error)
        if self.refused and self.refused.failure == failure:
            return None  # said already
        self._seen = None
        lost = isinstance(error, NoPolicies)
        return self._tell(Reload("refused", self.current.digest, failure=failure, lost=lost))

    def _tell(self, reload: Reload) -> Reload:
        self.refused = reload if reload.result == "refused" else None
        self.report(reload)
        return reload


def signature(paths: Sequence[Path | str]) -> Signature:
    """What would change if any of the files did. Raises UnreadableInput."""
    return tuple(_stat(file) for file in policy_files(paths))


def _stat(file: Path) -> tuple[str, int, int, int, int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise UnreadableInput(file, reason_of(error)) from None
    return str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _refuse_empty(files: Signature) -> None:
    """A file of no bytes at all is one whose writer has just begun: taking it would drop its policies for a moment."""
    for name, _, size, _, _ in files:
        if not size:
            raise UnreadableInput(name, "is empty; delete the file to drop its policies")


def _refuse_none(paths: Sequence[Path | str]) -> None:
    """Raises NoPolicies where one of these folders holds no policy file."""
    for path in map(Path, paths):
        if not any(_below(path)):
            raise NoPolicies(path, "holds no policies (`--allow-empty` serves without)")
