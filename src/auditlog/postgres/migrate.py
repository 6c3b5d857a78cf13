"""The runner: the files of migrations/ → the schema of a database, each in one transaction.

Blocking, for the command line and for threads. Two at once are safe: one waits for the other's
advisory lock, which ends with its transaction even when the process is killed. A changed file and
a database newer than the package are errors, found before anything is run.

yoyo-migrations 9.0.0 would not do: its hash covers a migration's name, so a changed file goes
unnoticed, and its lock is a row that a killed process leaves behind.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.rows import tuple_row

from auditlog.errors import MigrationError
from auditlog.postgres.causes import Connection, connect, explain, wrong_encoding, wrong_version
from auditlog.postgres.files import Migration, available, package_version

OTHER_RUNNER_TIMEOUT_S = 300

_NAME_IS_TAKEN = (
    "the database has an object of this name that auditlog did not make:"
    " rename or drop it, or use another database"
)
# What only a migration runs into, or mends in another way.
_REMEDIES = {
    "42501": "run it as the owner of schemas logstore and projections, or make this role their"
    " owner (ALTER SCHEMA ... OWNER TO ...); where there are none yet, let it make them:"
    " GRANT CREATE ON DATABASE ... TO ...",
    "42710": _NAME_IS_TAKEN,  # an object of another kind
    "42723": _NAME_IS_TAKEN,  # a function
    "42P06": _NAME_IS_TAKEN,  # a schema
    "42P07": _NAME_IS_TAKEN,  # a table, an index or a view
    "55000": "DROP INDEX CONCURRENTLY it, then build it again or leave that to the migration",
    "55P03": "another transaction holds a lock on it: try again when that has ended"
    " (pg_stat_activity shows it)",
}


def status(conn: Connection, files: Iterable[Migration] | None = None) -> list[Migration]:
    """Return every migration that the package or the database knows, in order."""
    merged = {file.version: file for file in files or available()}
    for version, name, digest, *circumstances in _history(conn):
        file = merged.get(version)
        state: Literal["applied", "changed", "unknown"] = "unknown"
        if file is not None:
            state = "applied" if digest in (None, file.digest) else "changed"
        merged[version] = Migration(version, name, file.sql if file else "", state, *circumstances)
    return [merged[version] for version in sorted(merged)]


def plan(migrations: Iterable[Migration]) -> list[Migration]:
    """Return what has yet to be applied, in order.

    Raises:
        MigrationError: an applied file was changed, or the database is newer than the package.
    """
    migrations = list(migrations)
    for migration in migrations:
        if migration.state == "changed":
            raise MigrationError(
                f"{migration.file_name} was changed after package {migration.package_version} had"
                " applied it: restore the file as released, put the change into a new one"
            )
        if migration.state == "unknown":
            raise MigrationError(
                f"the database has {migration.file_name}, package {package_version()} has not:"
                " pip install --upgrade auditlog-postgres"
            )
    return [migration for migration in migrations if migration.state == "pending"]


def migrate(
    dsn: str, *, dry_run: bool = False, lock_timeout_s: float = 5.0, folder: Path | None = None
) -> list[Migration]:
    """Apply what is missing and return it; with `dry_run` only return it. Blocks.

    Raises:
        MigrationError: with the remedy. The files before the failing one stay applied.
    """
    files = available(folder)
    applied: list[Migration] = []
    try:
        with connect(dsn) as conn:
            encoding = conn.info.parameter_status("server_encoding")
            if cause := wrong_version(conn.info.server_version) or wrong_encoding(encoding):
                raise MigrationError(str(cause))
            if dry_run:
                return plan(status(conn, files))
            while (migration := _apply_next(conn, files, lock_timeout_s)) is not None:
                applied.append(migration)
    except psycopg.Error as error:
        raise MigrationError(str(explain(error, _REMEDIES))) from error
    return applied


def _apply_next(
    conn: Connection, files: list[Migration], lock_timeout_s: float
) -> Migration | None:
    set_lock_timeout = "SELECT set_config('lock_timeout', %s, true)"
    with conn.transaction():
        conn.execute("SET LOCAL statement_timeout = 0")
        conn.execute(set_lock_timeout, (f"{OTHER_RUNNER_TIMEOUT_S}s",))
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('auditlog migrate', 0))")
        known = status(conn, files)
        pending = plan(known)[:1]
        conn.execute(set_lock_timeout, (f"{lock_timeout_s * 1000:.0f}ms",))
        for migration in pending:
            _run(conn, migration)
        unsigned = [m for m in known if m.state == "applied" and m.package_version is None]
        for migration in unsigned + pending:
            signed = conn.execute(
                "UPDATE logstore.migrations SET sha256 = %s, package_version = %s"
                " WHERE version = %s",
                (migration.digest, package_version(), migration.version),
            )
            if not signed.rowcount:
                raise MigrationError(f"{migration.file_name} must end with its line in the history")
    return pending[0] if pending else None


def _run(conn: Connection, migration: Migration) -> None:
    try:
        conn.execute(migration.sql.encode())
    except psycopg.Error as error:
        raise MigrationError(
            f"{migration.file_name} was not applied: {explain(error, _REMEDIES)}"
        ) from error


def _history(conn: Connection) -> list[Any]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "SELECT FROM pg_tables WHERE schemaname = 'logstore' AND tablename = 'migrations'"
        )
        if cursor.fetchone() is None:
            return []
        cursor.execute(
            "SELECT version, name, sha256, applied_at, applied_by, package_version"
            " FROM logstore.migrations ORDER BY version"
        )
        return cursor.fetchall()
