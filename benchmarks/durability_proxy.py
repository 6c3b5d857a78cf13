"""A proxy on loopback before PostgreSQL that falls silent when it is told to.

Silence is the worst of outages: nothing is refused, and nothing is answered. Connections stay open
and are still taken; what is sent meanwhile is passed on when it is over. The proxy has a process of
its own, so that its work is not the client's.
"""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

CHUNK_BYTES = 65536


@contextmanager
def proxied(dsn: str) -> Iterator[tuple[str, Event]]:
    """Start a proxy; give the DSN that leads through it, and what must be set for it to speak."""
    context = multiprocessing.get_context("spawn")
    speaks = context.Event()
    speaks.set()
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(dsn, theirs, speaks), daemon=True)
    process.start()
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=ours.recv(), sslmode="disable"), speaks
    finally:
        process.kill()
        process.join()


def _serve(dsn: str, pipe: Connection, speaks: Event) -> None:
    target = conninfo_to_dict(dsn)
    host, port = str(target["host"]), int(target.get("port") or 5432)
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        server = _connect(host, port)
        for pair in ((client, server), (server, client)):
            threading.Thread(target=_pass_on, args=(*pair, speaks), daemon=True).start()


def _connect(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(Path(host, f".s.PGSQL.{port}")))
    return server


def _pass_on(source: socket.socket, sink: socket.socket, speaks: Event) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            speaks.wait()
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
