"""What the benchmarks of quotas count with: ours, and the statement that people write themselves.

Each contestant has a quota of its own name, whose counters it may look at in the end.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from auditlog import AuditLog
from auditlog.quota.model import MAX_UNITS, Actor, Key, Quota
from auditlog.quota.quotas import Quotas

TENANT, USER = "acme", "alice"
ACTOR = Actor(USER, "acme-labs", "/exports")
_TABLE = """
    CREATE TABLE usage (
        quota text, tenant text, subject text, period timestamptz, used bigint NOT NULL,
        PRIMARY KEY (quota, tenant, subject, period)
    ) WITH (fillfactor = 70)
"""
_UPSERT = """
    INSERT INTO usage VALUES (%s, %s, %s, date_trunc('month', now()), 1)
    ON CONFLICT (quota, tenant, subject, period) DO UPDATE SET used = usage.used + 1
    WHERE usage.used < %s
    RETURNING used
"""


def quota(name: str, *, exact: bool = False) -> Quota:
    """Make one that nobody will use up."""
    return Quota(name, limit=MAX_UNITS, counts="reported", per="user", exact=exact)


def key(name: str, subject: str = USER) -> Key:
    """Name a counter of a quota."""
    return Key(name, TENANT, subject)


@asynccontextmanager
async def counting(dsn: str, quota: Quota) -> AsyncIterator[Quotas]:
    """Run real quotas beside a real log on the running loop, which stands still between turns."""
    async with AuditLog(dsn) as audit, Quotas(audit, [quota], timeout_s=60) as quotas:
        yield quotas


def counted(dsn: str, name: str) -> int:
    """Add up our counters of a quota."""
    return _sum(dsn, "SELECT sum(used) FROM logstore.quota_usage WHERE quota_id = %s", name)


def make_table(dsn: str) -> None:
    """Make the table of those who do it themselves."""
    with psycopg.connect(dsn) as connection:
        connection.execute(_TABLE)


async def upsert(connection: psycopg.AsyncConnection, name: str, subject: str = USER) -> None:
    """Spend a unit with a statement of its own, which psycopg prepares."""
    cursor = await connection.execute(_UPSERT, (name, TENANT, subject, MAX_UNITS))
    assert await cursor.fetchone(), "refused"


def upserted(dsn: str, name: str) -> int:
    """Add up the counters of those who do it themselves."""
    return _sum(dsn, "SELECT sum(used) FROM usage WHERE quota = %s", name)


def _sum(dsn: str, query: str, name: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode(), (name,)).fetchone()
    assert row
    return int(row[0] or 0)
