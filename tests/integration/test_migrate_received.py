"""Migration 0005 on a database that is in use: its index may be there already, or be broken."""

import asyncio
import shutil
from pathlib import Path

import psycopg
import pytest

from auditlog import AuditLog, LogRecord
from auditlog.errors import MigrationError
from auditlog.postgres.migrate import migrate
from auditlog.tables import LOGS
from trail import execute, fetch, ledger_agrees, quick, until, waits_for_a_lock

MIGRATIONS = Path(__file__).parents[2] / "migrations"
INDEX = next(index for index in LOGS.indexes if index.name == "logs_of_exchange")
DEFINITION = "SELECT pg_get_indexdef('logstore.logs_of_exchange'::regclass)"


@pytest.fixture
def before(empty_dsn: str, tmp_path: Path) -> str:
    """A database as it was before the migration."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in sorted(MIGRATIONS.glob("000[1-4]_*.sql")):
        shutil.copy(path, folder)
    migrate(empty_dsn, folder=folder)
    return empty_dsn


def test_index_that_was_built_beforehand_is_left_as_it_is(before: str) -> None:
    """As the comment in the file shows it, for tables that nobody can lock for long."""
    (built,) = _statement_of_the_comment()
    execute(before, built)
    oid = fetch(before, "SELECT 'logstore.logs_of_exchange'::regclass::oid")
    assert [migration.version for migration in migrate(before)][:1] == [5]
    assert fetch(before, "SELECT 'logstore.logs_of_exchange'::regclass::oid") == oid
    assert fetch(before, DEFINITION) == [LOGS.index_definition(INDEX)]
    comment = "SELECT obj_description('logstore.logs_of_exchange'::regclass, 'pg_class')"
    assert fetch(before, comment) == [INDEX.serves]


def test_index_that_was_not_finished_is_an_error_with_the_remedy(before: str) -> None:
    """It looks like one, and no query would use it."""
    execute(before, "INSERT INTO logstore.logs (instance_id, log_id) VALUES ('a', '1'), ('a', '2')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(
            before,
            "CREATE UNIQUE INDEX CONCURRENTLY logs_of_exchange ON logstore.logs (instance_id)",
        )
    with pytest.raises(MigrationError, match=r"is invalid.*DROP INDEX CONCURRENTLY"):
        migrate(before)
    execute(before, "DROP INDEX CONCURRENTLY logstore.logs_of_exchange")
    assert [migration.version for migration in migrate(before)][:1] == [5]
    assert fetch(before, DEFINITION) == [LOGS.index_definition(INDEX)]


async def test_writer_waits_for_the_index_and_loses_nothing(before: str) -> None:
    """The ledger is locked first, as the writer does it, so the two do not wait for each other."""
    async with AuditLog(before, settings=quick()) as audit:
        with psycopg.connect(before) as conn:
            conn.execute((MIGRATIONS / "0005_received.sql").read_bytes())
            for _ in range(100):
                audit.submit(LogRecord())
            await until(lambda: waits_for_a_lock(before))
            assert audit.stats().written == 0
        await audit.flush(20)
    assert fetch(before, "SELECT count(*) FROM logstore.logs") == [100]
    assert ledger_agrees(before)
    applied = await asyncio.to_thread(migrate, before)
    assert 5 not in [migration.version for migration in applied]


def _statement_of_the_comment() -> list[str]:
    """What an operator copies from the file."""
    text = (MIGRATIONS / "0005_received.sql").read_text()
    uncommented = "\n".join(
        line.removeprefix("--") for line in text.splitlines() if line.startswith("--    ")
    )
    return [part.strip() for part in uncommented.split(";") if part.strip()]
