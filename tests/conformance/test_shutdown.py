from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from raw_client import Client
from servers import SERVERS, Running, serving

CANCELLED = ("cancelled", "CancelledError")
# uvicorn tells its WebSockets that it restarts, and cancels what still runs after its time-out;
# so does hypercorn with all of them. granian waits, and in the end kills its worker: what never
# ended leaves no row.
ENDS: dict[str, dict[str, tuple[str, str | None]]] = {
    "uvicorn-h11": {
        "/hang": CANCELLED,
        "/deaf": CANCELLED,
        "/starlette/events": CANCELLED,
        "/ws/echo": ("cancelled", None),
    },
    "hypercorn": {
        "/hang": CANCELLED,
        "/deaf": CANCELLED,
        "/starlette/events": CANCELLED,
        "/ws/echo": CANCELLED,
    },
    "granian": {"/ws/echo": ("ok", None)},
}
ENDS["uvicorn-httptools"] = ENDS["uvicorn-h11"]


@pytest.mark.parametrize("name", SERVERS)
def test_open_connections_leave_their_rows_at_shutdown(
    name: str, any_dsn: str, tmp_path: Path
) -> None:
    """The log is drained after the last of them, with the application's lifespan."""
    with serving(name, any_dsn, tmp_path / "log") as running, ExitStack() as connections:
        _open_connections(running, connections)
        running.stop()
    with psycopg.connect(any_dsn) as connection:
        rows = connection.execute("SELECT request_url, metadata FROM logstore.logs").fetchall()

    found = {url: (each["audit.outcome"], each.get("error.type")) for url, each in rows}
    assert ENDS[name] == found


@pytest.mark.parametrize("name", SERVERS)
def test_rows_of_the_last_moment_are_written_at_shutdown(
    name: str, any_dsn: str, tmp_path: Path
) -> None:
    """Nothing waits for the next batch when the server goes."""
    with serving(name, any_dsn, tmp_path / "log") as running:
        for _ in range(50):
            Client(running.address, "last").ask("/read")
        running.stop()
    with psycopg.connect(any_dsn) as connection:
        found = connection.execute("SELECT count(*) FROM logstore.logs").fetchone()

    assert found == (50,)


@pytest.mark.parametrize("name", SERVERS)
def test_request_through_a_unix_socket_has_no_address(
    name: str, any_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is made up for one."""
    folder = tmp_path_factory.mktemp("s")
    path = str(folder / "s")
    with serving(name, any_dsn, folder / "log", unix_socket=path) as running:
        client = Client(running.address, "unix")
        answer = client.ask("/read")
        client.wait_for_rows()
    with psycopg.connect(any_dsn) as connection:
        (metadata,) = connection.execute("SELECT metadata FROM logstore.logs").fetchone() or ({},)

    assert answer is not None
    assert answer.status == 200
    assert not {"network.peer.address", "client.address"} & metadata.keys()


def _open_connections(running: Running, connections: ExitStack) -> None:
    for path in ("/hang", "/deaf"):
        client = Client(running.address, path.strip("/"))
        connection = connections.enter_context(client.connect())
        connection.send(client.head(path))
        client.control("reached")
    client = Client(running.address, "events")
    connection = connections.enter_context(client.connect())
    connection.send(client.head("/starlette/events"))
    connection.read_until(b"tick")
    socket: Any = connections.enter_context(Client(running.address, "ws").websocket("/ws/echo"))
    socket.send("a")
    socket.recv()
