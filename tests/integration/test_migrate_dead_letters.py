"""Migration 0006 on a database that is in use, and what may be done with its table."""

import asyncio
import shutil
from pathlib import Path

import psycopg
import pytest

from auditlog import AuditLog, LogRecord
from auditlog.postgres.doctor import diagnose
from auditlog.postgres.migrate import migrate
from auditlog.tables import DEAD_LETTERS
from databases import Server, as_role
from trail import execute, fetch, ledger_agrees, quick, until, waits_for_a_lock

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@pytest.fixture
def before(empty_dsn: str, tmp_path: Path) -> str:
    """A database as it was before the migration."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in sorted(MIGRATIONS.glob("000[1-5]_*.sql")):
        shutil.copy(path, folder)
    migrate(empty_dsn, folder=folder)
    return empty_dsn


async def test_writer_waits_for_the_migration_and_loses_nothing(before: str) -> None:
    """The ledger is locked first, as the writer does it, so the two do not wait for each other."""
    async with AuditLog(before, settings=quick()) as audit:
        with psycopg.connect(before) as conn:
            conn.execute((MIGRATIONS / "0006_dead_letters.sql").read_bytes())
            for _ in range(100):
                audit.submit(LogRecord(user_id="ada"))
            await until(lambda: waits_for_a_lock(before))
            assert audit.stats().written == 0
        await audit.flush(20)
    assert fetch(before, "SELECT count(*) FROM logstore.logs WHERE user_id = 'ada'") == [100]
    assert ledger_agrees(before)
    applied = await asyncio.to_thread(migrate, before)
    assert 6 not in [migration.version for migration in applied]


def test_columns_are_those_that_are_written(any_dsn: str) -> None:
    """By name and in order, as tables.py describes them."""
    query = (
        "SELECT attname FROM pg_attribute WHERE attnum > 0"
        " AND attrelid = 'logstore.dead_letters'::regclass ORDER BY attnum"
    )
    assert fetch(any_dsn, query) == list(DEAD_LETTERS.column_names)


def test_role_that_may_not_bury_is_warned_and_helped(server: Server) -> None:
    """Rows are stored all the same; what is refused then goes into a file, or is lost."""
    with server.role() as role, server.database() as dsn:
        execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        execute(dsn, f'GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}"')
        execute(dsn, f'GRANT SELECT (batch_id) ON logstore.batches TO "{role}"')
        execute(dsn, f'REVOKE ALL ON logstore.dead_letters FROM "{role}"')
        (finding,) = [found for found in diagnose(as_role(dsn, role)) if found.name == "rights"]
        assert (finding.state, "dead_letters" in finding.detail) == ("warning", True)
        execute(dsn, finding.remedy)
        (finding,) = [found for found in diagnose(as_role(dsn, role)) if found.name == "rights"]
        assert finding.state == "ok"


def test_letters_may_be_taken_away(any_dsn: str) -> None:
    """Unlike the trail: the command that does it leaves a row there."""
    execute(
        any_dsn,
        "INSERT INTO logstore.dead_letters (letter_id, died_at, writer, table_name, columns, row,"
        " sqlstate, reason) VALUES (gen_random_uuid(), now(), 'host:1', 'logs', '{}', '', '', '')",
    )
    execute(any_dsn, "DELETE FROM logstore.dead_letters")
    assert fetch(any_dsn, "SELECT count(*) FROM logstore.dead_letters") == [0]
