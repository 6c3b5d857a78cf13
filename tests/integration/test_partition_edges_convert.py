"""Tables that somebody has changed, turned into partitioned ones and back; or refused with why."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.conversion.preflight import examine
from auditlog.partitions.maintaining import maintain
from auditlog.partitions.model import TableConfig
from auditlog.partitions.reading.catalog import read
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.tables import LOGS
from conversion_scene import LIVE, OLD, clients, facts, stored
from conversion_scene import fill as fill_between
from databases import Server
from retiring_scene import NOW, month
from trail import fetch

CHANGED = """
    ALTER TABLE logstore.logs ADD COLUMN gone text, ADD COLUMN number integer DEFAULT 7 NOT NULL;
    ALTER TABLE logstore.logs DROP COLUMN gone;
    CREATE DOMAIN public.region AS text COLLATE "C" CHECK (value <> '');
    ALTER TABLE logstore.logs ADD COLUMN "in Region" public.region DEFAULT 'eu',
        ADD COLUMN words integer GENERATED ALWAYS AS (length(message)) STORED;
    ALTER TABLE logstore.logs SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.01);
    CREATE INDEX "Odd % name" ON logstore.logs ("in Region", lower(message));
    CREATE STATISTICS logstore.together ON user_id, event_type FROM logstore.logs;
"""


@pytest.fixture(scope="module")
def plain(any_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A table to look at; every test leaves it as it was."""
    with any_server.database() as dsn, maintenance(dsn) as conn:
        yield conn


def test_changed_table_goes_there_and_back(dsn: str) -> None:
    """With columns, indexes and settings of the operator's, one of ours lacking, under traffic."""
    lacking = LOGS.indexes[0].name
    fill_between(dsn, 50, month(2), NOW)
    with maintenance(dsn) as conn:
        conn.execute(CHANGED)
        conn.execute(f"DROP INDEX logstore.{lacking}".encode())
        before = of_the_table(conn)
        codes = {each.code for each in examine(conn, "logs", "week") if each.severity == "note"}
        assert codes >= {"missing_index", "extra_column", "storage"}
        with clients(dsn) as seen:
            enabled = enable(conn, "logs", "week")
            assert enabled.result == "done", enabled.findings
            wanted = TableConfig("logs", ahead=Span(months=4))
            (report,) = maintain(dsn, {"logs": wanted})
            assert (report.error, {each.result for each in report.outcomes}) == (None, {"done"})
            assert {leaf.drift for leaf in read(conn, wanted).leaves} == {()}
            fill_between(dsn, 20, month(-2), month(-3), tenant="later")
            back = disable(conn, "logs")
        assert back.result == "done"
        assert back.rows_moved >= 20
        assert of_the_table(conn) == before
    assert (seen.errors, seen.counts) == ([], {50})
    assert stored(dsn, LIVE) == seen.sent
    assert stored(dsn, OLD) == 50
    totals = "SELECT sum(number) + count(*) FILTER (WHERE \"in Region\" = 'eu') FROM logstore.logs"
    assert fetch(dsn, f"{totals} WHERE instance_id = 'later'") == [8 * 20]


def of_the_table(conn: psycopg.Connection[Any]) -> set[tuple[str, ...]]:
    """Everything about it but for the view that the readers of `clients` have."""
    return {fact for fact in facts(conn) if fact[0] != "view"}


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        (
            "ALTER TABLE logstore.logs ADD EXCLUDE USING btree (instance_id WITH =, log_id WITH =)",
            "exclusion",
        ),
        (
            "CREATE FUNCTION public.seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL;"
            " END'; CREATE TRIGGER seen AFTER INSERT ON logstore.logs REFERENCING NEW TABLE AS new"
            " FOR EACH ROW EXECUTE FUNCTION public.seen()",
            "transition_table",
        ),
        (
            "CREATE TABLE public.dates (log_date timestamptz NOT NULL);"
            " ALTER TABLE logstore.logs INHERIT public.dates",
            "inherits",
        ),
        (
            "ALTER TABLE logstore.logs ALTER log_date DROP DEFAULT,"
            " ALTER log_date TYPE timestamp USING log_date AT TIME ZONE 'UTC'",
            "date_type",
        ),
        (
            "CREATE SEQUENCE logstore.numbers OWNED BY logstore.logs.user_id",
            "owned_sequence",
        ),
        ("CREATE PUBLICATION parts FOR TABLE logstore.logs WHERE (log_level > 1)", "publication"),
    ],
    ids=lambda text: text if " " not in text else "",
)
def test_what_no_partitioned_table_can_have_is_refused(
    plain: psycopg.Connection[Any], setup: str, code: str
) -> None:
    """With what to do about it, before anything is done."""
    with plain.transaction(force_rollback=True):
        plain.execute(setup.encode())
        before = facts(plain)
        report = enable(plain, "logs", "month")
        assert facts(plain) == before
    human = {each.code: each.remedy for each in report.findings if each.severity == "human"}
    assert report.result == "refused"
    assert any(found.startswith(code) and remedy for found, remedy in human.items()), human
