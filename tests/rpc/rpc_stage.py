"""The servers of the table: one bare, one audited, both with the handlers of all its rows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc
import rpc_table
from rpc_handlers import Handlers, handler
from rpc_interceptors import interceptor
from rpc_servers import serving
from rpc_trail import Trail


@dataclass(frozen=True)
class Stage:
    """A server with all handlers of the table, bare and audited."""

    bare: grpc.Channel
    audited: grpc.Channel
    trail: Trail


class Stages(dict[str, Stage]):
    """Starts a server when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, server: str) -> Stage:
        self[server] = self._stack.enter_context(_stage(server))
        return self[server]


@contextmanager
def _stage(server: str) -> Iterator[Stage]:
    trail = Trail()
    handlers = [
        Handlers(
            {
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
        )
    ]
    with (
        serving(server, handlers) as bare,
        serving(server, handlers, [interceptor(server, trail)]) as audited,
        grpc.insecure_channel(bare.target) as to_bare,
        grpc.insecure_channel(audited.target) as to_audited,
    ):
        yield Stage(to_bare, to_audited, trail)
