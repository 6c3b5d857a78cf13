"""The ledger against the tables: what is missing, what nobody explains, and what cannot hide it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from auditlog import AuditLog, ExecutionLogRecord, LogRecord, QuotaLogRecord
from auditlog.query.reconcile import MAX_SPANS, obstacles, reconcile
from auditlog.query.reconciliation import Reconciliation, TableCount
from auditlog.query.verdicts import conclusion, is_well, verdicts
from databases import Server, as_role
from trail import execute, fetch, quick

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def us(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def store(dsn: str, *records: Any) -> None:
    """One batch of its own, with what the library tells of itself left out."""
    with AuditLog(dsn, settings=quick(life_rows=False)) as audit:
        for record in records:
            audit.submit(record)


def minutes(dsn: str, *numbers: int) -> None:
    """A batch for each of these minutes after noon: three rows, seconds apart."""
    for number in numbers:
        at = us(NOON + number * MINUTE)
        store(
            dsn, *(LogRecord(request_url=f"/{number}", log_date=at + s * 10**6) for s in range(3))
        )


def look(dsn: str, **asked: Any) -> Reconciliation:
    with psycopg.connect(dsn) as conn:
        return reconcile(conn, **asked)


def logs(found: Reconciliation) -> TableCount:
    return found.tables[0]


def figures(found: Reconciliation) -> tuple[int, int]:
    """Of `logs`: missing, unexplained."""
    return logs(found).missing, logs(found).unexplained


def maintain(dsn: str, statement: str) -> None:
    """What the owner may do when the guard is lifted."""
    execute(dsn, f"BEGIN; SET LOCAL auditlog.maintenance = 'on'; {statement}; COMMIT")


def unexplained(found: Reconciliation) -> dict[str, int]:
    return {v.name: v.figure for v in verdicts(found) if v.state == "unexplained"}


BY_HAND = "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('t', '{}', '{}')"


def test_what_was_written_is_accounted_for(dsn: str) -> None:
    """All three tables, from several writers at once; nothing is the matter."""

    def work(number: int) -> None:
        records = [LogRecord(user_id=f"{number}-{n}") for n in range(300)]
        quota = QuotaLogRecord("q", 0, 1, 5, "org", allowed=True)
        store(dsn, *records, ExecutionLogRecord("e", "t", "line"), quota)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = look(dsn)
    assert [table.stored for table in found.tables] == [1200, 4, 4]
    assert all(table.at_least == table.at_most == table.stored for table in found.tables)
    assert (found.unaccounted, unexplained(found)) == (0, {})
    assert is_well(found, strict=True)
    assert conclusion(found).startswith("Unaccounted for: 0 records.")


def test_an_empty_database_is_well(dsn: str) -> None:
    """Nothing was written, and nothing is there."""
    found = look(dsn)
    assert (found.unaccounted, is_well(found, strict=True)) == (0, True)
    assert found.lives.total == 0


def test_deleted_rows_are_missing_where_they_were(dsn: str) -> None:
    """The owner may delete; the ledger remembers."""
    minutes(dsn, 0, 1, 2)
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/1'")
    found = look(dsn)
    assert figures(found) == (3, 0)
    (place,) = (span for span in logs(found).spans if span.missing)
    assert (place.start, place.end) == ("2026-03-01 12:01:00+00", "2026-03-01 12:02:00+00")
    assert (found.unaccounted, is_well(found)) == (3, False)
    assert conclusion(found).startswith("Unaccounted for: 3 records.")


def test_rows_without_an_entry_are_unexplained(dsn: str) -> None:
    """Before, between and behind the batches, and among them."""
    minutes(dsn, 0, 5)
    dates = ("1969-01-01", "2026-03-01 12:03+00", "2027-01-01", "2026-03-01 12:00:01+00")
    for number, date in enumerate(dates):
        execute(dsn, BY_HAND.format(number, date))
    found = look(dsn)
    assert figures(found) == (0, 4)
    assert [span.unexplained for span in logs(found).spans] == [1, 2, 1]


def test_an_entry_that_was_deleted_leaves_its_rows_unexplained(dsn: str) -> None:
    """And a hole among the numbers, which alone would prove nothing."""
    minutes(dsn, 0, 1, 2)
    maintain(dsn, "DELETE FROM logstore.batches WHERE first_log_date = '2026-03-01 12:01+00'")
    found = look(dsn)
    assert figures(found) == (0, 3)
    assert found.ledger.holes == 1
    assert unexplained(found) == {"logs": 3}


def test_a_batch_that_was_rolled_back_leaves_a_hole_that_is_no_matter(dsn: str) -> None:
    """It is shown, and that it may be either."""
    minutes(dsn, 0)
    execute(dsn, "SELECT nextval('logstore.batches_sequence_seq')")
    minutes(dsn, 1)
    found = look(dsn)
    assert found.ledger.holes == 1
    assert is_well(found, strict=True)
    assert any("rolled back" in verdict.detail for verdict in verdicts(found))


def test_rows_put_in_the_place_of_deleted_ones_hide_nothing(dsn: str) -> None:
    """As many rows as there were, at another time."""
    minutes(dsn, 0, 1, 2)
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/0'")
    for number in range(3):
        execute(dsn, BY_HAND.format(number, "2026-03-01 12:02:01+00"))
    found = look(dsn)
    assert logs(found).stored == logs(found).at_most
    assert figures(found) == (3, 3)
    assert found.unaccounted == 6


def test_entries_that_no_batch_can_have_left_are_told(any_dsn: str) -> None:
    """Dates in the wrong order, fewer bytes than the rows must have."""
    with psycopg.connect(any_dsn) as conn:
        for entry in ((500, "2026-01-02", "2026-01-01"), (5, "2026-01-01", "2026-01-02")):
            conn.execute(
                "INSERT INTO logstore.batches"
                " (batch_id, writer, logs, bytes, first_log_date, last_log_date, sha256)"
                " VALUES (gen_random_uuid(), 'w', 1, %s, %s, %s, sha256('x'))",
                entry,
            )
    found = look(any_dsn)
    assert found.ledger.impossible == 2
    assert unexplained(found) == {"logs": 2, "ledger": 2}
    assert not is_well(found)


def test_a_batch_across_the_border_makes_a_range(dsn: str) -> None:
    """Between none and all of its rows lie within; beyond that, something is wrong."""
    minutes(dsn, 0, 1, 2)
    border = NOON + timedelta(seconds=1)
    found = look(dsn, since=border, until=NOON + 2 * MINUTE + timedelta(seconds=2))
    assert (logs(found).at_least, logs(found).stored, logs(found).at_most) == (3, 7, 9)
    assert is_well(found, strict=True)
    assert any("3 to 9" in verdict.detail for verdict in verdicts(found))
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/1' AND log_date < '2026-03-01'")
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/1'")
    assert figures(look(dsn, since=border)) == (3, 0)


def test_batches_that_touch_are_counted_together(any_dsn: str) -> None:
    """One ends in the very microsecond in which the next begins: its rows are anybody's."""
    for start in (0, 10, 20):
        seconds = (start, start + 10)
        store(any_dsn, *(LogRecord(log_date=us(NOON) + second * 10**6) for second in seconds))
    found = look(any_dsn)
    assert (figures(found), len(logs(found).spans)) == ((0, 0), 2)


def test_a_range_leaves_out_what_is_beyond(dsn: str) -> None:
    """The end itself is not in it: ranges that meet have nothing twice."""
    minutes(dsn, 0, 1, 2)
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/0'")
    whole = look(dsn)
    first = look(dsn, until=NOON + MINUTE)
    rest = look(dsn, since=NOON + MINUTE)
    assert [figures(found) for found in (whole, first, rest)] == [(3, 0), (3, 0), (0, 0)]
    assert logs(first).at_most + logs(rest).at_most == logs(whole).at_most


def test_batches_that_commit_meanwhile_are_in_all_of_it_or_in_none(dsn: str) -> None:
    """One snapshot, taken at the start."""
    minutes(dsn, 0)
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        minutes(dsn, len(steps))

    found = look(dsn, step=step)
    assert len(steps) >= 5
    assert (logs(found).stored, logs(found).at_most) == (3, 3)
    assert (found.unaccounted, is_well(found, strict=True)) == (0, True)
    assert logs(look(dsn)).stored == 3 * (len(steps) + 1)


def test_clocks_that_were_wrong_keep_nothing_from_adding_up(dsn: str) -> None:
    """Before 1970, beyond Python's years, and all of it in one batch with today's."""
    far = 9_000_000_000_000_000_000
    minutes(dsn, 0)
    store(dsn, LogRecord(log_date=-(10**16)), LogRecord(log_date=us(NOON)), LogRecord(log_date=far))
    store(dsn, LogRecord(log_date=far))
    store(dsn, LogRecord(log_date=-(2 * 10**17)))
    found = look(dsn)
    assert (logs(found).stored, figures(found)) == (8, (0, 0))
    execute(dsn, BY_HAND.format("a", "infinity"))
    execute(dsn, BY_HAND.format("b", "-infinity"))
    execute(dsn, BY_HAND.format("c", "4000-01-01 BC"))
    assert figures(look(dsn))[1] == 3
    assert figures(look(dsn, since=NOON - MINUTE, until=NOON + MINUTE)) == (0, 0)
    maintain(dsn, "DELETE FROM logstore.logs WHERE request_url IS NULL")
    assert figures(look(dsn))[0] == 5


def test_settings_of_the_session_change_no_figure(any_server: Server) -> None:
    """Another zone, other ways to write a date."""
    with any_server.database() as dsn:
        minutes(dsn, 0, 1, 2)
        maintain(dsn, "DELETE FROM logstore.logs WHERE request_url = '/1'")
        expected = look(dsn)
        options = "-c TimeZone=America/St_Johns -c DateStyle=SQL,DMY -c IntervalStyle=sql_standard"
        odd = look(make_conninfo(dsn, options=options))
    assert odd.tables == expected.tables
    assert odd.ledger == expected.ledger


def test_many_batches_share_spans(any_dsn: str) -> None:
    """A hundred thousand: bounded, and a row that is missing is found near its place."""
    execute(
        any_dsn,
        "INSERT INTO logstore.batches"
        " (batch_id, writer, logs, bytes, first_log_date, last_log_date, sha256)"
        " SELECT gen_random_uuid(), 'w', 1, 500, date, date, sha256('x')"
        " FROM (SELECT timestamptz '2026-01-01' + n * interval '1 s' AS date"
        " FROM generate_series(1, 100000) AS n) AS dates",
    )
    execute(
        any_dsn,
        "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
        " SELECT 't', n::text, timestamptz '2026-01-01' + n * interval '1 s'"
        " FROM generate_series(1, 100000) AS n WHERE n <> 70000",
    )
    found = look(any_dsn)
    assert (found.ledger.entries, logs(found).at_most) == (100_000, 100_000)
    assert len(logs(found).spans) <= MAX_SPANS + 1
    assert figures(found) == (1, 0)
    (place,) = (span for span in logs(found).spans if span.missing)
    assert place.start is not None
    assert place.end is not None
    assert place.start <= "2026-01-01 19:26:40+00" < place.end
    length = datetime.fromisoformat(place.end) - datetime.fromisoformat(place.start)
    assert length < timedelta(minutes=1)


def test_a_role_that_may_read_is_enough(server: Server) -> None:
    """And one that may not is told the statements, one for each right."""
    with server.role() as role, server.database() as dsn:
        minutes(dsn, 0)
        statements = _grants(as_role(dsn, role))
        assert len(statements) == 6
        for statement in statements:
            execute(dsn, statement)
        assert _grants(as_role(dsn, role)) == []
        assert is_well(look(as_role(dsn, role)), strict=True)


def test_rows_that_are_hidden_from_the_role_are_not_called_missing(any_server: Server) -> None:
    """Row security would: it is an obstacle, not a finding."""
    with any_server.role() as role, any_server.database() as dsn:
        for statement in _grants(as_role(dsn, role)):
            execute(dsn, statement)
        execute(dsn, "ALTER TABLE logstore.logs ENABLE ROW LEVEL SECURITY")
        with psycopg.connect(as_role(dsn, role)) as conn:
            (obstacle,) = obstacles(conn)
        assert "row security hides rows of logstore.logs" in obstacle


def test_a_missing_schema_is_an_obstacle(empty_dsn: str) -> None:
    """With the command that mends it."""
    with psycopg.connect(empty_dsn) as conn:
        assert obstacles(conn) == ["the schema is missing, or a part of it: run `auditlog migrate`"]


def test_time_is_bounded(any_dsn: str) -> None:
    """A question that takes too long is given up, and the connection can be used on."""
    with _locked(any_dsn), psycopg.connect(any_dsn) as conn:
        with pytest.raises(psycopg.errors.QueryCanceled):
            reconcile(conn, timeout=timedelta(milliseconds=50))
        assert conn.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_nothing_is_written(any_dsn: str) -> None:
    """The transaction could not, and leaves nothing of itself in the session."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        before = conn.execute("SHOW TimeZone").fetchone()
        reconcile(conn, step=lambda _: _refuses_to_write(conn))
        assert conn.execute("SHOW TimeZone").fetchone() == before
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_the_schema_before_dead_letters_is_read_too(any_dsn: str) -> None:
    """What is not there cannot be counted."""
    assert look(any_dsn).dead_letters == 0
    execute(any_dsn, "DROP TABLE logstore.dead_letters")
    assert look(any_dsn).dead_letters is None
    assert fetch(any_dsn, "SELECT count(*) FROM logstore.batches") == [0]


def _grants(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        return [obstacle.partition(": ")[2] for obstacle in obstacles(conn)]


@contextmanager
def _locked(dsn: str) -> Iterator[None]:
    with psycopg.connect(dsn) as conn:
        conn.execute("LOCK TABLE logstore.logs")
        yield


def _refuses_to_write(conn: psycopg.Connection[Any]) -> None:
    assert conn.execute("SHOW transaction_read_only").fetchone() == ("on",)
    assert conn.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
