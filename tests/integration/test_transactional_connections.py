"""`record_within` on connections that are set up in every way, or are of no use at all."""

import asyncio
import concurrent.futures
import logging
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.rows import dict_row, scalar_row
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import hostile
import trail
from auditlog import AuditLog, LogRecord, Settings
from auditlog.sink.database import transactional
from auditlog.sink.database.copy import copy_stream
from auditlog.sink.encoding.encode import Encoder
from auditlog.tables import LOGS
from databases import Server, as_role
from naming import without_address
from transactions import HOSTILE_TEXT, asyncpg_connection, running_async_engine, running_engine

COPIED, INSERTED = "by COPY!", "INSERTed"


def record(conn: psycopg.Connection[Any], event_type: str = "x", **event: Any) -> str:
    return AuditLog("dbname=unused").record_within(conn, event_type, **event)


@pytest.mark.parametrize(
    "options",
    [
        {"row_factory": dict_row},
        {"row_factory": scalar_row},
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"prepare_threshold": 0},
        {"prepare_threshold": None},
        {"client_encoding": "latin1"},
        {"client_encoding": "sql_ascii"},
        {"client_encoding": "euc_jp"},
        {"options": "-c timezone=Asia/Kathmandu -c datestyle=SQL,MDY -c intervalstyle=iso_8601"},
        {"options": "-c search_path="},
        {"options": "-c search_path=public,pg_catalog"},
        {"options": "-c standard_conforming_strings=off -c backslash_quote=off"},
        {"options": "-c default_transaction_isolation=serializable"},
        {"options": "-c plan_cache_mode=force_generic_plan"},
        {"options": "-c bytea_output=escape -c extra_float_digits=-15"},
    ],
    ids=without_address,
)
def test_settings_of_the_connection(any_dsn: str, options: dict[str, Any]) -> None:
    """The caller's choices change neither the row nor are they changed."""
    # What a search path could put before the functions of PostgreSQL.
    trail.execute(
        any_dsn,
        "CREATE FUNCTION public.json_to_record(json) RETURNS record"
        " LANGUAGE sql AS 'SELECT row(1)'",
    )
    with psycopg.connect(any_dsn, **options) as conn:
        before = conn.row_factory, conn.cursor_factory, conn.info.encoding
        for _ in range(7):
            record(conn, message=HOSTILE_TEXT, metadata={HOSTILE_TEXT: [HOSTILE_TEXT, 1.5, 2**60]})
        assert (conn.row_factory, conn.cursor_factory, conn.info.encoding) == before
    stored = trail.rows(any_dsn)
    assert [row["message"] for row in stored] == [HOSTILE_TEXT] * 7
    assert stored[0]["metadata"]["metadata"] == {HOSTILE_TEXT: [HOSTILE_TEXT, 1.5, 2**60]}
    assert stored[0]["log_date"] == stored[0]["occurrence_date"]
    assert trail.ledger_agrees(any_dsn)


def test_autocommit_commits_at_once(any_dsn: str) -> None:
    """One statement, so row and ledger still go together."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        record(conn)
        assert len(trail.rows(any_dsn)) == 1
        conn.execute("BEGIN")
        record(conn)
        conn.execute("ROLLBACK")
    assert len(trail.rows(any_dsn)) == 1
    assert trail.ledger_agrees(any_dsn)


def test_pipeline(any_dsn: str) -> None:
    """No answer is waited for; an error comes out where psycopg tells it."""
    with psycopg.connect(any_dsn) as conn:
        with conn.pipeline():
            for number in range(5):
                record(conn, f"event {number}")
        conn.commit()
        trail.execute(any_dsn, "ALTER TABLE logstore.logs RENAME TO hidden")
        with pytest.raises(psycopg.errors.UndefinedTable), conn.pipeline():
            record(conn)
    trail.execute(any_dsn, "ALTER TABLE logstore.hidden RENAME TO logs")
    assert [row["event_type"] for row in trail.rows(any_dsn)] == [f"event {n}" for n in range(5)]
    assert trail.ledger_agrees(any_dsn)


async def test_pipeline_of_an_asynchronous_connection(any_dsn: str) -> None:
    """Likewise."""
    audit = AuditLog(any_dsn)
    async with await psycopg.AsyncConnection.connect(any_dsn) as conn, conn.pipeline():
        for _ in range(5):
            await audit.arecord_within(conn, "x")
    assert len(trail.rows(any_dsn)) == 5
    assert trail.ledger_agrees(any_dsn)


def test_connection_of_a_pool(any_dsn: str) -> None:
    """It goes back clean, after a commit and after a rollback."""
    with ConnectionPool(any_dsn, min_size=1, max_size=1, open=True) as pool:
        with pool.connection() as conn:
            record(conn, "kept")
        with pool.connection() as conn:
            record(conn, "lost")
            conn.rollback()
        with pool.connection() as conn:
            record(conn, "kept")
    assert [row["event_type"] for row in trail.rows(any_dsn)] == ["kept", "kept"]
    assert trail.ledger_agrees(any_dsn)


def test_nothing_is_prepared(any_dsn: str) -> None:
    """A pooler in transaction mode would know nothing of it in the next transaction."""
    with psycopg.connect(any_dsn, prepare_threshold=1) as conn:
        for _ in range(10):
            record(conn)
        cursor = conn.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        assert cursor.fetchone() == (0,)


def test_through_a_pooler(any_dsn: str, pgbouncer: Callable[[str], str]) -> None:
    """Connections that take turns on the same servers, with the driver's own defaults."""
    with psycopg.connect(pgbouncer(any_dsn)) as one, psycopg.connect(pgbouncer(any_dsn)) as other:
        for number in range(20):
            record(one, str(number))
            if number % 3:
                one.commit()
            record(other, str(number))
            other.commit()
    assert len(trail.rows(any_dsn)) == 40
    assert trail.ledger_agrees(any_dsn)


def test_threads(any_dsn: str) -> None:
    """Each with a transaction of its own, every other one rolled back; some share a connection."""
    audit = AuditLog(any_dsn)

    def work(number: int) -> None:
        with psycopg.connect(any_dsn) as conn:
            for turn in range(20):
                audit.record_within(conn, "kept" if turn % 2 else "lost", thread=number)
                (conn.commit if turn % 2 else conn.rollback)()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
        with psycopg.connect(any_dsn) as shared:
            list(pool.map(lambda _: audit.record_within(shared, "kept"), range(40)))
    assert {row["event_type"] for row in trail.rows(any_dsn)} == {"kept"}
    assert len(trail.rows(any_dsn)) == 6 * 10 + 40
    assert trail.ledger_agrees(any_dsn)


def test_ledger_is_locked_first(any_dsn: str) -> None:
    """As the writer and the migrations do it, so that they never wait for each other."""
    with psycopg.connect(any_dsn) as migration, psycopg.connect(any_dsn) as conn:
        migration.execute("LOCK TABLE logstore.batches IN SHARE ROW EXCLUSIVE MODE")
        conn.execute("SET LOCAL lock_timeout = '20ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="batches"):
            record(conn)
        conn.rollback()
        migration.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE NOWAIT")


async def test_cancelled_while_it_waits(any_dsn: str) -> None:
    """The statement is cancelled too; nothing is left behind, and the connection can go on."""
    audit = AuditLog(any_dsn)
    with psycopg.connect(any_dsn) as other:
        other.execute("LOCK TABLE logstore.batches IN EXCLUSIVE MODE")
        async with await psycopg.AsyncConnection.connect(any_dsn) as conn:
            await conn.execute("SET application_name = 'waiting'")
            await conn.commit()
            task = asyncio.create_task(audit.arecord_within(conn, "lost"))
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waiting'"
                " AND wait_event_type = 'Lock' AND datname = current_database()"
            )
            await trail.until(lambda: trail.fetch(any_dsn, query) == [1])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            other.rollback()
            await conn.rollback()
            await audit.arecord_within(conn, "kept")
    assert [row["event_type"] for row in trail.rows(any_dsn)] == ["kept"]
    assert trail.ledger_agrees(any_dsn)


def test_closed_connection(any_dsn: str) -> None:
    """The driver says so."""
    with psycopg.connect(any_dsn) as conn:
        pass
    with pytest.raises(psycopg.OperationalError, match="closed"):
        record(conn)


def test_rights_that_it_takes(server: Server) -> None:
    """To insert into two tables, and nothing else; the error says which."""
    with server.role() as role, server.database() as dsn:
        name = sql.Identifier(role)
        with (
            psycopg.connect(dsn, autocommit=True) as owner,
            psycopg.connect(as_role(dsn, role), autocommit=True) as conn,
        ):
            for missing in (
                "USAGE ON SCHEMA logstore",
                "INSERT ON logstore.logs",
                "INSERT ON logstore.batches",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                    record(conn)
                assert "GRANT INSERT" in caught.value.__notes__[0]
                owner.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(missing), name))  # type: ignore[arg-type]
            record(conn)
            owner.execute(
                sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA logstore FROM {}").format(name)
            )
            owner.execute(sql.SQL("REVOKE ALL ON SCHEMA logstore FROM {}").format(name))
        assert len(trail.rows(dsn)) == 1
        assert trail.ledger_agrees(dsn)


def test_read_only_transaction(any_dsn: str) -> None:
    """Refused by the server, with the remedy."""
    with psycopg.connect(any_dsn, options="-c default_transaction_read_only=on") as conn:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            record(conn)
        assert "primary" in caught.value.__notes__[0]


async def test_what_is_no_connection(any_dsn: str) -> None:
    """A clear word before anything is sent."""
    audit = AuditLog(any_dsn)
    with (
        running_engine(any_dsn) as engine,
        psycopg.connect(any_dsn) as conn,
        ConnectionPool(any_dsn, min_size=1, open=True) as pool,
    ):
        for wrong in (None, any_dsn, audit, engine, conn.cursor(), conn.pgconn, pool, object):
            with pytest.raises(TypeError, match="nothing to record through: pass a connection"):
                audit.record_within(wrong, "x")
            with pytest.raises(TypeError, match="nothing to record through: pass a connection"):
                await audit.arecord_within(wrong, "x")
        for synchronous in (conn, Session(engine)):
            with pytest.raises(TypeError, match=r"synchronous: call record_within\(\.\.\.\) inst"):
                await audit.arecord_within(synchronous, "x")
    bare = await asyncpg_connection(any_dsn)
    with pytest.raises(TypeError, match="asyncpg"):
        await audit.arecord_within(bare, "x")
    await bare.close()
    async with (
        running_async_engine(any_dsn, "asyncpg") as engine,
        await psycopg.AsyncConnection.connect(any_dsn) as conn,
        engine.connect() as other,
    ):
        for asynchronous in (conn, AsyncSession(engine), other):
            with pytest.raises(TypeError, match="asynchronous: await arecord_within"):
                audit.record_within(asynchronous, "x")
    assert trail.rows(any_dsn) == trail.batches(any_dsn) == []


def stored_both_ways(dsn: str, records: list[LogRecord]) -> None:
    """Check that INSERT and COPY of the same tuples store the same rows."""
    encode = Encoder(Settings(max_row_bytes=16384)).encode
    with psycopg.connect(dsn) as conn, conn.cursor() as cursor:
        for record in records:
            # Encoded once, since what is no date becomes the time of day.
            record.resource_owner, record.log_id = COPIED, str(uuid.uuid4())
            copied = encode(record)[1]
            inserted = copied.replace(COPIED.encode(), INSERTED.encode())
            inserted = inserted.replace(record.log_id.encode(), str(uuid.uuid4()).encode())
            with cursor.copy(LOGS.copy_statement) as copy:
                copy.write(copy_stream([copied]))
            transactional.insert(conn, inserted)
        # What is no object at all may be null in jsonb after COPY, and null after INSERT.
        same = ", ".join(
            f"nullif({column.name}, 'null')" if column.type == "jsonb" else column.name
            for column in LOGS.columns
            if column.name not in {"log_id", "resource_owner"}
        )
        statement = sql.SQL(
            "SELECT count(*) FILTER (WHERE ways = 2), count(*) FROM (SELECT"
            " count(DISTINCT resource_owner) AS ways FROM logstore.logs GROUP BY {}) AS rows"
        ).format(sql.SQL(same))  # type: ignore[arg-type]
        counted = cursor.execute(statement).fetchone()
        assert counted is not None
        assert counted[0] == counted[1] > 0
        conn.rollback()


def test_hostile_values_are_stored_as_by_copy(dsn: str) -> None:
    """Each hostile object in every field and in the metadata."""
    names = [
        name for name in LOGS.column_names if name not in {"log_id", "log_date", "resource_owner"}
    ]
    records = [
        LogRecord(**fields)
        for value in hostile.OBJECTS
        for fields in (
            dict.fromkeys(names, value),
            {"metadata": {"key": value}},
            {"metadata": value, "occurrence_date": value},
        )
    ]
    stored_both_ways(dsn, records)


@given(hostile.anything, hostile.anything)
@hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_value_is_stored_as_by_copy(any_dsn: str, one: Any, other: Any) -> None:
    """Whatever the encoder makes storable, both roads store alike."""
    stored_both_ways(any_dsn, [LogRecord(message=one, metadata={"a": other}, request_headers=one)])


def test_nothing_of_it_is_logged(any_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The library has nothing to say about it."""
    with caplog.at_level(logging.DEBUG, logger="auditlog"), psycopg.connect(any_dsn) as conn:
        record(conn, message="row's content")
    assert [each for each in caplog.records if each.name.startswith("auditlog")] == []
