"""A server whose RPCs are limited: our two interceptors, and what counts in this process."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from rpc_client import Client, Seen
from rpc_scene import METHOD, Scene, scene
from rpc_trail import WAIT_S, Trail

from auditlog import LogRecord
from auditlog.quota.model import Decision, Quota
from auditlog.testing import MemoryQuotas

MODULES = {"aio": "auditlog.quota.grpc_aio", "threaded": "auditlog.quota.grpc_sync"}
OK, UNKNOWN, USED_UP, NOT_THERE, UNAVAILABLE = 0, 2, 8, 12, 14
DETAILS, PUSHBACK = "grpc-status-details-bin", "grpc-retry-pushback-ms"


class ToldQuotas(MemoryQuotas):
    """Tells when something is given back, or charged afterwards."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.settled = threading.Semaphore(0)

    def give_back(self, decision: Decision) -> None:
        super().give_back(decision)
        self.settled.release()

    def charge(self, *arguments: Any) -> None:
        super().charge(*arguments)
        self.settled.release()


@dataclass(frozen=True)
class LimitedScene:
    """A server, and what its quotas have counted."""

    scene: Scene
    quotas: ToldQuotas

    @property
    def trail(self) -> Trail:
        return self.scene.trail

    def call(self, method: str = METHOD, kind: str = "uu", **options: Any) -> Seen:
        return self.scene.call(method, kind, **options)

    def codes(
        self, count: int, method: str = METHOD, kind: str = "uu", **options: Any
    ) -> list[int]:
        """Make some RPCs, one after the other."""
        return [self.call(method, kind, **options).code for _ in range(count)]

    def settled(self) -> bool:
        """Wait until something was given back, or charged."""
        return self.quotas.settled.acquire(timeout=WAIT_S)

    def seen_and_row(
        self, method: str = METHOD, kind: str = "uu", **options: Any
    ) -> tuple[Seen, LogRecord]:
        client = Client(self.scene.channel)
        return client.call(method, kind, **options), self.trail.one(client.request_id)


def quota_interceptor(server: str, quotas: Any, **options: Any) -> Any:
    return import_module(MODULES[server]).QuotaInterceptor(quotas, **options)


@contextmanager
def limited(
    server: str,
    methods: Mapping[str, grpc.RpcMethodHandler],
    *limits: Quota,
    trail: Trail | None = None,
    key: Any = None,
    between: Sequence[Any] = (),
    behind: Sequence[Any] = (),
    **options: Any,
) -> Iterator[LimitedScene]:
    """Serve methods with both interceptors, and others `between` and `behind` the two."""
    trail = trail or Trail()
    quotas = ToldQuotas(trail, limits)
    ours = [*between, quota_interceptor(server, quotas, key=key), *behind]
    with scene(server, methods, audit=trail, behind=ours, **options) as found:
        yield LimitedScene(found, quotas)


def detail(seen: Seen, kind: type[Message]) -> Any:
    """Read one of the details that came with a status."""
    status = Status.FromString(dict(seen.trailing)[DETAILS])
    assert (status.code, status.message) == (seen.code, seen.details)
    message = kind()
    assert any(each.Unpack(message) for each in status.details), status
    return message
