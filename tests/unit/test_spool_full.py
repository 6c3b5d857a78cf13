"""A spool that cannot keep a record says so, leaves nothing half-written, and recovers."""

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from auditlog.reporting import Reporter
from auditlog.sink.spool.inspection import verify
from auditlog.sink.spool.spool import Spool
from spool_scene import (
    drained,
    left_behind,
    numbers,
    put,
    recovered,
    row,
    segments,
    spool_at,
)

CAP = 256 * 1024
LONG = "x" * 4000


def fill(spool: Spool, *, low_priority: bool = False, start: int = 0) -> int:
    """Append until there is no room; return the number that found none."""
    number = start
    while spool.append(0, row(number, text=LONG), low_priority):
        number += 1
        assert number < 100_000
    return number


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in segments(folder))


def until(condition: Callable[[], bool]) -> None:
    """Wait for what comes by itself after a pause."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_cap_is_kept_and_its_last_tenth_is_for_what_matters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """First the unimportant are refused, then all; one line says so, and what to do."""
    spool = spool_at(tmp_path, max_bytes=CAP)
    first = fill(spool, low_priority=True)
    assert CAP * 0.85 <= on_disk(tmp_path) <= CAP * 0.9
    second = fill(spool, start=first)
    assert second > first
    assert CAP * 0.95 <= on_disk(tmp_path) <= CAP
    assert not spool.append(0, row(0, text=LONG), True)
    assert "allow more" in spool.failing
    (line,) = messages(caplog)
    assert line.startswith("auditlog.spool_full: ")
    assert drained(spool) == list(range(second))


def test_room_comes_back_when_rows_are_settled(tmp_path: Path) -> None:
    """By whole segments, over and over; nothing is lost or invented by the refusals."""
    spool = spool_at(tmp_path, max_bytes=CAP)
    kept: list[int] = []
    start = 0
    for _ in range(5):
        end = fill(spool, start=start)
        assert on_disk(tmp_path) <= CAP
        kept += range(start, end)
        taken = spool.take((end - start) // 2 or 1, CAP)
        assert taken is not None
        assert numbers(taken) == kept[: taken.size]
        spool.settle(taken, taken.size)
        del kept[: taken.size]
        start = end
    assert drained(spool) == kept
    assert spool.append(0, row(1), True)
    assert (spool.failing, spool.lost()) == ("", [])


def test_adopted_lanes_count_against_the_cap(tmp_path: Path) -> None:
    """Until they are emptied."""
    left_behind(tmp_path, range(40), max_bytes=CAP)
    spool = spool_at(tmp_path, max_bytes=on_disk(tmp_path) + 16 * 1024)
    put(spool, [0])
    assert spool.adopt()
    few = fill(spool)
    assert few < 3
    assert recovered(spool) == list(range(40))
    until(lambda: spool.append(0, row(few, text=LONG), False))


def test_cap_that_holds_nothing_refuses_everything(tmp_path: Path) -> None:
    """Too small for a header and a row."""
    spool = spool_at(tmp_path, max_bytes=8 * 1024)
    assert not spool.append(0, row(0), False)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_row_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """It would be taken for damage."""
    spool = spool_at(tmp_path, max_bytes=1 << 30)
    assert not spool.append(0, bytes(16 * 1024 * 1024 + 1), False)
    assert spool.append(0, row(1), False)
    assert drained(spool) == [1]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file grows beyond; the kernel says EFBIG, as others say that the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_half_written_record_is_taken_back(tmp_path: Path) -> None:
    """The kernel takes a part of it; the next goes to another file, and none is damaged."""
    spool = spool_at(tmp_path)
    put(spool, range(3), text=LONG)
    with file_size_limit(segments(tmp_path)[0].stat().st_size + 100):
        assert spool.append(0, row(3, text=LONG), False)
        assert spool.append(0, row(4), False)
    put(spool, [5], text=LONG)
    assert verify(str(tmp_path)).findings == []
    assert (drained(spool), spool.lost(), spool.failing) == ([0, 1, 2, 3, 4, 5], [], "")


def test_disk_full_and_back_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused while it lasts, without a system call a record; kept again by itself."""
    spool = spool_at(tmp_path)
    with file_size_limit(1000):
        assert [spool.append(0, row(number), False) for number in range(50)] == [False] * 50
        assert spool.failing
        assert segments(tmp_path) == []
    until(lambda: spool.append(0, row(50), False))
    put(spool, range(51, 60))
    assert (drained(spool), spool.failing, spool.lost()) == (list(range(50, 60)), "", [])
    (line,) = messages(caplog)
    assert line.startswith("auditlog.spool_failed: ")
    assert "File too large" in line


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 512 KiB, where this user may mount one."""
    with TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place]
        try:
            mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no mount: {error}")
        if mounted.returncode:
            pytest.skip(f"no mount: {mounted.stderr.strip()}")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)  # noqa: S607  # wherever it is


def test_file_system_full_and_back_again(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ENOSPC in the middle of a record, in the middle of a segment, and for a new one."""
    spool = spool_at(small_disk / "spool", fsync="always")
    end = fill(spool)
    assert end > 50
    assert "No space left" in spool.failing
    assert spool.pending_rows == end
    taken = spool.take(10, CAP)
    assert numbers(taken) == list(range(10))
    spool.put_back()
    other = spool_at(small_disk / "other")
    assert not other.append(0, row(0), False)
    other.close()
    assert drained(spool) == list(range(end))
    assert spool.lost() == []
    until(lambda: spool.append(0, row(end), False))
    assert drained(spool) == [end]
    spool.close()
    assert verify(str(small_disk / "spool")).findings == []
    assert {line.partition(":")[0] for line in messages(caplog)} == {"auditlog.spool_full"}


def test_folder_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """False, and a line that says which path; when it is mended, records are kept."""
    folder = tmp_path / "spool"
    folder.write_text("in the way")
    spool = spool_at(folder)
    assert not spool.append(0, row(0), False)
    assert (spool.take(1, 1), spool.adopt()) == (None, False)
    assert str(folder) in messages(caplog)[0]
    assert folder.read_text() == "in the way"
    folder.unlink()
    until(lambda: spool.append(0, row(1), False))
    assert drained(spool) == [1]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Not even by root."""
    spool = spool_at(Path("/proc/nowhere/spool"))
    assert not spool.append(0, row(0), False)
    assert spool.failing
    spool.close()


def test_folder_that_is_removed_under_a_writer(tmp_path: Path) -> None:
    """What was in it is lost and counted; the rest goes on."""
    spool = spool_at(tmp_path / "spool", max_bytes=CAP)
    put(spool, range(3))
    for path in segments(tmp_path / "spool"):
        path.unlink()
    assert (drained(spool), spool.pending_rows) == ([], 0)
    assert [(lost.count, lost.own) for lost in spool.lost()] == [(3, True)]
    put(spool, [3])
    shutil.rmtree(tmp_path / "spool")
    assert (drained(spool), spool.pending_rows) == ([], 0)
    put(spool, [4])
    assert not spool_at(tmp_path / "spool").adopt()
    assert drained(spool) == [4]
    assert [(lost.count, lost.own) for lost in spool.lost()] == [(1, True)]


class Lines(Reporter):
    """Keeps every line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def report(self, reason: str, message: str, **_: object) -> None:
        self.lines.append((reason, message))


def test_failing_disk_costs_no_system_call_a_record(tmp_path: Path) -> None:
    """It is tried every tenth of a second; between, nothing is done, so nothing is reported."""
    lines = Lines()
    spool = spool_at(Path("/proc/nowhere/spool"), reporter=lines)
    begun = time.monotonic()
    for number in range(20_000):
        assert not spool.append(0, row(number) if number < 9 else b"", False)
    assert len(lines.lines) <= (time.monotonic() - begun) / 0.1 + 1
    assert os.strerror(errno.ENOENT) in lines.lines[0][1]
