"""The runner: the files of migrations/ → the schema of a database, each in one transaction.

Blocking, for the command line and for threads. Two at once are safe: an advisory lock, which ends
with its transaction even when the process is killed, lets one wait for the other. A changed file
or a database newer than the package is an error, and nothing has happened then.

yoyo-migrations 9.0.0 would not do: its hash covers a migration's name, not what is in it, so a
changed file goes unnoticed, and its lock is a row that a killed process leaves behind.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, LiteralString, Literal, TypeAlias, cast

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

import auditlog
from auditlog.errors import MigrationError

# Another runner may have a long file; its connection ends with its process, and so does the lock.
OTHER_RUNNER_TIMEOUT_S = 300

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `NNNN_name.sql`."""

    version: int
    name: str
    sql: str

    @property
    def file_name(self) -> str:
        """The name of the file within its folder."""
        return f"{self.version:04}_{self.name}.sql"

    @property
    def sha256(self) -> bytes:
        """The digest that the history keeps of the file."""
        return hashlib.sha256(self.sql.encode()).digest()


@dataclass(frozen=True, slots=True)
class Status:
    """One migration as the package and the database see it."""

    version: int
    name: str
    state: Literal["applied", "pending", "changed", "unknown"]
    """`changed`: applied, but the file is another now; `unknown`: applied by a newer package."""
    applied_at: datetime | None = None
    applied_by: str | None = None
    package_version: str | None = None
    migration: Migration | None = None


def package_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return metadata.version("auditlog-postgres")
    except metadata.PackageNotFoundError:
        return "unknown"


def available(folder: Path | None = None) -> tuple[Migration, ...]:
    """Return the files of the wheel, of the checkout, or of `folder`, in order."""
    package = Path(auditlog.__file__).parent
    folders = (folder,) if folder else (package / "migrations", package.parents[1] / "migrations")
    for candidate in folders:
        named = ((re.fullmatch(r"(\d{4})_(\w+)\.sql", path.name), path) for path in candidate.glob("*"))
        found = [
            Migration(int(match[1]), match[2], path.read_text(encoding="utf-8"))
            for match, path in named
            if match
        ]
        if found:
            return tuple(sorted(found, key=lambda migration: migration.version))
    raise MigrationError("the package holds no migrations/: install auditlog-postgres again")


def schema_version(conn: Connection) -> int:
    """Return the number of the newest migration applied, 0 for none."""
    return max((entry.version for entry in status(conn) if entry.state != "pending"), default=0)


def status(conn: Connection, files: Iterable[Migration] | None = None) -> list[Status]:
    """Return every migration known to the package or to the database, in order."""
    known = {migration.version: migration for migration in files or available()}
    history = {row[0]: row for row in _history(conn)}
    entries = []
    for version in sorted(known.keys() | history.keys()):
        migration, row = known.get(version), history.get(version)
        if row is None:
            entries.append(Status(version, known[version].name, "pending", migration=migration))
            continue
        _, name, digest, *when_and_who = row
        if migration is None:
            entries.append(Status(version, name, "unknown", *when_and_who))
        else:
            same = digest is None or bytes(digest) == migration.sha256
            state: Literal["applied", "changed"] = "applied" if same else "changed"
            entries.append(Status(version, name, state, *when_and_who, migration))
    return entries


def plan(entries: Iterable[Status]) -> list[Migration]:
    """Return what is to be applied, in order.

    Raises:
        MigrationError: an applied file was changed, or the database is newer than the package.
    """
    entries = list(entries)
    for entry in entries:
        if entry.state == "changed":
            raise MigrationError(
                f"migrations/{entry.version:04}_{entry.name}.sql was changed after it had been applied"
                f" ({entry.applied_at:%Y-%m-%d}, package {entry.package_version}): restore the file as"
                " released and put the change into a new one"
            )
        if entry.state == "unknown":
            raise MigrationError(
                f"the database has migration {entry.version} ({entry.name}) of package"
                f" {entry.package_version}, this is {package_version()}:"
                " pip install --upgrade auditlog-postgres"
            )
    return [entry.migration for entry in entries if entry.state == "pending" and entry.migration]
