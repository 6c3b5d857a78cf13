"""Lines of `logging` and structlog in a real trail: with requests, with outages, at the end."""

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import trail
from auditlog import AuditLog, AuditMiddleware, HealthStatus, annotate
from auditlog.capture.stdlib import AuditHandler
from auditlog.capture.structlog import AuditProcessor
from trail import quick


@contextmanager
def handled_at_the_root(audit: AuditLog) -> Iterator[None]:
    """Every line of every logger there is, at the lowest level."""
    handler = AuditHandler(audit, stack_traces=True)
    driver = logging.getLogger("psycopg")
    levels = logging.root.level, driver.level
    logging.root.addHandler(handler)
    logging.root.setLevel(1)
    driver.setLevel(1)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(levels[0])
        driver.setLevel(levels[1])


async def test_lines_within_a_request(dsn: str) -> None:
    """From a coroutine and from a thread: they name the request's row, its user and its trace."""
    log = logging.Logger("application")  # noqa: LOG001  # not part of the hierarchy
    async with AuditLog(dsn, settings=quick()) as audit:
        log.addHandler(AuditHandler(audit))
        events = structlog.wrap_logger(
            structlog.PrintLogger(Path("/dev/null").open("w")),  # noqa: ASYNC230, SIM115  # at once
            wrapper_class=structlog.make_filtering_bound_logger("info"),
            processors=[AuditProcessor(audit), structlog.processors.JSONRenderer()],
        )

        async def endpoint(_: Request) -> PlainTextResponse:
            annotate(user_id="ann", instance_id="tenant-1")
            log.warning("from a coroutine")
            await asyncio.to_thread(log.warning, "from a thread")
            await events.awarning("of structlog's, in a thread")
            return PlainTextResponse("ok")

        app = AuditMiddleware(Starlette(routes=[Route("/", endpoint)]), audit=audit)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            parent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
            await client.get("/", headers={"traceparent": parent})
        assert await audit.flush(20)
        events._logger._file.close()
    (request,) = [row for row in trail.rows(dsn) if row["protocol"] == 1]
    lines = [row for row in trail.rows(dsn) if row["protocol"] == 0]
    assert {row["message"] for row in lines} == {
        "from a coroutine",
        "from a thread",
        "of structlog's, in a thread",
    }
    for row in lines:
        assert (row["user_id"], row["instance_id"]) == ("ann", "tenant-1")
        assert row["metadata"]["audit.parent_id"] == request["log_id"]
        assert row["metadata"]["trace_id"] == "1" * 32
        assert row["log_level"] == 2


async def test_outage_does_not_feed_the_trail_on_the_loop(empty_dsn: str) -> None:
    """What the library, psycopg and the loop say about failing to write makes no rows."""
    settings = quick(drain_timeout_s=0.2)
    asyncio.get_running_loop().set_debug(True)
    async with AuditLog(empty_dsn, settings=settings) as audit:
        with handled_at_the_root(audit):
            logging.getLogger("application").warning("m")
            await trail.failing(audit, HealthStatus.FAILED)
            await trail.until(lambda: audit.stats().retries >= 5)
            assert audit.stats().submitted == 1
    assert audit.stats().dropped_by_reason == {"shutdown": 1}


def test_outage_does_not_feed_the_trail_from_the_thread(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the writer has a thread of its own, and its loop is in debug mode."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    settings = quick(drain_timeout_s=0.2)
    audit = AuditLog(empty_dsn, settings=settings)
    with handled_at_the_root(audit), audit:
        logging.getLogger("application").warning("m")
        deadline = time.monotonic() + 20
        while audit.stats().retries < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert audit.stats().submitted == 1


def test_psycopg_about_the_applications_connection(any_dsn: str) -> None:
    """Its lines do make rows."""
    with AuditLog(any_dsn, settings=quick()) as audit:
        with handled_at_the_root(audit), psycopg.connect(any_dsn):
            pass
        assert audit.stats().submitted > 0
    names = {row["metadata"]["otel.scope.name"] for row in trail.rows(any_dsn)}
    assert names == {"psycopg"}


PREAMBLE = """
import atexit, logging, logging.handlers, queue, sys, threading
from auditlog import AuditLog, Settings
from auditlog.capture.stdlib import AuditHandler

audit = AuditLog(sys.argv[1], settings=Settings(batch_age_s=60))
logging.getLogger("app").addHandler(AuditHandler(audit))
log = logging.getLogger("app")
"""

ENDS = {
    "main thread": ("log.warning('kept')", 1),
    "exit handler that runs before": ("atexit.register(log.warning, 'kept')", 1),
    "exception at the end": (
        """
        def hook(*error):
            log.error("kept", exc_info=error)
        sys.excepthook = hook
        raise LookupError
        """,
        1,
    ),
    "object that is finalised late": (
        """
        class Last:
            def __del__(self):
                log.warning("too late")
        log.warning("kept")
        last = Last()
        """,
        1,
    ),
    "queue listener": (
        """
        lines = queue.Queue()
        listener = logging.handlers.QueueListener(lines, AuditHandler(audit))
        listener.start()
        other = logging.getLogger("other")
        other.addHandler(logging.handlers.QueueHandler(lines))
        for number in range(100):
            other.warning("kept")
        listener.stop()
        """,
        100,
    ),
    "threads": (
        """
        threads = [threading.Thread(target=log.warning, args=("kept",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        """,
        20,
    ),
}


@pytest.mark.parametrize(("program", "count"), ENDS.values(), ids=ENDS.keys())
def test_end_of_the_process(any_dsn: str, program: str, count: int) -> None:
    """What is logged before the log drains is stored; what comes later is lost, and says so."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program), any_dsn],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    kept = [row for row in trail.rows(any_dsn) if row["message"] == "kept"]
    assert len(kept) == count
    assert done.stdout == ""
    assert done.stderr.startswith("auditlog.start_failed" if "too late" in program else "")
    assert done.stderr.count("\n") == ("too late" in program)
    assert trail.ledger_agrees(any_dsn)


def test_lines_of_many_threads_are_stored_once(any_dsn: str) -> None:
    """Each, and none twice."""
    with AuditLog(any_dsn, settings=quick()) as audit:
        log = logging.Logger("application")  # noqa: LOG001  # not part of the hierarchy
        log.addHandler(AuditHandler(audit))

        def work(number: int) -> None:
            for turn in range(100):
                log.info("m", extra={"user_id": f"{number * 100 + turn:06}"})

        threads: list[Any] = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert trail.stored_once(any_dsn, 500)
