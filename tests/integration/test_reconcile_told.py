"""What the trail tells of itself, reconciled: lives, gaps, open requests. And the command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uuid_utils
from test_cli import auditlog
from test_orphans import complete, received

from auditlog import AuditLog, LogRecord, Stats
from auditlog.cli.failures import Exit
from auditlog.query.reconcile import MAX_LISTED, reconcile
from auditlog.query.reconciliation import Reconciliation
from auditlog.query.verdicts import conclusion, is_well, verdicts
from auditlog.sink.queue.gaps import Gap
from auditlog.sink.told.own_rows import gap_record, start_record, stop_record
from databases import Server, as_role
from trail import execute, quick

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def ago_us(age: timedelta) -> int:
    return time.time_ns() // 1000 - age // timedelta(microseconds=1)


def started(age: timedelta = HOUR, *, writer: str = "web:7", **changes: Any) -> LogRecord:
    """The start row of a life that began some time ago, in a process of its own."""
    settings = quick(**{key: changes.pop(key) for key in list(changes) if key in _SETTINGS})
    record = start_record(settings, changes.pop("run_id", _id()), writer)
    record.metadata = {**(record.metadata or {}), "audit.process_id": _id(), **changes}
    record.log_date = ago_us(age)
    return record


def stopped(start: LogRecord, stats: Stats | None = None, age: timedelta = HOUR / 2) -> LogRecord:
    """Its stop row."""
    facts = start.metadata or {}
    record = stop_record(stats or Stats(), facts["audit.run_id"], facts["audit.writer"], "default")
    record.log_date = ago_us(age)
    return record


def store(dsn: str, *records: LogRecord) -> None:
    with AuditLog(dsn, settings=quick(life_rows=False)) as audit:
        for record in records:
            audit.submit(record)


def wrote(dsn: str, writer: str, rows: int, age: timedelta) -> None:
    """An entry of the ledger that stands for a batch of theirs, with rows for it."""
    with psycopg.connect(dsn) as conn:
        date = conn.execute("SELECT now() - %s::interval", [age]).fetchone()
        assert date
        conn.execute(
            "INSERT INTO logstore.batches (batch_id, committed_at, writer, logs, bytes,"
            " first_log_date, last_log_date, sha256)"
            " VALUES (gen_random_uuid(), %s, %s, %s, 100000, %s, %s, sha256('x'))",
            [*date, writer, rows, *date, *date],
        )
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
            " SELECT 'default', gen_random_uuid()::text, %s FROM generate_series(1, %s)",
            [*date, rows],
        )


def look(dsn: str, **asked: Any) -> Reconciliation:
    with psycopg.connect(dsn) as conn:
        return reconcile(conn, **asked)


def unexplained(found: Reconciliation) -> dict[str, int]:
    return {v.name: v.figure for v in verdicts(found) if v.state == "unexplained"}


def test_a_life_that_stopped_is_well(dsn: str) -> None:
    """Whatever it lost it has told."""
    life = started()
    store(dsn, life, stopped(life, Stats(submitted=9, dropped_by_reason={"overflow": 9})))
    found = look(dsn)
    assert found.lives.counts == {"stopped": 1}
    assert (found.lives.odd, is_well(found, strict=True)) == ((), True)


def test_a_life_that_writes_still_is_running(dsn: str) -> None:
    """It began long ago, and its writer has committed just now; or it began just now."""
    store(dsn, started(writer="old:1"), started(SECOND, writer="young:1"))
    wrote(dsn, "old:1", 1, SECOND)
    found = look(dsn)
    assert found.lives.counts == {"running": 2}
    assert is_well(found, strict=True)


def test_a_process_that_went_silent_took_its_memory_along(dsn: str) -> None:
    """How much that was nobody knows, so it is never zero."""
    store(dsn, started(3 * HOUR))
    wrote(dsn, "web:7", 2, HOUR)
    found = look(dsn)
    (life,) = found.lives.odd
    assert (life.state, life.writer, life.durability) == ("silent", "web:7", "memory")
    assert life.last_batch is not None
    assert (found.unaccounted, found.lives.memories_lost) == (0, 1)
    assert unexplained(found) == {"lives": 1}
    assert "and what 1 killed process had in memory" in conclusion(found)
    assert look(dsn, silent_after=2 * HOUR).lives.counts == {"running": 1}


def test_a_start_from_the_future_is_no_sign_of_life(any_dsn: str) -> None:
    """A clock that was wrong hides no death."""
    store(any_dsn, started(timedelta(days=-400)))
    assert look(any_dsn).lives.counts == {"silent": 1}


@pytest.mark.parametrize("durability", ["spool", "commit"])
def test_a_spool_outlives_its_process(any_dsn: str, durability: str) -> None:
    """Killed all the same: a notice, and strictly not well."""
    store(any_dsn, started(durability=durability, spool_dir="/var/spool/audit"))
    found = look(any_dsn)
    (life,) = found.lives.odd
    assert (life.state, life.spool_dir) == ("silent", "/var/spool/audit")
    assert (unexplained(found), is_well(found), is_well(found, strict=True)) == ({}, True, False)


def test_a_container_that_starts_again_hides_no_death(dsn: str) -> None:
    """The later process has its host and its pid, and writes under its name."""
    store(dsn, started(2 * HOUR, writer="pod:1"), started(HOUR, writer="pod:1"))
    wrote(dsn, "pod:1", 5, SECOND)
    found = look(dsn)
    assert found.lives.counts == {"replaced": 1, "running": 1}
    assert found.lives.memories_lost == 1


def test_two_logs_of_one_process_do_not_replace_each_other(dsn: str) -> None:
    """They share host and pid, and live both."""
    first, second = started(2 * HOUR, writer="pod:1"), started(HOUR, writer="pod:1")
    assert first.metadata is not None
    second.metadata = {
        **(second.metadata or {}),
        "audit.process_id": first.metadata["audit.process_id"],
    }
    store(dsn, first, second)
    wrote(dsn, "pod:1", 5, SECOND)
    assert look(dsn).lives.counts == {"running": 2}


def test_counters_of_a_stop_must_add_up(dsn: str) -> None:
    """Or rows went where nobody counts."""
    life = started()
    wrote(dsn, "web:7", 8, HOUR)
    reasons = {"overflow": 1, "shutdown": 1}
    store(
        dsn,
        life,
        stopped(life, Stats(submitted=20, written=8, spooled=3, dropped_by_reason=reasons)),
    )
    found = look(dsn)
    (odd,) = found.lives.odd
    assert (odd.state, odd.figure, found.unaccounted) == ("unbalanced", 7, 7)


def test_a_writer_that_wrote_more_than_its_ledger_proves_a_deletion(dsn: str) -> None:
    """Rows and their entries deleted together leave nothing else behind."""
    wrote(dsn, "other:1", 1, 3 * HOUR)
    life = started(2 * HOUR)
    wrote(dsn, "web:7", 50, HOUR)
    wrote(dsn, "web:7", 30, HOUR / 2)
    store(dsn, life, stopped(life, Stats(submitted=80, written=80), SECOND))
    assert is_well(look(dsn), strict=True)
    execute(
        dsn,
        "BEGIN; SET LOCAL auditlog.maintenance = 'on';"
        " DELETE FROM logstore.logs USING logstore.batches"
        " WHERE batches.logs = 50 AND log_date = first_log_date;"
        " DELETE FROM logstore.batches WHERE logs = 50; COMMIT",
    )
    found = look(dsn)
    assert found.tables[0].missing == found.tables[0].unexplained == 0
    (odd,) = found.lives.odd
    assert (odd.state, odd.figure, found.unaccounted) == ("overdrawn", 50, 50)


def test_a_log_that_starts_again_goes_on_counting(dsn: str) -> None:
    """Its second stop has the rows of its first life too: nothing is overdrawn by that."""
    first, second = started(2 * HOUR), started(HOUR)
    wrote(dsn, "web:7", 50, HOUR)
    store(
        dsn,
        *(first, stopped(first, Stats(submitted=30, written=30))),
        *(second, stopped(second, Stats(submitted=50, written=50))),
    )
    assert look(dsn).lives.counts == {"stopped": 2}


def test_a_pruned_ledger_is_not_held_against_its_writers(dsn: str) -> None:
    """It says itself when it begins."""
    life = started(2 * HOUR)
    store(dsn, life)
    wrote(dsn, "web:7", 30, HOUR / 2)
    store(dsn, stopped(life, Stats(submitted=80, written=80), SECOND))
    execute(
        dsn,
        "BEGIN; SET LOCAL auditlog.maintenance = 'on';"
        " DELETE FROM logstore.batches WHERE sequence = 1; COMMIT",
    )
    found = look(dsn)
    assert found.lives.counts == {"stopped": 1}
    assert any("was it pruned?" in verdict.detail for verdict in verdicts(found))


def test_only_so_many_lives_are_named_and_all_are_counted(any_dsn: str) -> None:
    """The newest ones."""
    count = MAX_LISTED + 20
    store(any_dsn, *(started(HOUR + n * SECOND, writer=f"web:{n}") for n in range(count)))
    found = look(any_dsn)
    assert (found.lives.memories_lost, len(found.lives.odd)) == (count, MAX_LISTED)
    assert found.lives.odd[0].writer == "web:0"


def test_gaps_add_up_by_tenant_and_reason(dsn: str) -> None:
    """Known losses with a reason are a notice; one that is a guess makes the sum one."""
    gaps = (
        ("overflow", "red", 5),
        ("overflow", "red", 7),
        ("shutdown", "red", 1),
        ("damaged", None, 2),
    )
    now = time.time_ns() // 1000
    store(
        dsn,
        *(
            gap_record(
                Gap(reason, tenant, count, now - 9, now, reason != "damaged"), None, "w", "d"
            )
            for reason, tenant, count in gaps
        ),
    )
    found = look(dsn)
    assert [(gap.tenant, gap.reason, gap.count, gap.exact) for gap in found.gaps] == [
        ("red", "overflow", 12, True),
        ("d", "damaged", 2, False),
        ("red", "shutdown", 1, True),
    ]
    assert (found.unaccounted, is_well(found), is_well(found, strict=True)) == (0, True, False)
    assert [gap.tenant for gap in look(dsn, tenant="d").gaps] == ["d"]


def test_gap_is_in_the_range_in_which_it_ended(any_dsn: str) -> None:
    """Not in that in which it was told, which may be much later."""
    lost = ago_us(5 * HOUR)
    store(any_dsn, gap_record(Gap("overflow", "red", 5, lost, lost), None, "w", "d"))
    now = look(any_dsn).at
    assert [
        gap.count for gap in look(any_dsn, since=now - 6 * HOUR, until=now - 4 * HOUR).gaps
    ] == [5]
    assert look(any_dsn, since=now - HOUR).gaps == ()


def test_names_of_ours_in_an_applications_rows_break_nothing(dsn: str) -> None:
    """Whatever it writes there: it adds nothing that is no number."""
    junk: tuple[Any, ...] = (None, "17", [1], {"a": "b"}, True, -5, "\x1b[2J" * 999, 10**18)
    for value in junk:
        metadata = dict.fromkeys(
            (
                *("audit.run_id", "audit.writer", "audit.process_id", "audit.durability"),
                *("audit.submitted", "audit.written", "audit.dropped", "audit.settings"),
                *("audit.gap.reason", "audit.gap.count", "audit.gap.first"),
            ),
            value,
        )
        store(
            dsn,
            *(
                LogRecord(event_type=name, aggregate_type="auditlog", metadata=metadata)
                for name in ("audit.start", "audit.stop", "audit.gap")
            ),
        )
    assert [gap.count for gap in look(dsn).gaps if gap.count] == [10**12]
    document = json.loads(auditlog("reconcile", "--json", "--dsn", dsn).stdout)
    assert document["tables"][0]["stored"] == 3 * len(junk)


def test_requests_without_an_end_are_sorted_by_who_lives(dsn: str) -> None:
    """What began before every log that runs has nobody left who could end it."""
    ended = received("ended", age=3 * HOUR)
    store(dsn, received("old", age=3 * HOUR), ended, complete(ended), received("new", age=HOUR))
    assert (look(dsn).open.ended, look(dsn).open.perhaps) == (0, 2), "nothing is known of lives"
    store(dsn, started(2 * HOUR, writer="web:9"))
    wrote(dsn, "web:9", 1, SECOND)
    found = look(dsn)
    assert (found.open.ended, found.open.perhaps) == (1, 1)
    assert unexplained(found) == {"requests": 1}
    assert look(dsn, tenant="nobody").open.ended == 0
    store(dsn, *(received("x", age=age * HOUR, instance_id="acme") for age in (1, 3)))
    theirs = look(dsn, tenant="acme").open
    assert (theirs.ended, theirs.perhaps) == (1, 1), "served by a process of another tenant"
    assert look(dsn, tenant="default").open.ended == 1
    assert look(dsn, since=found.at - 2 * HOUR).open.ended == 0


def test_a_real_log_tells_its_lives(dsn: str) -> None:
    """From its start to its stop, twice; and nothing of that is unexplained."""
    audit = AuditLog(dsn, settings=quick(life_rows=True))
    for _ in range(2):
        with audit:
            audit.submit(LogRecord(request_url="/"))
    found = look(dsn)
    assert (found.lives.counts, found.tables[0].stored) == ({"stopped": 2}, 6)
    assert is_well(found, strict=True)


def test_a_real_process_that_is_killed_is_found(any_dsn: str) -> None:
    """It wrote some, had more in memory, and could not tell."""
    code = (
        "import asyncio, os, signal, sys; from auditlog import AuditLog, LogRecord\n"
        "async def main():\n"
        "    async with AuditLog(sys.argv[1]) as audit:\n"
        "        audit.submit(LogRecord(request_url='/'))\n"
        "        assert await audit.flush(20)\n"
        "        audit.submit(LogRecord(request_url='/lost'))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, any_dsn],
        env={**os.environ, "AUDITLOG_LIFE_ROWS": "true"},
        check=False,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    assert look(any_dsn).lives.counts == {"running": 1}, "it may be, for ten minutes"
    found = look(any_dsn, silent_after=timedelta(microseconds=1))
    (life,) = found.lives.odd
    assert (life.state, found.lives.memories_lost) == ("silent", 1)
    assert life.last_batch is not None


def test_command_exits_0_and_prints_the_line_last(any_dsn: str) -> None:
    """Talk on stderr, the verdicts on stdout."""
    store(any_dsn, LogRecord(request_url="/"))
    result = auditlog("reconcile", "--strict", "--dsn", any_dsn)
    assert result.returncode == Exit.OK
    assert result.stdout.splitlines()[-1].startswith("Unaccounted for: 0 records.")
    assert "counting logstore.logs: 1 rows" in result.stderr


def test_command_exits_1_when_something_is_missing(any_dsn: str) -> None:
    """In text, with the place, and in JSON."""
    store(any_dsn, LogRecord(request_url="/"))
    execute(
        any_dsn, "BEGIN; SET LOCAL auditlog.maintenance = 'on'; DELETE FROM logstore.logs; COMMIT"
    )
    result = auditlog("reconcile", "--dsn", any_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert re.search(r"missing 1 of logs from 20\d\d-", result.stdout)
    assert "1 missing that the ledger has" in result.stdout
    as_json = auditlog("reconcile", "--json", "--dsn", any_dsn)
    document = json.loads(as_json.stdout)
    assert as_json.returncode == Exit.NOT_WELL
    assert (document["well"], document["unaccounted"]) == (False, 1)
    assert document["tables"][0]["where"][0]["missing"] == 1


def test_strict_makes_a_notice_a_failure(any_dsn: str) -> None:
    """A known gap is accounted for; strictly it is a loss."""
    now = time.time_ns() // 1000
    store(any_dsn, gap_record(Gap("overflow", "red", 5, now, now), None, "w", "d"))
    assert auditlog("reconcile", "--dsn", any_dsn).returncode == Exit.OK
    strict = auditlog("reconcile", "--strict", "--json", "--dsn", any_dsn)
    assert strict.returncode == Exit.NOT_WELL
    assert json.loads(strict.stdout)["well"] is False


def test_names_do_not_steer_the_terminal(any_dsn: str) -> None:
    """Whatever a tenant or a writer is called; nor is anything taken for markup."""
    now = time.time_ns() // 1000
    name = "[red]\x1b[2J\x9b\u202e\n"
    lost = [gap_record(Gap(name, name, 1, now, now), None, name, "d"), started(writer=name)]
    store(any_dsn, *lost)
    result = auditlog("reconcile", "--dsn", any_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert not set("\x1b\x9b\u202e") & set(result.stdout + result.stderr)
    assert "[red]\\x1b[2J\\x9b\\u202e\\n" in result.stdout
    assert re.search(r"run [0-9a-f-]{36}$", result.stdout, re.MULTILINE), "a line, however long"


def test_times_are_lengths_or_dates(any_dsn: str) -> None:
    """And whatever is neither is refused with an example."""
    times = ("24h", "2026-01-01", "2026-01-01T12:00+01:00", "2026-01-01 12:00")
    for since in times:
        result = auditlog("reconcile", "--since", since, "--until", "1s", "--dsn", any_dsn)
        assert result.returncode == Exit.OK, result.stderr
    for wrong in ("yesterday", "99999999999d", "2026-13-01", ""):
        result = auditlog("reconcile", "--since", wrong, "--dsn", any_dsn)
        assert result.returncode == Exit.USAGE
        assert "no point in time" in result.stderr
    result = auditlog("reconcile", "--since", "1h", "--until", "2h", "--dsn", any_dsn)
    assert result.returncode == Exit.USAGE


def test_what_waits_in_a_spool_is_counted(any_dsn: str, tmp_path: Path) -> None:
    """Records that a killed process left on disk are not lost, and not in the tables."""
    code = (
        "import os, sys; from auditlog import AuditLog, LogRecord, Settings\n"
        "audit = AuditLog('postgresql://u@127.0.0.1:1/d', settings=Settings(durability='spool',"
        " spool_dir=sys.argv[1], spool_fsync='always'))\n"
        "for n in range(5): audit.submit(LogRecord(request_url=f'/{n}'))\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    result = auditlog("reconcile", "--json", "--spool-dir", str(tmp_path), "--dsn", any_dsn)
    document = json.loads(result.stdout)
    assert document["spool"] == {"waiting": 5, "damaged": 0}
    assert (result.returncode, document["unaccounted"]) == (Exit.OK, 0)
    missing = auditlog("reconcile", "--spool-dir", str(tmp_path / "x"), "--dsn", any_dsn)
    assert missing.returncode == Exit.USAGE
    assert "is no folder" in missing.stderr


def test_what_cannot_be_told_is_not_called_missing(any_server: Server, any_dsn: str) -> None:
    """No rights, no schema, no time: 2. Nobody who answers: 3."""
    with any_server.role() as role, any_server.database() as dsn:
        result = auditlog("reconcile", "--dsn", as_role(dsn, role))
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert f"GRANT SELECT ON logstore.logs TO {role};" in result.stderr
    with any_server.database(migrated=False) as dsn:
        result = auditlog("reconcile", "--dsn", dsn)
        assert result.returncode == Exit.USAGE
        assert "auditlog migrate" in result.stderr
    with psycopg.connect(any_dsn) as conn:
        conn.execute("LOCK TABLE logstore.logs")
        result = auditlog("reconcile", "--timeout", "1s", "--dsn", any_dsn)
        assert result.returncode == Exit.USAGE
        assert "--timeout" in result.stderr
    unreachable = auditlog("reconcile", "--dsn", "postgresql://u@127.0.0.1:1/d")
    assert unreachable.returncode == Exit.NO_DATABASE


def _id() -> str:
    return str(uuid_utils.uuid7())


_SETTINGS = ("durability", "spool_dir", "instance_id")
