"""A client in a process of its own: requests over kept connections, on plain sockets.

It sends as fast as it is answered (closed loop) or at a fixed rate (open loop). In the open loop a
request's time counts from the moment when it was due, also when no connection was free for it: a
slow answer is not hidden by the requests that it held back.

    python -m benchmarks.load PORT CONNECTIONS SECONDS [RATE]

Prints one JSON object. All answers must be alike to the byte, as those of one plain route are.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import deque

from benchmarks.workload import HEADERS, PATH

ANSWER_TIMEOUT_S = 10.0


class Connection:
    """One kept connection with at most one request on it."""

    request = b"".join(
        (
            f"GET {PATH} HTTP/1.1\r\n".encode(),
            *(name + b": " + value + b"\r\n" for name, value in HEADERS),
            b"\r\n",
        )
    )

    def __init__(self, port: int) -> None:
        self.due = 0.0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._missing = 0
        self._size = 0
        self.send(0.0)
        self._size = self._read_first()

    def fileno(self) -> int:
        """What `select` waits for."""
        return self._socket.fileno()

    def send(self, due: float) -> None:
        """Send the request; `due` is when it should have been sent."""
        self.due = due
        self._missing = self._size
        self._socket.send(self.request)

    def receive(self) -> bool:
        """Read what is there; whether that was the end of the answer."""
        data = self._socket.recv(65536)
        if not data or (self._missing == self._size and not data.startswith(b"HTTP/1.1 200 ")):
            raise ConnectionError(f"the server answered {data[:80]!r}")
        self._missing -= len(data)
        return self._missing <= 0

    def _read_first(self) -> int:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += self._socket.recv(65536)
        return len(head) + 4 + length


def drive(connections: list[Connection], seconds: float, rate: float | None) -> list[float]:
    """Send for so long; return how long each answer took, in seconds."""
    idle, busy = deque(connections), set[Connection]()
    took: list[float] = []
    due = time.perf_counter()
    end = due + seconds
    while True:
        now = time.perf_counter()
        while idle and (due <= now if rate else now < end) and due < end:
            connection = idle.popleft()
            connection.send(due if rate else now)
            busy.add(connection)
            due += 1 / rate if rate else 0
        over = due >= end or (not rate and now >= end)
        if over and not busy:
            return took
        wait = max(0.0, due - now) if rate and idle and not over else ANSWER_TIMEOUT_S
        readable, _, _ = select.select(busy, (), (), wait)
        if not readable and wait == ANSWER_TIMEOUT_S:
            raise TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:g} s")
        for connection in readable:
            if connection.receive():
                took.append(time.perf_counter() - connection.due)
                busy.remove(connection)
                idle.append(connection)


def main() -> None:
    """Do what the command line says."""
    port, count, seconds, *rate = sys.argv[1:]
    connections = [Connection(int(port)) for _ in range(int(count))]
    gc.disable()
    started, cpu = time.perf_counter(), time.process_time()
    took = drive(connections, float(seconds), float(rate[0]) if rate else None)
    elapsed = time.perf_counter() - started
    took.sort()
    figures = {
        # The first request of each connection came before the clock was started.
        "sent": len(took) + len(connections),
        "per_second": len(took) / elapsed,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "cpu": (time.process_time() - cpu) / elapsed,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
