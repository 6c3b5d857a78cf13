"""The queries of the trail on a partitioned table: right answers, by the keys of the partitions."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from auditlog.query.newest import newest
from auditlog.query.orphans import find_orphans
from auditlog.query.statements import statement
from partitioned import DAY, partition, today

MONTHS = 12
PER_MONTH = 7_000
"""Of fewer and smaller rows the planner would rather read all."""


@pytest.fixture
def conn(dsn: str) -> Any:
    """Twelve partitions, with rows of three tenants in each, whose ids are in order of time."""
    partition(dsn, windows=[today() - n * DAY for n in range(MONTHS)])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            """
            INSERT INTO logstore.logs (instance_id, log_id, log_date, request_url, message)
            SELECT 'tenant-' || mod(n, 3), lpad(n::text, 36, '0'),
                date_trunc('day', now(), 'UTC') - interval '1 day' * (11 - n / %(per_month)s),
                n::text, repeat('m', 400)
            FROM generate_series(0, %(all)s - 1) AS n
            """,
            {"per_month": PER_MONTH, "all": MONTHS * PER_MONTH},
        )
        conn.execute("ANALYZE logstore.logs")
        yield conn


def nodes(conn: Connection[Any], name: str, **parameters: Any) -> list[str]:
    """The kinds of the nodes of a plan."""
    query = b"EXPLAIN (FORMAT JSON) " + statement(name)
    (plan,) = conn.execute(query, parameters).fetchone() or ()
    found: list[str] = []
    left = [plan[0]["Plan"]]
    while left:
        node = left.pop()
        found.append(node["Node Type"])
        left += node.get("Plans", [])
    return found


def test_newest_rows_are_read_by_the_keys_of_the_partitions(conn: Connection[Any]) -> None:
    """The parent has no key, and no partition is read from end to end or sorted."""
    everything = range(MONTHS * PER_MONTH)
    for name, tenant, expected in (
        ("newest_of_tenant", "tenant-1", everything[1::3][-20:]),
        ("newest", None, everything[-20:]),
    ):
        found = nodes(conn, name, limit=20, tenant=tenant)
        assert "Merge Append" in found
        assert "Seq Scan" not in found
        records = newest(conn, limit=20, tenant=tenant)
        assert [int(record.request_url or "") for record in records] == list(expected)


def test_orphans_are_found_across_partitions(conn: Connection[Any]) -> None:
    """The two halves of a request may lie on either side of midnight."""
    now = today()
    for number, (received, complete) in enumerate([(1, 1), (1, 0), (2, None), (0, None)]):
        exchange = f"0199{number:04}-0000-7000-8000-{number:012}"
        _half(conn, exchange, exchange, "received", now - received * DAY)
        if complete is not None:
            _half(conn, exchange, exchange[:-1] + "x", "complete", now - complete * DAY)
    found = find_orphans(conn, since=36_500 * DAY, older_than=0 * DAY, limit=10)
    assert [(orphan.record.log_id or "")[4:8] for orphan in found] == ["0002", "0003"]
    query = dict.fromkeys(("since", "older_than"), DAY) | {"limit": 10, "tenant": None}
    assert "Seq Scan" not in nodes(conn, "orphans", **query)


def _half(conn: Connection[Any], exchange: str, log_id: str, stage: str, log_date: Any) -> None:
    metadata = {"audit.exchange_id": exchange, "audit.stage": stage}
    conn.execute(
        "INSERT INTO logstore.logs (instance_id, log_id, log_date, metadata)"
        " VALUES ('t', %s, %s, %s)",
        (log_id, log_date, json.dumps(metadata)),
    )
