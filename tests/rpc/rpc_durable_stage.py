"""The servers of the table in the strict modes, each beside a bare one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import rpc_table
from rpc_durable_trail import DurableTrail, settings_of
from rpc_handlers import Handlers, handler
from rpc_interceptors import interceptor
from rpc_servers import serving


@dataclass(frozen=True)
class StrictStage:
    """A server with all handlers of the table, bare and strictly audited."""

    bare: grpc.Channel
    audited: grpc.Channel
    trail: DurableTrail


@contextmanager
def strict_stage(server: str, durability: str) -> Iterator[StrictStage]:
    trail = DurableTrail(settings_of(durability))
    methods = {
        row.method: handler(
            row.kind,
            row.shape,
            row.case.steps,
            serializer=row.case.serializer,
            deserializer=row.case.deserializer,
        )
        for row in rpc_table.ROWS
        if row.server == server
    }
    with (
        serving(server, [Handlers(methods)]) as bare,
        serving(server, [Handlers(methods)], [interceptor(server, trail)]) as audited,
        grpc.insecure_channel(bare.target) as to_bare,
        grpc.insecure_channel(audited.target) as to_audited,
    ):
        yield StrictStage(to_bare, to_audited, trail)
