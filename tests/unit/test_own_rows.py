"""What the library tells of itself: the rows it makes, and that every one of them is storable."""

import json
import multiprocessing
import re
from typing import Any

import pytest

from auditlog import LogLevel, LogRecord, Settings, Stats
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.encoding.storable import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from auditlog.sink.encoding.tuples import fields
from auditlog.sink.queue.gaps import Gap
from auditlog.sink.queue.stats import LossReason
from auditlog.sink.told.own_rows import gap_record, start_record, stop_record
from auditlog.tables import LOGS

RUN, WRITER = "01a221d9-ee1a-72a1-a99b-5219c1cb8e6d", "web-1:7"


def gap(**changes: Any) -> Gap:
    defaults: dict[str, Any] = {"reason": "overflow", "tenant": "red", "count": 17}
    return Gap(**defaults | {"first_us": 1_000_000, "last_us": 2_500_000} | changes)


def told(record: LogRecord) -> dict[str, Any]:
    assert record.metadata is not None
    return dict(record.metadata)


def stored(record: LogRecord) -> dict[str, bytes | None]:
    """The columns as they would be in the table."""
    table, row = Encoder(Settings()).encode(record)
    assert table == 0
    return dict(zip(LOGS.column_names, fields(row), strict=True))


def test_start_says_what_is_promised() -> None:
    """The life, the process, the versions, and what may be lost."""
    settings = Settings(durability="spool", spool_dir="/var/spool/audit", instance_id="acme")
    record = start_record(settings, RUN, WRITER)
    assert (record.event_type, record.instance_id) == ("audit.start", "acme")
    assert (record.aggregate_type, record.aggregate_id) == ("auditlog", WRITER)
    assert (record.log_level, record.protocol, record.low_priority) == (LogLevel.INFO, 0, False)
    found = told(record)
    assert (found["audit.run_id"], found["audit.writer"]) == (RUN, WRITER)
    assert found["audit.durability"] == "spool"
    assert found["audit.settings"]["spool_dir"] == "/var/spool/audit"
    assert re.fullmatch(r"\d+\.\d+.*", found["audit.version"])
    assert re.fullmatch(r"3\.\d+\.\d+.*", found["audit.python"])


def test_start_holds_no_secret() -> None:
    """Neither of the DSN nor of the keys."""
    record = start_record(
        Settings(dsn="postgresql://u:swordfish@h/d", redact_key="swordfish"), RUN, WRITER
    )
    assert "swordfish" not in json.dumps(told(record))


def test_a_process_is_told_from_one_that_had_its_name() -> None:
    """The same for two lives in one process, another in a fork, whose pid may come again."""
    first, second = (told(start_record(Settings(), run, WRITER)) for run in ("a", "b"))
    assert first["audit.process_id"] == second["audit.process_id"]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_process_id) not in (None, first["audit.process_id"])


def _process_id() -> Any:
    return told(start_record(Settings(), RUN, WRITER))["audit.process_id"]


def test_stop_has_every_counter_and_they_add_up() -> None:
    """As those of `Stats` do."""
    stats = Stats(
        submitted=100,
        written=60,
        queued=3,
        in_flight=4,
        spooled=20,
        dead_lettered=1,
        recovered=5,
        dropped_by_reason={LossReason.OVERFLOW: 10, "shutdown": 2},
    )
    record = stop_record(stats, RUN, WRITER, "acme")
    found = told(record)
    assert found["audit.dropped"] == {"overflow": 10, "shutdown": 2}
    settled = ("audit.written", "audit.pending", "audit.spooled", "audit.dead_lettered")
    assert sum(found[key] for key in settled) + 12 == found["audit.submitted"] == 100
    assert found["audit.recovered"] == 5
    assert record.message == (
        "The audit log of web-1:7 stopped:"
        " 100 submitted, 60 written, 7 pending, 20 spooled, 1 dead-lettered, 12 dropped."
    )
    assert (record.event_type, record.instance_id) == ("audit.stop", "acme")


@pytest.mark.parametrize(
    ("stats", "level"),
    [
        (Stats(submitted=5, written=5), LogLevel.INFO),
        (Stats(submitted=5, spooled=5), LogLevel.INFO),
        (Stats(submitted=5, written=4, queued=1), LogLevel.WARN),
        (Stats(submitted=5, written=4, dropped_by_reason={"overflow": 1}), LogLevel.WARN),
    ],
)
def test_a_stop_that_leaves_losses_is_a_warning(stats: Stats, level: LogLevel) -> None:
    """What is on disk is none."""
    assert stop_record(stats, RUN, WRITER, "acme").log_level == level


def test_gap_is_told_to_the_tenant_that_lost() -> None:
    """An error, at the time of the last loss, with one sentence for people."""
    record = gap_record(gap(), RUN, WRITER, "acme")
    assert (record.event_type, record.instance_id) == ("audit.gap", "red")
    assert (record.log_level, record.occurrence_date) == (LogLevel.ERROR, 2_500_000)
    assert record.message == (
        "17 records of tenant red were lost between 1970-01-01T00:00:01.000000+00:00"
        " and 1970-01-01T00:00:02.500000+00:00: the queue was full (overflow)."
    )
    assert told(record) == {
        "audit.run_id": RUN,
        "audit.writer": WRITER,
        "audit.gap.reason": "overflow",
        "audit.gap.count": 17,
        "audit.gap.first": "1970-01-01T00:00:01.000000+00:00",
        "audit.gap.last": "1970-01-01T00:00:02.500000+00:00",
    }


def test_gap_of_nobody_known_is_told_to_the_default_tenant() -> None:
    """And says that it is not only its own."""
    record = gap_record(gap(tenant=None, count=1, exact=False), None, WRITER, "acme")
    assert record.instance_id == "acme"
    assert record.message is not None
    assert record.message.startswith("At least 1 record of one or several tenants was lost")
    found = told(record)
    assert (found["audit.gap.tenants"], found["audit.gap.at_least"]) == ("several", True)
    assert "audit.run_id" not in found, "no log tells it"


@pytest.mark.parametrize("reason", list(LossReason))
def test_every_reason_has_its_words(reason: LossReason) -> None:
    """And an unknown one is named at least."""
    message = gap_record(gap(reason=reason), RUN, WRITER, "acme").message
    assert message is not None
    assert re.search(rf": [a-z ]{{10,}} \({reason.value}\)\.$", message)
    unknown = gap_record(gap(reason="moths"), RUN, WRITER, "acme").message
    assert unknown is not None
    assert unknown.endswith(": moths.")


@pytest.mark.parametrize("us", [MIN_TIMESTAMP_US, -(10**17), MAX_TIMESTAMP_US, 10**30])
def test_no_clock_is_too_wrong_for_a_gap(us: int) -> None:
    """Instants that Python does not know are cut to those that it does."""
    record = gap_record(gap(first_us=-us, last_us=us), RUN, WRITER, "acme")
    assert re.match(r"(0001-01-01|9999-12-31)T", told(record)["audit.gap.last"])
    assert stored(record)["event_type"] == b"audit.gap"


def test_all_of_them_are_stored_unchanged() -> None:
    """No part has to be repaired, for tenants and writers of any name."""
    tenant = 'ein "Mieter";\x1b[2J\u202e' + "ß" * 50
    records = [
        start_record(Settings(), RUN, "ö" * 60 + ":1"),
        stop_record(Stats(), RUN, WRITER, tenant),
        gap_record(gap(tenant=tenant), RUN, WRITER, "acme"),
    ]
    for record in records:
        metadata = stored(record)["metadata"]
        assert metadata is not None
        assert json.loads(metadata[1:]) == told(record)
    assert stored(records[2])["instance_id"] == tenant.encode()
