"""A DSN → what is wrong with the database behind it, and how to mend each thing.

Blocking; reads only. Every finding stands for itself: a check that cannot be made says so and
does not keep the others from being made. No password is ever part of a finding.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, LiteralString, TypeAlias

import psycopg

from auditlog.errors import MigrationError
from auditlog.postgres.causes import (
    NEWEST_SERVER,
    OLDEST_SERVER,
    Connection,
    connect,
    explain,
    wrong_encoding,
    wrong_version,
)
from auditlog.postgres.migrate import plan, status
from auditlog.tables import BATCHES, DEAD_LETTERS, TABLES

MAX_CLOCK_SKEW_S = 2.0
MIN_RUNWAY_DAYS = 7
"""A week has a Monday in it, on which somebody looks."""

Clock: TypeAlias = Callable[[], float]
State: TypeAlias = Literal["ok", "warning", "failed"]
Problem: TypeAlias = tuple[State, str, str]
Check: TypeAlias = Callable[[Connection], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """`warning`: rows are stored all the same."""
    detail: str
    """What was found, or what is wrong."""
    remedy: str = ""


def diagnose(dsn: str, *, clock: Clock = time.time) -> list[Finding]:
    """Look at everything that a sink relies on. Blocks for some round trips, or until a time-out.

    Args:
        dsn: A libpq connection string; `embedded:` is for `resolve_dsn` first.
        clock: The clock that stamps the records, in seconds since the Unix epoch.
    """
    try:
        conn = connect(dsn)
    except psycopg.Error as error:
        return [Finding("connection", "failed", *explain(error))]
    with conn:
        findings = [Finding("connection", "ok", _whereabouts(conn))]
        for name, check in _CHECKS.items():
            findings.extend(_findings(name, check, conn))
        findings.extend(_findings("clock", lambda conn: _clock_skew(conn, clock), conn))
        findings.extend(_findings("pooler", lambda conn: _pooler(conn, dsn), conn))
    return findings


def _findings(name: str, check: Check, conn: Connection) -> list[Finding]:
    try:
        return [Finding(name, *problem) for problem in check(conn)]
    except psycopg.Error as error:
        return [Finding(name, "failed", *explain(error))]


def _whereabouts(conn: Connection) -> str:
    info = conn.info
    return f"database {info.dbname} on {info.host or 'a local socket'} as {info.user}"


def _server_version(conn: Connection) -> Iterator[Problem]:
    version = conn.info.server_version
    shown = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if cause := wrong_version(version):
        yield "failed", *cause
    elif version // 10_000 > NEWEST_SERVER:
        tried = f"use {OLDEST_SERVER} to {NEWEST_SERVER}, or look for a newer auditlog-postgres"
        yield "warning", f"{shown} is newer than this package was tried with", tried
    else:
        yield "ok", shown, ""


def _encoding(conn: Connection) -> Iterator[Problem]:
    encoding = conn.info.parameter_status("server_encoding")
    cause = wrong_encoding(encoding)
    yield ("failed", *cause) if cause else ("ok", str(encoding), "")


def _writable(conn: Connection) -> Iterator[Problem]:
    standby, read_only = _row(
        conn, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
    )
    if standby:
        remedy = "use the DSN of the primary, or target_session_attrs=read-write with both hosts"
        yield "failed", "the server is a standby and takes no writes", remedy
    elif read_only:
        remedy = "ALTER ROLE or ALTER DATABASE ... SET default_transaction_read_only = off"
        yield "failed", "transactions are read-only here", remedy
    else:
        yield "ok", "takes writes", ""


def _schema(conn: Connection) -> Iterator[Problem]:
    if _row(conn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'logstore'") == (0,):
        yield "failed", "the schema is missing", "auditlog migrate"
        return
    try:
        entries = status(conn)
        pending = plan(entries)
    except psycopg.errors.InsufficientPrivilege:
        grant = _grant(conn, "USAGE ON SCHEMA logstore", "SELECT ON logstore.migrations")
        yield "warning", "this role may not read which migrations were applied", grant
        return
    except MigrationError as error:
        problem, _, remedy = str(error).partition(": ")
        yield "failed", problem, remedy
        return
    if pending:
        names = ", ".join(migration.file_name for migration in pending)
        yield "failed", f"the schema is older than the package: {names} missing", "auditlog migrate"
    else:
        yield "ok", f"migration {entries[-1].version}, the newest", ""


def _rights(conn: Connection) -> Iterator[Problem]:
    rights = dict(conn.execute(_RIGHTS, [[*_NAMES, DEAD_LETTERS.name]]).fetchall())
    missing = [right for right, is_held in rights.items() if not is_held]
    needed = [right for right in missing if right != _BURYING]
    if needed:
        yield "failed", "this role lacks " + ", ".join(missing), _grant(conn, *missing)
    elif missing:
        problem = f"this role lacks {_BURYING}: a row that is refused is lost without a spool_dir"
        yield "warning", problem, _grant(conn, _BURYING)
    elif rights:
        yield "ok", "may write to every table of the sink", ""


def _append_only_guard(conn: Connection) -> Iterator[Problem]:
    guards = dict(conn.execute(_GUARDS, [_NAMES]).fetchall())
    unguarded = {table: state for table, state in guards.items() if state not in ("O", "A")}
    for table, state in unguarded.items():
        remedy = _ENABLE_GUARD if state else _CREATE_GUARD
        yield "failed", f"logstore.{table} can be changed: no guard", remedy.format(table=table)
    if guards and not unguarded:
        yield "ok", "UPDATE, DELETE and TRUNCATE are refused", ""


def _partitions(conn: Connection) -> Iterator[Problem]:
    names = [table.name for table in TABLES]
    tables = conn.execute(_PARTITIONED, [_FUNCTIONS, names]).fetchall()
    for table, leaves, unguarded, detaching, may_ensure in tables:
        problems = [
            *_leaves(table, unguarded or [], detaching or []),
            *_ensuring(conn, table, may_ensure=may_ensure),
            *_runway(conn, table),
        ]
        well = f"logstore.{table} has {leaves} partitions, each with its guard"
        yield from problems or [("ok", well, "")]
    if not tables and _row(conn, "SELECT to_regnamespace('logstore') IS NOT NULL") == (True,):
        yield "ok", "no table is partitioned", ""


def _leaves(table: str, unguarded: list[str], detaching: list[str]) -> Iterator[Problem]:
    if unguarded:
        problem = f"{_named(unguarded)} of logstore.{table} can be changed: no guard"
        by_hand = _CREATE_GUARD.format(table=unguarded[0])
        yield "failed", problem, f"{_MAINTAIN}, or for one that it did not make: {by_hand}"
    if detaching:
        problem = (
            f"{_named(detaching)} of logstore.{table}: a detach was interrupted; its rows are not"
            " seen, and rows of its dates are refused"
        )
        yield "failed", problem, _MAINTAIN


def _ensuring(conn: Connection, table: str, *, may_ensure: bool | None) -> Iterator[Problem]:
    if may_ensure is False:
        problem = (
            f"this role may not look at the partitions of logstore.{table}, or have one made that a"
            " row lacks: it would wait"
        )
        yield "warning", problem, _grant(conn, f"EXECUTE ON FUNCTION {', '.join(_FUNCTIONS)}")


def _runway(conn: Connection, table: str) -> Iterator[Problem]:
    if _row(conn, _MAY_ASK, _FUNCTIONS[-1]) != (True,):
        return
    (days,) = _row(conn, _DAYS_COVERED, table)
    if days is not None and days <= 0:
        yield "failed", f"logstore.{table} has no partition for rows of today", _MAINTAIN
    elif days is not None and days < MIN_RUNWAY_DAYS:
        problem = f"logstore.{table} has partitions for {days:.1f} more days only"
        yield "warning", problem, f"{_MAINTAIN}, every day"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _durability(conn: Connection) -> Iterator[Problem]:
    is_safe = True
    for setting, consequence in _RISKY_WHEN_OFF.items():
        if _row(conn, "SELECT current_setting(%s)", setting) == ("off",):
            is_safe = False
            yield "warning", f"{setting} is off: {consequence}", f"set {setting} = on"
    if is_safe:
        yield "ok", "what is committed survives a crash of the server", ""


def _clock_skew(conn: Connection, clock: Clock) -> Iterator[Problem]:
    samples = []
    for _ in range(3):
        before = clock()
        (server,) = _row(conn, "SELECT extract(epoch FROM clock_timestamp())::float8")
        after = clock()
        samples.append((after - before, server - (before + after) / 2))
    # The quickest round trip knows best; the server's clock was read somewhere within it.
    round_trip, ahead = min(samples)
    if abs(ahead) > MAX_CLOCK_SKEW_S + round_trip / 2:
        problem = f"the server's clock is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"
        yield "warning", problem, "synchronise both by NTP: log_date comes from this machine"
    else:
        yield "ok", f"within {MAX_CLOCK_SKEW_S:.0f} s of the server's", ""


def _pooler(conn: Connection, dsn: str) -> Iterator[Problem]:
    backend = "SELECT pg_backend_pid()"
    # A pooler makes up the number that it gives the client as its backend.
    if _row(conn, backend) == (conn.info.backend_pid,):
        yield "ok", "none, a direct connection", ""
        return
    with connect(dsn) as other:
        # Two open sessions on one backend: they take turns by transaction.
        is_shared = any(_row(conn, backend) == _row(other, backend) for _ in range(5))
    if is_shared:
        remedy = "the sink can do with it; give auditlog migrate and partitions a direct DSN"
        yield "warning", "a pooler in transaction mode", remedy
    else:
        yield "ok", "a pooler in session mode", ""


def _grant(conn: Connection, *rights: str) -> str:
    (role,) = _row(conn, "SELECT quote_ident(current_user)")
    return " ".join(f"GRANT {right} TO {role};" for right in rights)


def _row(conn: Connection, query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query, parameters).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row from {query}")
    return row


_BURYING = f"INSERT ON {DEAD_LETTERS.qualified_name}"
_NAMES = [table.name for table in (*TABLES, BATCHES)]

_CHECKS: dict[str, Check] = {
    "server": _server_version,
    "encoding": _encoding,
    "writable": _writable,
    "schema": _schema,
    "rights": _rights,
    "append-only": _append_only_guard,
    "partitions": _partitions,
    "durability": _durability,
}

_RISKY_WHEN_OFF = {
    "fsync": "a crash of the machine can destroy the whole database",
    "full_page_writes": "a crash of the machine can destroy pages",
    "synchronous_commit": "a crash of the server takes the last commits along, ledger and all",
}

_TABLES = """
    SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'logstore' AND c.relkind IN ('r', 'p') AND c.relname = ANY (%s)
"""

# ON CONFLICT (batch_id) reads the column, so INSERT alone would not do.
_RIGHTS: LiteralString = f"""
    WITH tables AS ({_TABLES})
    SELECT 'USAGE ON SCHEMA logstore', has_schema_privilege(oid, 'USAGE')
    FROM pg_namespace WHERE nspname = 'logstore'
    UNION ALL
    SELECT 'INSERT ON logstore.' || relname, has_table_privilege(oid, 'INSERT') FROM tables
    UNION ALL
    SELECT 'SELECT (batch_id) ON logstore.batches', has_column_privilege(oid, 'batch_id', 'SELECT')
    FROM tables WHERE relname = 'batches'
"""  # noqa: S608  # our own constants

_GUARDS: LiteralString = f"""
    SELECT relname, guard.tgenabled::text
    FROM ({_TABLES}) AS tables
    LEFT JOIN pg_trigger guard ON guard.tgrelid = tables.oid AND guard.tgname = 'append_only'
"""  # noqa: S608  # our own constants

# A trigger of the table's own says nothing of those of its partitions: none is inherited.
_PARTITIONED: LiteralString = f"""
    SELECT parent.relname, count(child.oid),
        array_agg(child.relname ORDER BY child.relname) FILTER (
            WHERE child.relkind = 'r' AND guard.tgenabled IS NULL
        ),
        array_agg(child.relname ORDER BY child.relname) FILTER (WHERE link.inhdetachpending),
        CASE WHEN has_table_privilege(parent.oid, 'INSERT') THEN (
            SELECT bool_and(has_function_privilege(to_regprocedure(name)::oid, 'EXECUTE'))
            FROM unnest(%s::text[]) AS name
        ) END
    FROM ({_TABLES}) AS tables
    JOIN pg_class parent ON parent.oid = tables.oid AND parent.relkind = 'p'
    LEFT JOIN pg_inherits link ON link.inhparent = parent.oid
    LEFT JOIN pg_class child ON child.oid = link.inhrelid
    LEFT JOIN pg_trigger guard ON guard.tgrelid = child.oid AND guard.tgname = 'append_only'
        AND guard.tgenabled IN ('O', 'A')
    GROUP BY parent.oid, parent.relname
    ORDER BY parent.relname
"""  # noqa: S608  # our own constants
_FUNCTIONS = [
    "logstore.ensure_partition(text, timestamptz)",
    "logstore.covered_until(text)",
]
_MAY_ASK: LiteralString = "SELECT has_function_privilege(to_regprocedure(%s)::oid, 'EXECUTE')"
_DAYS_COVERED: LiteralString = """
    SELECT CASE
        WHEN covered IS NULL THEN 0
        WHEN isfinite(covered) THEN extract(epoch FROM covered - now())::float8 / 86400
    END
    FROM logstore.covered_until(%s) AS covered
"""
_MAINTAIN = "auditlog partitions maintain"
_MOST_NAMES = 5

_ENABLE_GUARD = "ALTER TABLE logstore.{table} ENABLE TRIGGER append_only;"
_CREATE_GUARD = (
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.{table}"
    " FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change();"
)
