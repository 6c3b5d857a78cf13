"""A threaded gRPC server of raw bytes on a loopback port, its client, and a trail that waits."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from auditlog import LogRecord, Outcome, Settings
from auditlog.capture.grpc_sync import AuditInterceptor
from auditlog.records import Record
from auditlog.testing import MemorySink

WAIT_S = 10.0
MAKERS = {
    "uu": grpc.unary_unary_rpc_method_handler,
    "us": grpc.unary_stream_rpc_method_handler,
    "su": grpc.stream_unary_rpc_method_handler,
    "ss": grpc.stream_stream_rpc_method_handler,
}
# Not shared with another server: SO_REUSEPORT would let two of them listen on one port.
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 20))


class Trail(MemorySink):
    """Keeps rows, and lets a test wait for them."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._changed = threading.Condition()

    def submit(self, record: Record) -> Outcome:
        with self._changed:
            outcome = super().submit(record)
            self._changed.notify_all()
        return outcome

    def wait_for(self, count: int) -> list[LogRecord]:
        """Return all rows, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.records) >= count, WAIT_S), self.records
            assert not self.errors
            return [record for record in self.records if isinstance(record, LogRecord)]

    def one(self) -> LogRecord:
        """Wait for the only row."""
        (row,) = self.wait_for(1)
        return row


@dataclass
class Scene:
    """A running server and who talks to it."""

    server: grpc.Server
    channel: grpc.Channel
    target: str

    def call(self, method: str, request: bytes = b"", **options: Any) -> bytes:
        return bytes(self.channel.unary_unary(f"/t/{method}")(request, **options))

    def begin(self, method: str, request: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_unary(f"/t/{method}").future(request, **options)

    def watch(self, method: str, request: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_stream(f"/t/{method}")(request, **options)

    def upload(self, method: str, requests: Iterable[bytes], **options: Any) -> bytes:
        return bytes(self.channel.stream_unary(f"/t/{method}")(iter(requests), **options))

    def chat(self, method: str, requests: Iterable[bytes], **options: Any) -> Any:
        return self.channel.stream_stream(f"/t/{method}")(iter(requests), **options)

    def refused(self, method: str, **options: Any) -> grpc.StatusCode:
        """Call, and return the status, which must not be OK."""
        error = self.begin(method, **options).exception(WAIT_S)
        assert isinstance(error, grpc.RpcError)
        return error.code()


class Methods(grpc.GenericRpcHandler):
    """Handlers by `/t/name`."""

    def __init__(self, **handlers: Any) -> None:
        self.handlers = {f"/t/{name}": handler for name, handler in handlers.items()}

    def service(self, details: Any) -> Any:
        return self.handlers.get(details.method)


class Interceptor(grpc.ServerInterceptor):
    """Made of a function."""

    def __init__(self, intercept: Callable[[Any, Any], Any]) -> None:
        self._intercept = intercept

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._intercept(continuation, details)


def uu(behaviour: Any, *serializers: Any) -> Any:
    return MAKERS["uu"](behaviour, *serializers)


def us(behaviour: Any, *serializers: Any) -> Any:
    return MAKERS["us"](behaviour, *serializers)


def su(behaviour: Any, *serializers: Any) -> Any:
    return MAKERS["su"](behaviour, *serializers)


def ss(behaviour: Any, *serializers: Any) -> Any:
    return MAKERS["ss"](behaviour, *serializers)


@contextmanager
def serving(
    audit: Any,
    *,
    threads: int = 8,
    before: Iterable[Any] = (),
    behind: Iterable[Any] = (),
    limit: int | None = None,
    options: dict[str, Any] | None = None,
    **handlers: Any,
) -> Iterator[Scene]:
    """Serve, audited; None instead of a log: bare.

    Yields:
        The server and its client. In the end no handler runs any more.
    """
    ours = [] if audit is None else [AuditInterceptor(audit, **(options or {}))]
    with ThreadPoolExecutor(threads, thread_name_prefix="handler") as pool:
        server = grpc.server(
            pool,
            interceptors=[*before, *ours, *behind],
            options=OPTIONS,
            maximum_concurrent_rpcs=limit,
        )
        server.add_generic_rpc_handlers((Methods(**handlers),))
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        with grpc.insecure_channel(target) as channel:
            yield Scene(server, channel, target)
        assert server.stop(None).wait(WAIT_S)
