"""Records that break what is careless: all are stored, none raises, every change is named.

On a real PostgreSQL, since only it knows what it refuses.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import hostile
import trail
from auditlog import AuditLog, ExecutionLogRecord, LogRecord, Outcome, QuotaLogRecord
from auditlog.tables import TABLES
from trail import quick

KINDS: tuple[type[Any], ...] = (LogRecord, ExecutionLogRecord, QuotaLogRecord)
MAX_ROW_BYTES = 16384


@pytest.fixture
def audit(dsn: str) -> AuditLog:
    """With the smallest rows, so that the limit is met often."""
    return AuditLog(dsn, settings=quick(max_row_bytes=MAX_ROW_BYTES))


def submit_all(audit: AuditLog, records: list[Any]) -> None:
    """Submit, and see each of them written."""

    async def main() -> None:
        before = audit.stats()
        async with audit:
            for record in records:
                assert audit.submit(record) is Outcome.ACCEPTED
            sizes = audit.stats().queued_bytes
            assert sizes <= MAX_ROW_BYTES * len(records)
            assert await audit.flush(30)
        after = audit.stats()
        assert after.written - before.written == len(records)
        assert after.dropped == before.dropped == 0

    asyncio.run(main())


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[table.name for table in TABLES])
def test_every_hostile_object_in_every_field_is_stored(audit: AuditLog, number: int) -> None:
    """Each in all fields at once, and each alone in each field."""
    kind = KINDS[number]
    # Two identities may have the same text, and would then be the same row.
    names = [name for name in TABLES[number].column_names if name != "log_id"]
    fine = {name: None if name.endswith("_date") else "x" for name in names}
    records = [
        kind(**values, low_priority=value)
        for value in hostile.OBJECTS
        for values in (dict.fromkeys(names, value), *(fine | {name: value} for name in names))
    ]
    for start in range(0, len(records), 500):
        submit_all(audit, records[start : start + 500])


_FIELDS = {
    kind: st.fixed_dictionaries(
        {
            name: hostile.anything
            for name, column in zip(table.column_names, table.columns, strict=True)
            if not column.nullable and name not in {"instance_id", "log_id"}
        },
        optional={
            name: hostile.anything
            for name, column in zip(table.column_names, table.columns, strict=True)
            if column.nullable
        },
    )
    for kind, table in zip(KINDS, TABLES, strict=True)
}
records = st.lists(
    st.sampled_from(KINDS).flatmap(lambda kind: _FIELDS[kind].map(lambda values: kind(**values))),
    min_size=1,
    max_size=40,
)


@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(records=records)
def test_any_record_is_stored(audit: AuditLog, records: list[Any]) -> None:
    """Made by Hypothesis, of every table, with anything in any field."""
    submit_all(audit, records)


def test_enormous_values_are_stored_and_named(audit: AuditLog) -> None:
    """Ten megabytes, a hundred thousand levels, a thousand headers, a number of 5000 digits."""
    deep = hostile.nested(100_000)
    submit_all(
        audit,
        [
            LogRecord(user_id="url", request_url="/" + "é" * 5_000_000),
            LogRecord(user_id="message", message="\0" * 10_000_000),
            LogRecord(
                user_id="headers", request_headers={f"h{n}": ["v" * 70_000] for n in range(1000)}
            ),
            LogRecord(user_id="metadata", metadata={"long": "x" * 10_000_000, "after": 1}),
            LogRecord(user_id="number", metadata={"n": 10**5000, "m": -(10**5000)}),
            LogRecord(user_id="deep", metadata={"deep": deep}),
        ],
    )
    _dismantle(deep)
    rows = {row["user_id"]: row for row in trail.rows(audit.settings.dsn or "")}
    marks = {user: row["metadata"]["audit.repaired"] for user, row in rows.items()}
    assert marks == {
        "url": ["request_url"],
        "message": ["message"],
        "headers": ["request_headers"],
        "metadata": ["metadata.long"],
        "number": ["metadata.n", "metadata.m"],
        "deep": ["metadata.deep"],
    }
    assert len(rows["url"]["request_url"]) > 500
    assert rows["metadata"]["metadata"]["after"] == 1


def test_every_change_is_named_in_the_row(audit: AuditLog) -> None:
    """Column by column, and key by key in the metadata."""
    submit_all(
        audit,
        [
            LogRecord(
                request_url="/\0",
                request_method="\ud800",
                response_status="200",  # type: ignore[arg-type]
                response_time_ms=-5,
                protocol=9,
                log_level=0,
                event_sequence=2**63,
                occurrence_date="now",  # type: ignore[arg-type]
                message="m" * 100_000,
                metadata={"fine": 1, "nan": float("nan"), "\0": 1, "object": object()},
            )
        ],
    )
    (row,) = trail.rows(audit.settings.dsn or "")
    names = row["metadata"]["audit.repaired"]
    assert sorted(names) == [
        "event_sequence",
        "log_level",
        "message",
        "metadata.nan",
        "metadata.object",
        "metadata.\ufffd",
        "occurrence_date",
        "protocol",
        "request_method",
        "request_url",
        "response_status",
        "response_time_ms",
    ]
    assert (row["response_status"], row["response_time_ms"]) == (None, 0)


def test_what_is_no_record_is_counted_and_does_not_raise(
    audit: AuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the application's code is no error of its request."""
    things: list[Any] = [None, 7, "record", {}, LogRecord, print, *hostile.OBJECTS]
    with audit:
        for thing in things:
            assert audit.submit(thing) is Outcome.DROPPED
    stats = audit.stats()
    assert stats.submitted == len(things)
    assert stats.dropped_by_reason == {"unencodable": len(things)}
    assert caplog.text.count("auditlog.record_dropped") == 1


def test_generators_are_left_alone(audit: AuditLog) -> None:
    """In any field; what the application does with them later still works."""

    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)

    generators = [numbers() for _ in range(3)]
    record = LogRecord(
        message=generators[0],  # type: ignore[arg-type]
        request_headers=generators[1],  # type: ignore[arg-type]
        metadata={"generator": generators[2]},
    )
    submit_all(audit, [record])
    assert [list(generator) for generator in generators] == [[1, 2, 3]] * 3


def test_metadata_may_change_while_it_is_encoded(audit: AuditLog) -> None:
    """Another thread annotates; the row has the one or the other, and is stored."""

    async def main() -> None:
        metadata: dict[Any, Any] = {"object": object()} | {f"k{n}": n for n in range(200)}
        stopped = asyncio.Event()

        def annotate() -> None:
            number = 0
            while not stopped.is_set():
                number += 1
                metadata[number % 1000] = number
                metadata.pop((number + 500) % 1000, None)

        async with audit:
            thread = asyncio.create_task(asyncio.to_thread(annotate))
            for _ in range(200):
                assert audit.submit(LogRecord(metadata=metadata)) is Outcome.ACCEPTED
                await asyncio.sleep(0)
            stopped.set()
            await thread
            assert await audit.flush(30)

    asyncio.run(main())
    assert audit.stats().written == 200
    # The keys that were there from the beginning to the end are in every row.
    for row in trail.rows(audit.settings.dsn or ""):
        assert row["metadata"]["object"] == "<builtins.object>"


def _dismantle(value: Any) -> None:
    """Take a deep list apart from the outside: freeing it at once overflows the C stack."""
    while isinstance(value, list):
        container, value = value, value[0]
        container.clear()
