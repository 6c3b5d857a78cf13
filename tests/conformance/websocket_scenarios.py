"""WebSockets: who closes, how, and what is told of it.

hypercorn tells an application 1006 whatever the client's code was. uvicorn and granian tell 1005
for a connection that was cut, so that it cannot be told from a close without a code.
"""

import socket
from collections.abc import Callable
from typing import Any

from raw_client import Client
from scenario import (
    BROKEN,
    GRANIAN,
    HTTPTOOLS,
    HYPERCORN,
    Differences,
    Scenario,
    Talk,
    add,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus

# WebSocket. hypercorn tells an application 1006 whatever the client's code was. uvicorn and granian
# tell 1005 for a connection that was cut, so that it cannot be told from a close without a code.


def frames(
    name: str, path: str, talk: Talk, on: Differences | None = None, **expected: Any
) -> Scenario:
    """A WebSocket; counters are given as (in, out), the close as (code, by)."""

    def guarded(client: Client) -> Any:
        try:
            return talk(client)
        except InvalidStatus as refusal:
            return refusal.response.status_code

    defaults = {"url": path, "status": 101, "frames": (0, 0), "bytes": (0, 0)}
    return add(name, guarded, on, **{**defaults, **expected})


def close_of(connection: Any) -> int:
    """Wait for the other side's close, and tell its code; 1006 if there was none."""
    try:
        while True:
            connection.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def opened(path: str, act: Callable[[Any], Any], **options: Any) -> Talk:
    """Open it and act on it."""

    def talk(client: Client) -> Any:
        with client.websocket(path, **options) as connection:
            return act(connection)

    return talk


def exchange(connection: Any) -> str:
    connection.send("hé")
    answer = connection.recv()
    connection.send(b"123")
    connection.recv()
    return str(answer)


def cut(connection: Any) -> None:
    exchange(connection)
    connection.socket.shutdown(socket.SHUT_RDWR)


def close_without_code(connection: Any) -> int:
    connection.socket.sendall(b"\x88\x80\0\0\0\0")
    return close_of(connection)


def break_protocol(connection: Any) -> None:
    connection.socket.sendall(b"\xff\x80\0\0\0\0")
    close_of(connection)


CUT = {HYPERCORN: {"closed": (1006, "client"), "outcome": "client_disconnect"}}
BY_CLIENT = {"closed": (1000, "client")}
NO_SOCKET = {"frames": None, "bytes": None}
# uvicorn cuts the connection, hypercorn closes it with 1011, granian without a code.
OPEN_END = {HYPERCORN: {"sees": 1011}, GRANIAN: {"sees": 1005}}

SCENARIOS = [
    frames(
        "frames",
        "/ws/echo",
        opened("/ws/echo", exchange),
        CUT,
        sees="hé",
        frames=(2, 2),
        bytes=(6, 6),
        **BY_CLIENT,
    ),
    frames(
        "frame of 900 KB",
        "/ws/echo",
        opened("/ws/echo", lambda each: (each.send("x" * 900_000), len(each.recv()))[1]),
        CUT,
        sees=900_000,
        frames=(1, 1),
        bytes=(900_000, 900_000),
        **BY_CLIENT,
    ),
    frames(
        "fragments",
        "/ws/echo",
        opened("/ws/echo", lambda each: (each.send(["ab", "cd"]), each.recv())[1]),
        CUT,
        sees="abcd",
        frames=(1, 1),
        bytes=(4, 4),
        **BY_CLIENT,
    ),
    frames(
        "subprotocol",
        "/ws/echo",
        opened("/ws/echo", lambda each: each.subprotocol, subprotocols=["a", "b"]),
        CUT,
        sees="a",
        subprotocol="a",
        **BY_CLIENT,
    ),
    frames(
        "client's code and reason",
        "/ws/echo",
        opened("/ws/echo", lambda each: each.close(4001, "because")),
        # granian keeps the reason to itself.
        {HYPERCORN: {**CUT[HYPERCORN], "reason": None}, GRANIAN: {"reason": None}},
        outcome="unknown",
        closed=(4001, "client"),
        reason="because",
    ),
    frames(
        "client closes without a code",
        "/ws/echo",
        opened("/ws/echo", close_without_code),
        CUT,
        sees=1005,
        closed=(1005, "client"),
    ),
    frames(
        "client cuts the connection",
        "/ws/echo",
        opened("/ws/echo", cut),
        CUT,
        frames=(2, 2),
        bytes=(6, 6),
        closed=(1005, "client"),
    ),
    frames(
        "client breaks the protocol",
        "/ws/echo",
        opened("/ws/echo", break_protocol),
        {
            HTTPTOOLS: {"reason": "invalid opcode"},
            HYPERCORN: {**CUT[HYPERCORN], "reason": None},
            GRANIAN: {"closed": (1005, "client"), "outcome": "ok", "reason": None},
        },
        outcome="client_error",
        closed=(1002, "client"),
        reason="Invalid opcode 0xf",
    ),
    *[
        frames(
            f"application closes with {code}",
            "/ws/close?code=[REDACTED]",
            opened(f"/ws/close?code={code}", close_of),
            sees=code,
            outcome=outcome,
            frames=(0, 1),
            bytes=(0, 8),
            closed=(code, "server"),
        )
        for code, outcome in {1000: "ok", 1001: "ok", 1008: "denied", 1011: "server_error"}.items()
    ],
    frames(
        "application's code and reason",
        "/ws/close?code=[REDACTED]&reason=why",
        opened("/ws/close?code=4002&reason=why", close_of),
        sees=4002,
        outcome="unknown",
        frames=(0, 1),
        bytes=(0, 8),
        closed=(4002, "server"),
        reason="why",
    ),
    frames(
        "application refuses",
        "/ws/refuse",
        opened("/ws/refuse", lambda _: None),
        sees=403,
        status=403,
        source="derived",
        outcome="denied",
        closed=(1000, "server"),
        **NO_SOCKET,
    ),
    frames(
        "application denies with a response",
        "/ws/deny",
        opened("/ws/deny", lambda _: None),
        sees=429,
        status=429,
        outcome="client_error",
        **NO_SOCKET,
    ),
    frames(
        "no route for a WebSocket",
        "/starlette/nothing",
        opened("/starlette/nothing", lambda _: None),
        sees=403,
        status=403,
        source="derived",
        outcome="denied",
        closed=(1000, "server"),
        **NO_SOCKET,
    ),
    # granian answers 403 where the others answer 500.
    frames(
        "exception before accept",
        "/ws/raise-before",
        opened("/ws/raise-before", lambda _: None),
        {GRANIAN: {"sees": 403}},
        sees=500,
        status=500,
        source="derived",
        **NO_SOCKET,
        **BROKEN,
    ),
    frames(
        "return before accept",
        "/ws/return-before",
        opened("/ws/return-before", lambda _: None),
        {GRANIAN: {"sees": 403}},
        sees=500,
        status=500,
        source="derived",
        outcome="server_error",
        **NO_SOCKET,
    ),
    frames(
        "exception after accept",
        "/ws/raise-after",
        opened("/ws/raise-after", close_of),
        OPEN_END,
        sees=1006,
        frames=(0, 1),
        bytes=(0, 8),
        **BROKEN,
    ),
    frames(
        "return after accept",
        "/ws/return-after",
        opened("/ws/return-after", close_of),
        OPEN_END,
        sees=1006,
        outcome="incomplete",
        frames=(0, 1),
        bytes=(0, 8),
    ),
    frames(
        "route of a WebSocket",
        "/starlette/rooms/blue",
        opened("/starlette/rooms/blue", lambda each: (each.send("a"), each.recv())[1]),
        CUT,
        sees="a",
        frames=(1, 1),
        bytes=(1, 1),
        route="/starlette/rooms/{room}",
        **BY_CLIENT,
    ),
]
