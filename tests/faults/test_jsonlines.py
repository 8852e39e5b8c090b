"""A disk that fails loses lines, counted and said so; it never stops or slows whoever puts them."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.jsonlines import LineFile, process_file


def lines(path: Path) -> list[dict[str, object]]:
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n"), "whole lines only"
    return [json.loads(line) for line in data.splitlines()]


def numbered(file: LineFile, count: int) -> None:
    for number in range(count):
        file.put(b'{"n":%d}' % number)


def test_lines_are_written_in_order_and_flushed_by_close(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "sub" / "a.jsonl").open()
    numbered(file, 2000)
    file.close()
    file.close()
    assert [line["n"] for line in lines(file.path)] == list(range(2000))
    assert (file.dropped, file.failure) == (0, "")
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_the_making_of_a_line_is_the_threads_work(tmp_path: Path) -> None:
    makers: list[str] = []

    def make() -> bytes:
        makers.append(threading.current_thread().name)
        return b"{}"

    file = LineFile(tmp_path / "a.jsonl").open()
    file.put(make)
    file.close()
    assert makers == ["lines to a.jsonl"]


def test_a_full_queue_drops_and_says_so(tmp_path: Path) -> None:
    gate = threading.Event()

    def held(fd: int, data: memoryview) -> int:
        gate.wait(10)
        return os.write(fd, data)

    told: list[int] = []
    file = LineFile(tmp_path / "a.jsonl", max_lines=10, write=held, clock=lambda: 5.0, on_dropped=told.append).open()
    results = [file.put(b"{}") for _ in range(1100)]  # the thread takes one batch at most while the disk hangs
    gate.set()
    file.close()
    written = lines(file.path)
    lost = results.count(False)
    assert lost >= 1100 - 512 - 10
    assert sum(told) == file.dropped == lost
    gaps = [line for line in written if line]
    assert all(gap["kind"] == "dropped" and gap["time"] == 5.0 for gap in gaps)
    assert sum(int(str(gap["count"])) for gap in gaps) == lost
    assert len(written) - len(gaps) == 1100 - lost


def test_bytes_in_memory_are_bounded_too(tmp_path: Path) -> None:
    gate = threading.Event()

    def held(fd: int, data: memoryview) -> int:
        gate.wait(10)
        return os.write(fd, data)

    file = LineFile(tmp_path / "a.jsonl", max_bytes=100, write=held).open()
    assert file.put(lambda: b"{}", 90)
    assert not file.put(lambda: b"{}", 20)
    gate.set()
    file.close()
    assert file.dropped == 1


def failing(error: int, times: int, part: int = 0) -> Callable[[int, memoryview], int]:
    """A disk that takes `part` bytes of a write and then fails, `times` times."""
    left = [times, part]

    def write(fd: int, data: memoryview) -> int:
        if left[0] and left[1]:
            left[1] = 0
            return os.write(fd, data[:part])
        if left[0]:
            left[0] -= 1
            left[1] = part
            raise OSError(error, os.strerror(error))
        return os.write(fd, data)

    return write


@pytest.mark.parametrize("part", [0, 3])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failing_disk_loses_whole_lines_and_the_file_says_how_many(tmp_path: Path, error: int, part: int) -> None:
    file = LineFile(tmp_path / "a.jsonl", write=failing(error, 1, part)).open()
    numbered(file, 512)  # one batch, lost
    file.close()
    written = lines(file.path)
    said = sum(int(str(line["count"])) for line in written if line.get("kind") == "dropped")
    kept = [line["n"] for line in written if "n" in line]
    assert said == file.dropped > 0
    assert said + len(kept) == 512
    assert kept == list(range(512 - len(kept), 512))


def test_a_line_that_could_not_be_cut_off_is_at_least_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size: int) -> None:  # noqa: ARG001
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "ftruncate", refuse)
    file = LineFile(tmp_path / "a.jsonl", write=failing(errno.ENOSPC, 1, part=3)).open()
    file.put(b'{"n":1}')
    file.close()
    torn, gap = file.path.read_bytes().splitlines()
    assert torn == b'{"n'
    assert json.loads(gap)["count"] == 1


def test_a_disk_that_never_recovers_does_not_hold_the_end(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.jsonl", write=failing(errno.ENOSPC, 10**9)).open()
    numbered(file, 100)
    file.close()
    assert file.dropped == 100
    assert file.failure == "no space left on device"
    assert file.path.read_bytes() == b""


def test_a_record_that_json_cannot_say_is_lost_alone(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.jsonl").open()
    file.put(lambda: json.dumps({"x": {1, 2}}).encode())
    file.put(b'{"n":1}')
    file.close()
    assert file.dropped == 1
    assert {"n": 1} in lines(file.path)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreadableInput, match="cannot be written: file exists"):
        LineFile(tmp_path / "file" / "a.jsonl").open()


def test_no_two_starts_share_a_file(tmp_path: Path) -> None:
    first = LineFile(process_file(tmp_path, "records", 0.0)).open()
    second = LineFile(process_file(tmp_path, "records", 0.0)).open()
    first.close()
    second.close()
    assert first.path.name == f"records-19700101T000000Z-{os.getpid()}.jsonl"
    assert second.path != first.path
