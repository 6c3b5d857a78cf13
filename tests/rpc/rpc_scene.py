"""One test's own server: its methods, its interceptors around ours, and a client's channel."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from rpc_client import Client, Seen
from rpc_handlers import SHAPES, Handlers, handler, make_handler
from rpc_interceptors import interceptor
from rpc_servers import Running, serving
from rpc_steps import Step
from rpc_trail import Trail, metadata

from auditlog import LogRecord

METHOD = "/rpc.Scene/Method"


@dataclass(frozen=True)
class Scene:
    """A server, the way to it, and the rows that it leaves."""

    running: Running
    channel: grpc.Channel
    trail: Trail

    def call(self, method: str = METHOD, kind: str = "uu", **options: Any) -> Seen:
        return Client(self.channel).call(method, kind, **options)

    def row_of(self, method: str = METHOD, kind: str = "uu", **options: Any) -> LogRecord:
        """Make an RPC and return its row."""
        client = Client(self.channel)
        client.call(method, kind, **options)
        return self.trail.one(client.request_id)

    def metadata_of(self, method: str = METHOD, kind: str = "uu", **options: Any) -> dict[str, Any]:
        return metadata(self.row_of(method, kind, **options))


@contextmanager
def scene(
    server: str,
    methods: Mapping[str, grpc.RpcMethodHandler],
    *,
    audit: Any = None,
    before: Sequence[Any] = (),
    behind: Sequence[Any] = (),
    channel_credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
    interceptor_options: Mapping[str, Any] | None = None,
    **serving_options: Any,
) -> Iterator[Scene]:
    """Serve methods with our interceptor between others."""
    trail = Trail() if audit is None else audit
    ours = interceptor(server, trail, **(interceptor_options or {}))
    handlers = [Handlers(dict(methods))]
    with serving(server, handlers, [*before, ours, *behind], **serving_options) as running:
        if channel_credentials is None:
            channel = grpc.insecure_channel(running.target, options=options)
        else:
            channel = grpc.secure_channel(running.target, channel_credentials, options=options)
        with channel:
            yield Scene(running, channel, trail)


def one(server: str, *steps: Step, kind: str = "uu") -> dict[str, grpc.RpcMethodHandler]:
    """A single method in the server's most usual shape."""
    return {METHOD: handler(kind, SHAPES[server][kind][0], steps)}


def every_shape(server: str, *steps: Step) -> dict[str, tuple[str, grpc.RpcMethodHandler]]:
    """The same steps in all kinds and shapes: name of the method → kind and handler."""
    return {
        f"/rpc.Scene/{kind}.{shape}": (kind, handler(kind, shape, steps))
        for kind, shapes in SHAPES[server].items()
        for shape in shapes
    }


def echo(server: str, *, raw: bool = True) -> dict[str, grpc.RpcMethodHandler]:
    """A method that answers with what it gets, without protobuf."""
    return {METHOD: make_handler("uu", _echo_async if server == "aio" else _echo, raw=raw)}


async def _echo_async(request: Any, context: Any) -> Any:
    return request


def _echo(request: Any, context: Any) -> Any:
    return request
