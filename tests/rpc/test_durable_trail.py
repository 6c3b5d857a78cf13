"""From a client to PostgreSQL: what is answered is committed; otherwise nothing is answered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from rpc_client import Client
from rpc_handlers import SHAPES, Handlers
from rpc_interceptors import interceptor
from rpc_scene import every_shape
from rpc_servers import running_loop, serving
from rpc_steps import drain, send

from auditlog import AuditLog
from trail import fetch, quick

CALLS, AT_ONCE = 60, 8
OK, UNAVAILABLE = 0, 14
NOBODY = "postgresql://127.0.0.1:1/none?connect_timeout=1"
COMMITTED = (
    "SELECT metadata ->> 'audit.stage' FROM logstore.logs"
    " WHERE metadata ->> 'audit.request_id' = '{}' ORDER BY 1 DESC"
)


def test_answer_means_that_its_rows_are_committed(rpc_server: str, any_dsn: str) -> None:
    """Asked of the database by another connection, as soon as the client has its answer."""
    methods = [(kind, shape) for kind, shapes in SHAPES[rpc_server].items() for shape in shapes]
    with _served(rpc_server, any_dsn) as (_, channel), ThreadPoolExecutor(AT_ONCE) as pool:

        def call(number: int) -> tuple[int, list[str]]:
            kind, shape = methods[number % len(methods)]
            client = Client(channel)
            code = client.call(f"/rpc.Scene/{kind}.{shape}", kind).code
            return code, fetch(any_dsn, COMMITTED.format(client.request_id))

        found = list(pool.map(call, range(CALLS)))

    assert found == [(OK, ["received", "complete"])] * CALLS


def test_database_that_is_away_refuses_all_but_health_checks(rpc_server: str) -> None:
    """And every refusal is counted."""
    health = "/grpc.health.v1.Health/Check"
    with _served(rpc_server, NOBODY) as (audit, channel):
        method = f"/rpc.Scene/uu.{SHAPES[rpc_server]['uu'][0]}"
        codes = [Client(channel).call(method, "uu").code for _ in range(AT_ONCE)]
        healthy = Client(channel).call(health, "uu").code
        refused = audit.stats().refused

    assert codes == [UNAVAILABLE] * AT_ONCE
    assert healthy == OK
    assert refused == AT_ONCE


@contextmanager
def _served(server: str, dsn: str) -> Iterator[tuple[AuditLog, grpc.Channel]]:
    away = dsn == NOBODY
    settings = quick(
        durability="commit",
        commit_timeout_s=0.3 if away else 10.0,
        drain_timeout_s=0.1 if away else 20.0,
    )
    audit = AuditLog(dsn, settings=settings)
    methods = {method: each for method, (_, each) in every_shape(server, drain, send("a")).items()}
    methods["/grpc.health.v1.Health/Check"] = methods[f"/rpc.Scene/uu.{SHAPES[server]['uu'][0]}"]
    with (
        _writing(audit, server),
        serving(server, [Handlers(methods)], [interceptor(server, audit)]) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        yield audit, channel


@contextmanager
def _writing(audit: AuditLog, server: str) -> Iterator[None]:
    """On a loop, or on a thread of its own, as its server would have it."""
    if server == "threaded":
        with audit:
            yield
        return
    with running_loop() as run:
        run(audit.start())
        yield
        run(audit.aclose())
