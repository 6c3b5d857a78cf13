"""A server and a host whose clocks a test sets: a year goes by in seconds, and nothing is mocked.

Both are real processes under libfaketime, each with a file that says how far its clock is from the
real one; the monotonic clocks go on as they were, as they do when a machine's clock is set.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate

NO_FAKETIME = "a year needs a clock that can be set: apt-get install faketime"
CALL_TIMEOUT_S = 60
_UNSAFE = ("fsync = off", "full_page_writes = off", "autovacuum = off")

T = TypeVar("T")


def faketime() -> Path | None:
    """The library, wherever a distribution puts it; the one that threads can use."""
    return next(Path("/usr").glob("lib*/**/faketime/libfaketimeMT.so.1"), None)


@dataclass(frozen=True)
class Clock:
    """What time it is for the processes that were started under it."""

    file: Path

    def set(self, instant: datetime) -> None:
        """Make it that time now; it goes on from there."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{instant.timestamp() - time.time():+.6f}")
        new.replace(self.file)  # whoever looks meanwhile finds the one or the other

    @contextmanager
    def rules(self) -> Iterator[None]:
        """Every process that is started in here lives by this clock."""
        variables = {
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        os.environ.update(variables)
        try:
            yield
        finally:
            for name in variables:
                del os.environ[name]


@dataclass(frozen=True)
class Scene:
    """A migrated database, a process that is the host, and the clock of each."""

    dsn: str
    folder: Path
    server_clock: Clock
    host_clock: Clock
    _host: ProcessPoolExecutor

    def set_clocks(self, instant: datetime) -> None:
        """Make it that time for everybody."""
        self.server_clock.set(instant)
        self.host_clock.set(instant)

    def on_host(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call an importable function there, and wait for what it returns."""
        return self._host.submit(call, *arguments).result(CALL_TIMEOUT_S)


@contextmanager
def scene(start: datetime) -> Iterator[Scene]:
    """Start both at that time; stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server reads its clock as another user
        clocks = [Clock(folder / each) for each in ("server-clock", "host-clock")]
        for clock in clocks:
            clock.set(start)
        with clocks[0].rules():
            server = embedded.start(folder / "data")
        with server, _host(clocks[1]) as host:
            _prepare(server.dsn)
            yield Scene(server.dsn, folder, *clocks, host)


@contextmanager
def _host(clock: Clock) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as host:
        with clock.rules():
            host.submit(time.time).result(CALL_TIMEOUT_S)
        yield host


def _prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for setting in _UNSAFE:
            conn.execute(f"ALTER SYSTEM SET {setting}".encode())
        conn.execute("SELECT pg_reload_conf()")
    migrate(dsn)
