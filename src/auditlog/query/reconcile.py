"""Is anything missing? The ledger against the tables, lives against their ends, and what is told.

Everything is read in one snapshot of the database, so batches that are committed meanwhile are in
all of it or in none. The small questions come first; then each table is counted, in one pass.

Deleted rows and rows written by hand are found even when they are as many: the ledger's batches
are laid along the time, and counted is between the instants that none of them reaches across.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, TypeAlias, cast

from psycopg import Connection
from psycopg.rows import dict_row, scalar_row

from auditlog.query.reconciliation import (
    KILLED,
    GapSum,
    Ledger,
    Life,
    LifeState,
    Lives,
    Open,
    Reconciliation,
    Span,
    TableCount,
)
from auditlog.query.statements import statement
from auditlog.tables import BATCHES, TABLES, Table

SILENT_AFTER = timedelta(minutes=10)
"""A log that commits nothing for so long is taken for killed. A service may be idle for longer."""

MAX_SPANS = 4096
"""Spans of time that are told apart: 12 comparisons for a row, and a result of any size."""

MAX_LISTED = 100
"""Lives of each state that are named."""

LONGEST = timedelta(days=36_500)
"""What stands for ever where the database is to subtract it."""
MARGIN = timedelta(hours=1)
"""Between the time in a request's id and its row's `log_date`, and between two clocks."""

_RETIREMENTS = "retirements"
# Before the snapshot: a partition that leaves after it would be in the ledger's part of the answer
# and not in the table's.
_LOCK = "LOCK TABLE " + ", ".join(table.qualified_name for table in TABLES)
_OPEN = b"""
    SELECT
        count(*) FILTER (WHERE log_date < %(living_since)s::timestamptz) AS ended,
        count(*) FILTER (WHERE log_date >= %(living_since)s::timestamptz) AS perhaps
    FROM ({orphans}) AS orphans
    WHERE (%(from)s::timestamptz IS NULL OR log_date >= %(from)s)
        AND (%(until)s::timestamptz IS NULL OR log_date < %(until)s)
"""

Parameters: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]


def obstacles(conn: Connection[Any]) -> list[str]:
    """Return what keeps this connection from reconciling, each with what mends it."""
    names = [*(table.name for table in (*TABLES, BATCHES)), _RETIREMENTS]
    rows = _rows(conn, "reconcile_rights", {"tables": names})
    if not all(row["is_there"] for row in rows):
        return ["the schema is missing, or a part of it: run `auditlog migrate`"]
    rights = [] if rows[0]["may_enter"] else ["USAGE ON SCHEMA logstore"]
    rights += [f"SELECT ON logstore.{row['table']}" for row in rows if not row["may_read"]]
    hidden = [row["table"] for row in rows if row["is_filtered"]]
    return [
        *(f"this role lacks a right: GRANT {right} TO {_role(conn)};" for right in rights),
        *(
            f"row security hides rows of logstore.{name}: use a role with BYPASSRLS"
            for name in hidden
        ),
    ]


def reconcile(
    conn: Connection[Any],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str | None = None,
    silent_after: timedelta = SILENT_AFTER,
    timeout: timedelta | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Reconciliation:
    """Compare what was written with what is there, and say what neither explains.

    Args:
        conn: Not in a transaction. It needs USAGE on the schema and SELECT on its tables; a
            standby will do.
        since: From when on, by `log_date`; None for since ever. With a bound in time, a batch that
            reaches across it makes the ledger's figure a range.
        until: Up to when, itself excluded; None for no end.
        tenant: Whose lives, gaps and open requests; None for everybody's. The ledger does not
            know tenants, so the tables are compared whole.
        silent_after: How long a log may commit nothing before it is taken for killed.
        timeout: Of each single question; None for the connection's own.
        step: Told what is done next, for somebody who waits.

    Raises:
        psycopg.Error: something cannot be read; `obstacles` tells rights and schema beforehand.
    """
    asked: Parameters = {"since": since, "until": until, "tenant": tenant}
    asked["silent_after"] = silent_after
    with conn.transaction():
        at = _begin(conn, timeout)
        step("reading the ledger")
        ledger = Ledger(**_rows(conn, "ledger", asked)[0])
        step("following the lives of the logs")
        lives = _lives(conn, asked)
        step("adding up what is known to be lost, or waits")
        return Reconciliation(
            at=at,
            since=since,
            until=until,
            tenant=tenant,
            ledger=ledger,
            lives=lives,
            gaps=tuple(_gaps(conn, asked)),
            open=_open(conn, asked, lives, at),
            dead_letters=_dead_letters(conn),
            tables=tuple(_counted(conn, table, asked, step) for table in TABLES),
        )


def _begin(conn: Connection[Any], timeout: timedelta | None) -> datetime:
    """Take the snapshot, and make texts of instants come out the same everywhere."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    conn.execute("SET LOCAL TimeZone = 'UTC'")
    conn.execute("SET LOCAL DateStyle = 'ISO'")
    # What is sorted, entries of the ledger and lives, should not go to the server's disk.
    conn.execute("SET LOCAL work_mem = '32MB'")
    if timeout is not None:
        milliseconds = max(1, timeout // timedelta(milliseconds=1))
        conn.execute(f"SET LOCAL statement_timeout = {milliseconds}".encode())
    conn.execute(f"{_LOCK} IN ACCESS SHARE MODE".encode())
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cast("datetime", cursor.execute("SELECT now()").fetchone())


def _lives(conn: Connection[Any], asked: Parameters) -> Lives:
    rows = _rows(conn, "lives", {**asked, "listed": MAX_LISTED})
    alike = {(row["state"], row["is_kept"]): row for row in rows}
    counts: dict[LifeState, int] = {}
    figures: dict[LifeState, int] = {}
    for (state, _), row in alike.items():
        counts[state] = counts.get(state, 0) + row["lives"]
        figures[state] = figures.get(state, 0) + int(row["figures"])
    return Lives(
        counts=counts,
        rows=figures,
        memories_lost=sum(
            row["lives"]
            for (state, is_kept), row in alike.items()
            if state in KILLED and not is_kept
        ),
        odd=tuple(_life(row) for row in rows if row["state"] not in ("running", "stopped")),
        living_since=min(
            (row["earliest"] for (state, _), row in alike.items() if state == "running"),
            default=None,
        ),
    )


def _life(row: Row) -> Life:
    names = (field.name for field in fields(Life))
    return Life(**{name: row[name] for name in names} | {"figure": int(row["figure"])})


def _gaps(conn: Connection[Any], asked: Parameters) -> Iterator[GapSum]:
    for row in _rows(conn, "gaps", asked):
        yield GapSum(**row | {"count": int(row["count"])})


def _open(conn: Connection[Any], asked: Parameters, lives: Lives, at: datetime) -> Open:
    """Sort requests without an end by whether a log that runs had begun by then."""
    if asked["tenant"] is not None:
        # A tenant's requests are served by processes of any.
        lives = _lives(conn, {**asked, "tenant": None})
    nobody = "infinity" if lives.total else "-infinity"
    since = asked["since"]
    parameters = {
        "living_since": lives.living_since or nobody,
        "from": since,
        "until": asked["until"],
        "since": LONGEST if since is None else max(at - since, timedelta(0)) + MARGIN,
        "older_than": asked["silent_after"],
        "tenant": asked["tenant"],
        "limit": None,
    }
    query = _OPEN.replace(b"{orphans}", statement("orphans"))
    with conn.cursor(row_factory=dict_row) as cursor:
        (row,) = cursor.execute(query, parameters).fetchall()
    return Open(**row)


def _dead_letters(conn: Connection[Any]) -> int | None:
    """Count them, where the schema has a place for them and this role may look there."""
    (row,) = _rows(conn, "reconcile_rights", {"tables": ["dead_letters"]})
    if not row["may_read"]:
        return None
    with conn.cursor(row_factory=scalar_row) as cursor:
        count = cursor.execute("SELECT count(*) FROM logstore.dead_letters").fetchone()
        return cast("int", count)


def _counted(
    conn: Connection[Any], table: Table, asked: Parameters, step: Callable[[str], None]
) -> TableCount:
    """Lay the ledger's batches along the time, and count the table between them."""
    by_ledger = _rows(conn, "spans", {**asked, "table": table.name, "spans": MAX_SPANS})
    rows = sum(row["at_most"] for row in by_ledger)
    step(f"counting {table.qualified_name}: {rows:,} rows by the ledger")
    starts = [row["start"] for row in by_ledger]
    query = statement("counted").replace(b"{table}", table.qualified_name.encode())
    stored = dict(conn.execute(query, {**asked, "starts": starts}).fetchall())
    before = Span(None, starts[0] if starts else None, 0, 0, stored.get(0, 0))
    spans = (
        Span(**row, stored=stored.get(number, 0)) for number, row in enumerate(by_ledger, start=1)
    )
    return TableCount(table.name, (before, *spans))


def _role(conn: Connection[Any]) -> str:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cast("str", cursor.execute("SELECT quote_ident(current_user)").fetchone())


def _rows(conn: Connection[Any], name: str, parameters: Parameters) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name), parameters).fetchall()
