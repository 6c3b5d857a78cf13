"""A proxy on loopback between a client and PostgreSQL that fails when it is told to.

It knows just enough of the protocol to see a COMMIT pass. Threads, so that it goes on when the
event loop of the test does not.
"""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"


class Proxy:
    """One listening socket and the pairs of sockets behind it."""

    def __init__(self, dsn: str, port: int = 0) -> None:
        self._target = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = threading.Event()
        self._open.set()
        self.lose_answers = 0
        """To how many of the next COMMITs the client gets no answer, but an end."""
        self.lost = 0
        self.holding: threading.Event | None = None
        """If set, the next COMMIT waits for it, while the client is cut off."""
        self.held = threading.Event()
        self.dsn = make_conninfo(
            dsn, host="127.0.0.1", port=self._listener.getsockname()[1], sslmode="disable"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self._open.set()

    def fall_silent(self) -> None:
        """Pass nothing on in either direction, and close nothing."""
        self._open.clear()

    def speak(self) -> None:
        """Undo `fall_silent`: what was sent meanwhile is passed on."""
        self._open.set()

    def cut(self) -> None:
        """End every connection that there is."""
        for pair in list(self._pairs):
            _end(*pair)

    def refuse(self) -> None:
        """End every connection, and take no new ones."""
        self.take_no_more()
        self.cut()

    def take_no_more(self) -> None:
        """Refuse new connections; those that are there go on."""
        # A close alone would not wake the thread that is in `accept`.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = self._connect()
            except OSError:
                return
            pair = (client, server)
            self._pairs.append(pair)
            for pump in (self._to_server, self._to_client):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = str(self._target["host"]), int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(Path(host, f".s.PGSQL.{port}")))
        return server

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self._open.wait()
                if data.endswith(COMMIT):
                    if self.lose_answers:
                        self.lose_answers -= 1
                        self._answer_is_lost(client, server, data)
                        break
                    if holding := self.holding:
                        self.holding = None
                        client.shutdown(socket.SHUT_RDWR)
                        self.held.set()
                        holding.wait()
                server.sendall(data)
        _end(client, server)

    def _answer_is_lost(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Commit on the server; the client sees an end, whatever the server says."""
        client.shutdown(socket.SHUT_WR)
        server.sendall(data)
        self.lost += 1
        with suppress(OSError):
            client.recv(1)  # until the client has closed too, or the answer came and went

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                self._open.wait()
                client.sendall(data)
        _end(client, server)


def _end(*sockets: Any) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
