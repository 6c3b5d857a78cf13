"""An HTTP/1.1 client on bare sockets: it sends any bytes, and hangs up whenever it likes."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import websockets.sync.client

TIMEOUT_S = 20.0
_CHUNK = 65536


Address: TypeAlias = int | str
"""A port of the loopback interface, or the path of a Unix socket."""


@dataclass
class Answer:
    """What came back for one request."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key == name]


@dataclass
class Connection:
    """One TCP connection; use it as a context, for it to be closed."""

    address: Address
    _socket: socket.socket = field(init=False)
    _data: bytes = b""

    def __post_init__(self) -> None:
        self._socket = connect(self.address)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reset(self) -> None:
        """Close without a good-bye, as a machine that loses its power."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def close_half(self) -> None:
        """Send no more, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def read_until(self, mark: bytes) -> bytes:
        """All up to and with the mark; what the server sent when it closed before."""
        while mark not in self._data and self._fill():
            pass
        end = self._data.find(mark)
        cut = len(self._data) if end < 0 else end + len(mark)
        data, self._data = self._data[:cut], self._data[cut:]
        return data

    def read_answer(self, *, to_head: bool = False) -> Answer | None:
        """One whole response, interim ones passed over; None if the server closed instead."""
        head = self.read_until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):
            head = self.read_until(b"\r\n\r\n")
        if not head.endswith(b"\r\n\r\n"):
            return None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
        answer = Answer(int(first.split(" ")[1]), headers, b"")
        if not to_head and answer.status not in {204, 304}:
            answer.body = self._read_body(answer)
        return answer

    def _read_body(self, answer: Answer) -> bytes:
        if length := answer.all("content-length"):
            while len(self._data) < int(length[0]) and self._fill():
                pass
            body, self._data = self._data[: int(length[0])], self._data[int(length[0]) :]
            return body
        if answer.all("transfer-encoding") == ["chunked"]:
            return b"".join(self._read_chunks())
        while self._fill():
            pass
        return self._data

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.read_until(b"\r\n").strip() or b"0", 16):
            while len(self._data) < size + 2 and self._fill():
                pass
            yield self._data[:size]
            self._data = self._data[size + 2 :]
        self.read_until(b"\r\n")

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionError:
            return False
        self._data += data
        return bool(data)


@dataclass(frozen=True)
class Client:
    """Sends one request, known by its id, to one server."""

    address: Address
    request_id: str

    def head(
        self, target: str | bytes, *headers: bytes, method: str = "GET", version: str = "1.1"
    ) -> bytes:
        """The head of a request, without an end of its own if headers follow."""
        target = target.encode("latin-1") if isinstance(target, str) else target
        lines = [
            method.encode() + b" " + target + b" HTTP/" + version.encode(),
            b"Host: 127.0.0.1",
            b"X-Request-Id: " + self.request_id.encode(),
            *headers,
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def connect(self) -> Connection:
        return Connection(self.address)

    def ask(
        self, target: str | bytes, *headers: bytes, method: str = "GET", body: bytes = b""
    ) -> Answer | None:
        """One request on a connection of its own; None if the server just closed it."""
        if body:
            headers = (*headers, b"Content-Length: %d" % len(body))
        return self.exchange(
            self.head(target, *headers, method=method) + body, to_head=method == "HEAD"
        )

    def exchange(self, data: bytes, *, to_head: bool = False) -> Answer | None:
        """Send bytes on a connection of their own, and read one answer."""
        with self.connect() as connection:
            connection.send(data)
            return connection.read_answer(to_head=to_head)

    def read_all(self, data: bytes) -> bytes:
        """Send bytes, and read all that comes back until the server closes."""
        with self.connect() as connection:
            connection.send(data)
            return connection.read_until(b"\0never sent\0")

    def control(self, command: str) -> None:
        """Speak to what is under `/-/` of the served application."""
        answer = Client(self.address, "control").ask(f"/-/{command}/{self.request_id}")
        assert answer is not None
        assert answer.status == 200, command

    def wait_for_rows(self, count: int = 1) -> None:
        """Return when the rows are in the database."""
        answer = Client(self.address, "control").ask(f"/-/wait/{self.request_id}/{count}")
        assert answer is not None
        assert answer.status == 200, f"there are no {count} rows"

    @contextmanager
    def websocket(self, target: str, **options: Any) -> Iterator[Any]:
        """A WebSocket of the `websockets` package."""
        with websockets.sync.client.connect(
            f"ws://127.0.0.1:{self.address}{target}",
            additional_headers={"x-request-id": self.request_id},
            compression=None,
            open_timeout=TIMEOUT_S,
            close_timeout=1,
            proxy=None,
            **options,
        ) as connection:
            yield connection


def connect(address: Address) -> socket.socket:
    """A connected socket."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), TIMEOUT_S)
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(TIMEOUT_S)
    try:
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected
