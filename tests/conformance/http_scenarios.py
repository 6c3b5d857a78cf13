"""Requests in order, applications that break, and clients that leave."""

from raw_client import Client
from scenario import (
    BROKEN,
    GRANIAN,
    HYPERCORN,
    Talk,
    add,
    http,
    raw,
    status_of,
)

# Clients that leave.


def leave(path: str, *, reset: bool = False, release: bool = False) -> Talk:
    """Leave when the handler has begun; then let it go on, if it waits for that."""

    def talk(client: Client) -> None:
        with client.connect() as connection:
            connection.send(client.head(path))
            client.control("reached")
            if reset:
                connection.reset()
        if release:
            client.control("release")

    return talk


def leave_at_once(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("/hang"))
        connection.reset()


def leave_events(*, reset: bool) -> Talk:
    def talk(client: Client) -> None:
        with client.connect() as connection:
            connection.send(client.head("/starlette/events"))
            connection.read_until(b"tick")
            if reset:
                connection.reset()

    return talk


def break_upload(path: str, *, gate: bool) -> Talk:
    def talk(client: Client) -> None:
        with client.connect() as connection:
            head = client.head(path, b"Content-Length: 1000", method="POST")
            connection.send(head + b"0123456789")
            if gate:
                client.control("reached")

    return talk


def break_unread_upload(client: Client) -> int | None:
    with client.connect() as connection:
        head = client.head("/read", b"Content-Length: 1000", method="POST")
        connection.send(head + b"0123456789")
        return status_of(connection.read_answer())


def close_half(client: Client) -> int | None:
    with client.connect() as connection:
        connection.send(client.head("/deaf"))
        client.control("reached")
        connection.close_half()
        client.control("release")
        return status_of(connection.read_answer())


# Exceptions. What a server answers for an application is derived, except where it answers
# otherwise than all others.

GONE = {"status": None, "source": "none", "outcome": "client_disconnect"}
EVENTS = {
    "url": "/starlette/events",
    "route": "/starlette/events",
    "sent": ...,
    "outcome": "client_disconnect",
}

SCENARIOS = [
    http("read", "/read?a=1"),
    http("write", "/echo", method="POST", body=b"12345", received=5, sent=5),
    http(
        "large write", "/echo", method="POST", body=b"x" * 300_000, received=300_000, sent=300_000
    ),
    http("get with a body", "/echo", body=b"abc", received=3, sent=3),
    http("head", "/read", method="HEAD", sent=None),
    http("no content", "/status?status=204", 204, sent=None),
    http("not modified", "/status?status=304", 304, sent=None),
    http("bad request", "/status?status=400", 400, outcome="client_error"),
    http("unauthorised", "/status?status=401", 401, outcome="denied"),
    http("forbidden", "/status?status=403", 403, outcome="denied"),
    http("unavailable", "/status?status=503", 503, outcome="server_error"),
    http("two cookies set", "/cookies"),
    http("stream", "/stream", sent=11),
    http(
        "route",
        "/starlette/items/42",
        route="/starlette/items/{item_id}",
    ),
    http("no route", "/starlette/nothing", 404, outcome="client_error", sent=9),
    http(
        "wrong method",
        "/starlette/form",
        405,
        outcome="client_error",
        sent=18,
        route="/starlette/form",
    ),
    http(
        "path sent by the server",
        "/pathsend",
        501,
        outcome="server_error",
        on={GRANIAN: {"sees": 200, "status": 200, "outcome": "ok", "sent": None}},
    ),
    # Trailers are offered by none of them over HTTP/1.1; over HTTP/2 by hypercorn.
    http("trailers", "/trailers", 501, outcome="server_error"),
    raw(
        "chunked write",
        lambda client: (
            client.head("/echo", b"Transfer-Encoding: chunked", method="POST")
            + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ),
        received=5,
        sent=5,
    ),
    raw(
        "expect: 100-continue",
        lambda client: (
            client.head("/echo", b"Expect: 100-continue", b"Content-Length: 2", method="POST")
            + b"ab"
        ),
        received=2,
    ),
    http("exception before the start", "/raise-before", 500, source="derived", sent=None, **BROKEN),
    http(
        "exception after the start",
        "/raise-after-start",
        sent=None,
        # It holds the start back until there is a body.
        on={GRANIAN: {"sees": 500}},
        **BROKEN,
    ),
    http("exception in the body", "/raise-in-body", sent=4, **BROKEN),
    http("exception after the body", "/raise-after-body", outcome="ok", error="RuntimeError"),
    http(
        "exception that Starlette answers",
        "/starlette/broken",
        500,
        sent=21,
        route="/starlette/broken",
        **BROKEN,
    ),
    http("no answer", "/never", 500, source="derived", outcome="server_error", sent=None),
    http("half an answer", "/stop-in-body", outcome="incomplete", sent=4),
    add("client leaves a handler that looks", leave("/hang"), url="/hang", **GONE),
    add("client resets", leave("/hang", reset=True), url="/hang", **GONE),
    add(
        "client leaves a handler that answers all the same",
        leave("/late"),
        url="/late",
        status=200,
        source="derived",
        outcome="client_disconnect",
    ),
    add(
        "client leaves a handler that polls",
        leave("/starlette/poll"),
        url="/starlette/poll",
        route="/starlette/poll",
        status=200,
        source="derived",
        outcome="client_disconnect",
    ),
    # No server tells it: neither `send` nor anything else fails.
    add(
        "client leaves a handler that does not look",
        leave("/deaf", release=True),
        url="/deaf",
        sent=2,
    ),
    # A server may see the reset before it calls the application, and may no more be able to tell
    # the address. If there is a row, this is it.
    add(
        "client leaves at once",
        leave_at_once,
        row=None,
        url="/hang",
        address=None,
        **GONE,
    ),
    add(
        "client leaves endless events",
        leave_events(reset=False),
        **EVENTS,
    ),
    add(
        "client resets endless events",
        leave_events(reset=True),
        **EVENTS,
    ),
    add(
        "upload broken off",
        break_upload("/echo", gate=False),
        method="POST",
        url="/echo",
        received=10,
        **GONE,
    ),
    add(
        "upload broken off under Starlette",
        break_upload("/starlette/form", gate=True),
        method="POST",
        url="/starlette/form",
        route="/starlette/form",
        received=10,
        # Its error handler answers, to nobody.
        status=500,
        source="derived",
        outcome="client_disconnect",
    ),
    add(
        "upload that nobody reads",
        break_unread_upload,
        method="POST",
        url="/read",
        sees=200,
        sent=2,
    ),
    raw(
        "upload that is malformed",
        lambda client: (
            client.head("/echo", b"Transfer-Encoding: chunked", method="POST") + b"zz\r\nabc\r\n"
        ),
        400,
        on={GRANIAN: {"sees": 500}},
        method="POST",
        url="/echo",
        **{**GONE, "sent": None},
    ),
    # Allowed by TCP; three of four take it for the end, and the handler does not look.
    add(
        "client closes its half",
        close_half,
        {HYPERCORN: {"sees": 200}},
        url="/deaf",
        sent=2,
    ),
]
