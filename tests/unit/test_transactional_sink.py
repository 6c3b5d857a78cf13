"""`record_within` without a database: what tests of an application see, and other drivers' SQL."""

from dataclasses import replace
from inspect import signature
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import asyncpg, psycopg2

from auditlog import AuditLog, LogLevel, LogRecord, bound
from auditlog.sink.database import transactional
from auditlog.testing import MemorySink, capture


@pytest.mark.parametrize("name", ["record_within", "arecord_within"])
def test_it_takes_what_record_takes(name: str) -> None:
    """By the same names, with the same types and defaults; behind the connection."""
    _, connection, *others = signature(getattr(AuditLog, name)).parameters.values()
    assert others == list(signature(AuditLog.record).parameters.values())[1:]
    assert (connection.name, connection.kind) == ("connection", connection.POSITIONAL_ONLY)


async def test_all_that_is_said_has_its_place() -> None:
    """As in the row that `record` makes of it."""
    sink = MemorySink()
    said: dict[str, Any] = {
        "user_id": 7,
        "target": ("order", 42),
        "before": 1,
        "after": 2,
        "message": "m",
        "level": LogLevel.WARN,
        "outcome": "denied",
        "resource_owner": "org",
        "instance_id": "acme",
        "event_sequence": 3,
        "occurrence_date": 5,
        "metadata": {"a": 1},
        "connection": 4,
    }
    assert said.keys() >= {
        parameter.name
        for parameter in signature(AuditLog.record).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    sink.record("x", **said)
    sink.record_within(None, "x", **said)
    await sink.arecord_within(None, "x", **said)
    plain, *others = (replace(record, log_id=None) for record in sink.records)
    assert others == [plain, plain]


def test_memory_sink_keeps_the_event() -> None:
    """Under the identifier that the application gets, and without any connection."""
    sink = MemorySink()
    with bound(user_id="job"):
        log_id = sink.record_within(object(), "order.refunded", target=("order", 42), reason="r")
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    assert record.log_id == log_id
    assert (record.event_type, record.aggregate_id, record.user_id) == (
        "order.refunded",
        "42",
        "job",
    )
    assert record.metadata == {"audit.outcome": "ok", "reason": "r"}


async def test_memory_sink_keeps_the_event_of_asynchronous_code() -> None:
    """Likewise."""
    sink = MemorySink()
    log_id = await sink.arecord_within(None, "x")
    assert [record.log_id for record in sink.records] == [log_id]


async def test_capture_keeps_events_from_the_database() -> None:
    """Those of transactions too."""
    audit = AuditLog("host=192.0.2.1")
    with capture(audit) as records:
        identifiers = [audit.record_within(None, "x"), await audit.arecord_within(None, "y")]
    assert [record.log_id for record in records] == identifiers


def test_event_of_a_bad_type_is_still_an_event() -> None:
    """As for `record`, values that make no sense are taken as well as they can be."""
    sink = MemorySink()
    sink.record_within(None, 7, target="order", level="high", user_id=object)  # type: ignore[arg-type]
    assert len(sink.records) == 1
    assert sink.errors == []


@pytest.mark.parametrize(
    ("dialect", "placeholder"),
    [
        (psycopg2.dialect(), "%(sent)s"),
        (asyncpg.dialect(), "$1"),
        (postgresql.psycopg.dialect(), "%(sent)s"),
    ],
    ids=["psycopg2", "asyncpg", "psycopg"],
)
def test_statement_has_one_parameter_in_every_dialect(dialect: object, placeholder: str) -> None:
    """And no other character that a driver takes for one."""
    statement = str(text(transactional._SQLALCHEMY).compile(dialect=dialect))  # type: ignore[arg-type]
    assert f"CAST({placeholder} AS text)" in statement
    rest = statement.replace(placeholder, "")
    assert [character for character in "%$:" if character in rest] == []
