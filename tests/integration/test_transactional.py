"""`record_within`: the row commits or rolls back with the change, whatever the connection."""

import hashlib
import struct
from typing import Any

import pytest

import trail
from auditlog import AuditLog, LogRecord
from auditlog.sink.database.ledger import copy_stream, writer_name
from transactions import KINDS, Begin

pytestmark = pytest.mark.parametrize("begin", KINDS.values(), ids=KINDS.keys())


@pytest.fixture
def orders(any_dsn: str) -> str:
    """A database with the table that the application changes."""
    return with_orders(any_dsn)


def with_orders(dsn: str) -> str:
    trail.execute(dsn, "CREATE TABLE public.orders (id integer PRIMARY KEY, state text)")
    trail.execute(dsn, "INSERT INTO orders VALUES (42, 'paid')")
    return dsn


def state(dsn: str) -> tuple[str, list[str]]:
    """The state of the order, and what the trail says of it; the ledger must always agree."""
    assert trail.ledger_agrees(dsn)
    (order,) = trail.fetch(dsn, "SELECT state FROM orders WHERE id = 42")
    return order, [row["event_type"] for row in trail.rows(dsn)]


async def refund(transaction: Any, audit: AuditLog) -> str:
    await transaction.execute("UPDATE orders SET state = 'refunded' WHERE id = 42")
    return await transaction.record(
        audit,
        "order.refunded",
        target=("order", 42),
        before={"state": "paid"},
        after={"state": "refunded", "password": "hunter2"},
        user_id=7,
        message="Refunded \u20ac 5 \U0001f600",
        reason="b\u00fcrger's \u2028 wish",
    )


async def test_commit_stores_change_row_and_ledger(dsn: str, begin: Begin) -> None:
    """Nobody sees any of the three before the commit."""
    orders = with_orders(dsn)
    audit = AuditLog(orders)
    async with begin(orders) as transaction:
        log_id = await refund(transaction, audit)
        assert state(orders) == ("paid", [])
        await transaction.commit()
    assert state(orders) == ("refunded", ["order.refunded"])
    (row,) = trail.rows(orders)
    assert row["log_id"] == log_id
    assert (row["aggregate_type"], row["aggregate_id"], row["user_id"]) == ("order", "42", "7")
    assert row["message"] == "Refunded \u20ac 5 \U0001f600"
    assert row["metadata"] == {
        "audit.outcome": "ok",
        "reason": "b\u00fcrger's \u2028 wish",
        "audit.before": {"state": "paid"},
        "audit.after": {"state": "refunded", "password": "[REDACTED]"},
    }


async def test_rollback_leaves_nothing(orders: str, begin: Begin) -> None:
    """Neither row nor ledger; the connection is good for the next transaction."""
    audit = AuditLog(orders)
    async with begin(orders) as transaction:
        await refund(transaction, audit)
        await transaction.rollback()
        assert state(orders) == ("paid", [])
        await refund(transaction, audit)
        await transaction.commit()
    assert state(orders) == ("refunded", ["order.refunded"])


async def test_rollback_to_a_savepoint_takes_back_what_came_after(
    orders: str, begin: Begin
) -> None:
    """The rows before it stay."""
    audit = AuditLog(orders)
    async with begin(orders) as transaction:
        await transaction.record(audit, "before")
        await transaction.execute("SAVEPOINT here")
        await refund(transaction, audit)
        await transaction.execute("ROLLBACK TO SAVEPOINT here")
        await transaction.record(audit, "after")
        await transaction.commit()
    assert state(orders) == ("paid", ["before", "after"])


async def test_two_rows_in_one_transaction(orders: str, begin: Begin) -> None:
    """Each has its identifier and its own entry in the ledger."""
    audit = AuditLog(orders)
    async with begin(orders) as transaction:
        identifiers = [await transaction.record(audit, "one"), await refund(transaction, audit)]
        await transaction.commit()
    assert state(orders) == ("refunded", ["one", "order.refunded"])
    assert [row["log_id"] for row in trail.rows(orders)] == identifiers
    assert [entry["logs"] for entry in trail.batches(orders)] == [1, 1]


async def test_exception_between_takes_both_back(orders: str, begin: Begin) -> None:
    """Whatever the application raises, its context manager rolls back as ever."""
    audit = AuditLog(orders)

    async def work() -> None:
        async with begin(orders) as transaction:
            await refund(transaction, audit)
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert state(orders) == ("paid", [])


async def test_ledger_entry_is_that_of_a_batch(any_dsn: str, begin: Begin) -> None:
    """Length and hash are of what the writer would have sent for the same row."""
    audit = AuditLog(any_dsn)
    async with begin(any_dsn) as transaction:
        await transaction.record(audit, "x")
        await transaction.commit()
    (row,), (entry,) = trail.rows(any_dsn), trail.batches(any_dsn)
    record = LogRecord(
        occurrence_date=row["occurrence_date"],
        event_type="x",
        metadata=row["metadata"],
        log_id=row["log_id"],
        log_date=row["log_date"],
    )
    stream = copy_stream([audit._encode(record)[1]])
    assert entry["bytes"] == len(stream)
    assert entry["sha256"] == hashlib.sha256(stream).digest()
    assert entry["first_log_date"] == entry["last_log_date"] == row["log_date"]
    assert entry["writer"] == writer_name()
    assert entry["batch_id"].version == 7


async def test_aborted_transaction_says_so(orders: str, begin: Begin) -> None:
    """The error is the driver's; after a rollback the connection records again."""
    audit = AuditLog(orders)
    async with begin(orders) as transaction:
        with pytest.raises(Exception, match="division by zero"):
            await transaction.execute("SELECT 1 / 0")
        with pytest.raises(Exception, match="aborted") as caught:
            await transaction.record(audit, "x")
        assert "roll back" in " ".join(caught.value.__notes__)
        await transaction.rollback()
        await refund(transaction, audit)
        await transaction.commit()
    assert state(orders) == ("refunded", ["order.refunded"])


async def test_missing_schema_names_the_remedy(empty_dsn: str, begin: Begin) -> None:
    """The error of the server, with what to do about it."""
    audit = AuditLog(empty_dsn)
    async with begin(empty_dsn) as transaction:
        with pytest.raises(Exception, match="does not exist") as caught:
            await transaction.record(audit, "x")
        assert "auditlog migrate" in " ".join(caught.value.__notes__)
        await transaction.rollback()


async def test_connection_ended_by_the_server(orders: str, begin: Begin) -> None:
    """The caller hears of it, and nothing of the transaction remains."""
    audit = AuditLog(orders)

    async def work() -> None:
        async with begin(orders) as transaction:
            await refund(transaction, audit)
            await transaction.execute("SET application_name = 'victim'")
            assert trail.fetch(
                orders,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'victim' AND datname = current_database()",
            ) == [True]
            await transaction.record(audit, "after the end")

    with pytest.raises(Exception, match=r"(?i)terminat|closed|lost"):
        await work()
    assert state(orders) == ("paid", [])


async def test_log_is_neither_started_nor_counted(any_dsn: str, begin: Begin) -> None:
    """No writer is needed, and `stats` is about the writer's rows."""
    audit = AuditLog("host=192.0.2.1 dbname=nowhere")
    before = audit.stats()
    async with begin(any_dsn) as transaction:
        await transaction.record(audit, "x")
        await transaction.commit()
    assert audit.stats() == before
    assert audit._runner is None
    assert len(trail.rows(any_dsn)) == 1


async def test_extreme_instants(dsn: str, begin: Begin) -> None:
    """All that timestamptz holds, and more, to the microsecond."""
    audit = AuditLog(dsn)
    extremes = [-(2**70), -210_866_803_200_000_000, -1, 0, 1, 9_224_318_015_999_999_999, 2**70]
    async with begin(dsn) as transaction:
        await transaction.execute("SET TIME ZONE 'Asia/Kathmandu'")
        await transaction.execute("SET datestyle = 'German, DMY'")
        for us in extremes:
            await transaction.record(audit, "x", occurrence_date=us)
        await transaction.commit()
    stored = trail.fetch(
        dsn, "SELECT timestamptz_send(occurrence_date) FROM logstore.logs ORDER BY log_id"
    )
    low, high = extremes[1], extremes[-2]
    assert [struct.unpack(">q", data)[0] + 946_684_800_000_000 for data in stored] == [
        min(max(us, low), high) for us in extremes
    ]
