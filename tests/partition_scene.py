"""A server and a host whose clocks a test sets: a year goes by in seconds.

The server is a real one under libfaketime, the host a process whose Python reads a shifted clock;
each has a file that says how far it is from the real one. Monotonic clocks go on as they were, as
they do when a machine's clock is set. The host is not under libfaketime, because that breaks the
absolute waits that CPython sleeps with: OSError 22 (0.9.10, 2026-11-28).
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psycopg
import pytest
import uuid_utils
from psycopg.conninfo import make_conninfo

from auditlog import AuditLog
from auditlog.partitions import maintaining
from auditlog.partitions.archive import verify
from auditlog.partitions.archive.finding import found
from auditlog.partitions.archive.restoring import restore
from auditlog.partitions.model import TableConfig, TableReport
from auditlog.partitions.session import maintenance
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate
from auditlog.records import ExecutionLogRecord, LogRecord, Outcome, Record
from trail import quick

NO_FAKETIME = "a year needs a clock that can be set: apt-get install faketime"
CALL_TIMEOUT_S = 60
_SHIFTED = Path(__file__).parent / "faults" / "clock"
_UNSAFE = ("fsync = off", "full_page_writes = off", "autovacuum = off")

T = TypeVar("T")


def faketime() -> Path | None:
    """The library, wherever a distribution puts it; the one that threads can use."""
    name = "faketime/libfaketimeMT.so.1"
    folders = [*Path("/usr").glob("lib*"), *Path("/usr/lib").glob("*-linux-*")]
    return next((each / name for each in folders if (each / name).exists()), None)


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
    def of_programs(self) -> Iterator[None]:
        """Every program that is started in here lives by this clock."""
        with _environment(
            LD_PRELOAD=str(faketime()),
            FAKETIME_TIMESTAMP_FILE=str(self.file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_FAKE_STAT="1",
        ):
            yield

    @contextmanager
    def of_python(self) -> Iterator[None]:
        """Every interpreter that is started in here does, where it asks module `time`."""
        with _environment(PYTHONPATH=str(_SHIFTED), FAULT_CLOCK_SHIFT=str(self.file)):
            yield


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


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

    def operate(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function there that takes a connection for maintenance first."""
        return self.on_host(connected, self.dsn, call, arguments, named)

    def on_host(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call an importable function there, and wait for what it returns."""
        return self._host.submit(call, *arguments).result(CALL_TIMEOUT_S)


@contextmanager
def scene(start: datetime, version: int = embedded.DEFAULT_VERSION) -> Iterator[Scene]:
    """Start both at that time; stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server reads its clock as another user
        clocks = [Clock(folder / each) for each in ("server-clock", "host-clock")]
        for clock in clocks:
            clock.set(start)
        with clocks[0].of_programs():
            server = embedded.start(folder / "data", version=version)
        with server, _host(clocks[1]) as host:
            _prepare(server.dsn)
            yield Scene(server.dsn, folder, *clocks, host)


class _HostsDatetime(datetime):
    """Whose `now` asks module `time`; the built-in one asks the machine."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(time.time(), tz)


def _look_at_the_clock() -> None:
    maintaining.datetime = _HostsDatetime  # type: ignore[attr-defined,misc]


@contextmanager
def _host(clock: Clock) -> Iterator[ProcessPoolExecutor]:
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_look_at_the_clock) as host:
        with clock.of_python():
            host.submit(time.time).result(CALL_TIMEOUT_S)
        yield host


def _prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for setting in _UNSAFE:
            conn.execute(f"ALTER SYSTEM SET {setting}".encode())
        conn.execute("SELECT pg_reload_conf()")
    migrate(dsn)


class Sent(NamedTuple):
    """A record, as its sender noted it."""

    table: str
    log_id: str
    tenant: str
    at_us: int


def send(dsn: str, spool: str, tenants: list[str], later_s: float = 0) -> list[Sent]:
    """Record one request and one line of an execution for each tenant, as a service does.

    Args:
        dsn: The database.
        spool: Where rows wait that no table takes.
        tenants: Whose records.
        later_s: How much later than now they are dated; of a replay it is negative.
    """
    at_us = int((time.time() + later_s) * 1e6)
    noted = []
    with AuditLog(settings=quick(dsn=dsn, spool_dir=spool)) as audit:
        for tenant in tenants:
            for table in ("logs", "execution_logs"):
                sent = Sent(table, str(uuid_utils.uuid7()), tenant, at_us)
                assert audit.submit(_record(sent)) is not Outcome.DROPPED
                noted.append(sent)
    assert audit.stats().dropped == 0
    return noted


def _record(sent: Sent) -> Record:
    own = {"log_id": sent.log_id, "instance_id": sent.tenant, "log_date": sent.at_us}
    if sent.table == "logs":
        return LogRecord(request_url="/", **own)
    return ExecutionLogRecord(execution_id="e", target_id="t", message="line", **own)


def maintained(dsn: str, configs: Mapping[str, TableConfig]) -> list[TableReport]:
    """Do what cron does."""
    return maintaining.maintain(dsn, configs)


def connected(
    dsn: str, call: Callable[..., T], arguments: tuple[Any, ...], named: dict[str, Any]
) -> T:
    """Do what an operator does, over a connection for maintenance."""
    with maintenance(dsn) as conn:
        return call(conn, *arguments, **named)


Identity = tuple[str, str]
"""Table and log_id."""


def in_tables(dsn: str, tables: Iterable[str]) -> list[Identity]:
    """What is stored, but for the rows that the package writes about itself."""
    with psycopg.connect(dsn) as conn:
        return [each for table in tables for each in _identities(conn, table, table)]


def in_archives(dsn: str, folder: Path) -> list[Identity]:
    """What the archives hold, each verified and then restored into a database of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE DATABASE restored TEMPLATE template0 ENCODING 'UTF8'")
    dsn = make_conninfo(dsn, dbname="restored")
    migrate(dsn)
    identities = []
    with maintenance(dsn) as conn:
        for number, archive in enumerate(found(str(folder))):
            assert verify(archive.uri).is_whole
            assert archive.manifest
            table = archive.manifest.content.table
            restored = restore(conn, archive.uri, into=f"restored_{number}")
            of_this = _identities(conn, table, f"restored_{number}")
            assert len(of_this) <= restored.rows
            identities += of_this
    return identities


def letters(dsn: str) -> list[Identity]:
    """What was quarantined."""
    query = "SELECT table_name, convert_from(log_id, 'UTF8') FROM logstore.dead_letters"
    with psycopg.connect(dsn) as conn:
        return conn.execute(query).fetchall()


def _identities(conn: psycopg.Connection[Any], table: str, stored_as: str) -> list[Identity]:
    own = "starts_with(event_type, 'audit.') IS TRUE" if table == "logs" else "false"
    query = f"SELECT log_id FROM logstore.{stored_as} WHERE NOT ({own})"  # noqa: S608  # ours
    return [(table, log_id) for (log_id,) in conn.execute(query.encode())]
