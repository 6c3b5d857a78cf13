import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from auditlog.errors import PartitionError
from auditlog.partitions.retention.holding import ListedHold, listed, place, release
from auditlog.partitions.session import maintenance
from databases import Server
from retiring_scene import OLDEST, cut, fill

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(any_server: Server):
    with any_server.database() as dsn:
        yield dsn


@pytest.fixture
def conn(database: str):
    with maintenance(database) as conn:
        yield conn
        conn.execute("TRUNCATE logstore.holds")


def evidence(conn: psycopg.Connection, event_type: str) -> tuple[str, str, dict[str, object]]:
    """Table, message and metadata of the newest row of that type."""
    row = conn.execute(
        "SELECT aggregate_id, message, metadata FROM logstore.logs WHERE event_type = %s"
        " ORDER BY log_id DESC LIMIT 1",
        [event_type],
    ).fetchone()
    assert row is not None
    return row


def test_hold_is_placed_and_listed_with_all_that_was_said(conn: psycopg.Connection) -> None:
    """What comes back is what the planner reads, and what the list shows."""
    hold = place(
        conn,
        table="logs",
        instance_id="tenant-7",
        start=START,
        end=END,
        reason=" file 4711 ",
        by="Ada",
    )
    (shown,) = listed(conn)
    assert (hold.table, hold.instance_id, hold.start, hold.end) == ("logs", "tenant-7", START, END)
    assert (shown.hold_id, shown.table, shown.instance_id) == (hold.hold_id, "logs", "tenant-7")
    assert (shown.start, shown.end, shown.reason, shown.placed_by) == (
        START,
        END,
        "file 4711",
        "Ada",
    )
    assert (shown.released_at, shown.released_by, shown.release_reason) == (None, None, None)


def test_hold_without_limits_is_for_everything_and_for_ever(conn: psycopg.Connection) -> None:
    """The login is named where no person is."""
    place(conn, reason="file 4711")
    (shown,) = listed(conn)
    assert (shown.table, shown.instance_id, shown.start, shown.end) == (None, None, None, None)
    assert shown.placed_by == conn.info.user


def test_placing_and_releasing_leave_rows_in_the_trail(conn: psycopg.Connection) -> None:
    """Who, what and why, in the transaction of the deed."""
    hold = place(conn, table="logs", instance_id="tenant-7", end=END, reason="file 4711", by="Ada")
    table, message, metadata = evidence(conn, "audit.hold.placed")
    assert (table, message) == ("logs", "a legal hold was placed: file 4711")
    assert metadata == {
        "audit.hold_id": hold.hold_id,
        "audit.tenant": "tenant-7",
        "audit.lower": "-infinity",
        "audit.upper": END.isoformat(),
        "audit.by": "Ada",
    }
    release(conn, hold.hold_id, reason="settled", by="Grace")
    table, message, metadata = evidence(conn, "audit.hold.released")
    assert (table, message) == ("logs", "a legal hold was released: settled")
    assert (metadata["audit.hold_id"], metadata["audit.by"]) == (hold.hold_id, "Grace")


def test_released_hold_stays_listed(conn: psycopg.Connection) -> None:
    """Among those that were released, with who released it and why."""
    kept, ended = place(conn, reason="one"), place(conn, reason="two")
    release(conn, ended.hold_id, reason="settled", by="Grace")
    assert [hold.hold_id for hold in listed(conn)] == [kept.hold_id]
    story = {hold.hold_id: hold for hold in listed(conn, released=True)}
    assert set(story) == {kept.hold_id, ended.hold_id}
    assert story[ended.hold_id].released_at is not None
    assert (story[ended.hold_id].released_by, story[ended.hold_id].release_reason) == (
        "Grace",
        "settled",
    )


def test_hold_is_released_once(conn: psycopg.Connection) -> None:
    """The second release would write another reason over the first."""
    hold = place(conn, reason="file 4711")
    release(conn, hold.hold_id, reason="settled")
    with pytest.raises(PartitionError, match="auditlog hold list"):
        release(conn, hold.hold_id, reason="again")
    (shown,) = listed(conn, released=True)
    assert shown.release_reason == "settled"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"reason": "r", "table": "batches"}, "one of logs, execution_logs, quota_logs"),
        ({"reason": "r", "start": END, "end": START}, "holds nothing"),
        ({"reason": "r", "start": START, "end": START}, "holds nothing"),
        ({"reason": "r", "start": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001  # meant
    ],
)
def test_hold_that_holds_nothing_is_not_placed(
    conn: psycopg.Connection, given: dict[str, object], said: str
) -> None:
    """The message says what would do, and there is neither a hold nor evidence of one."""
    rows = "SELECT count(*) FROM logstore.logs"
    before = conn.execute(rows).fetchone()
    with pytest.raises(PartitionError, match=said):
        place(conn, **given)  # type: ignore[arg-type]  # as the case has it
    assert listed(conn, released=True) == []
    assert conn.execute(rows).fetchone() == before


@pytest.mark.parametrize("hold_id", ["134d2725-e3da-41c3-965b-a2cb911a93ec", "4711", ""])
def test_release_of_no_hold_says_where_they_are_listed(
    conn: psycopg.Connection, hold_id: str
) -> None:
    with pytest.raises(PartitionError, match="auditlog hold list"):
        release(conn, hold_id, reason="settled")


def test_release_needs_a_reason(conn: psycopg.Connection) -> None:
    hold = place(conn, reason="file 4711")
    with pytest.raises(PartitionError, match="needs a reason"):
        release(conn, hold.hold_id, reason="")
    assert len(listed(conn)) == 1


def test_hold_placed_by_hand_with_instants_beyond_python_is_listed(
    conn: psycopg.Connection,
) -> None:
    """As for ever, which holds more and not less."""
    conn.execute(
        "INSERT INTO logstore.holds (hold_id, from_date, until_date, reason)"
        " VALUES (%s, '4713-01-01 BC', '20000-01-01', 'file 4711')",
        [uuid4()],
    )
    (shown,) = listed(conn)
    assert isinstance(shown, ListedHold)
    assert (shown.start, shown.end) == (None, None)


def test_hold_is_not_placed_where_its_evidence_cannot_be(any_server: Server) -> None:
    """The one without the other would be a change of the trail that the trail does not tell."""
    with any_server.database() as dsn, maintenance(dsn) as conn:
        conn.execute("ALTER TABLE logstore.logs ADD CHECK (event_type NOT LIKE 'audit.%')")
        with pytest.raises(psycopg.errors.CheckViolation):
            place(conn, reason="file 4711")
        assert listed(conn, released=True) == []


@pytest.mark.parametrize("default", [False, True])
def test_hold_is_placed_after_an_outage_of_maintenance(any_server: Server, default: bool) -> None:
    """Rows of today have no partition, or lie in a DEFAULT, by which none can be made."""
    with any_server.database() as dsn:
        cut(dsn, [OLDEST], default=default)
        if default:
            fill(dsn, 0, 1)
        with maintenance(dsn) as conn:
            hold = place(conn, reason="file 4711")
            assert evidence(conn, "audit.hold.placed")[2]["audit.hold_id"] == hold.hold_id


def test_hold_lasts_however_its_clock_is_read(conn: psycopg.Connection) -> None:
    """An instant with an offset is the same one in UTC."""
    zone = datetime.fromisoformat("2026-01-01T05:45:00+05:45")
    place(conn, start=zone, end=zone + timedelta(days=1), reason="file 4711")
    (shown,) = listed(conn)
    assert shown.start == START
    assert re.fullmatch(r".{36}", shown.hold_id)
