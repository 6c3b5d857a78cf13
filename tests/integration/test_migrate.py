import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from auditlog.errors import MigrationError
from auditlog.postgres.files import available, package_version
from auditlog.postgres.migrate import migrate, status
from databases import PASSWORD, Server, as_role, postgres_program

MIGRATIONS = Path(__file__).parents[2] / "migrations"
NEWEST = len(list(MIGRATIONS.glob("*.sql")))


def test_empty_database_gets_every_migration_once(empty_dsn: str) -> None:
    """The second run finds nothing to do, and the history says who did what."""
    assert [migration.version for migration in migrate(empty_dsn)] == list(range(1, NEWEST + 1))
    assert migrate(empty_dsn) == []
    with psycopg.connect(empty_dsn) as conn:
        entries = status(conn)
        user = conn.info.user
    assert {entry.state for entry in entries} == {"applied"}
    assert {(entry.applied_by, entry.package_version) for entry in entries} == {
        (user, package_version())
    }


def test_dry_run_changes_nothing(empty_dsn: str) -> None:
    """It returns what would be applied."""
    assert len(migrate(empty_dsn, dry_run=True)) == NEWEST
    with psycopg.connect(empty_dsn) as conn:
        assert {entry.state for entry in status(conn)} == {"pending"}


def test_files_run_in_psql_and_are_signed_afterwards(empty_dsn: str) -> None:
    """Whoever prefers psql ends with the same schema, and the runner takes over from there."""
    psql = [postgres_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-d", empty_dsn]
    for path in sorted(MIGRATIONS.glob("*.sql"))[:-1]:
        subprocess.run([*psql, "-f", path], check=True)
    assert [migration.version for migration in migrate(empty_dsn)] == [NEWEST]
    with psycopg.connect(empty_dsn) as conn:
        entries = status(conn)
    assert {(entry.state, entry.package_version) for entry in entries} == {
        ("applied", package_version())
    }


def test_two_runners_at_once_both_end_well(empty_dsn: str) -> None:
    """Each file is applied by one of them."""
    barrier = threading.Barrier(2)

    def run(_: int) -> list[int]:
        barrier.wait()
        return [migration.version for migration in migrate(empty_dsn)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert sorted(first + second) == list(range(1, NEWEST + 1))


def test_killed_runner_leaves_no_lock_behind(empty_dsn: str) -> None:
    """The lock of a runner whose connection is gone is gone too."""
    with (
        psycopg.connect(empty_dsn, autocommit=True) as observer,
        closing(psycopg.connect(empty_dsn)) as killed,
        ThreadPoolExecutor(1) as pool,
    ):
        killed.execute("SELECT pg_advisory_xact_lock(hashtextextended('auditlog migrate', 0))")
        waiting = pool.submit(migrate, empty_dsn)
        blocked = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while observer.execute(blocked).fetchone() == (0,):
            assert not waiting.done()
        observer.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
        assert len(waiting.result(timeout=30)) == NEWEST


def test_changed_applied_file_is_an_error(any_dsn: str, tmp_path: Path) -> None:
    """It names the file and what to do, and applies nothing."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    with (folder / "0002_projections.sql").open("a") as file:
        file.write("-- an afterthought\n")
    _write(folder, NEWEST + 1, "next", "CREATE TABLE logstore.next ()")
    with pytest.raises(
        MigrationError, match=r"0002_projections\.sql was changed.*restore the file"
    ):
        migrate(any_dsn, folder=folder)
    with psycopg.connect(any_dsn) as conn:
        assert _applied(conn) == list(range(1, NEWEST + 1))


def test_database_newer_than_the_package_is_an_error(any_dsn: str, tmp_path: Path) -> None:
    """The remedy is to upgrade the package."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    _write(folder, NEWEST + 1, "next", "CREATE TABLE logstore.next ()")
    migrate(any_dsn, folder=folder)
    with pytest.raises(MigrationError, match=r"_next\.sql.*pip install --upgrade"):
        migrate(any_dsn)


def test_failing_file_is_rolled_back_whole_and_named(empty_dsn: str, tmp_path: Path) -> None:
    """What came before it stays."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    _write(folder, NEWEST + 1, "bad", "CREATE TABLE logstore.half (); SELECT 1 / 0")
    with pytest.raises(MigrationError, match=r"_bad\.sql was not applied: division by zero"):
        migrate(empty_dsn, folder=folder)
    with psycopg.connect(empty_dsn) as conn:
        assert _applied(conn) == list(range(1, NEWEST + 1))
        assert conn.execute("SELECT to_regclass('logstore.half')").fetchone() == (None,)


def test_file_that_does_not_record_itself_is_an_error(any_dsn: str, tmp_path: Path) -> None:
    """It would be applied again and again."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (folder / f"{NEWEST + 1:04}_forgetful.sql").write_text("CREATE TABLE logstore.forgotten ()")
    with pytest.raises(MigrationError, match="must end with its line in the history"):
        migrate(any_dsn, folder=folder)


def test_busy_table_ends_the_run_after_the_lock_timeout(any_dsn: str, tmp_path: Path) -> None:
    """A migration that waits would make every writer wait behind it."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    _write(folder, NEWEST + 1, "alter", "ALTER TABLE logstore.logs ADD COLUMN next text")
    with psycopg.connect(any_dsn) as reader:
        reader.execute("SELECT FROM logstore.logs")
        with pytest.raises(MigrationError, match=r"lock timeout: another transaction"):
            migrate(any_dsn, folder=folder, lock_timeout_s=0.1)


def test_role_without_rights_learns_which_it_needs(server: Server) -> None:
    """The error names the right, and never the password."""
    with (
        server.role() as role,
        server.database(migrated=False) as dsn,
        pytest.raises(MigrationError, match="GRANT CREATE ON DATABASE") as caught,
    ):
        migrate(as_role(dsn, role))
    assert PASSWORD not in str(caught.value)


def test_role_that_was_given_both_schemas_needs_no_other_right(server: Server) -> None:
    """An administrator may make the schemas beforehand."""
    with server.role() as role, server.database(migrated=False) as dsn:
        with psycopg.connect(dsn) as conn:
            for schema in ("logstore", "projections"):
                conn.execute(
                    sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
                        sql.Identifier(schema), sql.Identifier(role)
                    )
                )
        assert len(migrate(as_role(dsn, role))) == NEWEST


def test_role_that_may_use_a_schema_but_not_owns_it_learns_what_helps(server: Server) -> None:
    """The right to make schemas would not; running the remedy does."""
    with server.role() as role, server.database(migrated=False) as dsn:
        schemas = ("logstore", "projections")
        with psycopg.connect(dsn) as conn:
            for schema in schemas:
                conn.execute(f'CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO "{role}"')
        with pytest.raises(MigrationError, match=r"ALTER SCHEMA \.\.\. OWNER TO") as caught:
            migrate(as_role(dsn, role))
        assert "must be owner of schema logstore" in str(caught.value)
        with psycopg.connect(dsn) as conn:
            for schema in schemas:
                conn.execute(f'ALTER SCHEMA {schema} OWNER TO "{role}"')
        assert len(migrate(as_role(dsn, role))) == NEWEST


def test_database_that_is_not_utf8_is_refused(server: Server) -> None:
    """It could not hold every text; the remedy makes one that can."""
    options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    with (
        server.database(migrated=False, options=options) as dsn,
        pytest.raises(MigrationError, match=r"LATIN1.*createdb --encoding=UTF8"),
    ):
        migrate(dsn)


def test_foreign_table_of_the_same_name_is_left_alone(empty_dsn: str) -> None:
    """The error says that the name is taken."""
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("CREATE SCHEMA logstore CREATE TABLE logs (theirs text)")
    with pytest.raises(MigrationError, match=r'"logs" already exists.*did not make'):
        migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("SELECT theirs FROM logstore.logs")


def test_migrates_through_a_pooler_in_transaction_mode(
    any_server: Server, pgbouncer: Callable[[str], str]
) -> None:
    """Everything that needs a session is kept within the transaction."""
    with any_server.database(migrated=False) as dsn:
        assert len(migrate(pgbouncer(dsn))) == NEWEST


def test_unreachable_server_is_a_migration_error() -> None:
    """With the cause and the remedy, and without the password."""
    with pytest.raises(MigrationError, match="Connection refused: start the server") as caught:
        migrate(f"postgresql://me:{PASSWORD}@127.0.0.1:1/x")
    assert PASSWORD not in str(caught.value)


def test_lost_migrations_are_an_error(tmp_path: Path) -> None:
    """A package without its files must not call an empty database up to date."""
    with pytest.raises(MigrationError, match="install auditlog-postgres again"):
        available(tmp_path)


def test_files_are_numbered_without_gaps_and_record_themselves() -> None:
    """The last statement of a file is its line in the history, for psql's sake."""
    files = available()
    assert [file.version for file in files] == list(range(1, NEWEST + 1))
    for file in files:
        last_line = file.sql.rstrip("\n").rsplit("\n", 1)[-1]
        assert last_line == _HISTORY_LINE.format(version=file.version, name=file.name)


_HISTORY_LINE = "INSERT INTO logstore.migrations (version, name) VALUES ({version}, '{name}');"


def _applied(conn: psycopg.Connection) -> list[int]:
    """The migrations that the history has, in order."""
    rows = conn.execute("SELECT version FROM logstore.migrations ORDER BY version")
    return [version for (version,) in rows]


def _write(folder: Path, version: int, name: str, body: str) -> None:
    line = _HISTORY_LINE.format(version=version, name=name)
    (folder / f"{version:04}_{name}.sql").write_text(f"{body};\n{line}\n")
