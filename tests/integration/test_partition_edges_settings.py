"""Settings of a role and of a database that mean harm: nothing kept or taken depends on one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from auditlog import AuditLog
from auditlog.partitions.archive import restore, verify
from auditlog.partitions.archive.finding import found
from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.model import TableReport
from auditlog.partitions.retention import holding
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.status import status
from auditlog.partitions.windows import name, window
from auditlog.postgres.migrate import migrate
from databases import Server, as_role
from partitioned import partitions
from retiring_scene import OLDER, OLDEST, QUICK, cut, month, partition, states, told
from trail import numbered, quick

TICK = timedelta(microseconds=1)
BRIEF = "kept briefly"
HOSTILE: dict[str, dict[str, str]] = {
    "New York": {
        "timezone": "America/New_York",
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "quote_all_identifiers": "on",
        "bytea_output": "escape",
    },
    "Kathmandu": {
        "timezone": "Asia/Kathmandu",
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "standard_conforming_strings": "off",
        "transform_null_equals": "on",
        "extra_float_digits": "-15",
    },
    "Seoul": {
        "timezone": "Asia/Seoul",
        "datestyle": "Postgres, MDY",
        "enable_partition_pruning": "off",
        "plan_cache_mode": "force_generic_plan",
        "constraint_exclusion": "off",
        "array_nulls": "off",
    },
}
OF_THE_OWNER = {
    "search_path": "nowhere",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "1ms",
    "statement_timeout": "50ms",
    "idle_in_transaction_session_timeout": "50ms",
    "client_min_messages": "debug1",
    "row_security": "off",
}
"""What only maintenance meets; a writer could not work with it."""


@contextmanager
def hostile_database(server: Server, settings: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A migrated database of an owner who is no superuser: its DSN as him, and as an admin."""
    with server.role() as owner, server.database(migrated=False) as dsn:
        own, database = as_role(dsn, owner), str(conninfo_to_dict(dsn)["dbname"])
        with psycopg.connect(dsn, autocommit=True) as conn:
            grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
            conn.execute(grant.format(sql.Identifier(database), sql.Identifier(owner)))
            migrate(own)
            for whose, several in (("DATABASE", settings), ("ROLE", OF_THE_OWNER)):
                whom = sql.Identifier(database if whose == "DATABASE" else owner)
                for setting, value in several.items():
                    statement = f"ALTER {whose} {{}} SET {setting} = {{}}"
                    conn.execute(sql.SQL(cast("Any", statement)).format(whom, value))
        yield own, dsn


def add(dsn: str, tenant: str, *instants: datetime) -> None:
    """Rows of these dates."""
    with psycopg.connect(dsn) as conn:
        for instant in instants:
            conn.execute(
                "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
                " VALUES (%s, gen_random_uuid()::text, %s)",
                [tenant, instant],
            )


def rows(dsn: str, table: str = "logs") -> set[tuple[str, str, int]]:
    """Every row of the test: tenant, identity and microseconds since 1970."""
    query = sql.SQL(
        "SELECT instance_id, log_id, (extract(epoch FROM log_date) * 1000000)::bigint"
        " FROM {} WHERE starts_with(event_type, 'audit.') IS NOT TRUE"
    )
    with psycopg.connect(dsn) as conn:
        return set(conn.execute(query.format(sql.Identifier("logstore", table))).fetchall())


def bounds(dsn: str) -> dict[str, tuple[datetime, datetime]]:
    """What each partition of logs takes, by a session that nothing was set for."""
    plain = make_conninfo(dsn, options="-c timezone=UTC -c datestyle=ISO")
    with psycopg.connect(plain) as conn:
        found = conn.execute(
            "SELECT partition::text, lower, upper"
            " FROM logstore.partitions_of('logstore.logs'::regclass)"
        )
        return {leaf.rpartition(".")[2].strip('"'): (low, up) for leaf, low, up in found}


def done(report: TableReport) -> list[tuple[str, str]]:
    assert report.error is None
    assert {outcome.result for outcome in report.outcomes} <= {"done"}, report.outcomes
    return [(each.operation.kind, each.operation.partition) for each in report.outcomes]


@pytest.mark.parametrize("settings", HOSTILE)
async def test_life_of_a_table_under_hostile_settings(
    server: Server, settings: str, tmp_path: Path
) -> None:
    """Made, held, deleted from, archived, dropped, restored, turned back: to the microsecond."""
    config = replace(
        QUICK,
        archive=str(tmp_path),
        drop_without_archive=False,
        tenants={BRIEF: Span(days=62)},
        lock_timeout_s=1.5,
    )
    with hostile_database(server, HOSTILE[settings]) as (own, dsn):
        cut(own, (OLDEST, OLDER, 3, 0))
        for ago in (OLDEST, OLDER, 3):
            add(dsn, "tenant", month(ago), month(ago - 1) - TICK)
        add(dsn, BRIEF, month(3), month(2) - TICK)
        before = rows(dsn)
        with maintenance(own) as conn:
            hold = holding.place(
                conn, instance_id="tenant", start=month(OLDER), end=month(OLDER) + TICK, reason="x"
            )
        (shown,) = preview(own, {"logs": config})
        (report,) = maintain(own, {"logs": config})
        assert shown.plan is not None
        assert report.plan is not None
        assert shown.plan.operations == report.plan.operations
        steps = done(report)
        of_oldest = [kind for kind, where in steps if where == partition(OLDEST)]
        assert of_oldest == ["detach", "archive", "drop"]
        assert partition(OLDER) not in {where for _, where in steps}
        assert ("delete", partition(3)) in steps
        taken = {row for row in before if row[2] < month(OLDER).timestamp() * 1e6}
        of_brief = {row for row in before if row[0] == BRIEF}
        assert rows(dsn) == before - taken - of_brief
        ahead = [month(-n) for n in range(4)]
        assert (
            bounds(dsn).items()
            >= {name("logs", "month", first): window("month", first) for first in ahead}.items()
        )

        (archive,) = found(str(tmp_path))
        assert verify(archive.uri).is_whole
        with maintenance(own) as conn:
            dropped = told(conn, "audit.partition.dropped")
            assert [each["audit.lower"] for each in dropped] == [month(OLDEST).isoformat()]
            restored = restore(conn, archive.uri)
            assert rows(dsn, restored.table.removeprefix("logstore.")) == taken
            holding.place(conn, end=month(OLDER), reason="y")
            assert restore(conn, archive.uri, attach=True).is_attached
            holding.release(conn, hold.hold_id, reason="closed")
            assert states(conn)
        assert rows(dsn) == before - of_brief
        assert ("drop", partition(OLDER)) in done(maintain(own, {"logs": config})[0])

        async with AuditLog(dsn, settings=quick()) as audit:
            for record in numbered(range(20)):
                audit.submit(record)
            assert await audit.flush(20)
        (seen,) = status(own, {"logs": config})
        assert (seen.error, seen.needs_somebody) == (None, False), seen.findings
        kept = rows(dsn)
        with maintenance(own) as conn:
            enabled = enable(conn, "quota_logs", "week")
            assert enabled.result == "done", enabled
            assert disable(conn, "logs").result == "done"
        assert rows(dsn) == kept
        assert len(kept) == 24
        assert len(partitions(dsn, "quota_logs")) > 10
