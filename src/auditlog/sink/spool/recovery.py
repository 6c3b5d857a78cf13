"""The lanes of dead owners: found, locked, read, and removed when they are empty."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from auditlog.reporting import Reporter, describe
from auditlog.sink.spool.backlog import Backlog
from auditlog.sink.spool.lane import Lane, lane_names
from auditlog.sink.spool.losses import Losses
from auditlog.sink.spool.segment import segments_of
from auditlog.sink.spool.taken import Taken

MAX_LANES = 16
"""So many are held at once, each with an open file or two; the others wait, or are another's."""


@dataclass(slots=True)
class Adopted:
    """A lane that is being emptied."""

    lane: Lane
    backlog: Backlog
    size: int
    """Bytes of its files when it was adopted."""


class Recovery:
    """Empties the lanes of the dead. One thread at a time."""

    def __init__(self, directory: str, losses: Losses, reporter: Reporter) -> None:
        self._directory = directory
        self._losses = losses
        self._reporter = reporter
        self._adopted: dict[str, Adopted] = {}
        # Lanes with something in them that is not for this version, or not for this user.
        self._left: set[str] = set()

    @property
    def size(self) -> int:
        """Bytes of the files of all adopted lanes."""
        return sum(max(0, each.size - each.backlog.freed) for each in self._adopted.values())

    @property
    def undecided_rows(self) -> int:
        """Rows that were taken and are not settled."""
        return sum(each.backlog.undecided[0] for each in self._adopted.values())

    def adopt(self, own: str | None) -> bool:
        """Lock the lanes that nobody owns, and tell whether there are rows to take.

        Raises:
            OSError: the spool's folder cannot be read.
        """
        for name in lane_names(self._directory):
            if len(self._adopted) >= MAX_LANES:
                break
            if name != own and name not in self._adopted and name not in self._left:
                self._adopt(name)
                # An empty one is not worth its place.
                self._remove_finished()
        return any(not each.backlog.is_exhausted for each in self._adopted.values())

    def take(self, max_rows: int, max_bytes: int, now: float) -> Taken | None:
        """Return the next rows, of the oldest lane first."""
        for name in sorted(self._adopted):
            backlog = self._adopted[name].backlog
            taken = self._guarded(name, lambda: backlog.take(max_rows, max_bytes, now))  # noqa: B023
            if taken is not None:
                return taken
        self._remove_finished()
        return None

    def settle(self, taken: Taken, rows: int) -> None:
        """Count rows as decided."""
        adopted = self._adopted.get(taken.lane)
        if adopted is not None:
            adopted.backlog.settle(taken.stretch, rows)
            self._remove_finished()

    def put_back(self) -> None:
        """Have everything taken again that is not settled."""
        for adopted in self._adopted.values():
            adopted.backlog.put_back()

    def release(self) -> None:
        """Let others have the lanes."""
        self._let_go(Lane.release)

    def forget(self) -> None:
        """Let go of the lanes in a forked child; they stay the parent's."""
        self._let_go(Lane.abandon)

    def _let_go(self, end: Callable[[Lane], None]) -> None:
        adopted, self._adopted = self._adopted, {}
        for each in adopted.values():
            each.backlog.close()
            end(each.lane)

    def _adopt(self, name: str) -> None:
        lane: Lane | None = None
        try:
            lane = Lane.adopt(self._directory, name)
            if lane is None:
                return
            segments = segments_of(lane.path)
        except OSError as error:
            if lane is not None:
                lane.release()
            self._leave(name, error)
            return
        backlog = Backlog(name, segments, self._losses, self._reporter)
        size = sum(segment.end or 0 for segment in segments)
        self._adopted[name] = Adopted(lane, backlog, size)

    def _remove_finished(self) -> None:
        for name, adopted in list(self._adopted.items()):
            if adopted.backlog.is_finished:
                del self._adopted[name]
                if adopted.backlog.left:
                    adopted.lane.release()
                    self._left.add(name)
                elif not adopted.lane.remove():
                    self._left.add(name)

    def _guarded(self, name: str, take: Callable[[], Taken | None]) -> Taken | None:
        try:
            return take()
        except OSError as error:
            self._report(name, error)
            return None

    def _leave(self, name: str, error: OSError) -> None:
        self._left.add(name)
        self._report(name, error)

    def _report(self, name: str, error: OSError) -> None:
        self._reporter.report(
            "auditlog.spool_failed",
            f"{os.path.join(self._directory, name)} is left by its writer and cannot be read,"
            f" {describe(error)}: {error.strerror}; let this user read and write it",
        )
