"""Events and log lines that together fill whatever their rows can hold, within a request."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from starlette.authentication import SimpleUser

from asgi_driver import END, START, drive, http_scope
from auditlog import AuditLog, AuditMiddleware, LogLevel, annotate_event, audited, bound
from auditlog.capture.stdlib import AuditHandler
from auditlog.capture.structlog import AuditProcessor
from parity_table import everything
from parity_web import paths

ARGUMENTS: dict[str, Any] = {
    "user_id": "ada",
    "resource_owner": "org",
    "instance_id": "acme",
    "target": ("order", 42),
    "event_sequence": 7,
    "message": "paid",
    "before": {"state": "open"},
    "after": {"state": "paid"},
    "outcome": "denied",
    "level": LogLevel.WARN,
}
"""What both `record` and `annotate_event` take by name."""
WHO = ("user_id", "resource_owner", "instance_id")
EXTRA = {name: ARGUMENTS[name] for name in (*WHO, "target")} | {"event_type": "order.paid"}
"""The fields of a log line that have a column."""
LONG_TEXT = "x" * 9000


async def record_events(dsn: str, *, annotated: bool) -> None:
    arguments = ARGUMENTS if annotated else {}
    who = {name: arguments[name] for name in WHO if name in arguments}

    @audited("order.paid")
    def pay() -> None:
        annotate_event(**arguments)

    @audited("order.paid")
    async def fail() -> None:
        annotate_event(**arguments)
        raise LookupError

    async with AuditLog(dsn, settings=everything()) as audit:
        with psycopg.connect(dsn) as connection:

            async def handler() -> None:
                audit.record("order.paid", **arguments)
                audit.record(LONG_TEXT, **arguments)
                audit.record_within(connection, "order.paid", **arguments)
                with bound(**who):
                    audit.record("order.paid")
                pay()
                with suppress(LookupError):
                    await fail()

            await within_a_request(audit, handler)


async def write_lines(dsn: str, *, annotated: bool) -> None:
    extra = EXTRA if annotated else {}
    log = logging.Logger("application")  # noqa: LOG001  # not part of the hierarchy
    async with AuditLog(dsn, settings=everything()) as audit:
        log.addHandler(AuditHandler(audit, stack_traces=True))
        events = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[
                structlog.processors.StackInfoRenderer(),
                AuditProcessor(audit, stack_traces=True),
            ],
        )

        async def handler() -> None:
            log.warning("paid", extra=extra, stack_info=True)
            log.warning(LONG_TEXT, extra=extra)
            log.warning("%d", "not a number", extra=extra)
            events.warning("paid", stack_info=True, **extra)
            try:
                raise LookupError
            except LookupError:
                log.exception("not paid", extra=extra)
                events.exception("not paid", **extra)

        await within_a_request(audit, handler)


async def within_a_request(audit: AuditLog, handler: Callable[[], Any]) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await handler()
        await send(START)
        await send(END)

    scope = http_scope(user=SimpleUser("ada"), **paths("/orders/42"))
    run = await drive(AuditMiddleware(app, audit=audit), scope)
    assert run.error is None
