"""The application's own events in a real database: rows, ties, runs; from wherever they come."""

import asyncio
import os
import signal
import threading
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import trail
from auditlog import (
    AuditLog,
    AuditMiddleware,
    LogLevel,
    Outcome,
    annotate,
    annotate_event,
    audited,
    bound,
)
from trail import quick

THREADS = 32


def joined(dsn: str) -> list[dict[str, Any]]:
    """Each event with the request in which it happened."""
    query = """
        SELECT event.event_type, event.aggregate_id, event.user_id, event.instance_id,
            event.metadata -> 'audit.before' AS before, event.metadata -> 'audit.after' AS after,
            event.metadata ->> 'audit.outcome' AS outcome, event.metadata ->> 'trace_id' AS trace,
            request.request_url, request.response_status
        FROM logstore.logs AS event
        JOIN logstore.logs AS request
            ON request.instance_id = event.instance_id
            AND request.log_id = event.metadata ->> 'audit.parent_id'
        ORDER BY event.log_id
        """
    with psycopg.connect(dsn) as conn, conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


async def test_event_finds_its_request(any_dsn: str) -> None:
    """By a join on the key; from a handler, from a thread pool, from a decorated function."""

    @audited("stock.reserved", target=lambda sku: ("sku", sku))
    def reserve(sku: str) -> None:
        annotate_event(before={"free": 3}, after={"free": 2})

    async def refund(request: Request) -> PlainTextResponse:
        annotate(user_id="ada", instance_id="acme")
        audit.record(
            "order.refunded",
            target=("order", request.path_params["order"]),
            before={"state": "paid", "password": "bait"},
            after={"state": "refunded"},
        )
        await asyncio.to_thread(reserve, "A-1")
        return PlainTextResponse("", 202)

    routes = [Route("/orders/{order}/refund", refund, methods=["POST"])]
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with AuditLog(any_dsn, settings=quick()) as audit:
        app = AuditMiddleware(Starlette(routes=routes), audit=audit)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            for order in (1, 2):
                await client.post(f"/orders/{order}/refund", headers=headers)
    rows = joined(any_dsn)

    assert len(trail.rows(any_dsn)) == 6
    common = {"user_id": "ada", "instance_id": "acme", "outcome": "ok", "trace": trace}
    assert rows == [
        {
            "event_type": "order.refunded",
            "aggregate_id": str(order),
            "before": {"state": "paid", "password": "[REDACTED]"},
            "after": {"state": "refunded"},
            "request_url": f"/orders/{order}/refund",
            "response_status": 202,
            **common,
        }
        if kind == "order"
        else {
            "event_type": "stock.reserved",
            "aggregate_id": "A-1",
            "before": {"free": 3},
            "after": {"free": 2},
            "request_url": f"/orders/{order}/refund",
            "response_status": 202,
            **common,
        }
        for order in (1, 2)
        for kind in ("order", "stock")
    ]


def test_job_leaves_events_and_the_lines_of_its_run(any_dsn: str) -> None:
    """A script: no loop, no request; an error ends it."""
    with AuditLog(any_dsn, settings=quick()) as audit:

        @audited("cart.expired", target=lambda cart: ("cart", cart), audit=audit)
        def expire(cart: int) -> None:
            if cart == 3:
                raise PermissionError("hunter2")

        def job() -> None:
            with (
                bound(user_id="cron", instance_id="acme", job="nightly"),
                audit.execution("run-1", "carts") as run,
            ):
                run.info("started", password="bait")
                for cart in (1, 2, 3):
                    expire(cart)

        with pytest.raises(PermissionError):
            job()
    rows = trail.rows(any_dsn)
    first, last = trail.rows(any_dsn, "execution_logs")

    assert [(row["aggregate_id"], row["metadata"]["audit.outcome"]) for row in rows] == [
        ("1", "ok"),
        ("2", "ok"),
        ("3", "denied"),
    ]
    assert rows[2]["metadata"] == {
        "audit.outcome": "denied",
        "error.type": "PermissionError",
        "job": "nightly",
    }
    assert {(row["user_id"], row["instance_id"]) for row in rows} == {("cron", "acme")}
    assert [row["log_level"] for row in rows] == [LogLevel.INFO, LogLevel.INFO, LogLevel.WARN]
    assert first["metadata"] == {"job": "nightly", "password": "[REDACTED]"}
    assert (last["message"], last["log_level"]) == ("PermissionError", LogLevel.ERROR)
    assert last["stack_trace"].endswith("PermissionError: hunter2\n")
    assert {(line["execution_id"], line["target_id"]) for line in (first, last)} == {
        ("run-1", "carts")
    }
    assert {line["instance_id"] for line in (first, last)} == {"acme"}
    assert trail.ledger_agrees(any_dsn)


def test_many_threads_record_at_once(any_dsn: str) -> None:
    """Into a log that nobody has started: each event is there, once, with its own identity."""
    audit = AuditLog(any_dsn, settings=quick())
    barrier = threading.Barrier(THREADS)

    @audited("call", target=lambda number: ("number", number), audit=audit)
    def work(number: int) -> None:
        annotate_event(seen=number)

    def thread(number: int) -> None:
        barrier.wait()
        with bound(user_id=f"{number:03}"), audit.execution(number, "target") as run:
            for _ in range(10):
                assert audit.record("event", after={"number": number}) is Outcome.ACCEPTED
                work(number)
                assert run.info("line", number=number) is Outcome.ACCEPTED

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    audit.close()
    rows = trail.rows(any_dsn)
    lines = trail.rows(any_dsn, "execution_logs")

    assert (len(rows), len(lines)) == (THREADS * 20, THREADS * 10)
    assert trail.adds_up(audit.stats())
    assert audit.stats().written == THREADS * 30
    for row in rows:
        metadata = row["metadata"]
        number = metadata.get("seen", metadata.get("audit.after", {}).get("number"))
        assert row["user_id"] == f"{number:03}"
    assert all(line["execution_id"] == str(line["metadata"]["number"]) for line in lines)


async def test_before_the_start_and_after_the_end(any_dsn: str) -> None:
    """A log is not open or closed to an event: it starts when there is something to write."""
    audit = AuditLog(any_dsn, settings=quick())
    run = audit.execution("run", "target")

    audit.record("event", target=("number", 1))
    run.info("before")
    async with audit:
        audit.record("event", target=("number", 2))
    run.info("after")
    audit.record("event", target=("number", 3))
    await asyncio.to_thread(audit.record, "event", target=("number", 4))
    await audit.aclose()

    query = "SELECT aggregate_id FROM logstore.logs ORDER BY aggregate_id"
    assert trail.fetch(any_dsn, query) == ["1", "2", "3", "4"]
    assert len(trail.rows(any_dsn, "execution_logs")) == 2


def test_signal_handler_may_record_while_the_writer_starts(any_dsn: str) -> None:
    """At any moment of `record`, and of what it sets in motion."""
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        assert audit.record("signal", before={"number": handled}) is Outcome.ACCEPTED

    audit = AuditLog(any_dsn, settings=quick(max_queued_rows=10**6, max_queued_bytes=2**30))
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0005)
    recorded = 0
    try:
        while handled < 200:
            assert audit.record("main", after={"number": recorded}) is Outcome.ACCEPTED
            recorded += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    audit.close()

    assert audit.stats().written == recorded + handled
    query = "SELECT count(*) FROM logstore.logs WHERE event_type = 'signal'"
    assert trail.fetch(any_dsn, query) == [handled]


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_forked_child_records_into_its_own_log(any_dsn: str) -> None:
    """While the parent's threads record; what was bound is bound in the child as well."""
    audit = AuditLog(any_dsn, settings=quick())
    stop = threading.Event()

    @audited("call", audit=audit)
    def work() -> None:
        annotate_event(pid=os.getpid())

    def keep_recording() -> None:
        while not stop.is_set():
            audit.record("parent")

    threads = [threading.Thread(target=keep_recording) for _ in range(4)]
    for thread in threads:
        thread.start()
    children = []
    with bound(user_id="worker"), audit.execution("run", "target") as run:
        for _ in range(5):
            child = os.fork()
            if not child:
                audit.record("child")
                work()
                run.info("child")
                audit.close()
                os._exit(0 if audit.stats().written == 3 else 1)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    for thread in threads:
        thread.join()
    audit.close()

    assert statuses == [0] * 5
    query = "SELECT user_id FROM logstore.logs WHERE event_type IN ('child', 'call')"
    assert trail.fetch(any_dsn, query) == ["worker"] * 10
    assert len(trail.rows(any_dsn, "execution_logs")) == 5
    parents = trail.fetch(any_dsn, "SELECT count(*) FROM logstore.logs WHERE event_type = 'parent'")
    assert parents == [audit.stats().written]
