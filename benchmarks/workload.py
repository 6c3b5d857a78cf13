"""What all benchmarks measure with: one request as a proxy would send it, and typical records."""

import random
from collections.abc import Iterator, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from auditlog.records import LogRecord

PATH = "/users/42"
HEADERS = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"authorization", b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-request-id", b"01JD2V5Y8M3Q4R5S6T7V8W9X0Y"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)
_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 8000),
    "client": ("10.0.0.9", 51234),
    "scheme": "http",
    "method": "GET",
    "root_path": "",
    "path": PATH,
    "raw_path": PATH.encode(),
    "query_string": b"",
}
_HEADERS_KEPT = {
    "host": ["api.example.com"],
    "user-agent": ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"],
    "accept": ["application/json"],
}
_START_US = 1_767_225_600_000_000  # 2026-01-01


def scope() -> MutableMapping[str, Any]:
    """Make a new scope, as a server does for every request; frameworks write into it."""
    # New objects, as from a parser: the hash of a name that was seen before would be known.
    headers = [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in HEADERS]
    return {**_SCOPE, "headers": headers, "state": {}}


def application() -> Starlette:
    """Build an application with one plain route, whose answer costs as little as possible."""
    return Starlette(routes=[Route("/users/{user_id}", _read_user)])


async def _read_user(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["user_id"])


def records(count: int) -> Iterator[LogRecord]:
    """Make typical records, the same ones at every call but for their identities.

    Four tenants; two of three requests have a user and an organisation, one of four names an
    aggregate and an event, one of ten is refused or fails. About 620 bytes each when encoded.
    """
    dice = random.Random(7)  # noqa: S311  # repeatable, not secret
    for number in range(count):
        yield _record(dice, number)


def _record(dice: random.Random, number: int) -> LogRecord:
    known, event, failed = dice.random() < 2 / 3, dice.random() < 1 / 4, dice.random() < 1 / 10
    order = dice.randrange(50_000)
    at = _START_US + number * 500
    return LogRecord(
        occurrence_date=at,
        log_date=at + 4_000,
        protocol=1,
        request_url=f"/orders/{order}",
        request_method="POST" if event else "GET",
        request_headers=_HEADERS_KEPT,
        response_status=dice.choice((401, 404, 500)) if failed else 200,
        response_time_ms=dice.randrange(40),
        user_id=f"user-{dice.randrange(5_000)}" if known else None,
        resource_owner=f"org-{dice.randrange(200)}" if known else None,
        aggregate_type="order" if event else None,
        aggregate_id=str(order) if event else None,
        event_type="order.changed" if event else None,
        log_level=2 if failed else 1,
        metadata=_metadata(dice, failed=failed),
        instance_id=f"tenant-{dice.randrange(4)}",
    )


def _metadata(dice: random.Random, *, failed: bool) -> dict[str, Any]:
    return {
        "audit.outcome": "client_error" if failed else "ok",
        "audit.status_source": "wire",
        "http.route": "/orders/{order_id}",
        "client.address": f"203.0.113.{dice.randrange(256)}",
        "network.peer.address": "10.0.0.9",
        "trace_id": f"{dice.getrandbits(128):032x}",
        "span_id": f"{dice.getrandbits(64):016x}",
        "audit.request_id": f"{dice.getrandbits(32):08x}",
        "http.response.body.size": dice.randrange(2_000),
    }
