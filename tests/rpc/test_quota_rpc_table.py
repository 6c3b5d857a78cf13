"""What is within its quotas passes as if there were none: part of the table, and a bare server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
import rpc_table
from rpc_case import Row
from rpc_client import Client
from rpc_handlers import Handlers, handler
from rpc_quota_scene import LimitedScene, limited
from rpc_servers import SERVERS, serving

from auditlog.quota.model import Quota

# One row in so many: most cases, and every shape of a handler many times.
STEP = 5
ROWS = [row for row in rpc_table.ROWS if row.case.comparable][::STEP]
PLENTY = (Quota("calls", 10**6, "day"), Quota("volume", 10**9, "day", counts="bytes"))


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, tuple[grpc.Channel, LimitedScene]]]:
    """A bare server and a limited one, by kind."""
    with ExitStack() as stack:
        yield {server: stack.enter_context(_pair(server)) for server in SERVERS}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_client_sees_the_same_as_without_quotas(
    row: Row, pairs: dict[str, tuple[grpc.Channel, LimitedScene]]
) -> None:
    """Code, details, metadata of both ends, messages in their order, and the exception's type."""
    bare, ours = pairs[row.server]
    assert row.talk(Client(ours.scene.channel)) == row.talk(Client(bare))


@contextmanager
def _pair(server: str) -> Iterator[tuple[grpc.Channel, LimitedScene]]:
    methods = {
        row.method: handler(
            row.kind,
            row.shape,
            row.case.steps,
            serializer=row.case.serializer,
            deserializer=row.case.deserializer,
        )
        for row in ROWS
        if row.server == server
    }
    with (
        serving(server, [Handlers(methods)]) as running,
        grpc.insecure_channel(running.target) as bare,
        limited(server, methods, *PLENTY) as ours,
    ):
        yield bare, ours
