"""A signal handler that appends in the middle of an append, at each call that there is in it.

Python runs handlers when a function of its own begins and when one of C has returned. A profile
function is called there as well, so that it stands in for a signal, without leaving to chance
where that arrives.
"""

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from auditlog.sink.spool.inspection import verify
from auditlog.sink.spool.spool import Spool
from spool_scene import drained, numbers, put, row, segments, spool_at

SMALL = 512 * 1024
"""A cap whose segments are of 64 KiB."""
LONG = "x" * 5000


class Interruption:
    """Calls something at the n-th call within a piece of code."""

    def __init__(self, at: int, do: Callable[[], object]) -> None:
        self._left = at
        self._do = do
        self.happened = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in {"call", "c_return"} or frame.f_code.co_filename == __file__:
            return
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            self.happened = True
            self._do()

    def run(self, code: Callable[[], object]) -> None:
        # What the collector calls has nothing to do with the code, and may not raise.
        gc.disable()
        sys.setprofile(self)
        try:
            code()
        finally:
            sys.setprofile(None)
            gc.enable()


def first(spool: Spool) -> int:
    """The first append makes the lane and a segment."""
    return 0


def usual(spool: Spool) -> int:
    """One among others."""
    put(spool, range(5))
    return 5


def last_of_segment(spool: Spool) -> int:
    """The next append begins a segment."""
    put(spool, range(11), text="x" * 4700)
    return 11


@pytest.mark.parametrize("before", [first, usual, last_of_segment])
@pytest.mark.parametrize("interruptions", [1, 13], ids=["once", "segment"])
def test_append_is_interrupted_by_an_append(
    tmp_path: Path, before: Callable[[Spool], int], interruptions: int
) -> None:
    """Each record is kept once, wherever that was; the numbers leave no hole."""
    happened = True
    at = 0
    while happened:
        at += 1
        folder = tmp_path / str(at)
        spool = spool_at(folder, max_bytes=SMALL, fsync="always")
        count = before(spool)
        by_handler = range(1000, 1000 + interruptions)
        interruption = Interruption(at, lambda: put(spool, by_handler, text=LONG))  # noqa: B023
        outer = row(count, text=LONG)
        kept: list[bool] = []
        interruption.run(lambda: kept.append(spool.append(0, outer, False)))  # noqa: B023
        happened = interruption.happened
        assert kept == [True]
        assert happened or len(segments(folder)) == (2 if before is last_of_segment else 1)
        assert verify(str(folder)).findings == []
        found = drained(spool)
        expected = [*range(count + 1), *(by_handler if happened else ())]
        assert (sorted(found), spool.lost(), spool.pending_rows) == (expected, [], 0)
        assert spool.failing == ""
        spool.close()
        assert os.listdir(folder) == []
    assert at > 5


def test_take_is_interrupted_by_an_append(tmp_path: Path) -> None:
    """What comes meanwhile is handed out then or later, once, and nothing counts as lost."""
    happened = True
    at = 0
    while happened:
        at += 1
        folder = tmp_path / str(at)
        spool = spool_at(folder, max_bytes=SMALL)
        put(spool, range(10), text=LONG)
        by_handler = range(1000, 1013)
        interruption = Interruption(at, lambda: put(spool, by_handler, text=LONG))  # noqa: B023
        found: list[int] = []
        interruption.run(lambda: found.extend(drained(spool, max_rows=4)))  # noqa: B023
        found += drained(spool)
        happened = interruption.happened
        expected = [*range(10), *(by_handler if happened else ())]
        assert (found, spool.lost(), spool.pending_rows) == (expected, [], 0)
        spool.close()
        assert os.listdir(folder) == []
    assert at > 100


class Interrupted(KeyboardInterrupt):
    """As Ctrl-C is, which a handler raises wherever it arrives."""


@pytest.mark.parametrize("before", [first, usual, last_of_segment])
def test_append_is_left_by_an_exception(tmp_path: Path, before: Callable[[Spool], int]) -> None:
    """The record is kept or it is not; every other is, and the spool goes on."""

    def leave() -> None:
        raise Interrupted

    happened = True
    at = 0
    while happened:
        at += 1
        folder = tmp_path / str(at)
        spool = spool_at(folder, max_bytes=SMALL, fsync="always")
        count = before(spool)
        outer = row(count, text=LONG)
        interruption = Interruption(at, leave)
        with suppress(Interrupted):
            interruption.run(lambda: spool.append(0, outer, False))  # noqa: B023
        happened = interruption.happened
        put(spool, range(count + 1, count + 4), text=LONG)
        spool.close()
        other = spool_at(folder)
        found: list[int] = []
        while other.adopt():
            while taken := other.take_recovered(1000, SMALL):
                found += numbers(taken)
                other.settle(taken, taken.size)
        expected = [*range(count), *range(count + 1, count + 4)]
        assert [number for number in sorted(found) if number != count] == expected
        assert found.count(count) <= 1
    assert at > 5
