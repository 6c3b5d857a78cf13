"""`Spool`: what is appended is handed out in order, once, until it is settled."""

import os
import stat
from pathlib import Path

import pytest

from auditlog.sink.spool.layout import FRAME_BYTES
from spool_scene import (
    drained,
    lane_of,
    left_behind,
    number_of,
    numbers,
    put,
    recovered,
    row,
    row_of,
    segments,
    spool_at,
)

SMALL = 1 << 20
"""A cap whose segments are of 128 KiB."""


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """Not even the folder is made."""
    folder = tmp_path / "spool"
    spool = spool_at(folder)
    assert (spool.take(10, 1000), spool.adopt(), spool.take_recovered(10, 1000)) == (
        None,
        False,
        None,
    )
    assert (spool.pending_rows, spool.oldest_at, spool.failing, spool.lost()) == (0, None, "", [])
    spool.put_back()
    spool.sync()
    spool.close()
    assert not folder.exists()


def test_rows_come_in_order_by_table(tmp_path: Path) -> None:
    """As many as are asked for, each table's by itself."""
    spool = spool_at(tmp_path)
    for number in range(9):
        assert spool.append(number % 3, row_of(number % 3, number), False)
    first, second = spool.take(6, SMALL), spool.take(100, SMALL)
    assert first is not None
    assert second is not None
    assert [len(rows) for rows in first.rows] == [2, 2, 2]
    assert ([number_of(each) for each in first.rows[0]], numbers(second)) == ([0, 3], [6])
    assert (first.size, second.size, first.own, first.lane) == (6, 3, True, lane_of(tmp_path).name)
    assert spool.take(1, SMALL) is None


def test_bytes_bound_what_is_taken(tmp_path: Path) -> None:
    """The row that reaches the bound is the last."""
    spool = spool_at(tmp_path)
    put(spool, range(10))
    assert numbers(spool.take(100, 2 * len(row(0)) + 1)) == [0, 1, 2]


def test_counts_follow_the_rows(tmp_path: Path) -> None:
    """Pending until settled, waiting until taken; a part counts as a part."""
    spool = spool_at(tmp_path)
    put(spool, range(10))
    assert (spool.pending_rows, spool.waiting_rows) == (10, 10)
    assert spool.pending_bytes >= 10 * (len(row(0)) + FRAME_BYTES)
    assert spool.oldest_at is not None
    taken = spool.take(6, SMALL)
    assert taken is not None
    assert (spool.pending_rows, spool.waiting_rows) == (10, 4)
    spool.settle(taken, 2)
    assert (spool.pending_rows, spool.waiting_rows) == (8, 4)
    spool.settle(taken, 4)
    assert (spool.pending_rows, spool.waiting_rows) == (4, 4)
    assert drained(spool) == [6, 7, 8, 9]
    assert (spool.pending_rows, spool.pending_bytes, spool.waiting_bytes) == (0, 0, 0)
    assert spool.oldest_at is None


def test_put_back_comes_again_in_its_place(tmp_path: Path) -> None:
    """What was settled between does not; what was settled in part does, and is pending again."""
    spool = spool_at(tmp_path)
    put(spool, range(9))
    first, second, third = (spool.take(3, SMALL) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    spool.settle(second, 3)
    spool.settle(third, 1)
    assert spool.pending_rows == 5
    spool.put_back()
    assert (spool.pending_rows, spool.waiting_rows) == (6, 6)
    spool.settle(first, 3)
    assert spool.pending_rows == 6, "a taking that was put back counts no more"
    put(spool, [9])
    assert drained(spool) == [0, 1, 2, 6, 7, 8, 9]
    assert spool.pending_rows == 0


def test_only_the_settled_front_is_acknowledged(tmp_path: Path) -> None:
    """After a crash everything behind the first undecided row comes again."""
    spool = spool_at(tmp_path)
    put(spool, range(9))
    first, second, _third = (spool.take(3, SMALL) for _ in range(3))
    assert first is not None
    assert second is not None
    spool.settle(first, 3)
    spool.settle(second, 2)
    spool.close()
    assert recovered(spool_at(tmp_path)) == [3, 4, 5, 6, 7, 8]


def test_settling_out_of_order_is_acknowledged_when_the_front_is(tmp_path: Path) -> None:
    """Then at once over all that is settled."""
    spool = spool_at(tmp_path)
    put(spool, range(7))
    first, second = spool.take(3, SMALL), spool.take(3, SMALL)
    assert first is not None
    assert second is not None
    spool.settle(second, 3)
    spool.settle(first, 3)
    spool.close()
    assert recovered(spool_at(tmp_path)) == [6]


def test_segments_rotate_and_are_deleted_when_settled(tmp_path: Path) -> None:
    """Whole ones, from the front."""
    spool = spool_at(tmp_path, max_bytes=SMALL)
    put(spool, range(800), text="x" * 500)
    files = segments(tmp_path)
    assert len(files) >= 4
    assert all(file.stat().st_size <= SMALL // 8 for file in files)
    taken = spool.take(500, SMALL)
    assert taken is not None
    spool.settle(taken, 500)
    assert 1 <= len(segments(tmp_path)) < len(files)
    assert drained(spool) == list(range(500, 800))
    put(spool, [800])
    assert len(segments(tmp_path)) == 1
    assert drained(spool) == [800]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_close_removes_a_lane_that_is_empty(tmp_path: Path) -> None:
    """And the spool may be used again, in another lane."""
    spool = spool_at(tmp_path)
    put(spool, range(3))
    first = lane_of(tmp_path)
    assert drained(spool) == [0, 1, 2]
    spool.close()
    assert not first.exists()
    put(spool, range(2))
    assert lane_of(tmp_path) != first
    assert drained(spool) == [0, 1]


def test_close_leaves_rows_for_the_next(tmp_path: Path) -> None:
    """Also for the same spool, as those of another."""
    spool = spool_at(tmp_path)
    put(spool, range(3))
    taken = spool.take(2, SMALL)
    assert taken is not None
    spool.close()
    spool.settle(taken, 2)
    put(spool, [7])
    assert recovered(spool) == [0, 1, 2]
    assert drained(spool) == [7]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_recovered_rows_come_oldest_lane_first(tmp_path: Path) -> None:
    """And each says whose it is."""
    left_behind(tmp_path, range(3))
    left_behind(tmp_path, range(3, 6))
    spool = spool_at(tmp_path)
    put(spool, [9])
    assert spool.adopt()
    assert spool.recovered_bytes > 0
    first = spool.take_recovered(100, SMALL)
    second = spool.take_recovered(100, SMALL)
    assert first is not None
    assert second is not None
    assert (numbers(first), numbers(second), first.own) == ([0, 1, 2], [3, 4, 5], False)
    assert first.lane < second.lane
    spool.settle(second, 3)
    spool.put_back()
    again = spool.take_recovered(100, SMALL)
    assert numbers(again) == [0, 1, 2]
    assert again is not None
    spool.settle(again, 3)
    assert (spool.adopt(), spool.recovered_bytes) == (False, 0)
    assert drained(spool) == [9]


def test_a_living_lane_is_not_adopted(tmp_path: Path) -> None:
    """Neither by another spool of the same process."""
    owner, other = spool_at(tmp_path), spool_at(tmp_path)
    put(owner, range(3))
    assert (other.adopt(), other.take_recovered(10, SMALL)) == (False, None)
    assert drained(owner) == [0, 1, 2]


def test_adopted_lanes_are_let_go_at_close(tmp_path: Path) -> None:
    """So that the next process has them."""
    left_behind(tmp_path, range(3))
    first, second = spool_at(tmp_path), spool_at(tmp_path)
    assert first.adopt()
    assert not second.adopt()
    assert numbers(first.take_recovered(2, SMALL)) == [0, 1]
    first.close()
    assert recovered(second) == [0, 1, 2]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Folders 0700, files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        spool = spool_at(tmp_path / "spool")
        put(spool, range(3))
    finally:
        os.umask(before)
    lane = lane_of(tmp_path / "spool")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (lane.parent, lane)}
    assert set(modes.values()) == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in lane.iterdir()} == {0o600}


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_rows_of_any_size_pass(tmp_path: Path, size: int) -> None:
    """Also those longer than a segment, or than a piece that is read at once."""
    spool = spool_at(tmp_path, max_bytes=8 * SMALL)
    rows = [row(0), b"\0" * size, row(1)]
    for each in rows:
        assert spool.append(0, each, False)
    taken = spool.take(10, 16 * SMALL)
    assert taken is not None
    assert taken.rows[0] == rows
    spool.close()
    other = spool_at(tmp_path)
    other.adopt()
    taken = other.take_recovered(10, 16 * SMALL)
    assert taken is not None
    assert taken.rows[0] == rows
