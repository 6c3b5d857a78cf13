"""Traffic: several clients in one thread, each with a connection, at a rate, through restarts.

Every request is in the journal before it goes out, every answer when it has been read whole. What
a request asks for is chosen by the seed: most are quick, some wait, some stream, some are refused,
some are long.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fault_http import Connection
from fault_journal import REFUSED, Journal

METHOD = "/faults.Requests/Call"
WAIT_S = 60.0
"""How long to wait for what must happen; nothing is measured by it."""
AGAIN_S = 0.02
"""How soon to try again where nobody listens: longer than a failing connect takes."""
GRPC_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))

Ask = Callable[[str, str], Awaitable[int]]
"""Target and request id → status."""


class Client:
    """A context: traffic flows in it.

    Args:
        port: Of the service, on loopback; it may be away at times.
        journal: Where to write.
        run: Begins each request's id; of this client alone.
        kind: `asgi`, or one of the gRPC servers.
        rate: Requests a second, of all clients together.
        clients: How many are at it at once.
        seed: Of what the requests ask for.
        user: Gives what the user of a request begins with, by its number.
    """

    def __init__(
        self,
        port: int,
        journal: Path,
        run: str,
        *,
        kind: str = "asgi",
        rate: float = 500,
        clients: int = 8,
        seed: int = 0,
        user: Callable[[int], str] = lambda _: "u",
    ) -> None:
        self.journal = Journal(journal)
        self.answered = 0
        """Whole answers, 503 too."""
        self._port = port
        self._run_name = run
        self._kind = kind
        self._pause_s = clients / rate
        self._clients = clients
        self._random = random.Random(seed)  # noqa: S311  # a scenario, not a secret
        self._user = user
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"client {run}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let the requests under way end, and return when they have."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(WAIT_S)
        if self._error is not None:
            raise self._error

    def flow(self, answers: int = 20) -> None:
        """Return when so many answers more have been read: requests do not stand still."""
        with self._changed:
            goal = self.answered + answers
            flowing = self._changed.wait_for(lambda: self.answered >= goal or self._error, WAIT_S)
        assert flowing, f"no {answers} answers within {WAIT_S} s: requests stand still"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._run_clients())
        except BaseException as error:  # noqa: BLE001  # told to whoever stops the client
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self.journal.close()

    async def _run_clients(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._http() if self._kind == "asgi" else self._rpc())

    async def _http(self) -> None:
        connection = Connection(self._port)

        async def ask(target: str, identity: str) -> int:
            answer = await connection.get(target, identity)
            if answer.status != REFUSED:
                assert answer.body == identity.encode(), answer
            return answer.status

        try:
            await self._keep_asking(connection.connect, ask)
        finally:
            connection.close()

    async def _rpc(self) -> None:
        import grpc.aio  # noqa: PLC0415  # only where gRPC is spoken

        options = (
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100),
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
            call = channel.unary_unary(METHOD)

            async def connect() -> None:
                async with asyncio.timeout(1):
                    await channel.channel_ready()

            async def ask(target: str, identity: str) -> int:
                try:
                    await call(target.encode(), metadata=(("x-request-id", identity),), timeout=30)
                except grpc.aio.AioRpcError as error:
                    return _status_of(error)
                return 200

            await self._keep_asking(connect, ask)

    async def _keep_asking(self, connect: Callable[[], Awaitable[Any]], ask: Ask) -> None:
        while not self._stopped.is_set():
            try:
                await connect()
            except (OSError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
                continue
            await self._ask_once(ask)
            await asyncio.sleep(self._random.uniform(0, 2 * self._pause_s))

    async def _ask_once(self, ask: Ask) -> None:
        number = next(self._numbers)
        identity = f"{self._run_name}-{number}"
        target = self._target(identity, number)
        self.journal.sent(identity)
        try:
            status = await ask(target, identity)
        except (OSError, EOFError, TimeoutError) as error:
            self.journal.failed(identity, type(error).__name__)
            return
        self.journal.answered(identity, status)
        with self._changed:
            self.answered += 1
            self._changed.notify_all()

    def _target(self, identity: str, number: int) -> str:
        asked = self._random.choices(
            ("", "wait=0.02", "parts=1", "status=403", "pad=3000"), (70, 10, 5, 5, 10)
        )
        # All that is left to know a row by when its texts had to be left out.
        asked.append(f"user={self._user(number)}.{identity}")
        return f"/r/{identity}?{'&'.join(asked)}"


def _status_of(error: Any) -> int:
    """Return the HTTP status that says the same; only what the service itself said is an answer.

    Raises:
        OSError: the call was cut, or its answer cannot be told from that.
    """
    name = error.code().name
    if name == "PERMISSION_DENIED":
        return 403
    if name == "UNAVAILABLE" and "audit" in (error.details() or ""):
        return REFUSED
    raise OSError(f"{name}: {error.details()}")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that no signal tells of; looks every few milliseconds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time: {what}"
        time.sleep(0.01)
