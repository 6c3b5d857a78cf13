"""The PostgreSQL under the benchmarks, and a new database for each turn of each contestant.

`AUDITLOG_BENCH_DSN` names a server whose user may create databases; without it an embedded
PostgreSQL 18 runs in a temporary folder, with its own defaults: fsync is on.
"""

import itertools
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate

DSN_VARIABLE = "AUDITLOG_BENCH_DSN"


class Server:
    """A running server with one migrated database, which all others are copies of."""

    def __init__(self, dsn: str, psql: str | None) -> None:
        self.dsn = dsn
        self.psql = psql
        """The program, if there is one."""
        self._numbers = itertools.count(1)
        self._prefix = f"auditlog_bench_{os.getpid()}"
        self._admin = psycopg.connect(dsn, autocommit=True)
        self._create("template0", name := f"{self._prefix}_template")
        migrate(make_conninfo(dsn, dbname=name))
        self._template = name

    @property
    def version(self) -> str:
        """The server's version, as it writes it itself."""
        return self._admin.info.parameter_status("server_version") or "?"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a migrated, empty database; give its DSN; drop it at the end."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._create(self._template, name)
        # The copy has dirtied the cache: what it owes the disk is not the contestant's debt.
        self._admin.execute("CHECKPOINT")
        try:
            yield make_conninfo(self.dsn, dbname=name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template."""
        self._drop(self._template)
        self._admin.close()

    def _create(self, template: str, name: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'")
        self._admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _drop(self, name: str) -> None:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._admin.execute(statement.format(sql.Identifier(name)))


@contextmanager
def running_server() -> Iterator[Server]:
    """Find or start the server, and leave it as it was."""
    if dsn := os.environ.get(DSN_VARIABLE):
        with _prepared(dsn, shutil.which("psql")) as server:
            yield server
        return
    folder = Path(tempfile.mkdtemp(prefix="auditlog-bench-"))
    try:
        with embedded.start(folder / "18", version=18) as started:
            psql = shlex.split(started.psql_command)[0]
            with _prepared(started.dsn, psql) as server:
                yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _prepared(dsn: str, psql: str | None) -> Iterator[Server]:
    server = Server(dsn, psql)
    try:
        yield server
    finally:
        server.close()
