"""From a client to the rows of a real PostgreSQL, joined request by request."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from rpc_client import Client, look
from rpc_handlers import SHAPES, Handlers, handler
from rpc_interceptors import interceptor
from rpc_scene import every_shape
from rpc_servers import running_loop, serving
from rpc_steps import abort, drain, fail, say, send

from auditlog import AuditLog
from auditlog.records import Protocol
from trail import adds_up, quick, rows

CALLS = 120


def test_rows_of_the_database_are_what_clients_saw(rpc_server: str, any_dsn: str) -> None:
    """Method, status, user and message of each, and not one row more."""
    methods = _methods(rpc_server)
    handlers = [Handlers({method: each for method, (_, each) in methods.items()})]
    with (
        _written(rpc_server, any_dsn) as audit,
        serving(rpc_server, handlers, [interceptor(rpc_server, audit)]) as running,
        grpc.insecure_channel(running.target) as channel,
        ThreadPoolExecutor(16) as pool,
    ):

        def call(number: int) -> tuple[str, tuple[Any, ...]]:
            method = list(methods)[number % len(methods)]
            kind = methods[method][0]
            client = Client(channel)
            seen = look(client.begin(method, kind, [b"", b""]), streams=kind[1] == "s")
            return client.request_id, (method, seen.code)

        sent = dict(pool.map(call, range(CALLS)))
        running.stop(10)
    found = {
        row["metadata"]["audit.request_id"]: (row["request_url"], row["response_status"])
        for row in rows(any_dsn)
    }

    assert found == sent
    assert len(rows(any_dsn)) == CALLS
    assert adds_up(audit.stats())
    for row in rows(any_dsn):
        assert (row["protocol"], row["user_id"]) == (Protocol.GRPC, "alice")
        assert row["request_method"] == row["request_url"].rpartition("/")[2]
        assert row["metadata"]["network.peer.address"] == "127.0.0.1"
        assert row["request_headers"]["x-request-id"] == [row["metadata"]["audit.request_id"]]


def _methods(server: str) -> dict[str, tuple[str, grpc.RpcMethodHandler]]:
    endings = {
        "returns": send("a"),
        "aborts": abort(grpc.StatusCode.NOT_FOUND, "gone"),
        "raises": fail(RuntimeError),
    }
    return {
        f"{method}.{ending}": (
            kind,
            handler(kind, _shape_of(server, method), (drain, say(user_id="alice"), last)),
        )
        for ending, last in endings.items()
        for method, (kind, _) in every_shape(server).items()
        # See `Client.call_until_it_ends`.
        if ending == "returns" or (server, kind[1], method[-4:]) != ("aio", "s", "sync")
    }


def _shape_of(server: str, method: str) -> str:
    kind, shape = method.rpartition("/")[2].split(".", 1)
    assert shape in SHAPES[server][kind]
    return shape


@contextmanager
def _written(server: str, dsn: str) -> Iterator[AuditLog]:
    """A log that writes on a loop, or on a thread of its own, as its server would have it."""
    audit = AuditLog(dsn, settings=quick())
    if server == "threaded":
        with audit:
            yield audit
        return
    run: Callable[[Any], Any]
    with running_loop() as run:
        run(audit.start())
        yield audit
        run(audit.aclose())
