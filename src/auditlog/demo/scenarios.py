"""What clients do to the demo's application: the kind ones, the careless ones and the hostile ones.

Each scenario is one request and returns the status that the client saw, None where it did not stay
to see one. Only bytes that every HTTP parser lets through are sent; what a parser refuses never
reaches an application. Those of gRPC and GraphQL have files of their own.
"""

from auditlog.demo.graphql_scenarios import GRAPHQL_SCENARIOS
from auditlog.demo.rpc_scenarios import RPC_SCENARIOS
from auditlog.demo.scenario import Clients, Perform, Scenario

ALICE = (("authorization", b"Bearer alice"),)
BOB = (("authorization", b"Bearer bob"),)
JSON = (("content-type", b"application/json"),)
NEW_ORDER = b'{"item": "lamp", "card_token": "tok_4111111111111111"}'


def _request(
    method: str, target: str, headers: tuple[tuple[str, bytes], ...] = (), body: bytes = b""
) -> Perform:
    return lambda clients: clients.http.request(method, target, headers=headers, body=body)


async def _leave_before_the_answer(clients: Clients) -> None:
    await clients.http.hang_up("GET", "/reports/annual")


async def _leave_in_the_stream(clients: Clients) -> None:
    await clients.http.hang_up("GET", "/events", after=b"data: tick\n\n")


async def _leave_in_the_upload(clients: Clients) -> None:
    await clients.http.hang_up("POST", "/uploads", body=b"half of it", missing=10)


_HTTP_SCENARIOS = (
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
    Scenario("WebSocket cut", 1, lambda clients: clients.http.vanish("/echo", user="bob")),
    Scenario("left before the answer", 1, _leave_before_the_answer),
    Scenario("read", 30, _request("GET", "/orders/42", ALICE)),
    Scenario("create", 10, _request("POST", "/orders", ALICE + JSON, NEW_ORDER)),
    Scenario("cancel", 5, _request("POST", "/orders/42/cancel?reason=late", BOB)),
    # Often enough that its quota runs out in a short demo, too.
    Scenario("export", 6, _request("GET", "/export", ALICE)),
    Scenario("unauthenticated", 3, _request("DELETE", "/orders/42")),
    Scenario("forbidden", 3, _request("DELETE", "/orders/42", BOB)),
    Scenario("no such order", 3, _request("GET", "/orders/404")),
    Scenario("5xx", 2, _request("GET", "/unavailable")),
    Scenario("exception", 2, _request("GET", "/broken")),
    Scenario("secret in query", 2, _request("GET", "/orders?access_token=s3cr3t&limit=10")),
    Scenario("NUL in path", 1, _request("GET", "/files/a%00b")),
    Scenario("invalid UTF-8 in path", 1, _request("GET", "/files/%ff%fe%c3%28")),
    Scenario(
        "WebSocket", 2, lambda clients: clients.http.echo("/echo", ("a", "b", "ü"), user="bob")
    ),
    Scenario("WebSocket refused", 1, lambda clients: clients.http.echo("/echo", (), user=None)),
    Scenario("left in the upload", 1, _leave_in_the_upload),
    Scenario("left in the stream", 2, _leave_in_the_stream),
)
# The last ones are what the report shows at its end: something of everything.
SCENARIOS = (
    *_HTTP_SCENARIOS[:-7],
    *RPC_SCENARIOS[:-5],
    *GRAPHQL_SCENARIOS[:-3],
    *_HTTP_SCENARIOS[-7:],
    *RPC_SCENARIOS[-5:],
    *GRAPHQL_SCENARIOS[-3:],
)
