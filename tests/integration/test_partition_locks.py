"""Maintenance beside whoever is in its way: it waits or gives up, and writers hardly notice."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from auditlog.partitions import locking
from auditlog.partitions.applying import apply
from auditlog.partitions.model import Operation, OperationKind, Outcome
from auditlog.partitions.planning import plan
from auditlog.partitions.reading.catalog import read
from auditlog.partitions.retention import detaching
from auditlog.partitions.session import maintenance
from databases import Server
from retiring_scene import (
    OLDEST,
    QUICK,
    attached,
    cut_server,
    fill,
    month,
    operation,
    partition,
    states,
)

PATIENCE_S = 0.55
"""Of writers: more than one wait of maintenance for a lock, 0.3 s here, and less than two."""
LEAF = sql.Identifier("logstore", partition(OLDEST))
PARENT = sql.Identifier("logstore", "logs")
SLOWLY = "SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1"


@pytest.fixture(scope="module")
def cut_database(server: Server) -> Iterator[Server]:
    with cut_server(server) as cut:
        yield cut


@pytest.fixture(scope="module")
def any_cut_database(any_server: Server) -> Iterator[Server]:
    with cut_server(any_server) as cut:
        yield cut


@pytest.fixture
def dsn(cut_database: Server) -> Iterator[str]:
    with cut_database.database() as dsn:
        yield dsn


@pytest.fixture
def any_dsn(any_cut_database: Server) -> Iterator[str]:
    with any_cut_database.database() as dsn:
        yield dsn


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a fraction of the usual time."""
    monkeypatch.setattr(detaching, "CONCURRENT_WAIT_S", 0.3)
    monkeypatch.setattr(locking, "TRIES", 2)


class Traffic:
    """A writer of new rows that gives up where it must wait for longer than it was promised."""

    def __init__(self, dsn: str, patience_s: float) -> None:
        self._dsn = dsn
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.sent = 0
        self.error: Exception | None = None

    def __enter__(self) -> "Traffic":
        self._thread.start()
        assert self._going.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(20)

    def _write(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            locking.limit(conn, "lock_timeout", self._patience_s, is_local=False)
            while not self._stopped.is_set():
                try:
                    conn.execute(
                        "INSERT INTO logstore.logs (instance_id, log_id)"
                        " VALUES ('traffic', gen_random_uuid()::text)"
                    )
                except psycopg.Error as error:
                    self.error = error
                    self._going.set()
                    return
                self.sent += 1
                self._going.set()


@contextmanager
def traffic(dsn: str, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Write all the while: no row is refused, none is kept waiting for long, none is lost."""
    with Traffic(dsn, patience_s) as going:
        yield
        seen = going.sent
    assert going.error is None
    assert going.sent > seen or seen > 0
    with psycopg.connect(dsn) as conn:
        stored = conn.execute(
            "SELECT count(*) FROM logstore.logs WHERE instance_id = 'traffic'"
        ).fetchone()
    assert stored == (going.sent,)


def done(conn: psycopg.Connection[Any], kind: OperationKind, ago: int = OLDEST) -> Outcome:
    return apply(conn, operation(conn, kind, ago), QUICK)


def is_named(session: psycopg.Connection[Any], outcome: Outcome) -> bool:
    return f"process {session.info.backend_pid} " in outcome.detail


@contextmanager
def running(dsn: str, statement: LiteralString, table: sql.Identifier) -> Iterator[Any]:
    """A statement that takes as long as the context, in a session that is given."""
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as other:
        conn.execute(SLOWLY)

        def work() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                conn.execute(sql.SQL(statement).format(table))

        worker = threading.Thread(target=work)
        worker.start()
        _until(
            other,
            "SELECT wait_event = 'VacuumDelay' FROM pg_stat_activity WHERE pid = %s",
            conn.info.backend_pid,
        )
        try:
            yield conn
        finally:
            conn.cancel_safe()
            worker.join(20)


def _until(conn: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> None:
    while conn.execute(query, parameters).fetchone() != (True,):
        conn.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.005)")


def test_reader_that_stays_in_its_transaction_holds_up_nobody_else(dsn: str) -> None:
    """The partition leaves its table when the reader does; writers never wait for that."""
    with maintenance(dsn) as conn, psycopg.connect(dsn) as reader, traffic(dsn):
        reader.execute("SELECT count(*) FROM logstore.logs")
        assert done(conn, "create", -1).result == "done"
        outcome = done(conn, "detach")
        assert (outcome.result, is_named(reader, outcome)) == ("waiting", True)
        reader.rollback()
        assert done(conn, "finalize").result == "done"
        assert done(conn, "drop").result == "done"


def test_plain_detach_gives_way_after_its_timeout(any_dsn: str) -> None:
    """Beside a DEFAULT the table itself is locked: writers queue, and never for long."""
    with maintenance(any_dsn) as conn, psycopg.connect(any_dsn) as reader, traffic(any_dsn):
        conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
        reader.execute("SELECT count(*) FROM logstore.logs")
        outcome = done(conn, "detach")
        assert (outcome.result, is_named(reader, outcome)) == ("waiting", True)
        assert partition(OLDEST) in attached(conn)
        reader.rollback()
        assert done(conn, "detach").result == "done"


def test_locks_one_after_the_other_share_one_timeout(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is had, its DEFAULT late, the partition not: writers wait for one timeout."""
    monkeypatch.setattr(locking, "TRIES", 1)
    with (
        maintenance(any_dsn) as conn,
        psycopg.connect(any_dsn) as one,
        psycopg.connect(any_dsn) as two,
    ):
        conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
        with traffic(any_dsn, patience_s=1.4):
            one.execute("SELECT count(*) FROM logstore.logs_rest")
            two.execute(sql.SQL("SELECT count(*) FROM {}").format(LEAF))
            with letting_go_after(0.7, one, conn.info.backend_pid, any_dsn):
                patient = replace(QUICK, lock_timeout_s=1.0)
                outcome = apply(conn, operation(conn, "detach", OLDEST), patient)
            assert (outcome.result, is_named(two, outcome)) == ("waiting", True)


@contextmanager
def letting_go_after(
    seconds: float, session: psycopg.Connection[Any], pid: int, dsn: str
) -> Iterator[None]:
    """End a session's transaction when another has waited so long, before that gives up."""

    def let_go() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            _until(
                conn,
                "SELECT coalesce(max(clock_timestamp() - waitstart) > %s * interval '1 s', false)"
                " FROM pg_locks WHERE pid = %s AND NOT granted",
                seconds,
                pid,
            )
        session.rollback()

    thread = threading.Thread(target=let_go)
    thread.start()
    yield
    thread.join(20)


def test_open_copy_is_not_disturbed(any_dsn: str) -> None:
    """A partition is attached beside it; one that leaves waits for its end; its rows are all in."""
    with maintenance(any_dsn) as conn, psycopg.connect(any_dsn) as writer, traffic(any_dsn):
        with writer.cursor().copy(
            "COPY logstore.logs (instance_id, log_id, log_date) FROM STDIN"
        ) as copy:
            copy.write_row(("copy", "1", month(0)))
            with psycopg.connect(any_dsn) as other:
                _until(
                    other,
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND relation ="
                    " 'logstore.logs'::regclass)",
                    writer.info.backend_pid,
                )
            assert done(conn, "create", -1).result == "done"
            assert done(conn, "detach").result == "waiting"
            copy.write_row(("copy", "2", month(0)))
        writer.commit()
        assert done(conn, "finalize").result == "done"
        copied = conn.execute("SELECT count(*) FROM logstore.logs WHERE instance_id = 'copy'")
        assert copied.fetchone() == (2,)


def test_dump_is_waited_for_by_nobody(any_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot with locks on everything, as pg_dump has; it sees the partition to its end."""
    with maintenance(any_dsn) as conn, psycopg.connect(any_dsn) as dump, traffic(any_dsn):
        dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for table in (PARENT, LEAF):
            dump.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
        assert done(conn, "create", -1).result == "done"
        monkeypatch.setattr(locking, "HOPELESS_AGE", timedelta(0))
        outcome = done(conn, "detach")
        assert (outcome.result, is_named(dump, outcome), states(conn)[0][1]) == (
            "waiting",
            True,
            "detaching",
        )
        count = dump.execute(
            "SELECT count(*) FROM logstore.logs WHERE log_date < %s", [month(OLDEST - 1)]
        ).fetchone()
        assert count == (100,)


@pytest.mark.parametrize(
    ("statement", "table", "kind", "ago"),
    [
        ("VACUUM {}", LEAF, "detach", OLDEST),
        ("VACUUM FREEZE {}", LEAF, "detach", OLDEST),
        ("ANALYZE {}", PARENT, "detach", OLDEST),
        ("ANALYZE {}", PARENT, "create", -1),
        ("ANALYZE {}", PARENT, "analyze", 0),
    ],
)
def test_vacuum_and_analyze_of_somebody_are_waited_for_and_named(
    any_dsn: str, statement: LiteralString, table: sql.Identifier, kind: OperationKind, ago: int
) -> None:
    """They do not give way; the next run tries again, and writers have not noticed."""
    _fill_pages(any_dsn)
    with maintenance(any_dsn) as conn, traffic(any_dsn):
        with running(any_dsn, statement, table) as vacuum:
            outcome = done(conn, kind, ago)
            assert (outcome.result, is_named(vacuum, outcome)) == ("waiting", True), outcome
        assert done(conn, kind, ago).result == "done"


def _fill_pages(dsn: str) -> None:
    """So many that a slow VACUUM takes many naps."""
    fill(dsn, OLDEST, 3000, tenant="many")


def test_autovacuum_gives_way(any_dsn: str) -> None:
    """Because the wait for it is longer than deadlock_timeout, after which it is cancelled."""
    patient = replace(QUICK, lock_timeout_s=5)
    with maintenance(any_dsn) as conn, _vacuumed_slowly(any_dsn, conn), traffic(any_dsn):
        conn.execute("SET deadlock_timeout = '50ms'")
        outcome = apply(conn, operation(conn, "detach", OLDEST), patient)
        assert outcome.result == "done", outcome


def test_autovacuum_does_not_give_way_to_who_waits_less_long(any_dsn: str) -> None:
    """Than deadlock_timeout, 1 s: the plan says so, and the step waits."""
    default = "CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT"
    with maintenance(any_dsn) as conn:
        conn.execute(default)
        with _vacuumed_slowly(any_dsn, conn), traffic(any_dsn):
            found = plan(read(conn, QUICK), QUICK, host_now=datetime.now(UTC)).findings
            assert "lock_timeout" in {finding.code for finding in found}
            # Beside a DEFAULT the wait is for the lock itself.
            assert done(conn, "detach").result == "waiting"
            vacuums = conn.execute("SELECT count(*) FROM pg_stat_progress_vacuum").fetchone()
            assert vacuums == (1,)
            conn.execute("SET deadlock_timeout = '50ms'")
            assert done(conn, "detach").result == "done"


@contextmanager
def _vacuumed_slowly(dsn: str, conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Autovacuum is at work on the oldest partition, and will be for long."""
    _fill_pages(dsn)
    with conn.transaction():
        conn.execute("SET LOCAL auditlog.maintenance = 'on'")
        conn.execute(sql.SQL("DELETE FROM {} WHERE instance_id = 'many'").format(LEAF))
    conn.execute(
        sql.SQL(
            "ALTER TABLE {} SET (autovacuum_vacuum_threshold = 1,"
            " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100,"
            " autovacuum_vacuum_cost_limit = 1)"
        ).format(LEAF)
    )
    with _autovacuum(conn):
        _until(
            conn,
            "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE datname ="
            " current_database())",
        )
        yield


@contextmanager
def _autovacuum(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Autovacuum, which is off on the servers of these tests, at its quickest."""
    conn.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
    conn.execute("ALTER SYSTEM SET autovacuum = on")
    conn.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        conn.execute("ALTER SYSTEM SET autovacuum = off")
        conn.execute("ALTER SYSTEM RESET autovacuum_naptime")
        conn.execute("SELECT pg_reload_conf()")


def test_deletion_waits_for_no_table(any_dsn: str) -> None:
    """Readers and writers of the partition go on; only rows are locked."""
    with maintenance(any_dsn) as conn, psycopg.connect(any_dsn) as reader, traffic(any_dsn):
        reader.execute("SELECT count(*) FROM logstore.logs")
        planned: Operation = operation(
            conn, "delete", OLDEST, tenant="tenant", before=month(OLDEST - 1)
        )
        assert apply(conn, planned, QUICK).rows == 100
        reader.rollback()
