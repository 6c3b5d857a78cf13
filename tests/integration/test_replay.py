"""Batches whose rows may be there already: each row once, and the ledger tells what was added."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from auditlog.sink.database.faults import Fault, bad_row, classify
from auditlog.sink.database.ledger import copy_stream
from auditlog.tables import TABLES
from databases import Server, as_role
from poison import batch_of, changed, good, refusal, target_of
from trail import batches, execute, fetch, ledger_agrees, rows, until, waits_for_a_lock

TABLE_NUMBERS = range(len(TABLES))


def counts(dsn: str) -> list[int]:
    return [len(rows(dsn, table.name)) for table in TABLES]


async def test_replay_adds_what_is_not_there(dsn: str) -> None:
    """In every table, whatever the order; identity and clocks are those of the tuples."""
    async with target_of(dsn) as target:
        tuples = [good(table, 30) for table in TABLE_NUMBERS]
        await target.write(batch_of(*(of_table[10:20] for of_table in tuples)))
        stored = [rows(dsn, table.name) for table in TABLES]
        await target.write(batch_of(*tuples, replay=True))
        assert counts(dsn) == [30, 30, 30]
        assert ledger_agrees(dsn)
        assert [entry["logs"] for entry in batches(dsn)] == [10, 20]
        for table, before in zip(TABLES, stored, strict=True):
            assert [row for row in rows(dsn, table.name) if row in before] == before


async def test_replay_of_everything_is_an_entry_of_zeros(dsn: str) -> None:
    """It was written, and added nothing; the hash is that of what was sent."""
    async with target_of(dsn) as target:
        tuples = [good(table, 5) for table in TABLE_NUMBERS]
        await target.write(batch_of(*tuples))
        await target.write(batch_of(*tuples, replay=True))
        first, second = batches(dsn)
        names = ("logs", "execution_logs", "quota_logs")
        counted = [tuple(entry[name] for name in names) for entry in (first, second)]
        assert counted == [(5, 5, 5), (0, 0, 0)]
        assert first["sha256"] == second["sha256"]
        assert ledger_agrees(dsn)


@pytest.mark.parametrize("table", TABLE_NUMBERS)
async def test_a_row_twice_in_a_replay_is_one(dsn: str, table: int) -> None:
    async with target_of(dsn) as target:
        tuples = good(table, 3)
        await target.write(batch_of(*([[]] * table), tuples + tuples, replay=True))
        assert counts(dsn)[table] == 3
        assert ledger_agrees(dsn)


async def test_replay_of_new_rows_is_a_plain_copy(any_dsn: str) -> None:
    """The same identity again finds its ledger row."""
    async with target_of(any_dsn) as target:
        batch = batch_of(good(0, 3), replay=True)
        for _ in range(2):
            await target.write(batch)
        assert [entry["logs"] for entry in batches(any_dsn)] == [3]
        assert counts(any_dsn)[0] == 3


@pytest.mark.parametrize("table", TABLE_NUMBERS)
async def test_another_row_under_the_identity_is_named(dsn: str, table: int) -> None:
    """Not passed over in silence: its own row is nowhere."""
    async with target_of(dsn) as target:
        tuples = good(table, 20)
        await target.write(batch_of(*([[]] * table), tuples))
        tuples[7] = (
            changed(table, tuples[7], user_id=b"x")
            if table != 1
            else changed(table, tuples[7], message=b"x")
        )
        batch = batch_of(*([[]] * table), tuples, replay=True)
        error = await refusal(target, batch)
        assert (error.sqlstate, classify(error), bad_row(error)) == (
            "23505",
            Fault.DATA,
            (table, 7),
        )
        assert await target.is_stored(table, tuples[7]) is False
        assert await target.is_stored(table, tuples[8]) is True
        assert await target.is_stored(table, good(table, 1)[0]) is False
        assert ledger_agrees(dsn)


async def test_writer_with_no_right_to_read(dsn: str, server: Server) -> None:
    """Replays with the rights that plain writing needs; it cannot tell other rows apart."""
    with server.role() as role:
        execute(
            dsn,
            f'GRANT USAGE ON SCHEMA logstore TO "{role}";'
            f' GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}";'
            f' GRANT SELECT (batch_id) ON logstore.batches TO "{role}"',
        )
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        execute(dsn, f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC')
        async with target_of(as_role(dsn, role)) as target:
            tuples = good(0, 10)
            await target.write(batch_of(tuples[:5]))
            await target.write(batch_of(tuples, replay=True))
            assert await target.is_stored(0, tuples[0]) is None
            await target.write(batch_of([changed(0, tuples[0], message=b"x")], replay=True))
            assert counts(dsn)[0] == 10
            assert ledger_agrees(dsn)
            execute(dsn, f'DROP OWNED BY "{role}"')


async def test_replay_through_a_pooler(any_dsn: str, pgbouncer: Callable[[str], str]) -> None:
    """In transaction mode: nothing is prepared, and nothing stays in the session."""
    tuples = [good(table, 200) for table in TABLE_NUMBERS]

    async def write() -> None:
        async with target_of(pgbouncer(any_dsn)) as target:
            await target.write(batch_of(*tuples, replay=True))

    await asyncio.gather(*(write() for _ in range(3)))
    assert counts(any_dsn) == [200, 200, 200]
    assert ledger_agrees(any_dsn)


async def test_replay_locks_the_ledger_first(any_dsn: str) -> None:
    """As writing does, and migrations: in another order the two would wait for each other."""
    tuples = good(0, 2)
    with psycopg.connect(any_dsn) as earlier, psycopg.connect(any_dsn) as migration:
        with earlier.cursor().copy(TABLES[0].copy_statement) as copy:
            copy.write(copy_stream(tuples[:1]))
        async with target_of(any_dsn) as target, asyncio.TaskGroup() as tasks:
            tasks.create_task(target.write(batch_of(tuples, replay=True)))
            await until(lambda: waits_for_a_lock(any_dsn))
            tasks.create_task(_lock_tables(any_dsn, migration))
            await until(lambda: fetch(any_dsn, WAITING) == [True])
            # The copy meets the row, and the migration has the ledger before the merge begins.
            earlier.commit()
    assert counts(any_dsn)[0] == 2


WAITING = "SELECT true FROM pg_locks WHERE relation = 'logstore.batches'::regclass AND NOT granted"


async def _lock_tables(dsn: str, conn: psycopg.Connection) -> None:
    lock = "LOCK TABLE logstore.{} IN ACCESS EXCLUSIVE MODE"
    await asyncio.to_thread(conn.execute, lock.format("batches").encode())
    await until(lambda: waits_for_a_lock(dsn))
    await asyncio.to_thread(conn.execute, lock.format("logs").encode())
    await asyncio.to_thread(conn.commit)
