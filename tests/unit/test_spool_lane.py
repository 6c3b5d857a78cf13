"""`Lane`: what another process does between two steps of taking a lock."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from auditlog.sink.spool import lane as lanes
from auditlog.sink.spool.lane import Lane, is_alive, lane_names


def before_locking(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have something done once, when a lock file is open and not yet locked."""

    def flock(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        do()
        fcntl.flock(descriptor, operation)

    late = SimpleNamespace(**{**vars(fcntl), "flock": flock})
    monkeypatch.setattr(lanes, "fcntl", late)


def test_lane_that_is_emptied_while_it_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that was got is that of a file nobody else will ever look at."""
    Lane.create(str(tmp_path)).release()
    (name,) = lane_names(str(tmp_path))
    first = Lane.adopt(str(tmp_path), name)
    assert first is not None
    before_locking(monkeypatch, first.remove)
    assert Lane.adopt(str(tmp_path), name) is None
    assert lane_names(str(tmp_path)) == []


def test_lane_that_is_adopted_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker makes another."""

    def rob() -> None:
        (name,) = lane_names(str(tmp_path))
        robber = Lane.adopt(str(tmp_path), name)
        assert robber is not None
        robber.remove()

    before_locking(monkeypatch, rob)
    lane = Lane.create(str(tmp_path))
    assert lane_names(str(tmp_path)) == [lane.name]
    assert is_alive(lane.path)
    lane.remove()


def test_lane_of_the_living_cannot_be_adopted(tmp_path: Path) -> None:
    """Until it is released, however often its file is opened and closed."""
    lane = Lane.create(str(tmp_path))
    for _ in range(3):
        assert is_alive(lane.path)
        assert Lane.adopt(str(tmp_path), lane.name) is None
    lane.release()
    lane.release()
    assert not is_alive(lane.path)
    heir = Lane.adopt(str(tmp_path), lane.name)
    assert heir is not None
    assert heir.remove()
    assert list(tmp_path.iterdir()) == []
