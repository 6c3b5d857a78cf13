import psycopg
import pytest

from auditlog import AuditLog, LogRecord
from auditlog.query.newest import newest
from auditlog.query.statements import statement
from auditlog.tables import LOGS
from trail import quick

TENANTS = ("blue", "green", "red")


async def _fill(dsn: str, count: int) -> None:
    async with AuditLog(dsn, settings=quick()) as audit:
        for number in range(count):
            metadata = {"audit.outcome": "ok"}
            tenant = TENANTS[number % len(TENANTS)]
            audit.submit(LogRecord(instance_id=tenant, user_id=f"{number:03}", metadata=metadata))


async def test_newest_rows_are_the_last_ones_in_order(dsn: str) -> None:
    """Of all tenants together, or of one; the very newest stands last."""
    await _fill(dsn, 30)
    with psycopg.connect(dsn) as conn:
        assert [row.user_id for row in newest(conn, limit=4)] == ["026", "027", "028", "029"]
        green = newest(conn, limit=2, tenant="green")
        everything = newest(conn, limit=100)
    assert [(row.instance_id, row.user_id) for row in green] == [("green", "025"), ("green", "028")]
    assert [row.user_id for row in everything] == [f"{number:03}" for number in range(30)]
    assert everything[0].metadata["audit.outcome"] == "ok"


async def test_one_tenant_may_have_all_the_newest(dsn: str) -> None:
    """The limit holds for the whole, not for each tenant's share."""
    await _fill(dsn, 3)
    async with AuditLog(dsn, settings=quick(instance_id="busy")) as audit:
        for number in range(10):
            audit.submit(LogRecord(user_id=f"{number}"))
    with psycopg.connect(dsn) as conn:
        assert [row.user_id for row in newest(conn, limit=3)] == ["7", "8", "9"]


def test_no_row_is_no_error(any_dsn: str) -> None:
    """Of an empty table, and of a tenant that nobody knows."""
    with psycopg.connect(any_dsn) as conn:
        assert newest(conn, limit=5) == newest(conn, limit=5, tenant="nobody") == []


@pytest.mark.parametrize("name", ["newest", "newest_of_tenant"])
def test_every_column_is_asked_for(any_dsn: str, name: str) -> None:
    """By name, so that a column that a newer package adds disturbs nobody."""
    with psycopg.connect(any_dsn) as conn:
        cursor = conn.execute(statement(name), {"limit": 1, "tenant": "x"})
        assert [column.name for column in cursor.description] == [c.name for c in LOGS.columns]


@pytest.mark.parametrize("name", ["newest", "newest_of_tenant"])
def test_only_the_ends_of_the_primary_key_are_read(dsn: str, name: str) -> None:
    """Twenty rows cost some index pages for each tenant, however long the table is."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, message)"
            " SELECT 'tenant-' || n % 10, to_char(n, '0000000'), repeat('x', 500)"
            " FROM generate_series(1, 50000) AS n"
        )
        conn.execute("VACUUM ANALYZE logstore.logs")
        ((plan,),) = conn.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name),
            {"limit": 20, "tenant": "tenant-7"},
        )
    assert "Seq Scan" not in str(plan)
    assert "logs_in_time" not in str(plan)
    top = plan[0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 1000  # the table has 4000
