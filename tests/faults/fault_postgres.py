"""A PostgreSQL of the harness's own, which can be crashed, and what can be done to a database.

The service enters as a role with no more rights than it needs and a password that is asked for.
Everything here is done as the owner, around the proxy. Each fault undoes what it did.
"""

import itertools
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from fault_client import until
from psycopg.conninfo import make_conninfo

from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate

ROLE = "auditlog_app"
PASSWORD, OTHER_PASSWORD = "swordfish", "marlin"
_TEMPLATE = "harness_template"
_SESSIONS = f"FROM pg_stat_activity WHERE usename = '{ROLE}' AND datname = current_database()"
_numbers = itertools.count(1)

RIGHTS = f"""
    GRANT USAGE ON SCHEMA logstore TO {ROLE};
    GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO {ROLE};
    GRANT SELECT (batch_id) ON logstore.batches TO {ROLE};
"""


@dataclass(frozen=True)
class Database:
    """One database, migrated."""

    dsn: str
    """As the owner."""
    service_dsn: str
    """As the service enters."""

    def execute(self, statements: str) -> None:
        """Run statements as the owner, in one transaction."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(statements.encode())

    def fetch(self, query: str) -> list[Any]:
        """Return the rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(query.encode()).fetchall()

    def hang_up(self) -> None:
        """End the service's sessions, so that what was changed for new ones takes effect."""
        self.execute(f"SELECT pg_terminate_backend(pid) {_SESSIONS}")

    @contextmanager
    def changed(self, statements: str, undo: str, *, hang_up: bool = False) -> Iterator[None]:
        """Change something for the length of the context."""
        self.execute(statements)
        try:
            if hang_up:
                self.hang_up()
            yield
        finally:
            self.execute(undo)

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock a table against everybody."""
        with psycopg.connect(self.dsn) as conn:
            conn.execute(f"LOCK TABLE logstore.{table} IN ACCESS EXCLUSIVE MODE".encode())
            yield
            conn.rollback()

    @contextmanager
    def refusing(self, condition: str, sqlstate: str = "23514") -> Iterator[None]:
        """Refuse rows of `logstore.logs` for which a condition on `NEW` holds."""
        function = f"""
            CREATE OR REPLACE FUNCTION logstore.fault_refuse() RETURNS trigger
            LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION 'refused by the harness'
                    USING ERRCODE = '{sqlstate}', CONSTRAINT = 'fault';
            END $$;
            CREATE TRIGGER fault BEFORE INSERT ON logstore.logs
                FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION logstore.fault_refuse()"""
        with self.changed(function, "DROP TRIGGER fault ON logstore.logs"):
            yield


class Postgres:
    """A context: a server, and databases on it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._server: embedded.EmbeddedServer

    def __enter__(self) -> "Postgres":
        # Short, because a socket's path may have 107 characters.
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True)
        )
        self._path = Path(folder, "data")
        self._server = embedded.start(self._path)
        self._stack.callback(self._stop)
        self._prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Make a database for the length of the context."""
        name = f"harness_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        dsn = make_conninfo(self._server.dsn, dbname=name)
        try:
            yield Database(dsn, make_conninfo(dsn, user=ROLE, password=PASSWORD))
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def crash(self, how: signal.Signals) -> None:
        """End the server without notice; returns when it is gone.

        Args:
            how: SIGQUIT as `pg_ctl stop -m immediate` does, or SIGKILL.
        """
        postmaster = int((self._path / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, how)
        until(lambda: not _runs(postmaster), "the server is gone")

    def restart(self) -> None:
        """Start it again after a crash, and return when it answers."""
        dsn = self._server.dsn
        self._server = embedded.start(self._path)
        assert self._server.dsn == dsn

    def kill_backend(self, database: Database) -> None:
        """Kill the process that serves the service: the server then crashes and recovers."""
        pids = database.fetch(f"SELECT pid {_SESSIONS}")
        with psycopg.connect(self._server.dsn, autocommit=True) as witness:
            for (pid,) in pids:
                os.kill(pid, signal.SIGKILL)
            if pids:
                # Until it notices, it answers as ever.
                until(lambda: not _lives(witness), "the server has crashed")
        until(self._answers, "the server has recovered")

    def _stop(self) -> None:
        self._server.stop()  # the one of the last restart

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._server.dsn, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def _prepare(self) -> None:
        # What the operating system has is kept when a process is killed; forcing it to the disk
        # would only make the harness slow.
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("ALTER SYSTEM SET autovacuum = off")
        self._execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        hba = self._path / "pg_hba.conf"
        hba.write_text(f"local all {ROLE} scram-sha-256\n{hba.read_text()}")
        self._execute("SELECT pg_reload_conf()")
        self._execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0 ENCODING 'UTF8'")
        dsn = make_conninfo(self._server.dsn, dbname=_TEMPLATE)
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(RIGHTS.encode())

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.dsn, autocommit=True) as conn:
            conn.execute(statement.encode())


def _runs(pid: int) -> bool:
    """Whether a process runs; a zombie, whose parent does not look, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _lives(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT")
    except psycopg.OperationalError:
        return False
    return True
