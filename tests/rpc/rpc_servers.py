"""Real servers on loopback ports: grpc.aio with a loop on a thread of its own, and grpc.server."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

SERVERS = ("aio", "threaded")
THREADS = 32
# Not shared with another server: SO_REUSEPORT would let two of them listen on one port.
OPTIONS = (("grpc.so_reuseport", 0),)
STOP_TIMEOUT_S = 20.0
Started: TypeAlias = tuple[Any, Callable[..., Any]]
"""A server, and how a function of its is called."""


@dataclass(frozen=True)
class Running:
    """A server that answers at `target`."""

    kind: str
    target: str
    stop: Callable[[float | None], None]
    """Stop with this grace, and return when nothing runs any more."""


@contextmanager
def serving(
    kind: str,
    handlers: Sequence[grpc.GenericRpcHandler] = (),
    interceptors: Sequence[Any] = (),
    *,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
    register: Callable[[Any], None] | None = None,
    threads: int = THREADS,
    most_at_once: int | None = None,
) -> Iterator[Running]:
    """Serve handlers; `register` adds generated ones, as `add_…Servicer_to_server` does.

    Yields:
        The server, which is stopped at once in the end.
    """
    start = _start_aio if kind == "aio" else _start_threaded
    arguments = {"interceptors": tuple(interceptors), "maximum_concurrent_rpcs": most_at_once}
    with start(threads, **arguments) as (server, call):
        if register is not None:
            register(server)
        server.add_generic_rpc_handlers(tuple(handlers))
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        call(server.start)
        target = address if address.startswith("unix:") else _with_port(address, port)
        try:
            yield Running(kind, target, lambda grace: _stop(call, server, grace))
        finally:
            stopped = call(server.stop, 0)
            if isinstance(stopped, threading.Event):
                # Not for ever: a request stream with garbage in it keeps grpcio 1.85 from stopping.
                stopped.wait(1)


def _stop(call: Callable[..., Any], server: Any, grace: float | None) -> None:
    stopped = call(server.stop, grace)
    if isinstance(stopped, threading.Event):
        assert stopped.wait(STOP_TIMEOUT_S)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


@contextmanager
def _start_threaded(threads: int, **arguments: Any) -> Iterator[Started]:
    with ThreadPoolExecutor(threads, thread_name_prefix="handler") as pool:
        server = grpc.server(pool, options=OPTIONS, **arguments)
        yield server, lambda function, *arguments: function(*arguments)


@contextmanager
def _start_aio(threads: int, **arguments: Any) -> Iterator[Started]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="handler")

    async def make() -> Any:
        return grpc.aio.server(pool, options=OPTIONS, **arguments)

    with running_loop() as run:
        try:
            yield run(make()), lambda function, *arguments: run(function(*arguments))
        finally:
            # A handler in a thread that reads or writes when its RPC is over waits for ever.
            pool.shutdown(wait=False)
            while any(thread.is_alive() for thread in pool._threads):
                run(_cancel_tasks())


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=0.05) if tasks else await asyncio.sleep(0.005)


@contextmanager
def running_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Run a loop on a thread of its own.

    Yields:
        Runs a coroutine there and returns its result.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aio server")
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(
            STOP_TIMEOUT_S
        )
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT_S)
        loop.close()
