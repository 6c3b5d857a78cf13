import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).parents[2]


def fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


def test_events_example(any_dsn: str) -> None:
    """Events of calls, of a run and of transactions; what was rolled back has no row."""
    done = subprocess.run(
        [sys.executable, "examples/events.py"],
        cwd=ROOT,
        env={**os.environ, "AUDITLOG_DSN": any_dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("invoice 13 stays unpaid: the bank is away\n", "")
    assert fetch(
        any_dsn,
        "SELECT event_type, aggregate_type, aggregate_id, log_level, metadata ->> 'audit.outcome',"
        " metadata ->> 'error.type', metadata ->> 'channel', metadata -> 'audit.after'"
        " FROM logstore.logs ORDER BY occurrence_date, log_id",
    ) == [
        ("invoice.reminded", "invoice", "7", 1, "ok", None, "mail", None),
        ("invoice.reminded", "invoice", "13", 3, "server_error", "ConnectionError", "mail", None),
        ("dunning.finished", None, None, 2, "ok", None, None, None),
        ("invoice.paid", "invoice", "7", 1, "ok", None, None, {"paid": True}),
    ]
    assert fetch(
        any_dsn,
        "SELECT DISTINCT user_id, resource_owner, metadata ->> 'reminded' FROM logstore.logs",
    ) == [("job:dunning", "acme", None), ("job:dunning", "acme", "1")]


def test_events_example_keeps_the_lines_of_its_run(any_dsn: str) -> None:
    """With the stack trace of what failed in it; and what was not paid stays so."""
    environment = {**os.environ, "AUDITLOG_DSN": any_dsn}
    command = [sys.executable, "examples/events.py"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = fetch(
        any_dsn,
        "SELECT execution_id, target_id, log_level, message, stack_trace"
        " FROM logstore.execution_logs ORDER BY log_id",
    )
    assert [line[:4] for line in lines] == [
        ("dunning-2026-11", "dunning", 1, "begun"),
        ("dunning-2026-11", "dunning", 3, "invoice 13 has to wait"),
    ]
    assert lines[0][4] is None
    assert "ConnectionError: the mail server is away" in lines[1][4]
    paid = fetch(any_dsn, "SELECT number, paid FROM invoices ORDER BY number")
    assert paid == [(7, True), (13, False)]
