"""What the server pays for a row's indexes: the shipped ones, plain B-trees, the primary key only.

The same rows go by binary COPY, a thousand to a transaction, into tables that differ in their
indexes only and take turns every ten thousand rows, so that a noisy moment hits all of them. The
cost is the CPU time of the server process that does the COPY, with heap, WAL and constraints;
where that process cannot be seen, it is the elapsed time. Checkpoints and vacuum are not in it.

The rows: 20 tenants, 90 % answered 2xx, a user on 60 %, and a thing acted upon, with its type,
owner and event, on 20 %; eight headers and metadata of the usual size, about 600 bytes in all.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from auditlog.postgres.embedded import start
from auditlog.postgres.migrate import migrate
from auditlog.tables import LOGS

AIM = 0.6
BATCH_ROWS = 1_000
TURN_ROWS = 10_000

SAMPLE_ROWS = """
SELECT
    'tenant-' || floor(20 * skew ^ 2) AS instance_id,
    concat_ws('-', substr(hex, 1, 8), substr(hex, 9, 4), '7' || substr(digest, 1, 3),
              'a' || substr(digest, 4, 3), substr(digest, 7, 12)) AS log_id,
    instant AS log_date,
    instant - interval '12 ms' AS occurrence_date,
    CASE WHEN is_act THEN (ARRAY['order', 'invoice', 'user', 'project', 'key'])[1 + n % 5] END
        AS aggregate_type,
    CASE WHEN is_act THEN 'id-' || floor(random() * 50000) END AS aggregate_id,
    CASE WHEN is_act THEN n END AS event_sequence,
    CASE WHEN is_act THEN 'event.' || floor(random() * 40) END AS event_type,
    CASE WHEN random() < 0.6 THEN 'user-' || floor(500 * random() ^ 2) END AS user_id,
    CASE WHEN is_act THEN 'org-' || floor(40 * random() ^ 2) END AS resource_owner,
    1::smallint AS protocol,
    '/api/v1/orders/' || n || '?page=2' AS request_url,
    'GET' AS request_method,
    jsonb_build_object(
        'host', ARRAY['api.example.com'], 'accept', ARRAY['application/json'],
        'content-type', ARRAY['application/json'], 'content-length', ARRAY['312'],
        'origin', ARRAY['https://example.com'], 'referer', ARRAY['https://example.com/orders'],
        'user-agent', ARRAY['Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36'],
        'x-request-id', ARRAY[substr(digest, 1, 16)]
    ) AS request_headers,
    CASE WHEN luck < 0.9 THEN 200 WHEN luck < 0.99 THEN 404 ELSE 500 END AS response_status,
    floor(random() * 100)::integer AS response_time_ms,
    (CASE WHEN luck < 0.9 THEN 1 WHEN luck < 0.99 THEN 2 ELSE 3 END)::smallint AS log_level,
    NULL::text AS message,
    jsonb_build_object(
        'http.route', '/api/v1/orders/{{id}}', 'client.address', '192.0.2.' || n % 250,
        'trace_id', digest, 'span_id', substr(digest, 1, 16), 'audit.outcome', 'ok'
    ) AS metadata
FROM (
    SELECT n, instant, md5(n::text) AS digest, random() AS skew, random() AS luck,
        random() < 0.2 AS is_act,
        lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0') AS hex
    FROM (
        SELECT n, timestamptz '2026-01-01 00:00+00' + n * interval '864 ms' AS instant
        FROM generate_series(1::bigint, {rows}) AS n
    ) AS moments
) AS dice
"""

# The columns of the shipped indexes, each for all rows and ending in the date.
SAME_COLUMNS = (
    "(instance_id, user_id, log_date DESC)",
    "(instance_id, aggregate_type, aggregate_id, log_date DESC)",
    "(instance_id, event_type, log_date DESC)",
    "(instance_id, resource_owner, log_date DESC)",
    "(instance_id, log_level, log_date DESC)",
    "(log_date)",
)
# What the schema had that this one comes from, without its WHERE clauses. Only three have the
# date, so these answer fewer questions; many equal keys make them small.
ANCESTOR = (
    "(instance_id, user_id)",
    "(instance_id, aggregate_type, aggregate_id)",
    "(instance_id, event_type, event_sequence)",
    "(instance_id, resource_owner, log_date DESC)",
    "(instance_id, log_level, log_date DESC)",
    "(instance_id, log_date DESC)",
)

Connection = psycopg.Connection[Any]


def run(dsn: str, rows: int = 200_000) -> list[tuple[str, float, str]]:
    """Return name, microseconds a row and a remark for each set of indexes. Blocks.

    Args:
        dsn: A migrated database; it gets a schema of its own for the time.
        rows: How many go into each table; rounded down to whole turns.
    """
    with psycopg.connect(dsn, autocommit=True) as admin, _tables(admin) as tables:
        batches = _batches(admin, rows)
        costs = _measure(dsn, tables, batches)
        sizes = {name: _index_megabytes(admin, table) for name, table in tables.items()}
    per_row = {name: cost / len(batches) / BATCH_ROWS * 1e6 for name, cost in costs.items()}
    shipped, same = per_row["shipped indexes"], per_row["six plain B-trees on the same columns"]
    remarks = {
        "shipped indexes": f"aim {AIM} of six plain B-trees, is {shipped / same:.2f}",
    }
    return [
        (name, cost, remarks.get(name, f"{cost / same:.2f}") + f", {sizes[name]:.0f} MB of indexes")
        for name, cost in per_row.items()
    ]


@contextmanager
def _tables(conn: Connection) -> Iterator[dict[str, str]]:
    """One table for each set of indexes, all alike in the rest."""
    shipped = [LOGS.index_definition(index).split(" USING ", 1)[1] for index in LOGS.indexes]
    variants = {
        "shipped indexes": [f"USING {definition}" for definition in shipped],
        "six plain B-trees on the same columns": list(SAME_COLUMNS),
        "six plain B-trees of the ancestor": list(ANCESTOR),
        "primary key only": [],
    }
    tables = {name: f"index_cost.logs_{number}" for number, name in enumerate(variants)}
    conn.execute("CREATE SCHEMA index_cost")
    try:
        for name, table in tables.items():
            conn.execute(
                f"CREATE TABLE {table} (LIKE logstore.logs INCLUDING DEFAULTS"
                " INCLUDING CONSTRAINTS, PRIMARY KEY (instance_id, log_id))"
            )
            for definition in variants[name]:
                conn.execute(f"CREATE INDEX ON {table} {definition}")
        yield tables
    finally:
        conn.execute("DROP SCHEMA index_cost CASCADE")


def _batches(conn: Connection, rows: int) -> list[bytes]:
    """The sample as binary COPY data, one transaction each, so that the client only sends."""
    count = max(rows // TURN_ROWS, 1) * TURN_ROWS
    query = sql.SQL("COPY ({} ORDER BY n) TO STDOUT (FORMAT binary)").format(
        sql.SQL(SAMPLE_ROWS).format(rows=sql.Literal(count))
    )
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        first, *others = (bytes(data) for data in copy)
    # The header comes with the first row, and the trailer as a message of its own.
    header, trailer = first[:19], others.pop()
    tuples = [first[19:], *others]
    assert len(tuples) == count
    return [
        b"".join((header, *tuples[position : position + BATCH_ROWS], trailer))
        for position in range(0, count, BATCH_ROWS)
    ]


def _measure(dsn: str, tables: dict[str, str], batches: list[bytes]) -> dict[str, float]:
    costs = dict.fromkeys(tables, 0.0)
    turn = TURN_ROWS // BATCH_ROWS
    with ExitStack() as stack:
        conns = {
            name: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for name in tables
        }
        order = list(tables.items())
        for position in range(0, len(batches), turn):
            order.append(order.pop(0))  # nobody always comes after the same one
            for name, table in order:
                before = _server_seconds(conns[name])
                for batch in batches[position : position + turn]:
                    with (
                        conns[name].cursor() as cursor,
                        cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy,
                    ):
                        copy.write(batch)
                costs[name] += _server_seconds(conns[name]) - before
    return costs


def _server_seconds(conn: Connection) -> float:
    """CPU time of the server process; the wall clock where that cannot be seen."""
    process = Path("/proc", str(conn.info.backend_pid))
    try:
        if (process / "comm").read_text().strip() == "postgres":
            user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    except OSError:
        pass
    return time.perf_counter()


def _index_megabytes(conn: Connection, table: str) -> float:
    row = conn.execute("SELECT pg_indexes_size(%s::regclass) / 1e6", [table]).fetchone()
    assert row is not None
    return float(row[0])


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index_cost", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dsn", help="a migrated database; an embedded PostgreSQL 18 without one")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        dsn = options.dsn
        if dsn is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="auditlog-bench-"))
            server = stack.enter_context(start(Path(folder, "data")))
            migrate(server.dsn)
            dsn = server.dsn
        for name, cost, remark in run(dsn, options.rows):
            print(f"{name:<40} {cost:6.1f} µs a row   {remark}")


if __name__ == "__main__":
    main(sys.argv[1:])
