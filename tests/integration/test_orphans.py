"""Received rows without a complete row: what is found, whose, and how the command tells."""

import json
import re
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import uuid_utils
from test_cli import auditlog

from asgi_driver import END, START, drive, http_scope, script
from auditlog import AuditLog, AuditMiddleware, Level, LogRecord, Policy, Rule
from auditlog.cli.failures import Exit
from auditlog.query.orphans import find_orphans
from auditlog.query.statements import statement
from auditlog.tables import LOGS
from trail import execute, fetch, quick, rows

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
EVERYTHING: dict[str, Any] = {"since": DAY, "older_than": timedelta(0), "limit": 100_000}


def received(name: str, *, age: timedelta = 2 * MINUTE, **fields: Any) -> LogRecord:
    """A received row of some time ago, as an exchange makes it."""
    recorded_us = time.time_ns() // 1000 - age // timedelta(microseconds=1)
    exchange = _uuid7_of(recorded_us)
    metadata = {"audit.stage": "received", "audit.exchange_id": exchange}
    defaults: dict[str, Any] = {"request_url": f"/{name}", "request_method": "GET"}
    return LogRecord(
        **{**defaults, **fields},
        log_id=exchange,
        log_date=recorded_us,
        occurrence_date=recorded_us,
        metadata=metadata,
    )


def complete(record: LogRecord, **fields: Any) -> LogRecord:
    """Its complete row."""
    metadata = {"audit.stage": "complete", "audit.exchange_id": record.log_id}
    return LogRecord(**{"request_url": record.request_url, **fields}, metadata=metadata)


def store(dsn: str, *records: LogRecord) -> None:
    with AuditLog(dsn, settings=quick()) as audit:
        for record in records:
            audit.submit(record)


def names(dsn: str, **changes: Any) -> list[str | None]:
    """The URLs of what is found, in order."""
    with psycopg.connect(dsn) as conn:
        found = find_orphans(conn, **{**EVERYTHING, **changes})
    return [orphan.record.request_url for orphan in found]


def test_received_rows_without_an_end_are_found_in_order(dsn: str) -> None:
    """The very newest last; those with an end are left out, and so are rows of one only."""
    ended = received("ended", age=3 * MINUTE)
    store(
        dsn,
        received("old", age=9 * MINUTE),
        ended,
        complete(ended),
        received("new", age=2 * MINUTE, user_id="ada"),
        LogRecord(request_url="/plain"),
    )
    assert names(dsn) == ["/old", "/new"]
    assert names(dsn, limit=1) == ["/new"], "the newest"
    with psycopg.connect(dsn) as conn:
        _, orphan = find_orphans(conn, **EVERYTHING)
    assert orphan.record.user_id == "ada"
    assert timedelta(seconds=119) < orphan.age < timedelta(seconds=180)


def test_window_is_between_since_and_older_than(dsn: str) -> None:
    """By the clock of the database, which is this machine's here."""
    store(
        dsn,
        received("yesterday", age=timedelta(hours=25)),
        received("an hour ago", age=timedelta(hours=1)),
        received("now", age=timedelta(seconds=1)),
    )
    assert names(dsn, older_than=MINUTE) == ["/an hour ago"]
    assert names(dsn) == ["/an hour ago", "/now"]
    assert names(dsn, since=2 * DAY) == ["/yesterday", "/an hour ago", "/now"]
    assert names(dsn, since=timedelta(days=36_500)) == names(dsn, since=2 * DAY)


def test_clock_of_a_service_that_is_ahead_hides_nothing(any_dsn: str) -> None:
    """A row from the future is as suspicious as an old one, but for the usual difference."""
    store(
        any_dsn,
        received("a little ahead", age=timedelta(seconds=-20)),
        received("ahead", age=timedelta(hours=-2)),
    )
    assert names(any_dsn, older_than=MINUTE) == ["/ahead"]
    with psycopg.connect(any_dsn) as conn:
        (orphan,) = find_orphans(conn, **{**EVERYTHING, "older_than": MINUTE})
    assert orphan.age < timedelta(hours=-1)


def test_only_rows_of_the_named_tenant_are_returned(dsn: str) -> None:
    """Another's received row never, whatever stands in it."""
    store(
        dsn,
        received("blue", instance_id="blue"),
        received("red", instance_id="red", resource_owner="blue", user_id="blue"),
        received("nobody's"),
    )
    assert names(dsn, tenant="blue") == ["/blue"]
    assert names(dsn, tenant="red") == ["/red"]
    assert names(dsn, tenant="") == names(dsn, tenant="%") == names(dsn, tenant="green") == []
    assert len(names(dsn)) == 3


def test_tenant_that_is_named_after_the_beginning_is_no_orphan(any_dsn: str) -> None:
    """The two rows are in different tenants, for a handler has named it."""
    record = received("late")
    store(any_dsn, record, complete(record, instance_id="acme"))
    assert names(any_dsn) == names(any_dsn, tenant="acme") == []


def test_several_complete_rows_and_a_lost_received_row_are_no_orphans(any_dsn: str) -> None:
    """A batch of operations has several; the received row may have made room for others."""
    record = received("batch")
    store(any_dsn, record, complete(record), complete(record), complete(received("dropped")))
    assert names(any_dsn) == []


def test_row_that_only_says_it_is_a_received_one_is_none(any_dsn: str) -> None:
    """Metadata may hold what a client sent; the identity of the row gives it away."""
    lies = [
        {"audit.stage": "received", "audit.exchange_id": _uuid7_of(time.time_ns() // 1000)},
        {"audit.stage": "received"},
        {"audit.exchange_id": _uuid7_of(time.time_ns() // 1000)},
        {"audit.stage": {"a": 1}, "audit.exchange_id": [1]},
        {"audit.stage": None, "audit.exchange_id": None},
    ]
    store(any_dsn, *(LogRecord(metadata=lie) for lie in lies))
    assert names(any_dsn) == []
    assert len(rows(any_dsn)) == len(lies)


def test_long_id_in_metadata_is_stored(dsn: str) -> None:
    """It is no id, and must not be too large for the index either."""
    noise = "".join(chr(0x4E00 + 97 * position % 20_000) for position in range(12_000))
    store(dsn, LogRecord(metadata={"audit.stage": "received", "audit.exchange_id": noise}))
    (row,) = rows(dsn)
    assert row["metadata"]["audit.exchange_id"] == noise


def test_ten_thousand_open_exchanges_are_found(any_dsn: str) -> None:
    """All of them, or as many as are wanted, each once; among as many that have ended."""
    execute(
        any_dsn,
        """
        INSERT INTO logstore.logs (instance_id, log_id, log_date, request_url, metadata)
        SELECT 'default', CASE stage WHEN 'received' THEN id ELSE gen_random_uuid()::text END,
            instant, '/' || n, jsonb_build_object('audit.stage', stage, 'audit.exchange_id', id)
        FROM (
            SELECT n, instant, overlay(
                lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0')
                PLACING '-' FROM 9 FOR 0
            ) || '-7000-8000-' || lpad(n::text, 12, '0') AS id
            FROM generate_series(1, 20000) AS n
            CROSS JOIN LATERAL (
                SELECT now() - interval '2 minutes' - n * interval '1 s'
            ) AS moments (instant)
        ) AS exchanges
        CROSS JOIN (VALUES ('received'), ('complete')) AS stages (stage)
        WHERE stage = 'received' OR n % 2 = 0
        """,
    )
    found = names(any_dsn)
    assert found == [f"/{number}" for number in range(19_999, 0, -2)]
    assert names(any_dsn, limit=100) == found[-100:]


async def test_full_queue_makes_no_orphans(any_dsn: str) -> None:
    """Received rows make room for complete ones, so what is stored is not taken for a crash."""
    policy = Policy([Rule(name="all", level=Level.METADATA, received=True)])
    async with AuditLog(any_dsn, settings=quick(max_queued_rows=25)) as audit:
        middleware = AuditMiddleware(script(START, END), audit=audit, policy=policy)
        with psycopg.connect(any_dsn) as conn:
            conn.execute("LOCK TABLE logstore.batches")
            for _ in range(20):
                await drive(middleware, http_scope())
            assert audit.stats().dropped == 15
        await audit.flush(20)
    stages = fetch(any_dsn, "SELECT metadata ->> 'audit.stage' FROM logstore.logs")
    assert (stages.count("received"), stages.count("complete")) == (5, 20)
    assert names(any_dsn) == []


def test_every_column_is_asked_for(any_dsn: str) -> None:
    """By name, so that a column that a newer package adds disturbs nobody."""
    with psycopg.connect(any_dsn) as conn:
        cursor = conn.execute(statement("orphans"), {**EVERYTHING, "tenant": None})
        assert cursor.description is not None
        asked = [column.name for column in cursor.description]
    assert asked == [*(column.name for column in LOGS.columns), "age"]


# The command


@pytest.fixture
def orphaned(any_dsn: str) -> str:
    """A trail with three requests that have no end, of two tenants."""
    ended = received("ended")
    store(
        any_dsn,
        received("[bold]first", age=9 * MINUTE, user_id="ada"),
        received("second", age=8 * MINUTE, instance_id="red"),
        received("third", age=7 * MINUTE),
        ended,
        complete(ended),
    )
    return any_dsn


def test_command_prints_them_and_exits_1(orphaned: str) -> None:
    """A table on stdout, and on stderr what it can and cannot mean."""
    result = auditlog("orphans", "--dsn", orphaned)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.returncode == Exit.NOT_WELL
    assert lines[0] == ["received", "age", "method", "url", "user", "exchange"]
    assert re.search(r" 9m( \d+s)? +GET +/\[bold\]first +ada ", result.stdout)
    assert [line[-1] for line in lines[2:]] == fetch(
        orphaned,
        "SELECT log_id FROM logstore.logs WHERE log_id = metadata ->> 'audit.exchange_id'"
        " AND request_url <> '/ended' ORDER BY log_id",
    )
    assert result.stderr == ("Without an end: 3. The process died, or the request is still open.\n")


def test_command_prints_whole_rows_as_lines_of_json(orphaned: str) -> None:
    """Every column by its name, and the age in seconds."""
    result = auditlog("orphans", "--json", "--dsn", orphaned)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == Exit.NOT_WELL
    assert [row["request_url"] for row in found] == ["/[bold]first", "/second", "/third"]
    assert list(found[0]) == [*(column.name for column in LOGS.columns), "age_s"]
    assert 540 <= found[0]["age_s"] < 600


def test_command_says_when_there_are_more(orphaned: str) -> None:
    """The newest are shown."""
    result = auditlog("orphans", "-n", "2", "--json", "--dsn", orphaned)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["request_url"] for row in found] == ["/second", "/third"]
    assert "There are more than these 2" in result.stderr


def test_command_looks_at_one_tenant_and_at_a_window(orphaned: str) -> None:
    """The options are those of the query."""
    red = auditlog("orphans", "--tenant", "red", "--json", "--dsn", orphaned)
    assert [json.loads(line)["request_url"] for line in red.stdout.splitlines()] == ["/second"]
    for window in (["--since", "5m"], ["--older-than", "1h"], ["--tenant", "green"]):
        nothing = auditlog("orphans", *window, "--dsn", orphaned)
        assert (nothing.returncode, nothing.stdout) == (Exit.OK, "")
        assert "has its end" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--since", "24"], "90s, 15m, 24h"),
        (["--older-than", "1 minute"], "90s, 15m, 24h"),
        (["--since", "60s"], "--since must be longer"),
        (["-n", "0"], "-n"),
    ],
)
def test_command_refuses_what_cannot_work(arguments: list[str], remedy: str) -> None:
    """Exit 2, with what would do; nobody is asked."""
    result = auditlog("orphans", *arguments, "--dsn", "postgresql://me@127.0.0.1:1/trail")
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert remedy in " ".join(result.stderr.split())


def test_command_without_a_schema_or_a_server_says_what_to_do(empty_dsn: str) -> None:
    """As every command does."""
    missing = auditlog("orphans", "--dsn", empty_dsn)
    assert (missing.returncode, missing.stdout) == (Exit.NOT_WELL, "")
    assert "auditlog migrate" in missing.stderr
    nobody = auditlog("orphans", "--dsn", "postgresql://me@127.0.0.1:1/trail")
    assert nobody.returncode == Exit.NO_DATABASE


def _uuid7_of(moment_us: int) -> str:
    """A UUIDv7 of a moment that is not now."""
    random = str(uuid_utils.uuid7())[14:]
    hexadecimal = f"{moment_us // 1000:012x}"
    return f"{hexadecimal[:8]}-{hexadecimal[8:]}-{random}"
