"""A spool that was damaged: what is whole is read once, what is not is counted and kept aside."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from auditlog.sink.spool.inspection import DAMAGE, LOST, TORN, UNREADABLE, survey, verify
from auditlog.sink.spool.layout import ACKNOWLEDGED_AT, BLOCK, FRAME_BYTES, FRAME_MAGIC, read_header
from auditlog.sink.spool.spool import Spool
from spool_scene import (
    T0_US,
    drained,
    flip,
    frames,
    killed,
    lane_of,
    left_behind,
    numbers,
    put,
    recovered,
    row,
    segments,
    spool_at,
)

SMALL = 512 * 1024
"""A cap whose segments are of 64 KiB."""
ROWS = 36
LONG = "x" * 4000


def summed(spool: Spool) -> tuple[int, bool]:
    """How many records are counted as lost, and whether that is exact."""
    lost = spool.lost()
    return sum(each.count for each in lost), all(each.exact for each in lost)


def cut(path: Path, start: int, end: int) -> None:
    """Take bytes out of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:start] + data[end:])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dead lane of three segments with `ROWS` rows."""
    folder = tmp_path_factory.mktemp("original")
    spool = spool_at(folder, max_bytes=SMALL)
    put(spool, range(ROWS), text=LONG)
    spool.close()
    assert len(segments(folder)) == 3
    return folder


@contextmanager
def copy_of(original: Path) -> Iterator[Path]:
    with TemporaryDirectory() as place:
        yield Path(shutil.copytree(original, Path(place) / "spool"))


PLACES = st.tuples(st.integers(0, 2), st.floats(0, 1, exclude_max=True), st.integers(1, 255))


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(PLACES, min_size=1, max_size=6))
@example(flips=[(2, 0.999999, 1)])
@example(flips=[(0, 0.0, 1), (0, 0.2, 128), (1, 0.9, 4)])
def test_flipped_bytes_cost_the_records_they_are_in(
    original: Path, flips: list[tuple[int, float, int]]
) -> None:
    """Every other is read exactly once, none is invented, and the loss is counted."""
    with copy_of(original) as folder:
        hit: set[int] = set()
        before = 0
        changed: dict[tuple[int, int], int] = {}
        for index, path in enumerate(segments(folder)):
            spots = {int(f * path.stat().st_size): m for i, f, m in flips if i == index}
            for offset, mask in spots.items():
                changed[index, offset] = mask
            inside = frames(path)
            headers_hit = {o // BLOCK for o in spots if o < inside[0][0]}
            for number, (start, end) in enumerate(inside, before):
                if headers_hit == {0, 1} or any(start <= o < end for o in spots):
                    hit.add(number)
            before += len(inside)
        for (index, offset), mask in changed.items():
            flip(segments(folder)[index], offset, mask)
        seen_from_outside = verify(str(folder))
        spool = spool_at(folder)
        found = recovered(spool)
        assert len(found) == len(set(found))
        assert set(range(ROWS)) - hit <= set(found) <= set(range(ROWS))
        assert found == sorted(found)
        missing = ROWS - len(found)
        count, exact = summed(spool)
        assert count == missing if exact else 0 < count <= missing
        assert sum(finding.lost for finding in seen_from_outside.findings) == count
        assert seen_from_outside.records == len(found)
        assert not lane_names_left(folder)
        spool.close()


def lane_names_left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != "damaged"]


@settings(max_examples=80, deadline=None)
@given(
    index=st.integers(0, 2),
    start=st.floats(0, 1),
    length=st.integers(1, 30_000),
)
def test_missing_bytes_cost_the_records_they_were_in(
    original: Path, index: int, start: float, length: int
) -> None:
    """Anywhere in a file, and its end: a writer that closes a segment leaves word of its length."""
    with copy_of(original) as folder:
        path = segments(folder)[index]
        at = int(start * path.stat().st_size)
        inside = frames(path)
        first = sum(len(frames(each)) for each in segments(folder)[:index])
        hit = {
            number
            for number, (begin, end) in enumerate(inside, first)
            if begin < at + length and at < end
        }
        if at < inside[0][0]:
            # A header that was moved: the second copy is not where it has to be any more.
            hit |= set(range(first, first + len(inside)))
        cut(path, at, at + length)
        spool = spool_at(folder)
        found = recovered(spool)
        assert len(found) == len(set(found))
        assert set(range(ROWS)) - hit <= set(found) <= set(range(ROWS))
        count, exact = summed(spool)
        missing = ROWS - len(found)
        assert count == missing if exact else 0 < count <= missing
        spool.close()


def test_damaged_record_is_kept_aside_and_counted(tmp_path: Path) -> None:
    """With its bytes, its place, and the dates around it."""
    segment = left_behind(tmp_path, range(5))
    start, end = frames(segment)[2]
    flip(segment, end - 1)
    damaged_bytes = segment.read_bytes()[start:end]
    lane = lane_of(tmp_path).name
    spool = spool_at(tmp_path)
    assert recovered(spool) == [0, 1, 3, 4]
    (lost,) = spool.lost()
    assert (lost.count, lost.lane, lost.own, lost.exact) == (1, lane, False, True)
    assert (lost.first_us, lost.last_us) == (T0_US + 1_000_000, T0_US + 3_000_000)
    assert spool.lost() == []
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.name == f"{lane}.0000000001.{start}"
    assert kept.read_bytes() == damaged_bytes
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert verify(str(tmp_path)).set_aside == [str(kept)]


def test_last_record_damaged_whole_is_lost_at_least_once(tmp_path: Path) -> None:
    """Its head is gone, its writer was killed, and nothing behind it tells its number."""
    segment = killed(tmp_path, range(5))
    flip(segment, frames(segment)[4][0] + 9)
    spool = spool_at(tmp_path)
    assert recovered(spool) == [0, 1, 2, 3]
    (lost,) = spool.lost()
    assert (lost.count, lost.exact, lost.first_us, lost.last_us) == (
        1,
        False,
        T0_US + 3_000_000,
        None,
    )


@pytest.mark.parametrize("left", [1, 2, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 7])
def test_torn_tail_is_no_loss(tmp_path: Path, left: int) -> None:
    """The record was in the middle of being written when its process died."""
    segment = killed(tmp_path, range(5))
    os.truncate(segment, frames(segment)[4][0] + left)
    assert [finding.kind for finding in verify(str(tmp_path)).findings] == [TORN]
    assert verify(str(tmp_path)).is_well
    spool = spool_at(tmp_path)
    assert recovered(spool) == [0, 1, 2, 3]
    assert (spool.lost(), list(tmp_path.iterdir())) == ([], [])


def test_zeros_after_a_power_loss_are_a_loss(tmp_path: Path) -> None:
    """The kernel had the record, and the disk has only its length."""
    segment = killed(tmp_path, range(5))
    start, end = frames(segment)[4]
    os.truncate(segment, start)
    os.truncate(segment, end + 5000)
    spool = spool_at(tmp_path)
    assert recovered(spool) == [0, 1, 2, 3]
    assert summed(spool) == (1, False)


@pytest.mark.parametrize("left", [0, 1, FRAME_BYTES, FRAME_BYTES + 7])
def test_end_of_a_closed_lane_is_missed(tmp_path: Path, left: int) -> None:
    """Its writer has written down how many there are."""
    segment = left_behind(tmp_path, range(5))
    os.truncate(segment, frames(segment)[3][0] + left)
    assert not verify(str(tmp_path)).is_well
    spool = spool_at(tmp_path)
    assert recovered(spool) == [0, 1, 2]
    assert summed(spool) == (2, True)


def test_missing_segment_is_counted_exactly(original: Path) -> None:
    """By the numbers on both sides of it."""
    with copy_of(original) as folder:
        first, middle, _ = segments(folder)
        before, gone = len(frames(first)), len(frames(middle))
        middle.unlink()
        kinds = [(f.kind, f.lost) for f in verify(str(folder)).findings]
        assert kinds == [(LOST, gone)]
        spool = spool_at(folder)
        expected = [n for n in range(ROWS) if not before <= n < before + gone]
        assert recovered(spool) == expected
        assert summed(spool) == (gone, True)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_segment_without_a_header_is_moved_aside(original: Path, index: int) -> None:
    """Whole; its records are counted as far as anything tells how many they were."""
    with copy_of(original) as folder:
        path = segments(folder)[index]
        gone, data = len(frames(path)), path.read_bytes()
        for block in (0, 1):
            flip(path, block * BLOCK + 60)
        assert verify(str(folder)).findings[0].kind == UNREADABLE
        data = path.read_bytes()
        lane = lane_of(folder).name
        spool = spool_at(folder)
        assert len(recovered(spool)) == ROWS - gone
        assert summed(spool) == ((gone, True) if index < 2 else (1, False))
        kept = folder / "damaged" / f"{lane}.{index + 1:010}.0"
        assert kept.read_bytes() == data
        assert not path.parent.exists()


def test_second_copy_of_the_header_does(tmp_path: Path) -> None:
    """Wherever the first is damaged, and the acknowledged position with it."""
    segment = left_behind(tmp_path, range(5))
    for offset in range(BLOCK):
        if offset in (0, 8, 12, 16, 60) or offset % 500 == 0:
            flip(segment, offset)
    spool = spool_at(tmp_path)
    assert (recovered(spool), spool.lost()) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize("offset", range(ACKNOWLEDGED_AT, ACKNOWLEDGED_AT + 20))
def test_damaged_acknowledgement_acknowledges_nothing(tmp_path: Path, offset: int) -> None:
    """It can never claim more than was settled."""
    spool = spool_at(tmp_path)
    put(spool, range(5))
    taken = spool.take(3, SMALL)
    assert taken is not None
    spool.settle(taken, 3)
    spool.close()
    flip(segments(tmp_path)[0], offset)
    other = spool_at(tmp_path)
    assert (recovered(other), other.lost()) == ([0, 1, 2, 3, 4], [])


def test_damage_before_the_acknowledged_position_is_no_loss(tmp_path: Path) -> None:
    """Those records are stored."""
    spool = spool_at(tmp_path)
    put(spool, range(5))
    taken = spool.take(3, SMALL)
    assert taken is not None
    spool.settle(taken, 3)
    spool.close()
    segment = segments(tmp_path)[0]
    flip(segment, frames(segment)[1][0] + 30)
    (finding,) = verify(str(tmp_path)).findings
    assert finding.kind == DAMAGE
    other = spool_at(tmp_path)
    assert (recovered(other), other.lost()) == ([3, 4], [])


def test_damage_in_the_own_lane_is_counted_exactly(tmp_path: Path) -> None:
    """The process knows how many it has written, also at the very end."""
    spool = spool_at(tmp_path)
    put(spool, range(5))
    segment = segments(tmp_path)[0]
    places = frames(segment)
    flip(segment, places[1][0])
    flip(segment, places[3][0] + 1)
    flip(segment, places[4][0] + 1)
    assert (drained(spool), spool.pending_rows) == ([0, 2], 0)
    lost = spool.lost()
    assert [(each.count, each.own, each.exact) for each in lost] == [
        (1, True, True),
        (2, True, True),
    ]
    put(spool, [5])
    assert (drained(spool), spool.lost()) == ([5], [])


def test_record_cannot_pass_for_others(tmp_path: Path) -> None:
    """A frame in a record's text is none, not even where the search behind a damage meets it."""
    victim = left_behind(tmp_path / "other", range(1))
    start, end = frames(victim)[0]
    forged = victim.read_bytes()[start:end]
    spool = spool_at(tmp_path / "spool")
    assert spool.append(0, forged * 3 + FRAME_MAGIC * 1000, False)
    put(spool, [1])
    spool.close()
    segment = segments(tmp_path / "spool")[0]
    flip(segment, frames(segment)[0][0] + 3)
    other = spool_at(tmp_path / "spool")
    assert recovered(other) == [1]
    assert summed(other) == (1, True)


def test_giant_length_is_no_memory_bomb(tmp_path: Path) -> None:
    """Whatever a frame claims: it is not believed, and nothing of that size is read."""
    segment = left_behind(tmp_path, range(3))
    start, _ = frames(segment)[1]
    with segment.open("r+b") as file:
        file.seek(start + 4)
        file.write(b"\xff\xff\xff\xff")
    spool = spool_at(tmp_path)
    assert (recovered(spool), summed(spool)) == ([0, 2], (1, True))


def test_what_is_no_segment_stays(tmp_path: Path) -> None:
    """Names, links, folders, pipes; the lane's own rows are read all the same."""
    spool = spool_at(tmp_path)
    put(spool, range(3))
    lane = lane_of(tmp_path)
    spool.close()
    outside = tmp_path.parent / "outside"
    outside.write_bytes(b"precious")
    (lane / "0000000007.segment").symlink_to(outside)
    (lane / "0000000008.segment").mkdir()
    os.mkfifo(lane / "0000000009.segment")
    (lane / "notes.txt").write_text("hello")
    (lane / "1.segment").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "00000000-0000-7000-8000-000000000000").symlink_to(lane)
    other = spool_at(tmp_path)
    assert recovered(other) == [0, 1, 2]
    assert (other.adopt(), other.lost()) == (False, [])
    assert outside.read_bytes() == b"precious"
    assert sorted(path.name for path in lane.iterdir()) == [
        "0000000007.segment",
        "0000000008.segment",
        "0000000009.segment",
        "1.segment",
        "notes.txt",
    ]


def test_empty_files_and_folders_vanish(tmp_path: Path) -> None:
    """A writer died before it had written anything; or its lock is gone."""
    for number, names in enumerate(([], ["lock"], ["lock", "0000000001.segment"])):
        lane = tmp_path / f"00000000-0000-7000-8000-00000000000{number}"
        lane.mkdir()
        for name in names:
            (lane / name).touch()
    spool = spool_at(tmp_path)
    assert [report.rows for report in survey(str(tmp_path))] == [0, 0, 0]
    assert verify(str(tmp_path)).is_well
    assert (recovered(spool), spool.lost()) == ([], [])
    spool.adopt()
    assert list(tmp_path.iterdir()) == []


def test_header_of_a_segment_is_what_it_says(tmp_path: Path) -> None:
    """For whoever has only the file."""
    segment = left_behind(tmp_path, range(1))
    header = read_header(segment.read_bytes())
    assert (header.lane, header.segment, header.writer) == (lane_of(tmp_path).name, 1, "test:1")
    assert header.first_number == 0
    assert header.tables[0][0] == "logstore.logs"
    assert ("log_date", "timestamptz") in header.tables[0][1]


def test_a_row_taken_again_that_is_damaged_meanwhile_is_lost_then(tmp_path: Path) -> None:
    """And counted once."""
    spool = spool_at(tmp_path)
    put(spool, range(3))
    assert numbers(spool.take(3, SMALL)) == [0, 1, 2]
    segment = segments(tmp_path)[0]
    flip(segment, frames(segment)[1][0])
    spool.put_back()
    assert numbers(spool.take(3, SMALL)) == [0, 2]
    assert summed(spool) == (1, True)
    spool.put_back()
    assert (drained(spool), spool.pending_rows) == ([0, 2], 0)
    assert spool.lost() == []
    assert len(row(0)) > 0
