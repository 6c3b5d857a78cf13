"""A connection for maintenance: direct, in UTC, on a server that takes writes; one run a table.

Blocking. What depends on a session's settings, bounds of partitions as text above all, is the same
whatever server, role or database have set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from psycopg import Connection
from psycopg.rows import scalar_row

from auditlog.errors import PartitionError
from auditlog.postgres.causes import connect

_PINNED = """
    SET timezone = 'UTC';
    SET datestyle = 'ISO, YMD';
    SET intervalstyle = 'postgres';
    SET search_path = pg_catalog;
    SET quote_all_identifiers = off;
    SET lock_timeout = '1500ms';
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off;
    SET tcp_keepalives_idle = 60;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 6;
    SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN (
        'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout',
        'idle_session_timeout'
    );
    SELECT set_config(name, 'on', false) FROM pg_catalog.pg_settings
    WHERE name = 'synchronous_commit' AND setting = 'off'
"""
"""An archive takes hours, in one transaction and then idle, which no time-out and no firewall is to
end (transaction_timeout is there since 17); but the lock of a machine that is gone goes soon. What
was committed, a hold above all, outlives a crash of the server."""
_KEY = "hashtextextended('auditlog:logstore.' || %s, 0)"


@contextmanager
def maintenance(dsn: str) -> Iterator[Connection[Any]]:
    """Open a connection, autocommit, with the settings above, for the length of the context.

    Raises:
        PartitionError: it leads to a standby, or through a pooler that changes backends.
        psycopg.Error: nothing answers.
    """
    with connect(dsn) as conn:
        if scalar(conn, "SELECT pg_is_in_recovery()"):
            raise PartitionError(
                "the server is a standby, where there is nothing to do: use the DSN of the primary"
            )
        # A pooler makes up the number that it gives the client as its backend.
        if scalar(conn, "SELECT pg_backend_pid()") != conn.info.backend_pid:
            raise PartitionError(
                "the DSN leads through a pooler, which can hand the connection on between two"
                " steps: give the DSN of the server itself"
            )
        conn.execute(_PINNED)
        yield conn


@contextmanager
def only_run(conn: Connection[Any], table: str) -> Iterator[bool]:
    """Be the only run at work on a table; False if another one is. It ends with the connection."""
    is_ours = bool(scalar(conn, f"SELECT pg_try_advisory_lock({_KEY})", table))
    try:
        yield is_ours
    finally:
        if is_ours and not conn.closed:
            conn.execute(f"SELECT pg_advisory_unlock({_KEY})".encode(), [table])


@contextmanager
def unfiltered(conn: Connection[Any]) -> Iterator[None]:
    """Let the server refuse what a policy would hide rows from; within a transaction."""
    conn.execute(b"SET LOCAL row_security = off")
    yield
    conn.execute(b"SET LOCAL row_security = on")


def scalar(conn: Connection[Any], query: str, *parameters: object) -> Any:
    """Return the first column of a query's only row."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cast("Any", cursor.execute(query.encode(), parameters).fetchone())
