"""Counters of periods that ended long ago go with maintenance; nothing else does."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditlog.cli.failures import Exit
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.session import maintenance, only_run
from auditlog.quota.keeping import cleaning
from auditlog.quota.keeping.cleaning import Cleaned, clean
from commands import CommandLine
from databases import Server, as_role
from trail import execute, fetch

AGES = ("399 days", "401 days", "500 days")
COUNTED = "SELECT count(*) FROM logstore.{}"
TABLES = ("quota_usage", "quota_windows", "quota_crossings")


@pytest.fixture
def auditlog(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


@pytest.fixture
def old(any_dsn: str) -> str:
    """Counters, windows and crossings of periods that ended so long ago, and of one that runs."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        for age in (*AGES, "-1 day"):
            conn.execute(
                "INSERT INTO logstore.quota_usage"
                " SELECT 'q', 't', 's', at - interval '1 day', at, 1, 1"
                " FROM (SELECT now() - %s::interval) AS ended (at)",
                [age],
            )
            conn.execute(
                "INSERT INTO logstore.quota_windows SELECT 'q', 't', at::text, interval '1 day',"
                " 0, '{1}', 1, 0, 0, at, at"
                " FROM (SELECT now() - %s::interval - interval '1 day') AS last (at)",
                [age],
            )
            conn.execute(
                "INSERT INTO logstore.quota_crossings SELECT gen_random_uuid(), 'q', 't', 's',"
                " at - interval '1 day', at, 80, 1, 1, 1, NULL, NULL, NULL, at, at, at, at"
                " FROM (SELECT now() - %s::interval) AS ended (at)",
                [age],
            )
    return any_dsn


def left(dsn: str) -> list[Any]:
    return [fetch(dsn, sql.SQL(COUNTED).format(sql.Identifier(t)).as_string())[0] for t in TABLES]


def test_what_ended_long_ago_goes(old: str) -> None:
    """In batches, each told when it is committed; a month before the horizon is kept."""
    told: list[Cleaned] = []
    with psycopg.connect(old, autocommit=True) as conn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaning, "MOST", 1)
        assert clean(conn, "400 days", on_progress=told.append) == Cleaned(2, 2, 2)
        assert clean(conn, "400 days") == Cleaned()
    assert told == [Cleaned(1, 1, 1), Cleaned(2, 2, 2), Cleaned(2, 2, 2)]
    assert left(old) == [2, 2, 2]


def test_a_crossing_that_nobody_has_told_yet_stays(old: str) -> None:
    """However old it is."""
    execute(old, "UPDATE logstore.quota_crossings SET called_at = NULL")
    with psycopg.connect(old, autocommit=True) as conn:
        assert clean(conn, "400 days") == Cleaned(2, 2, 0)


def test_maintenance_cleans_and_says_so(auditlog: CommandLine, old: str) -> None:
    """Once; also where no table is partitioned, and of as long ago as is asked for."""
    first = auditlog("partitions", "maintain", dsn=old)
    assert first.returncode == Exit.OK, first.stderr
    assert first.stdout == (
        "quotas: deleted 2 counters, 2 rolling windows, 2 crossings, which ended more than"
        " 400 days ago\n"
    )
    second = auditlog("partitions", "maintain", dsn=old)
    assert (second.returncode, second.stdout) == (Exit.OK, "")
    longer = auditlog(
        "partitions", "maintain", "--keep-quota-usage", "13 months", "--json", dsn=old
    )
    assert json.loads(longer.stdout)["quotas"] == {
        "counters": 1,
        "windows": 1,
        "crossings": 1,
        "busy": False,
        "error": None,
    }
    assert left(old) == [1, 1, 1]


def test_tables_are_maintained_as_well(auditlog: CommandLine, old: str) -> None:
    """One run does both, the tables first."""
    with maintenance(old) as conn:
        assert enable(conn, "logs", "month").result == "done"
    result = auditlog("partitions", "maintain", "--format", "json", dsn=old)
    assert result.returncode == Exit.OK, result.stderr
    document = json.loads(result.stdout)
    assert [table["table"] for table in document["tables"]] == ["logs"]
    assert document["quotas"]["counters"] == 2


def test_two_runs_do_not_meet(auditlog: CommandLine, old: str) -> None:
    """The other one is left to it, which is no trouble."""
    with maintenance(old) as conn, only_run(conn, "quotas") as is_ours:
        assert is_ours
        result = auditlog("partitions", "maintain", "--json", dsn=old)
    assert result.returncode == Exit.OK
    assert json.loads(result.stdout)["quotas"]["busy"]
    assert left(old) == [4, 4, 4]


def test_an_older_schema_has_nothing_to_clean(auditlog: CommandLine, old: str) -> None:
    """It is maintained as before."""
    execute(old, "DROP FUNCTION logstore.clean_quotas(interval, integer)")
    result = auditlog("partitions", "maintain", "--json", dsn=old)
    assert result.returncode == Exit.OK, result.stderr
    assert json.loads(result.stdout)["quotas"] is None
    assert auditlog("partitions", "maintain", dsn=old).stdout == ""


@pytest.mark.parametrize("form", ["text", "json", "prometheus"])
def test_what_goes_wrong_is_told(auditlog: CommandLine, any_server: Server, form: str) -> None:
    """Exit 1, with the cause; whatever the report is written in."""
    with any_server.role() as role, any_server.database() as dsn:
        execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        for table in ("logs", "partitioning", "migrations"):
            execute(dsn, f'GRANT SELECT ON logstore.{table} TO "{role}"')
        result = auditlog("partitions", "maintain", "--format", form, dsn=as_role(dsn, role))
    assert result.returncode == Exit.NOT_WELL
    assert "Traceback" not in result.stderr
    said = result.stdout + result.stderr
    assert "permission denied for function clean_quotas" in said


def test_usage(auditlog: CommandLine, old: str) -> None:
    """Exit 2, with what would do; nothing goes."""
    for length in ("yesterday", "0 days"):
        result = auditlog(
            "partitions", "maintain", "--keep-quota-usage", length, dsn=old, COLUMNS="200"
        )
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert "is no length of time: write 90 days" in result.stderr
    assert left(old) == [4, 4, 4]


def test_a_long_time_is_kept_whole(auditlog: CommandLine, old: str) -> None:
    """Longer than there is a calendar for."""
    forever = ("--keep-quota-usage", "99999 years")
    result = auditlog("partitions", "maintain", *forever, dsn=old)
    assert (result.returncode, result.stdout) == (Exit.OK, "")
    assert left(old) == [4, 4, 4]
