"""What the application's own events cost, in microseconds of the thread's CPU time.

Measured: one event each by `audit.record`, `@audited`, `AuditHandler` and `AuditProcessor`, through
a real log up to the database, whose target swallows the batches; queues are emptied between the
turns, off the clock. Beside each stands what people have without it: the bare function, a
`StreamHandler` that writes to /dev/null, structlog's renderer. Every contestant has a process of
its own. There is no aim: it tells what is paid.
"""

import gc
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from auditlog import audited
from auditlog.capture.stdlib import AuditHandler
from auditlog.capture.structlog import AuditProcessor
from benchmarks.competitors import installed
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Row, Table
from benchmarks.rounds import interleave
from benchmarks.rounds import run as run_on_loop
from benchmarks.unshipped import Unshipped

RECORD = "audit.record"
CALL, AUDITED = "a bare function", "· with @audited"
STREAM, HANDLER = "logging, StreamHandler", "logging, AuditHandler"
STRUCTLOG, PROCESSOR = "structlog", "· with AuditProcessor"
OURS = frozenset({RECORD, AUDITED, HANDLER, PROCESSOR})
NAMES = (RECORD, CALL, AUDITED, STREAM, HANDLER, STRUCTLOG, PROCESSOR)

Event = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    events: int
    """In one turn; fewer than a queue holds."""
    rounds: int


FULL, QUICK = Sizes(events=1_000, rounds=40), Sizes(events=200, rounds=5)


def run(sizes: Sizes) -> list[Table]:
    """Measure, and return the table."""
    return [run_on_loop(_run(sizes))]


async def _run(sizes: Sizes) -> Table:
    names = [name for name in NAMES if "structlog" not in _MAKE[name].__name__ or _STRUCTLOG]
    with isolated(partial(contestant, sizes.events), names) as turns:
        seconds = await interleave("events", turns, sizes.rounds)
    rows = [
        Row(name, (f"{statistics.median(seconds[name]) * 1e6:.1f}" if name in names else "–",))
        for name in NAMES
    ]
    return Table("The application's own events: CPU time", ("µs an event",), rows)


@asynccontextmanager
async def contestant(events: int, name: str) -> AsyncIterator[Turn]:
    """Make a contestant, in a process of its own; whoever did nothing fails in the end."""
    turns = 0
    async with Unshipped() as audit:
        event = _MAKE[name](audit)

        async def turn() -> float:
            nonlocal turns
            turns += 1
            gc.collect()
            started = time.thread_time()
            for _ in range(events):
                event()
            elapsed = time.thread_time() - started
            await audit.flush()
            return elapsed / events

        yield turn
    assert audit.stats().written == (turns * events if name in OURS else 0)


def _record(audit: Unshipped) -> Event:
    return partial(
        audit.record,
        "order.refunded",
        user_id="alice",
        target=("order", 42),
        after={"amount": 1200, "currency": "EUR"},
    )


def _call(_audit: Unshipped) -> Event:
    return partial(_refund, 42)


def _audited(audit: Unshipped) -> Event:
    decorate = audited("order.refunded", target=lambda order: ("order", order), audit=audit)
    return partial(decorate(_refund), 42)


def _stream(_audit: Unshipped) -> Event:
    stream = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives
    return _logger(logging.StreamHandler(stream))


def _handler(audit: Unshipped) -> Event:
    return _logger(AuditHandler(audit))


def _structlog(_audit: Unshipped) -> Event:
    return _structlog_event()


def _structlog_audited(audit: Unshipped) -> Event:
    return _structlog_event(AuditProcessor(audit))


def _refund(order: int) -> int:
    return order


def _logger(handler: logging.Handler) -> Event:
    logger = logging.getLogger("shop.refunds")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return partial(logger.info, "refunded %s", 42, extra={"user_id": "alice", "amount": 1200})


def _structlog_event(*processors: AuditProcessor) -> Event:
    import structlog  # noqa: PLC0415  # an extra

    logger = structlog.wrap_logger(
        structlog.PrintLogger(open(os.devnull, "w")),  # noqa: SIM115  # likewise
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *processors,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    ).bind()
    return partial(logger.info, "refunded", user_id="alice", amount=1200)


_STRUCTLOG = installed("structlog")
_MAKE: dict[str, Callable[[Unshipped], Event]] = {
    RECORD: _record,
    CALL: _call,
    AUDITED: _audited,
    STREAM: _stream,
    HANDLER: _handler,
    STRUCTLOG: _structlog,
    PROCESSOR: _structlog_audited,
}
