"""What clients do to the demo's application: the kind ones, the careless ones and the hostile ones.

Each scenario is one request and returns the status that the client saw, None where it did not stay
to see one. Only bytes that every HTTP parser lets through are sent; what a parser refuses never
reaches an application.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from auditlog.demo.client import Client

Perform: TypeAlias = Callable[[Client], Awaitable[int | None]]

ALICE = (("authorization", b"Bearer alice"),)
BOB = (("authorization", b"Bearer bob"),)
JSON = (("content-type", b"application/json"),)
NEW_ORDER = b'{"item": "lamp", "card_token": "tok_4111111111111111"}'


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request, and how often it comes among the others."""

    name: str
    weight: int
    perform: Perform


def _request(
    method: str, target: str, headers: tuple[tuple[str, bytes], ...] = (), body: bytes = b""
) -> Perform:
    return lambda client: client.request(method, target, headers=headers, body=body)


async def _leave_before_the_answer(client: Client) -> None:
    await client.hang_up("GET", "/reports/annual")


async def _leave_in_the_stream(client: Client) -> None:
    await client.hang_up("GET", "/events", after=b"data: tick\n\n")


async def _leave_in_the_upload(client: Client) -> None:
    await client.hang_up("POST", "/uploads", body=b"half of it", missing=10)


# The last ones are what the report shows at its end: something of everything.
SCENARIOS = (
    Scenario("list", 20, _request("GET", "/orders?limit=10")),
    Scenario("head", 2, _request("HEAD", "/orders/42")),
    Scenario("upload", 3, _request("POST", "/uploads", body=b"x" * 10_000)),
    Scenario("events", 2, _request("GET", "/events")),
    Scenario("slow", 1, _request("GET", "/reports/monthly")),
    Scenario("delete", 3, _request("DELETE", "/orders/42", ALICE)),
    Scenario("bad body", 3, _request("POST", "/orders", ALICE + JSON, b'{"item":')),
    Scenario("no such path", 3, _request("GET", "/nowhere")),
    Scenario("wrong method", 1, _request("PATCH", "/orders/42")),
    Scenario("invalid UTF-8 in query", 1, _request("GET", "/orders?q=%ff%c3%28&r=%00")),
    Scenario("invalid percent", 1, _request("GET", "/orders?q=100%&r=%zz&%")),
    Scenario("bytes in header", 1, _request("GET", "/orders", (("referer", b"\xff\xfe\x80"),))),
    Scenario("long URL", 1, _request("GET", "/orders?q=" + "x" * 8000)),
    Scenario("WebSocket cut", 1, lambda client: client.vanish("/echo", user="bob")),
    Scenario("left before the answer", 1, _leave_before_the_answer),
    Scenario("read", 30, _request("GET", "/orders/42", ALICE)),
    Scenario("create", 10, _request("POST", "/orders", ALICE + JSON, NEW_ORDER)),
    Scenario("cancel", 5, _request("POST", "/orders/42/cancel?reason=late", BOB)),
    Scenario("export", 2, _request("GET", "/export", ALICE)),
    Scenario("unauthenticated", 3, _request("DELETE", "/orders/42")),
    Scenario("forbidden", 3, _request("DELETE", "/orders/42", BOB)),
    Scenario("no such order", 3, _request("GET", "/orders/404")),
    Scenario("5xx", 2, _request("GET", "/unavailable")),
    Scenario("exception", 2, _request("GET", "/broken")),
    Scenario("secret in query", 2, _request("GET", "/orders?access_token=s3cr3t&limit=10")),
    Scenario("NUL in path", 1, _request("GET", "/files/a%00b")),
    Scenario("invalid UTF-8 in path", 1, _request("GET", "/files/%ff%fe%c3%28")),
    Scenario("WebSocket", 2, lambda client: client.echo("/echo", ("a", "b", "ü"), user="bob")),
    Scenario("WebSocket refused", 1, lambda client: client.echo("/echo", (), user=None)),
    Scenario("left in the upload", 1, _leave_in_the_upload),
    Scenario("left in the stream", 2, _leave_in_the_stream),
)
