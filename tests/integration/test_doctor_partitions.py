"""`doctor` on a partitioned table: guards, how far it reaches, rights, an interrupted detach."""

import psycopg
import pytest

from auditlog.postgres.doctor import Finding, diagnose
from databases import Server, as_role
from partitioned import DAY, add_partitions, partition, partitions, today
from trail import execute

MAINTAIN = "auditlog partitions maintain"


def found(dsn: str, name: str = "partitions") -> list[Finding]:
    return [finding for finding in diagnose(dsn) if finding.name == name]


def test_well_kept_partitions_are_well(dsn: str) -> None:
    """And so is the guard of the table, which has none of its own rows."""
    partition(dsn, windows=[today() + day * DAY for day in range(10)])
    (finding,) = found(dsn)
    assert (finding.state, finding.remedy) == ("ok", "")
    assert "logstore.logs has 10 partitions" in finding.detail
    assert [finding.state for finding in found(dsn, "append-only")] == ["ok"]


def test_guard_that_the_table_itself_lacks_is_missed(any_dsn: str) -> None:
    """Those of the partitions do not make up for it, and the remedy does as it says."""
    partition(any_dsn, windows=[today()])
    execute(any_dsn, "DROP TRIGGER append_only ON logstore.logs")
    (finding,) = found(any_dsn, "append-only")
    assert finding.state == "failed"
    execute(any_dsn, finding.remedy)
    assert [finding.state for finding in found(any_dsn, "append-only")] == ["ok"]


def test_partition_without_a_guard_is_named(any_dsn: str) -> None:
    """TRUNCATE of it would pass by the guard of its table."""
    partition(any_dsn, windows=[today() + day * DAY for day in range(10)])
    first, second, *_ = partitions(any_dsn)
    execute(any_dsn, f"DROP TRIGGER append_only ON logstore.{first}")
    execute(any_dsn, f"ALTER TABLE logstore.{second} DISABLE TRIGGER append_only")
    (finding,) = found(any_dsn)
    assert finding.state == "failed"
    assert f"{first}, {second} of logstore.logs" in finding.detail
    assert MAINTAIN in finding.remedy


@pytest.mark.parametrize(
    ("days", "state", "detail"),
    [
        ([-1], "failed", "no partition for rows of today"),
        ([0, 1, 2], "warning", "for 2."),
        ([0, 2, 3, 4, 5, 6, 7, 8, 9], "warning", "for 0."),
    ],
    ids=["none", "few", "a gap"],
)
def test_end_of_the_partitions_is_told(
    any_dsn: str, days: list[int], state: str, detail: str
) -> None:
    """A warning while rows are stored; they are not when there is none for today."""
    partition(any_dsn, windows=[today() + day * DAY for day in days])
    (finding,) = found(any_dsn)
    assert finding.state == state
    assert detail in finding.detail
    assert MAINTAIN in finding.remedy


def test_interrupted_detach_is_told(any_dsn: str) -> None:
    """The rows are there, and nobody sees them."""
    partition(any_dsn, windows=[today() + day * DAY for day in range(-1, 10)])
    (name, *_) = partitions(any_dsn)
    with psycopg.connect(any_dsn) as reader, psycopg.connect(any_dsn, autocommit=True) as conn:
        reader.execute("SELECT FROM logstore.logs")
        conn.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute(
                f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name} CONCURRENTLY".encode()
            )
    (finding,) = found(any_dsn)
    assert finding.state == "failed"
    assert f"{name} of logstore.logs: a detach was interrupted" in finding.detail


def test_writer_without_the_right_is_told_the_grant(any_server: Server) -> None:
    """Not a failure: `maintain` makes them in time. A role that does not write needs none."""
    with any_server.role() as role, any_server.database() as dsn:
        theirs = as_role(dsn, role)
        partition(dsn, windows=[today() + day * DAY for day in range(10)])
        execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        assert [finding.state for finding in found(theirs)] == ["ok"]
        execute(dsn, f'GRANT INSERT ON logstore.logs TO "{role}"')
        (finding,) = found(theirs)
        assert finding.state == "warning"
        execute(dsn, finding.remedy)
        assert [finding.state for finding in found(theirs)] == ["ok"]


def test_schema_without_the_functions_is_looked_at_too(any_dsn: str) -> None:
    """It is older than the package, which another check tells; guards are told all the same."""
    partition(any_dsn, windows=[today()])
    execute(any_dsn, "DROP FUNCTION logstore.covered_until(text)")
    (finding,) = found(any_dsn)
    assert finding.state == "ok"
    add_partitions(any_dsn, [today() + DAY])
    execute(any_dsn, f"DROP TRIGGER append_only ON logstore.{partitions(any_dsn)[0]}")
    assert [finding.state for finding in found(any_dsn)] == ["failed"]
