"""Processes that share a spool: killed, forked, and after the same lane at once."""

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from auditlog.sink.spool.inspection import survey, verify
from spool_scene import (
    drained,
    lane_of,
    left_behind,
    put,
    python,
    recovered,
    spool_at,
)

APPEND = """
import os, sys
from pathlib import Path
from spool_scene import row, spool_at

spool = spool_at(Path(sys.argv[1]), fsync=sys.argv[2], max_bytes=1 << 20)
number = 0
while True:
    if spool.append(0, row(number), False):
        os.write(1, b"appended %d\\n" % number)
        number += 1
    if number % 200 == 0:
        taken = spool.take(150, 1 << 20)
        os.write(1, b"settling %d\\n" % taken.size)
        spool.settle(taken, taken.size)
        os.write(1, b"settled %d\\n" % taken.size)
"""


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_killed_in_the_middle(tmp_path: Path, fsync: str) -> None:
    """What was appended is there once, but for what was settled; nothing else is there."""
    chance = random.Random(fsync)  # noqa: S311  # a moment, not a secret
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        with python(APPEND, folder, fsync) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 4000))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        told = [line.split() for line in lines if line.endswith("\n")]
        appended = [int(number) for what, number in told if what == "appended"]
        settled = sum(int(number) for what, number in told if what == "settled")
        settling = sum(int(number) for what, number in told if what == "settling")
        assert not survey(str(folder))[0].is_alive
        assert verify(str(folder)).is_well
        spool = spool_at(folder)
        found = recovered(spool)
        begin = found[0] if found else len(appended)
        assert settled <= begin <= settling
        assert found[: len(appended) - begin] == appended[begin:]
        assert len(found) - (len(appended) - begin) in {0, 1}, "one may not have been told yet"
        assert spool.lost() == []
        assert [path.name for path in folder.iterdir()] == []


ADOPT = """
import sys
from pathlib import Path
from spool_scene import recovered, spool_at

spool = spool_at(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in recovered(spool, max_rows=7):
    print(number)
for _ in range(int(sys.argv[2])):
    for number in recovered(spool, max_rows=7):
        print(number)
"""


def test_two_adopters_at_once(tmp_path: Path) -> None:
    """Each record goes to exactly one of them."""
    for lane in range(12):
        left_behind(tmp_path, range(lane * 100, lane * 100 + 100))
    adopters = [python(ADOPT, tmp_path, 3) for _ in range(2)]
    for process in adopters:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in adopters:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].split() for process in adopters]
    assert [process.returncode for process in adopters] == [0, 0]
    assert sorted(int(number) for output in outputs for number in output) == list(range(1200))
    assert list(tmp_path.iterdir()) == []


COME_AND_GO = """
import sys
from pathlib import Path
from spool_scene import put, spool_at

first = int(sys.argv[2])
for number in range(first, first + 300, 3):
    spool = spool_at(Path(sys.argv[1]))
    put(spool, range(number, number + 3))
    spool.close()
"""


def test_lanes_come_and_go_while_they_are_looked_for(tmp_path: Path) -> None:
    """A lane that is being made, or removed, is nobody's prey; no row is lost or comes twice."""
    adopters = [python(ADOPT, tmp_path, 400) for _ in range(2)]
    makers = [python(COME_AND_GO, tmp_path, first) for first in (0, 300)]
    for process in adopters:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in makers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    found = Counter[int]()
    for process in adopters:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        found.update(map(int, output.split()[1:]))
    found.update(recovered(spool_at(tmp_path)))
    assert found == Counter(range(600))
    assert list(tmp_path.iterdir()) == []


FORK = """
import os, sys
from pathlib import Path
from spool_scene import drained, lane_names, put, recovered, spool_at

folder = Path(sys.argv[1])
spool = spool_at(folder, fsync="always")
put(spool, range(3))
to_parent, from_child = os.pipe()
child = os.fork()
if child == 0:
    assert spool.pending_rows == 0
    assert (spool.adopt(), drained(spool)) == (False, [])
    put(spool, range(100, 103))
    spool.sync()
    spool.forget()
    assert spool.pending_rows == 3
    assert len(lane_names(str(folder))) == 2
    assert drained(spool) == [100, 101, 102]
    put(spool, range(103, 106))
    os._exit(0)
put(spool, range(3, 6))
assert os.waitpid(child, 0)[1] == 0
spool.sync()
assert recovered(spool) == [103, 104, 105]
idle = os.fork()
if idle == 0:
    os.write(from_child, b"!")
    os.read(0, 1)
    os._exit(0)
os.read(to_parent, 1)
assert drained(spool, max_rows=2) == [0, 1, 2, 3, 4, 5]
put(spool, [6])
print("parent dies while its child lives", flush=True)
os.kill(os.getpid(), 9)
"""


def test_fork(tmp_path: Path) -> None:
    """A child has a lane of its own, and does not keep its parent's, however long it lives."""
    with python(FORK, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "parent dies while its child lives\n"
        process.wait(60)
        assert process.returncode == -signal.SIGKILL
        assert recovered(spool_at(tmp_path)) == [6]


INTERRUPTED = """
import itertools, signal, sys
from pathlib import Path
from spool_scene import number_of, row, spool_at

spool = spool_at(Path(sys.argv[1]), fsync="always", max_bytes=1 << 20)
by_handler = []
numbers = itertools.count(1_000_000)

depth = 0

def handle(*_):
    global depth
    if depth == 3:
        return  # handlers within handlers, but not without end
    depth += 1
    number = next(numbers)
    if spool.append(0, row(number), False, lambda _: None):
        by_handler.append(number)
    depth -= 1

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
kept = 0
while len(by_handler) < 300:
    kept += spool.append(0, row(kept), False, lambda _: None)
    if kept % 500 == 0:
        taken = spool.take(100_000, 1 << 24)
        if taken:
            for each in taken.rows[0]:
                print(number_of(each))
            spool.settle(taken, taken.size)
signal.setitimer(signal.ITIMER_REAL, 0)
print("kept", kept, *by_handler)
"""


def test_signal_handlers_append_in_the_middle_of_it(tmp_path: Path) -> None:
    """At any call of it: numbers and places stay in step, nothing deadlocks."""
    with python(INTERRUPTED, tmp_path) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    *printed, summary = output.splitlines()
    _, kept, *by_handler = summary.split()
    assert verify(str(tmp_path)).findings == []
    spool = spool_at(tmp_path)
    found = [int(line) for line in printed] + recovered(spool)
    assert spool.lost() == []
    assert [number for number in found if number < 1_000_000] == list(range(int(kept)))
    assert sorted(number for number in found if number >= 1_000_000) == sorted(map(int, by_handler))


def test_survey_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    """Without keeping anybody from anything."""
    left_behind(tmp_path, range(3))
    owner = spool_at(tmp_path)
    put(owner, range(5))
    dead, alive = survey(str(tmp_path))
    assert (dead.is_alive, dead.rows, alive.is_alive, alive.rows) == (False, 3, True, 5)
    assert (alive.writer, alive.segments, alive.damaged) == ("test:1", 1, 0)
    assert alive.oldest_us is not None
    assert alive.newest_us == alive.oldest_us + 4_000_000
    assert recovered(spool_at(tmp_path)) == [0, 1, 2]
    assert drained(owner) == [0, 1, 2, 3, 4]
    assert lane_of(tmp_path).name == alive.lane
