"""Group commit: records' owners are told when the disk has them, or that it has not."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spool_scene import Answers, drained, put, python, row, segments, spool_at

EVERY = pytest.mark.parametrize("fsync", ["never", "interval", "always"])


@EVERY
def test_owner_of_a_record_is_told(tmp_path: Path, fsync: str) -> None:
    """Once for each record, from whichever thread."""
    spool = spool_at(tmp_path, fsync=fsync)
    answers = Answers()
    for number in range(20):
        assert spool.append(0, row(number), False, answers)
    assert answers.wait(20) == [True] * 20
    spool.close()


@EVERY
def test_many_threads_append_at_once(tmp_path: Path, fsync: str) -> None:
    """Each record is there once, and each owner is told once, over many segments."""
    spool = spool_at(tmp_path, fsync=fsync, max_bytes=4 << 20)
    answers = Answers()

    def work(first: int) -> None:
        for number in range(first, first + 300):
            assert spool.append(0, row(number, text="x" * 1000), False, answers)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(0, 2400, 300)))
    assert len(segments(tmp_path)) > 3
    assert answers.wait(2400) == [True] * 2400
    assert sorted(drained(spool)) == list(range(2400))
    spool.close()


def test_take_and_append_at_once(tmp_path: Path) -> None:
    """Rows are read while others are written, in order and once."""
    spool = spool_at(tmp_path, fsync="interval", max_bytes=2 << 20)
    count = 6000
    found: list[int] = []

    def write() -> None:
        for number in range(count):
            while not spool.append(0, row(number), True):
                time.sleep(0)

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive() or spool.waiting_rows:
        found += drained(spool, max_rows=97)
    thread.join()
    assert found == list(range(count))
    assert (spool.pending_rows, spool.lost()) == (0, [])
    spool.close()
    assert list(tmp_path.iterdir()) == []


def descriptor_of(segment: Path) -> int:
    """The descriptor that this process has of a file."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(segment):
                return int(name)
        except OSError:
            continue
    raise AssertionError(f"{segment} is not open")


def test_failed_fdatasync_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To the record's owner, by health, and in a line; a fresh segment makes it well again."""
    spool = spool_at(tmp_path, fsync="interval", fsync_interval_s=5)
    answers = Answers()
    assert spool.append(0, row(0), False, answers)
    reader, writer = os.pipe()
    os.dup2(reader, descriptor_of(segments(tmp_path)[0]))  # fdatasync of a pipe fails
    os.close(reader)
    os.close(writer)
    spool.sync()
    assert answers.wait() == [False]
    assert "fdatasync" in spool.failing
    assert "auditlog.spool_failed" in caplog.text
    assert spool.append(0, row(1), False, answers)
    spool.sync()
    assert answers.wait() == [False, True]
    assert (spool.failing, len(segments(tmp_path))) == ("", 2)
    assert drained(spool) == [0, 1]
    spool.close()


def test_callback_that_raises_keeps_no_other_from_its_answer(tmp_path: Path) -> None:
    """Nor the thread from its work."""
    spool = spool_at(tmp_path, fsync="always")
    answers = Answers()

    def broken(_: bool) -> None:
        raise RuntimeError

    for number in range(5):
        assert spool.append(0, row(number), False, broken)
        assert spool.append(0, row(number), False, answers)
        answers.wait()
    assert answers.given == [True] * 5
    spool.close()


def test_no_thread_before_the_first_record(tmp_path: Path) -> None:
    """And none under `never`."""
    before = len(os.listdir("/proc/self/task"))
    spool_at(tmp_path, fsync="always")
    spool = spool_at(tmp_path)
    put(spool, range(3))
    assert len(os.listdir("/proc/self/task")) == before
    spool.close()


def test_process_ends_while_records_wait_for_the_disk(tmp_path: Path) -> None:
    """Its thread keeps nobody alive, and a finalizer of the very end still appends."""
    code = """
import os, sys
from pathlib import Path
from spool_scene import put, row, spool_at

spool = spool_at(Path(sys.argv[1]), fsync="always", fsync_interval_s=60)

class AtTheEnd:
    def __del__(self, append=spool.append, row=row(1), write=os.write):
        told = []
        kept = append(0, row, False, told.append)
        write(1, f"{kept} {told}\\n".encode())

last = AtTheEnd()
if sys.argv[2] == "after":
    put(spool, [0])
"""
    for when, count in (("first", 1), ("after", 2)):
        folder = tmp_path / when
        with python(code, folder, when) as process:
            output, _ = process.communicate(timeout=60)
        assert output == "True [True]\n"
        assert process.returncode == 0
        spool = spool_at(folder)
        assert spool.adopt()
        taken = spool.take_recovered(10, 1 << 20)
        assert taken is not None
        assert taken.size == count
