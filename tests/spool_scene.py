"""A spool in a folder of a test's own, rows that can be told apart, and what is left of them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from auditlog.records import ExecutionLogRecord, LogRecord, QuotaLogRecord
from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.spool.frames import Frame, scan
from auditlog.sink.spool.lane import lane_names
from auditlog.sink.spool.segment import Segment
from auditlog.sink.spool.spool import Spool, Taken
from auditlog.tables import TABLES
from tuples import decode

T0_US = 1_790_000_000_000_000
_ENCODER = Encoder(Settings())


def spool_at(folder: Path, **changes: Any) -> Spool:
    defaults: dict[str, Any] = {
        "max_bytes": 64 * 1024 * 1024,
        "fsync": "never",
        "fsync_interval_s": 0.01,
        "writer": "test:1",
        "reporter": Reporter(),
    }
    return Spool(str(folder), **(defaults | changes))


def row(number: int, *, text: str = "") -> bytes:
    """A row of `logs` whose user is its number, recorded a second later than the one before."""
    record = LogRecord(user_id=str(number), message=text, log_date=T0_US + number * 1_000_000)
    return _ENCODER.encode(record)[1]


def row_of(table: int, number: int) -> bytes:
    """A row of any table; the user, or what is in its place, is the number."""
    user = str(number)
    record: Any = (
        LogRecord(user_id=user),
        ExecutionLogRecord(execution_id="e", target_id=user, message="m"),
        QuotaLogRecord(
            quota_id="q",
            previous_usage=0,
            current_usage=1,
            quota_limit=2,
            resource_owner="o",
            user_id=user,
            allowed=True,
        ),
    )[table]
    return _ENCODER.encode(record)[1]


def put(spool: Spool, numbers: Iterable[int], **about: Any) -> None:
    for number in numbers:
        assert spool.append(0, row(number, **about), False)


def numbers(taken: Taken | None) -> list[int]:
    """The numbers of the rows of `logs`, in order."""
    return [] if taken is None else [number_of(each) for each in taken.rows[0]]


def number_of(tuple_of_logs: bytes) -> int:
    return int(decode(TABLES[0], tuple_of_logs)["user_id"])


def drained(spool: Spool, *, max_rows: int = 1000) -> list[int]:
    """Take and settle everything of the own lane."""
    return _drained(lambda: spool.take(max_rows, 1 << 20), spool)


def recovered(spool: Spool, *, max_rows: int = 1000) -> list[int]:
    """Adopt what there is; take and settle everything of it."""
    found: list[int] = []
    while spool.adopt():
        found += _drained(lambda: spool.take_recovered(max_rows, 1 << 20), spool)
    return found


def _drained(take: Callable[[], Taken | None], spool: Spool) -> list[int]:
    found: list[int] = []
    while taken := take():
        found += numbers(taken)
        spool.settle(taken, taken.size)
    return found


def lane_of(folder: Path) -> Path:
    """The only lane."""
    (name,) = lane_names(str(folder))
    return folder / name


def segments(folder: Path) -> list[Path]:
    """The segments of all lanes, oldest first."""
    return sorted(folder.glob("*/*.segment"))


def left_behind(folder: Path, numbers: Iterable[int], **changes: Any) -> Path:
    """A lane as a process leaves it that ended with rows in the spool; its only segment."""
    spool = spool_at(folder, **changes)
    put(spool, numbers)
    spool.close()
    return segments(folder)[-1]


def killed(folder: Path, numbers: Iterable[int]) -> Path:
    """A lane as kill -9 leaves it: its files while they are being written, and no lock."""
    with TemporaryDirectory() as alive:
        spool = spool_at(Path(alive))
        put(spool, numbers)
        shutil.copytree(alive, folder, dirs_exist_ok=True)
        spool.close()
    return segments(folder)[-1]


def frames(segment: Path) -> list[tuple[int, int]]:
    """Where the frames of a segment are."""
    opened = Segment(str(segment), end=segment.stat().st_size)
    opened.open()
    at, found = opened.header.frames_at, []
    for item in scan(opened.descriptor, at, opened.end or 0, opened.header.seed):
        assert isinstance(item, Frame)
        found.append((at, item.end))
        at = item.end
    opened.close()
    return found


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    """Change a byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Another process, which writes to us."""
    path = os.pathsep.join((str(Path(__file__).parent), *sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


class Answers:
    """Keeps what a spool says of durability."""

    def __init__(self) -> None:
        self.given: list[bool] = []
        self._semaphore = threading.Semaphore(0)

    def __call__(self, durable: bool) -> None:
        self.given.append(durable)
        self._semaphore.release()

    def wait(self, count: int = 1) -> list[bool]:
        for _ in range(count):
            assert self._semaphore.acquire(timeout=20)
        return self.given
