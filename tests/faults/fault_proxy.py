"""A proxy on loopback between the service and PostgreSQL that fails at a stage of a batch.

Threads, so that it goes on whatever the client does. What it does to a connection happens before
the message of that stage is passed on: a cut at `COMMITTED` is a commit whose answer is lost.
"""

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fault_wire import Message, Splitter, Stage
from psycopg.conninfo import conninfo_to_dict, make_conninfo

DELAY_S = 0.3
THROTTLED_BYTES = 4096
THROTTLED_PAUSE_S = 0.02
"""Together 200 kB a second: slow, and not so slow that a batch outlasts its statement's time."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no FIN but a RST


class Harm(Enum):
    """What is done to a connection."""

    CUT = "cut"
    RESET = "reset"
    DELAY = "delay"
    HALF_OPEN = "half-open"
    THROTTLE = "throttle"


class _Connection:
    """Both sockets, and what was done to them."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.silent = threading.Event()
        self.throttled = False

    def end(self, *, reset: bool = False) -> None:
        for each in (self.client, self.server):
            if each is None:
                continue
            with suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # Wakes the thread that reads from it; to read no more is not told to the peer.
                each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            each.close()


class StageProxy:
    """One listening socket and the connections behind it; a context."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        self._armed: dict[Stage, Harm] = {}
        self._struck = threading.Condition(self._lock)
        self._strikes: list[tuple[Stage, Harm]] = []
        self._refusing = False
        self.dsn = make_conninfo(
            dsn,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
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
        with suppress(OSError):  # a close alone would not wake the thread that is in `accept`
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def arm(self, stage: Stage, harm: Harm) -> None:
        """Do harm to the next connection that comes to the stage, once."""
        with self._lock:
            self._armed[stage] = harm

    def await_strike(self, stage: Stage, harm: Harm, within_s: float = 30) -> bool:
        """Wait until what was armed has happened; False, and disarmed, if it has not."""
        with self._struck:
            done = self._struck.wait_for(lambda: (stage, harm) in self._strikes, within_s)
            self._armed.pop(stage, None)
            if done:
                self._strikes.remove((stage, harm))
            return done

    def refuse(self) -> None:
        """End every connection, and each new one at once, until `admit`."""
        self._refusing = True
        self.cut()

    def admit(self) -> None:
        """Undo `refuse`."""
        self._refusing = False

    def silence(self) -> None:
        """Make all connections that there are half-open."""
        for connection in list(self._connections):
            connection.silent.set()

    def drop_silent(self) -> None:
        """End the server's side of half-open connections, as its TCP keepalive does in the end."""
        for connection in list(self._connections):
            if connection.silent.is_set():
                connection.end()

    def cut(self) -> None:
        """End every connection that there is."""
        for connection in list(self._connections):
            connection.end()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # Message by message, small writes would wait for delayed acknowledgements.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client)
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: _Connection) -> None:
        if self._refusing:
            connection.end()
            return
        self._strike(connection, Stage.CONNECT)
        try:
            connection.server = self._connect()
        except OSError:
            connection.end()
            return
        threading.Thread(target=self._pump, args=(connection, False), daemon=True).start()
        self._pump(connection, True)

    def _connect(self) -> socket.socket:
        host, port = str(self._target["host"]), int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(Path(host, f".s.PGSQL.{port}")))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, connection: _Connection, of_client: bool) -> None:  # a direction
        source: Any = connection.client if of_client else connection.server
        target: Any = connection.server if of_client else connection.client
        splitter = Splitter(of_client=of_client)
        with suppress(OSError):
            while data := source.recv(65536):
                for message in splitter.feed(data):
                    self._pass_on(connection, target, message)
        # A half-open connection tells the one side nothing of the other's end.
        if not connection.silent.is_set():
            connection.end()

    def _pass_on(self, connection: _Connection, target: socket.socket, message: Message) -> None:
        if message.stage is not None:
            self._strike(connection, message.stage)
        if connection.silent.is_set():
            return
        if not connection.throttled:
            target.sendall(message.raw)
            return
        for start in range(0, len(message.raw), THROTTLED_BYTES):
            target.sendall(message.raw[start : start + THROTTLED_BYTES])
            time.sleep(THROTTLED_PAUSE_S)

    def _strike(self, connection: _Connection, stage: Stage) -> None:
        with self._lock:
            harm = self._armed.pop(stage, None)
        if harm is None:
            return
        if harm in (Harm.CUT, Harm.RESET):
            connection.end(reset=harm is Harm.RESET)
        elif harm is Harm.DELAY:
            time.sleep(DELAY_S)
        elif harm is Harm.HALF_OPEN:
            connection.silent.set()
        else:
            connection.throttled = True
        with self._struck:
            self._strikes.append((stage, harm))
            self._struck.notify_all()
