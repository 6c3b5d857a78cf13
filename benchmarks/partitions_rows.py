"""Typical rows at other times than the workload's: of today, of a whole year, millions of them."""

import random
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.database.ledger import copy_stream
from auditlog.sink.encoding.encode import Encoder
from auditlog.tables import LOGS
from benchmarks.shippers import Load
from benchmarks.workload import records

SAMPLE_ROWS = 10_000
FILL_ROWS = 500_000
"""To a transaction, so that the server can recycle its log."""

# Evenly over a time and in its order, with the identities that they would have got then: the
# sample is the side of the join that is hashed, and so the order remains that of `n`.
_FILL = f"""
    INSERT INTO {LOGS.qualified_name} ({{columns}})
    SELECT {{values}}
    FROM (
        SELECT *, md5(n::text || instant::text) AS digest,
            lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0') AS hex
        FROM (
            SELECT n, %(first)s::timestamptz + %(gap)s * n AS instant
            FROM generate_series(%(start)s::bigint, %(end)s::bigint - 1) AS n
        ) AS moments
    ) AS identities
    JOIN bench_sample AS sample ON sample.number = n %% {SAMPLE_ROWS}
"""  # noqa: S608  # constants
_COMPUTED = {
    "log_id": "concat_ws('-', substr(hex, 1, 8), substr(hex, 9, 4), '7' || substr(digest, 1, 3),"
    " 'a' || substr(digest, 4, 3), substr(digest, 7, 12))",
    "log_date": "instant",
    "occurrence_date": "instant - interval '4 ms'",
}


def of_today(count: int) -> list[LogRecord]:
    """Make the workload's records; the dates are those of the moment when they are encoded."""
    return [replace(each, log_date=None, occurrence_date=None) for each in records(count)]


def between(first: datetime, last: datetime, count: int) -> list[LogRecord]:
    """Make them with dates anywhere in that time, in no order."""
    dice = random.Random(7)  # noqa: S311  # repeatable, not secret
    return [
        replace(each, log_date=(date := _within(first, last, dice.random())), occurrence_date=date)
        for each in records(count)
    ]


def encoded(rows: list[LogRecord]) -> Load:
    """Encode them; nobody wants these as values."""
    encode = Encoder(Settings()).encode
    return Load(rows, [encode(row)[1] for row in rows], [])


def fill(dsn: str, rows: int, first: datetime, last: datetime) -> None:
    """Insert so many rows, evenly over that time, and leave the table analysed."""
    columns = ", ".join(LOGS.column_names)
    values = ", ".join(_COMPUTED.get(each, f"sample.{each}") for each in LOGS.column_names)
    statement = _FILL.format(columns=columns, values=values).encode()
    gap = (last - first) / max(rows, 1)
    with psycopg.connect(dsn, autocommit=True) as conn:
        _sample(conn)
        for start in range(0, rows, FILL_ROWS):
            part = {"first": first, "gap": gap, "start": start, "end": min(start + FILL_ROWS, rows)}
            conn.execute(statement, part)
        conn.execute("DROP TABLE bench_sample")
        # Its pages are written and its dead are none: what is measured owes it nothing.
        conn.execute("VACUUM (ANALYZE) logstore.logs")


def stored(dsn: str, since: datetime | None = None) -> int:
    """Count the rows that are not the package's own, of that time and later."""
    query = (
        f"SELECT count(*) FROM {LOGS.qualified_name}"  # noqa: S608  # constants
        " WHERE log_date >= coalesce(%s, '-infinity'::timestamptz)"
        " AND starts_with(event_type, 'audit.') IS NOT TRUE"
    )
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query.encode(), [since]).fetchone()
    assert row
    return int(row[0])


def _sample(conn: Connection[Any]) -> None:
    conn.execute(
        "CREATE UNLOGGED TABLE bench_sample"
        " (LIKE logstore.logs, number bigint GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0))"
    )
    statement = LOGS.copy_statement.replace(LOGS.qualified_name, "bench_sample")
    with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(copy_stream(encoded(list(records(SAMPLE_ROWS))).tuples))
    conn.execute("ANALYZE bench_sample")


def _within(first: datetime, last: datetime, share: float) -> datetime:
    return first + (last - first) * share
