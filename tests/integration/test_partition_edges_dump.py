"""A dump of a partitioned trail in the middle of its life, restored: all goes on from there."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from auditlog.partitions import locking
from auditlog.partitions.applying import apply
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.reading.drift import drift
from auditlog.partitions.retention import detaching, holding
from auditlog.partitions.session import maintenance
from auditlog.postgres.migrate import migrate
from databases import Server, as_role, postgres_program
from monthly_scene import comment
from retiring_scene import (
    QUICK,
    attached,
    cut,
    fill,
    month,
    operation,
    partition,
    states,
    tables,
)
from trail import execute, fetch

MONTHS = (9, 8, 7, 6, 5, 1, 0)
HELD, ROWS = 5, 10
MANY = 5000
"""Rows that are more than a pipe holds."""
DUMPING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pg_dump'"
    " AND query LIKE 'COPY logstore.logs_p%')"
)
TOO_NEW = b"SET transaction_timeout = 0;"
"""What a pg_dump writes that is newer than the server."""


@contextmanager
def databases_of(server: Server, owner: str) -> Iterator[tuple[str, str]]:
    """Two databases in which a login may make schemas and nothing else: to dump, to restore."""
    with server.database(migrated=False) as one, server.database(migrated=False) as two:
        for dsn in (one, two):
            with psycopg.connect(dsn, autocommit=True) as conn:
                database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
                grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
                conn.execute(grant.format(database, sql.Identifier(owner)))
        yield as_role(one, owner), as_role(two, owner)


def live(dsn: str, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that was dropped, one in the archive, one detached, one half detached, a hold."""
    migrate(dsn)
    cut(dsn, MONTHS)
    for ago in MONTHS[:5]:
        fill(dsn, ago, ROWS)
    archived = replace(QUICK, archive=str(archive), drop_without_archive=False)
    monkeypatch.setattr(detaching, "CONCURRENT_WAIT_S", 0.2)
    monkeypatch.setattr(locking, "TRIES", 1)
    with maintenance(dsn) as conn, psycopg.connect(dsn) as reader:
        holding.place(conn, start=month(HELD), end=month(HELD - 1), reason="matter")
        for ago, kinds in ((9, ("detach", "drop")), (7, ("detach",))):
            for kind in kinds:
                assert apply(conn, operation(conn, kind, ago), QUICK).result == "done"  # type: ignore[arg-type]
        for kind in ("detach", "archive"):
            assert apply(conn, operation(conn, kind, 8), archived).result == "done"  # type: ignore[arg-type]
        reader.execute("SELECT count(*) FROM logstore.logs")
        assert apply(conn, operation(conn, "detach", 6), QUICK).result == "waiting"
        assert told(conn) == {9: "dropped", 8: "archived", 7: "detached", 6: "detaching"}


def told(conn: psycopg.Connection[Any]) -> dict[int, str]:
    """How far each month's retirement is, by the last entry about it."""
    found = {name: state for name, state, _, _ in states(conn)}
    return {ago: found[partition(ago)] for ago in MONTHS if partition(ago) in found}


def dump_into(dsn: str, other: str) -> None:
    """As the owner of the tables, who is no superuser."""
    dump = [postgres_program("pg_dump"), "-d", dsn]
    dumped = subprocess.run(dump, check=True, capture_output=True).stdout
    psql = [postgres_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", other]
    subprocess.run(psql, check=True, input=dumped.replace(TOO_NEW, b""), capture_output=True)


def test_dump_in_the_middle_of_retirements_is_taken_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks, guards, holds and what was retired are there; what was under way is told and goes on.

    Tables have another identity there, so nothing that was begun is dropped before somebody has
    said that it is the same.
    """
    with server.role() as owner, databases_of(server, owner) as (dsn, other):
        live(dsn, tmp_path, monkeypatch)
        dump_into(dsn, other)
        config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
        with maintenance(other) as conn:
            for name in tables(conn):
                assert comment(conn, name) == "auditlog partition of logs"
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                    conn.execute(sql.SQL("TRUNCATE logstore.{}").format(sql.Identifier(name)))
            assert attached(conn) == sorted(partition(ago) for ago in (6, 5, 1, 0))
            # The one whose detach had not ended is whole: its rows are to be seen again.
            assert drift(conn, "logs") == {}
            assert fetch(other, "SELECT logstore.ensure_partition('logs', now())") == ["already"]
            retired = f"SELECT logstore.ensure_partition('logs', '{month(8)}')"
            assert fetch(other, retired) == ["retired"]
        (shown,) = preview(other, {"logs": config})
        assert shown.plan is not None
        remedies = [each.remedy for each in shown.plan.findings if each.code == "vanished"]
        assert len(remedies) == 3
        assert "orphan" not in {each.code for each in shown.plan.findings}
        touched = {each.partition for each in shown.plan.operations if each.kind == "drop"}
        assert touched == {partition(6)}
        for remedy in remedies:
            execute(other, given_its_identity(remedy))
        (report,) = maintain(other, {"logs": config})
        assert report.error is None
        assert {outcome.result for outcome in report.outcomes} == {"done"}, report.outcomes
        with maintenance(other) as conn:
            assert told(conn) == dict.fromkeys((9, 8, 7, 6), "dropped")
            assert len(states(conn)) == 4
            assert partition(HELD) in attached(conn)
            assert tables(conn) == attached(conn)
        assert len(list(tmp_path.rglob("manifest.json"))) == 3
        kept = "SELECT count(*) FROM logstore.logs WHERE instance_id = 'tenant'"
        assert fetch(other, kept) == [ROWS]


def test_dump_under_way_is_whole(
    any_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has every row of what retention is about to take, which waits for its end."""
    monkeypatch.setattr(detaching, "CONCURRENT_WAIT_S", 0.2)
    monkeypatch.setattr(locking, "TRIES", 1)
    with any_server.database() as dsn:
        cut(dsn, MONTHS)
        fill(dsn, 6, MANY)
        dump = [postgres_program("pg_dump"), "--data-only", "-d", dsn]
        with (
            psycopg.connect(dsn, autocommit=True) as conn,
            subprocess.Popen(dump, stdout=subprocess.PIPE, text=True) as process,
        ):
            while conn.execute(DUMPING).fetchone() == (False,):
                conn.execute("SELECT pg_sleep(0.005)")
            # Nobody reads what it writes, so it comes no further than the middle of the rows.
            (report,) = maintain(dsn, {"logs": QUICK})
            waiting = {each.detail for each in report.outcomes if each.result == "waiting"}
            assert any("pg_dump" in detail for detail in waiting), report.outcomes
            assert {"create", "analyze"} <= {
                each.operation.kind for each in report.outcomes if each.result == "done"
            }
            written, _ = process.communicate()
        assert process.returncode == 0
        rows = [line for line in written.splitlines() if line.startswith("tenant\t")]
        assert len(rows) == MANY
        (report,) = maintain(dsn, {"logs": QUICK})
        assert {each.result for each in report.outcomes} == {"done"}, report.outcomes
        with maintenance(dsn) as conn:
            assert told(conn) == dict.fromkeys((9, 8, 7, 6, 5), "dropped")


def given_its_identity(remedy: str) -> str:
    """What somebody does who reads the remedy."""
    match = re.search(r", ([0-9a-f-]{36}), the partition_oid ('.+'::regclass::oid):", remedy)
    assert match is not None, remedy
    entry, oid = match.groups()
    return f"UPDATE logstore.retirements SET partition_oid = {oid} WHERE retirement_id = '{entry}'"  # noqa: S608  # ours
