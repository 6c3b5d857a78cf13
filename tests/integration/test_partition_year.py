"""A year in the life of a partitioned trail: traffic, cron that fails, clocks that lie.

At the end every record that was ever sent is in a table, in a verified archive, deleted by its
tenant's rule, or a dead letter; compared identity by identity with what the sender noted.
`AUDITLOG_YEAR_DAYS=1` makes a step of each day instead of each week, `AUDITLOG_YEAR_VERSION=16` has
the year on another PostgreSQL.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.conninfo import make_conninfo

from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.model import Operation, TableConfig, TableReport
from auditlog.partitions.retention.holding import place, release
from auditlog.partitions.spans import Span
from partition_scene import (
    NO_FAKETIME,
    Identity,
    Scene,
    Sent,
    faketime,
    in_archives,
    in_tables,
    letters,
    maintained,
    scene,
    send,
)
from trail import execute, fetch

if faketime() is None:
    pytest.skip(NO_FAKETIME, allow_module_level=True)

STEP = timedelta(days=int(os.environ.get("AUDITLOG_YEAR_DAYS", "7")))
VERSION = int(os.environ.get("AUDITLOG_YEAR_VERSION", "18"))
TABLES = ("logs", "execution_logs")
USUAL, HELD, BRIEF = "usual", "held", "brief"
BRIEF_SPAN = Span(days=30)
THREE_YEARS = timedelta(days=3 * 365)
OF_A_MONTH = re.compile(r"FOR VALUES FROM \('\S+-01 00:00:00\+00'\) TO \('\S+-01 00:00:00\+00'\)")
ZONE = "ALTER SYSTEM SET timezone = '{}'"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


FEBRUARY = (at("2026-02-01 00:00"), at("2026-03-01 00:00"))


class Year:
    """The service and its cron job, with what the service has noted and cron has reported."""

    def __init__(self, here: Scene) -> None:
        self.here = here
        self.dsn = here.dsn
        self.now = at("2026-01-05 10:17")
        self.sent: list[Sent] = []
        self.archive = here.folder / "archive"
        self.spool = here.folder / "spool"
        self.maintained_at = self.now
        common = {"retain": Span(months=3), "tenants": {BRIEF: BRIEF_SPAN}, "max_retire": 3}
        place = {"archive": str(self.archive)}
        self.configs = {
            "logs": TableConfig("logs", ahead=Span(months=1), **common, **place),
            "execution_logs": TableConfig(
                "execution_logs", ahead=Span(days=21), archive_format="csv", **common, **place
            ),
        }

    def go_to(self, instant: datetime) -> None:
        self.now = instant
        self.here.set_clocks(instant)

    def traffic(self, later: timedelta = timedelta()) -> list[Sent]:
        """Two requests of each tenant and a line of an execution with each."""
        tenants = [USUAL, HELD, BRIEF] * 2
        noted = self.here.on_host(send, self.dsn, str(self.spool), tenants, later.total_seconds())
        self.sent += noted
        return noted

    def cron(self) -> list[TableReport]:
        reports = self.here.on_host(maintained, self.dsn, self.configs)
        self.maintained_at = self.now
        return reports

    def live(self, until: str, *, cron: bool = True) -> None:
        """Let time pass in steps, with traffic in each; the last is shorter, to be exact."""
        end = at(until)
        while self.now < end:
            self.go_to(min(self.now + STEP, end))
            self.traffic()
            if cron:
                assert all(report.error is None for report in self.cron())


@pytest.fixture
def year() -> Iterator[Year]:
    start = at("2026-01-05 10:17")
    with scene(start, VERSION) as here:
        yield Year(here)


@pytest.mark.slow
@pytest.mark.timeout(240 if timedelta(days=1) < STEP else 1800)
def test_every_record_of_a_year_is_accounted_for(year: Year) -> None:
    here, dsn = year.here, year.dsn
    execute(dsn, ZONE.format("Europe/Berlin"))
    execute(dsn, "ALTER DATABASE postgres SET datestyle = 'SQL, DMY'")
    execute(dsn, "SELECT pg_reload_conf()")
    year.traffic()
    for table, step in (("logs", "month"), ("execution_logs", "week")):
        assert here.operate(enable, table, step).result == "done"

    # Clocks are put forward: local time lacks an hour, and UTC does not.
    year.live("2026-03-20 10:00")
    hold = here.operate(
        place,
        instance_id=HELD,
        start=FEBRUARY[0],
        end=FEBRUARY[1],
        reason="matter 26/117",
    )
    for minute in ("00:59", "01:01"):
        year.live(f"2026-03-29 {minute}")

    # Cron is down for a month, and nobody notices.
    year.live("2026-04-20 08:00")
    year.live("2026-05-20 08:00", cron=False)
    year.live("2026-06-10 08:00")
    execute(dsn, ZONE.format("Asia/Kathmandu"))
    execute(dsn, "SELECT pg_reload_conf()")

    # And for more than two, in which the partitions that were made ahead come to an end.
    year.live("2026-06-20 08:00")
    year.live("2026-07-30 08:00", cron=False)
    # Legal does not wait for that: the month in which it holds something has no partition yet.
    year.go_to(at("2026-08-03 08:00"))
    here.operate(place, end=at("2025-01-01 00:00"), reason="matter 26/118")
    year.live("2026-08-25 08:00", cron=False)
    year.live("2026-09-10 08:00")

    # Spools of long ago turn up: of a time that is gone, and of one that is held.
    gone = year.traffic(at("2026-04-10 10:00") - year.now)
    still_there = year.traffic(at("2026-02-10 10:00") - year.now)

    # Clocks jump: the host's, both, the server's. Nothing is taken away then; when they are right
    # again, only what is old by then.
    here.host_clock.set(year.now + THREE_YEARS)
    too_far = year.traffic()
    assert taken_by(year.cron()) == []
    today = year.now
    year.go_to(today + THREE_YEARS)
    year.traffic()
    assert taken_by(year.cron()) == []
    year.go_to(today + timedelta(days=1))
    year.traffic()
    assert all(upper <= year.now - timedelta(days=90) for upper in ends_taken(year.cron()))
    here.server_clock.set(year.now + THREE_YEARS)
    year.traffic()
    assert taken_by(year.cron()) == []
    year.go_to(today + timedelta(days=2))
    assert all(upper <= year.now - timedelta(days=90) for upper in ends_taken(year.cron()))

    # Clocks are put back, in the city that the server is in by then: 01:30 comes twice.
    execute(dsn, ZONE.format("America/New_York"))
    execute(dsn, "SELECT pg_reload_conf()")
    for minute in ("05:30", "06:30"):
        year.live(f"2026-11-01 {minute}")
    assert held_rows(dsn) == len([each for each in year.sent if is_held(each)]) > 0
    here.operate(release, hold.hold_id, reason="closed")
    year.live("2027-01-20 10:00")
    year.cron()

    stored, archived = in_tables(dsn, TABLES), in_archives(dsn, year.archive)
    buried = letters(dsn)
    assert_accounted_for(year, stored, archived, buried)
    assert identities(too_far) | identities(gone) <= set(buried)
    assert identities(still_there) & set(buried) == set()
    assert held_rows(dsn) == 0
    assert unfinished(dsn) == []
    # What is younger than three months, and the rest of the partition that the last of it is in.
    assert oldest(dsn, "logs") >= at("2026-10-01 00:00")
    assert oldest(dsn, "execution_logs") >= at("2026-10-19 00:00")
    assert [bounds for bounds in bounds_of(dsn, "logs") if not OF_A_MONTH.fullmatch(bounds)] == []


def assert_accounted_for(
    year: Year, stored: list[Identity], archived: list[Identity], buried: list[Identity]
) -> None:
    """Each record is in one place, or deleted by its tenant's rule and counted as that."""
    places = Counter([*stored, *archived, *buried])
    assert [identity for identity, count in places.items() if count > 1] == []
    assert places.keys() <= identities(year.sent)
    missing = [sent for sent in year.sent if (sent.table, sent.log_id) not in places]
    cutoff_us = BRIEF_SPAN.before(year.maintained_at).timestamp() * 1e6
    assert {sent.tenant for sent in missing} == {BRIEF}
    assert max(sent.at_us for sent in missing) < cutoff_us
    counted = "SELECT sum(rows)::int FROM logstore.retirements WHERE state = 'deleted'"
    assert fetch(year.dsn, counted) == [len(missing)]
    # A year in which nothing happened would prove nothing.
    assert min(len(stored), len(archived), len(buried), len(missing)) > 20


def identities(sent: list[Sent]) -> set[Identity]:
    return {(each.table, each.log_id) for each in sent}


def taken_by(reports: list[TableReport]) -> list[str]:
    """The partitions that were detached, dropped or deleted from."""
    return [operation.partition for operation in taking(reports)]


def ends_taken(reports: list[TableReport]) -> list[datetime]:
    """The upper bounds of those that went as a whole."""
    whole = [each for each in taking(reports) if each.kind != "delete"]
    return [each.upper for each in whole if each.upper is not None]


def taking(reports: list[TableReport]) -> list[Operation]:
    return [
        outcome.operation
        for report in reports
        for outcome in report.outcomes
        if outcome.operation.kind in {"detach", "delete", "drop"} and outcome.result == "done"
    ]


def is_held(sent: Sent) -> bool:
    at = datetime.fromtimestamp(sent.at_us / 1e6, UTC)
    return sent.table == "logs" and sent.tenant == HELD and FEBRUARY[0] <= at < FEBRUARY[1]


def held_rows(dsn: str) -> int:
    query = (
        "SELECT count(*) FROM logstore.logs"
        " WHERE instance_id = %s AND log_date >= %s AND log_date < %s"
    )
    (count,) = fetch(dsn, query, HELD, *FEBRUARY)
    return int(count)


def oldest(dsn: str, table: str) -> datetime:
    query = f"SELECT extract(epoch FROM min(log_date))::float8 FROM logstore.{table}"  # noqa: S608  # ours
    (seconds,) = fetch(dsn, query)
    return datetime.fromtimestamp(seconds, UTC)


def bounds_of(dsn: str, table: str) -> list[str]:
    query = (
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid IN"
        " (SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass)"
    )
    in_utc = make_conninfo(dsn, options="-c timezone=UTC -c datestyle=ISO")
    return fetch(in_utc, query, f"logstore.{table}")


def unfinished(dsn: str) -> list[str]:
    query = "SELECT partition_name FROM logstore.retirements WHERE ended_at IS NULL"
    return fetch(dsn, query)
