import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from auditlog.postgres import embedded

ROOT = Path(__file__).parents[2]
ALICE = {"authorization": "Bearer alice"}


@contextmanager
def served(example: str, dsn: str, **options: Any) -> Iterator[int]:
    """Serve an example with uvicorn, as its docstring says; yields the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"examples.{example}:app", "--port", "0"],
        cwd=options.get("cwd", ROOT),
        env={**os.environ, "PYTHONPATH": str(ROOT), "AUDITLOG_DSN": dsn},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = (re.search(r"running on http://127.0.0.1:(\d+)", line) for line in process.stderr)
        yield next(int(match[1]) for match in found if match)
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert "auditlog." not in rest


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    """Make one request, and return its status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def rows(dsn: str) -> list[tuple[Any, ...]]:
    """What the example has left, in the order in which it happened."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT request_method, request_url, response_status, user_id, aggregate_type,"
            " aggregate_id, event_type, metadata ->> 'http.route'"
            " FROM logstore.logs ORDER BY occurrence_date, log_id"
        ).fetchall()


def tail(folder: str) -> list[dict[str, Any]]:
    """What `auditlog tail` shows in another process: nothing until the tables are there."""
    command = [sys.executable, "-m", "auditlog", "tail", "--json", "--dsn", "embedded:./trail"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0 or "the schema is missing" in result.stderr, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_starlette_example(any_dsn: str) -> None:
    """Reads, a deletion with its user and its meaning, a refusal, and what is skipped."""
    with served("starlette_app", any_dsn) as port:
        assert ask(port, "GET", "/documents/7") == 200
        assert ask(port, "GET", "/documents/9") == 404
        assert ask(port, "GET", "/progress") == 200
        assert ask(port, "DELETE", "/documents/7") == 401
        assert ask(port, "DELETE", "/documents/7", ALICE) == 204
    route = "/documents/{key}"
    assert rows(any_dsn) == [
        ("GET", "/documents/7", 200, None, None, None, None, route),
        ("GET", "/documents/9", 404, None, None, None, None, route),
        ("DELETE", "/documents/7", 401, None, None, None, None, route),
        ("DELETE", "/documents/7", 204, "alice", "document", "7", "document.deleted", route),
    ]
    with psycopg.connect(any_dsn) as conn:
        found = conn.execute(
            "SELECT metadata ->> 'retention' FROM logstore.logs WHERE user_id = 'alice'"
        )
        assert found.fetchall() == [("7 years",)]


def test_fastapi_example(any_dsn: str) -> None:
    """A dependency names the user, a sync endpoint annotates, the template has the prefix."""
    with served("fastapi_app", any_dsn) as port:
        assert ask(port, "GET", "/invoices/42", ALICE) == 200
        assert ask(port, "GET", "/invoices/42") == 401
        assert ask(port, "POST", "/invoices/42/pay", ALICE) == 200
        assert ask(port, "POST", "/invoices/13/pay", ALICE) == 409
        assert ask(port, "GET", "/invoices/many", ALICE) == 422
    read, pay = "/invoices/{number}", "/invoices/{number}/pay"
    assert rows(any_dsn) == [
        ("GET", "/invoices/42", 200, "alice", None, None, None, read),
        ("GET", "/invoices/42", 401, None, None, None, None, read),
        ("POST", "/invoices/42/pay", 200, "alice", "invoice", "42", "invoice.paid", pay),
        ("POST", "/invoices/13/pay", 409, "alice", "invoice", "13", "invoice.paid", pay),
        ("GET", "/invoices/many", 422, "alice", None, None, None, read),
    ]


def test_quota_example(any_dsn: str) -> None:
    """Three exports a day for each user; one that fails is none, and the fourth is refused."""
    bob = {"authorization": "Bearer bob"}
    with served("quota", any_dsn) as port:
        asked = [ask(port, "POST", f"/exports/{number}", ALICE) for number in (7, 13, 8, 9, 10)]
        assert asked == [200, 404, 200, 200, 429]
        assert ask(port, "POST", "/exports/7", bob) == 200
        assert ask(port, "POST", "/exports/7") == 401
    assert [row[2:4] for row in rows(any_dsn)] == [
        *((status, "alice") for status in asked),
        (200, "bob"),
        (401, None),
    ]
    with psycopg.connect(any_dsn) as conn:
        decisions = conn.execute(
            "SELECT user_id, previous_usage, current_usage, allowed, threshold_exceeded"
            " FROM logstore.quota_logs ORDER BY log_id"
        ).fetchall()
        counters = conn.execute(
            "SELECT used FROM logstore.quota_usage WHERE quota_id = 'exports' ORDER BY used"
        ).fetchall()
    # The crossing and the refusal may come in either order.
    assert sorted(decisions) == [("alice", 2, 3, True, True), ("alice", 3, 3, False, False)]
    assert counters == [(1,), (3,)]


def test_example_brings_its_own_postgresql() -> None:
    """`AUDITLOG_DSN=embedded:./trail` in an empty folder: one command, and the row is there.

    `auditlog tail` shows it while the application runs, whose server it must not stop, and after.
    """
    with tempfile.TemporaryDirectory(prefix="al-") as folder:
        Path(folder).chmod(0o755)
        with served("starlette_app", "embedded:./trail", cwd=folder) as port:
            assert ask(port, "DELETE", "/documents/7", ALICE) == 204
            while not (seen := tail(folder)):  # the first request starts PostgreSQL
                pass
            assert ask(port, "GET", "/documents/8") == 200
        assert [row["request_url"] for row in seen] == ["/documents/7"]
        assert [row["request_url"] for row in tail(folder)] == ["/documents/7", "/documents/8"]
        with embedded.start(Path(folder) / "trail") as server:
            assert [row[1:4] for row in rows(server.dsn)] == [
                ("/documents/7", 204, "alice"),
                ("/documents/8", 200, None),
            ]
