"""Policies from files: which files count, and that the set in force is always one good state of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from policyd.adapters.errors import NoPolicies, UnreadableInput
from policyd.adapters.policies_dir import Documents, PolicyDirectory, Reload, policy_files, read_policies
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue, PolicyError, Severity, Span


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")


def names(root: Path, *paths: Path) -> list[str]:
    return [str(file.relative_to(root)) for file in policy_files(paths or [root])]


def test_a_folder_is_read_recursively_and_sorted(tmp_path: Path) -> None:
    tree(tmp_path, "b.yaml", "a.yml", "sub/deep/c.yaml", "a.test.yaml", "b.test.yml", "readme.md", ".hidden.yaml")
    assert names(tmp_path) == ["a.yml", "b.yaml", "sub/deep/c.yaml"]


def test_a_named_file_counts_whatever_its_name(tmp_path: Path) -> None:
    tree(tmp_path, "policy.txt", "b.yaml")
    assert names(tmp_path, tmp_path / "policy.txt", tmp_path) == ["b.yaml", "policy.txt"]


def test_a_file_reached_twice_counts_once(tmp_path: Path) -> None:
    tree(tmp_path, "real/a.yaml")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert len(policy_files([tmp_path, tmp_path / "real" / "a.yaml"])) == 1


def test_a_mounted_configmap_is_read_once(tmp_path: Path) -> None:
    tree(tmp_path, "..2026_01/p.yaml")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    assert names(tmp_path) == ["p.yaml"]


@pytest.mark.parametrize("missing", ["none", "none.yaml", "sub/none"])
def test_a_missing_path_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(UnreadableInput, match=f"{missing}: no such file or folder"):
        policy_files([tmp_path, tmp_path / missing])


def test_a_file_of_test_cases_is_refused_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "a.test.yaml")
    with pytest.raises(UnreadableInput, match="test cases"):
        policy_files([tmp_path / "a.test.yaml"])


def test_a_pipe_is_no_policy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    assert policy_files([tmp_path]) == []
    with pytest.raises(UnreadableInput, match="neither"):
        policy_files([tmp_path / "p.yaml"])


def test_text_is_read_with_its_name_and_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfkind: \xc3\xa9\n")
    assert read_policies([tmp_path]) == [(str(tmp_path / "a.yaml"), "kind: é\n")]


def test_bytes_that_are_no_text_are_refused_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("é: 1\nb: é".encode() + b"\xff\n")
    with pytest.raises(UnreadableInput, match=r"a\.yaml:2:5: not UTF-8: byte 0xff"):
        read_policies([tmp_path])


# ---- the set in force -----------------------------------------------------------------------------------------------


@dataclass
class FakeSet:
    digest: str


@dataclass
class Compiled:
    policy_set: PolicySet | None
    issues: list[Issue]


def compile_words(documents: Documents) -> Compiled:
    """A set is named by its files' words; the word `bad` is an error, `odd` a warning."""
    text = "|".join(text.strip() for _, text in documents)
    severity = Severity.ERROR if "bad" in text else Severity.WARNING
    issues = [Issue(Span("f", 1, 1), "X", severity, text)] if "bad" in text or "odd" in text else []
    good = cast(PolicySet, FakeSet(text)) if "bad" not in text else None
    return Compiled(good, issues)


@dataclass
class Watched:
    """A directory whose every pause runs the next of `meanwhile`: what somebody else does to the files."""

    root: Path
    directory: PolicyDirectory
    reports: list[Reload]
    meanwhile: list[Callable[[], object]]

    def look(self) -> Reload | None:
        return asyncio.run(self.directory.look())

    def write(self, text: str, name: str = "a.yaml") -> None:
        fresh = self.root / f".{name}"
        fresh.write_text(text)
        fresh.replace(self.root / name)  # a new file: a signature of its own, however fast we are


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    reports: list[Reload] = []
    meanwhile: list[Callable[[], object]] = []

    async def pause(_: float) -> None:
        if meanwhile:
            meanwhile.pop(0)()

    (tmp_path / "a.yaml").write_text("one")
    directory = PolicyDirectory([tmp_path], compile_words, reports.append, pause)
    assert directory.start() == ()
    return Watched(tmp_path, directory, reports, meanwhile)


def test_nothing_moved_nothing_said(watched: Watched) -> None:
    before = watched.directory.current
    assert watched.look() is None
    assert watched.directory.current is before
    assert watched.reports == []


def test_a_good_change_comes_into_force(watched: Watched) -> None:
    watched.write("two")
    assert watched.look() == Reload("loaded", "two")
    assert watched.directory.current.digest == "two"
    assert watched.look() is None


def test_added_and_removed_files_are_changes(watched: Watched) -> None:
    watched.write("b", "b.yaml")
    watched.look()
    assert watched.directory.current.digest == "one|b"
    (watched.root / "a.yaml").unlink()
    watched.look()
    assert watched.directory.current.digest == "b"


def test_a_bad_change_keeps_the_last_good_set_and_says_why(watched: Watched) -> None:
    before = watched.directory.current
    watched.write("bad")
    reload = watched.look()
    assert reload is not None
    assert reload.result == "refused"
    assert reload.digest == "one"
    assert [issue.message for issue in reload.issues] == ["bad"]
    assert watched.directory.current is before
    assert watched.directory.refused is reload
    assert watched.look() is None, "said once, not at every look"
    watched.write("three")
    assert watched.look() == Reload("loaded", "three")
    assert watched.directory.refused is None


def test_the_same_words_in_a_new_file_keep_the_set_object(watched: Watched) -> None:
    before = watched.directory.current
    watched.write("one")
    reload = watched.look()
    assert reload is not None
    assert reload.result == "unchanged"
    assert watched.directory.current is before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "a.yaml").write_bytes(b""), "is empty"),
        (lambda root: (root / "a.yaml").write_bytes(b"\xff"), "not UTF-8"),
        (lambda root: root.rename(root.with_name("elsewhere")), "no such file or folder"),
    ],
)
def test_files_that_cannot_be_read_keep_the_last_good_set(
    watched: Watched, spoil: Callable[[Path], object], reason: str
) -> None:
    before = watched.directory.current
    spoil(watched.root)
    reload = watched.look()
    assert reload is not None
    assert reload.result == "refused"
    assert reason in reload.failure
    assert watched.directory.current is before
    assert watched.look() is None
    watched.root.mkdir(exist_ok=True)
    watched.write("again")
    assert watched.look() == Reload("loaded", "again")


def gone(root: Path) -> None:
    (root / "a.yaml").unlink()


def renamed(root: Path) -> None:
    root.rename(root.with_name(f"{root.name}-elsewhere"))


def hidden(root: Path) -> None:
    (root / "a.yaml").rename(root / "a.yaml.bak")


def only_tests(root: Path) -> None:
    (root / "a.yaml").rename(root / "a.test.yaml")


def unmounted(root: Path) -> None:
    """What a mount point looks like without its volume."""
    renamed(root)
    root.mkdir()


def link_to_nowhere(root: Path) -> None:
    renamed(root)
    root.symlink_to(root.with_name("never"))


@pytest.mark.parametrize("lose", [gone, renamed, hidden, only_tests, unmounted, link_to_nowhere])
def test_a_folder_without_policies_keeps_the_last_good_set_and_is_not_ready(
    watched: Watched, lose: Callable[[Path], object]
) -> None:
    before = watched.directory.current
    lose(watched.root)
    reload = watched.look()
    assert reload is not None
    assert (reload.result, reload.lost) == ("refused", True)
    assert watched.directory.current is before
    assert watched.directory.unready == reload.failure != ""
    assert watched.look() is None, "said once, not at every look"
    if watched.root.is_symlink():
        watched.root.unlink()
    watched.root.mkdir(exist_ok=True)
    watched.write("again")
    assert watched.look() == Reload("loaded", "again")
    assert watched.directory.unready == ""


def test_one_of_two_folders_that_loses_its_policies_is_enough(watched: Watched, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "b.yaml").write_text("b")
    watched.directory.paths = [second, watched.root / "a.yaml"]
    watched.look()
    assert watched.directory.current.digest == "b|one" or watched.directory.current.digest == "one|b"
    (second / "b.yaml").unlink()
    reload = watched.look()
    assert reload is not None
    assert reload.lost
    assert "second: holds no policies" in reload.failure


def test_a_link_to_nowhere_is_no_deletion(watched: Watched) -> None:
    (watched.root / "b.yaml").symlink_to("never")
    reload = watched.look()
    assert reload is not None
    assert (reload.result, reload.lost, "b.yaml: is a link" in reload.failure) == ("refused", False, True)
    assert watched.directory.unready == "", "what was good still is"


def test_a_mounted_configmap_that_is_swapped_is_never_lost(tmp_path: Path) -> None:
    """As the kubelet does it: a new folder, `..data` renamed over, then links of keys that are gone are removed."""
    reports: list[Reload] = []
    for name in ("..1", "..2", "..3"):
        tree(tmp_path, f"{name}/p.yaml")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")

    async def pause(_: float) -> None: ...

    directory = PolicyDirectory([tmp_path], compile_words, reports.append, pause)
    directory.start()
    for name in ("..2", "..3"):
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        asyncio.run(directory.look())
    assert [(one.result, one.digest) for one in reports] == [("loaded", "# ..2/p.yaml"), ("loaded", "# ..3/p.yaml")]
    (tmp_path / "..4").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..4")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    asyncio.run(directory.look())
    assert not reports[-1].lost, "the link is still there"
    (tmp_path / "p.yaml").unlink()
    asyncio.run(directory.look())
    assert (reports[-1].lost, directory.current.digest) == (True, "# ..3/p.yaml")


def test_an_empty_folder_is_refused_at_start_and_an_empty_set_may_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NoPolicies, match=r"holds no policies .*--allow-empty"):
        PolicyDirectory([tmp_path], compile_words).start()
    reports: list[Reload] = []

    async def pause(_: float) -> None: ...

    directory = PolicyDirectory([tmp_path], compile_words, reports.append, pause, allow_empty=True)
    assert directory.start() == ()
    (tmp_path / "a.yaml").write_text("one")
    asyncio.run(directory.look())
    (tmp_path / "a.yaml").unlink()
    asyncio.run(directory.look())
    assert [one.digest for one in reports] == ["one", ""]
    tmp_path.rename(tmp_path.with_name("moved"))
    asyncio.run(directory.look())
    assert directory.unready, "a folder that is missing is not an empty one"
    tmp_path.with_name("moved").rename(tmp_path)


def test_two_files_written_one_after_the_other_are_never_seen_half(watched: Watched) -> None:
    watched.write("b1", "b.yaml")
    watched.look()
    watched.write("a2")
    watched.meanwhile += [lambda: watched.write("b2", "b.yaml"), lambda: None]
    watched.look()
    assert [reload.digest for reload in watched.reports] == ["one|b1", "a2|b2"]


def test_a_writer_who_never_stops_is_not_waited_for_without_end(watched: Watched) -> None:
    watched.write("w0")
    watched.meanwhile += [lambda n=n: watched.write(f"w{n}") for n in range(1, 100)]
    watched.look()
    assert watched.directory.current.digest.startswith("w")
    assert len(watched.meanwhile) > 80


def test_a_file_that_moves_while_it_is_compiled_is_looked_at_again(watched: Watched) -> None:
    def compile_and_move(documents: Documents) -> Compiled:
        if documents[0][1] == "two":
            watched.write("three")
        return compile_words(documents)

    watched.directory.compile = compile_and_move
    watched.write("two")
    watched.look()
    assert watched.directory.current.digest == "two"
    watched.look()
    assert watched.directory.current.digest == "three"


def test_a_bad_set_is_refused_at_start_with_all_issues(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("bad")
    with pytest.raises(PolicyError) as error:
        PolicyDirectory([tmp_path], compile_words).start()
    assert [issue.message for issue in error.value.issues] == ["bad"]


def test_warnings_do_not_refuse(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("odd")
    directory = PolicyDirectory([tmp_path], compile_words)
    assert [issue.message for issue in directory.start()] == ["odd"]
    assert directory.current.digest == "odd"
