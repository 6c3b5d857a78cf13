"""From a client to PostgreSQL: two servers on one quota, and every refusal in the trail."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
from rpc_client import Client
from rpc_handlers import Handlers, make_handler
from rpc_interceptors import interceptor
from rpc_quota_scene import OK, USED_UP, quota_interceptor
from rpc_scene import METHOD, echo
from rpc_servers import running_loop, serving

from auditlog import AuditLog
from auditlog.quota.model import Quota
from auditlog.quota.quotas import Quotas
from trail import fetch, quick

PLAIN = "/rpc.Scene/Plain"
LIMIT, CALLS, AT_ONCE = 20, 60, 8
REFUSED = (
    "SELECT response_status FROM logstore.logs WHERE metadata ->> 'audit.quota_refused' = 'calls'"
)
TOLD = "SELECT allowed FROM logstore.quota_logs"


def test_two_servers_share_a_quota(rpc_server: str, any_dsn: str) -> None:
    """Together they allow what the limit says, and every refusal is a row in both tables."""
    with ExitStack() as stack:
        channels = [stack.enter_context(_served(rpc_server, any_dsn)) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))

        def call(number: int) -> int:
            method = (METHOD, PLAIN)[number // 2 % 2]
            return Client(channels[number % 2]).call(method, "uu").code

        codes = [*pool.map(call, range(CALLS))]

    refused = CALLS - LIMIT
    assert sorted(codes) == [OK] * LIMIT + [USED_UP] * refused
    assert fetch(any_dsn, REFUSED) == [USED_UP] * refused
    assert fetch(any_dsn, TOLD) == [False] * refused


def _plain(request: Any, context: Any) -> Any:
    """On an asyncio server, in a thread of its own."""
    return request


@contextmanager
def _served(server: str, dsn: str) -> Iterator[grpc.Channel]:
    audit = AuditLog(dsn, settings=quick())
    quotas = Quotas(audit, [Quota("calls", LIMIT, "day", exact=True)], timeout_s=10)
    interceptors = [interceptor(server, audit), quota_interceptor(server, quotas)]
    methods = {**echo(server), PLAIN: make_handler("uu", _plain, raw=True)}
    with (
        _writing(server, audit, quotas),
        serving(server, [Handlers(methods)], interceptors) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        yield channel


@contextmanager
def _writing(server: str, audit: AuditLog, quotas: Quotas) -> Iterator[None]:
    """On a loop, or on threads of their own, as the server would have it."""
    if server == "threaded":
        with audit, quotas:
            yield
        return
    with running_loop() as run:
        run(audit.start())
        run(quotas.start())
        yield
        run(quotas.aclose())
        run(audit.aclose())
