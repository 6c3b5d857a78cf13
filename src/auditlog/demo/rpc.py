"""The gRPC door of the demo's application: the same orders, as JSON, without generated code.

`serving` runs it on the loop of the web application, with the interceptor or without. The methods
are what a service has: quick and slow ones, streams, refusals, and a defect.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio

from auditlog import annotate
from auditlog.demo.rpc_client import SERVICE

GRACE_S = 2.0
# Longer than any client of the demo waits.
_LONG_S = 30.0

Message: TypeAlias = dict[str, Any]


@asynccontextmanager
async def serving(*interceptors: Any) -> AsyncIterator[int]:
    """Serve on a free port of the loopback interface, which it gives."""
    server = grpc.aio.server(interceptors=interceptors)
    server.add_generic_rpc_handlers((_service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(GRACE_S)


class _Orders:
    def __init__(self) -> None:
        self._numbers = itertools.count(101)

    async def read(self, request: Message, context: Any) -> Message:
        """Read one thing: OK or NOT_FOUND."""
        annotate(aggregate=("order", request["id"]))
        if request["id"] > 100:  # noqa: PLR2004  # as many as the demo's shop has
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no order {request['id']}")
        return {"id": request["id"], "item": "chair"}

    async def create(self, request: Message, context: Any) -> Message:
        """Write, for those who say who they are."""
        user = _user(context)
        if user is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        number = next(self._numbers)
        annotate(aggregate=("order", number), event_type="order.created")
        return {"id": number, "item": request["item"]}

    async def delete(self, request: Message, context: Any) -> Message:
        """Refuse everybody but administrators, without an exception."""
        annotate(aggregate=("order", request["id"]), event_type="order.deleted")
        if _user(context) != "alice":
            context.set_code(grpc.StatusCode.PERMISSION_DENIED)
            context.set_details("only administrators delete orders")
        return {}

    async def export(self, request: Message, _context: Any) -> AsyncIterator[Message]:
        """Stream an answer; a client may have enough before its end."""
        for number in range(request["count"]):
            yield {"id": number, "item": "chair"}
            await asyncio.sleep(request.get("pause_s", 0.0))

    async def upload(self, parts: AsyncIterator[Message], _context: Any) -> Message:
        """Take in a stream."""
        return {"parts": len([part async for part in parts])}

    async def talk(self, _request: Any, context: Any) -> None:
        """Read and write in turn, by the context's own methods."""
        while (note := await context.read()) is not grpc.aio.EOF:
            await context.write({"heard": note})

    async def wait(self, _request: Message, _context: Any) -> Message:
        """Work longer than the client's deadline or patience."""
        await asyncio.sleep(_LONG_S)
        return {}

    async def fail(self, _request: Message, _context: Any) -> Message:
        """Raise what nobody expected."""
        raise RuntimeError("a defect of the demo's application")


def _service() -> grpc.GenericRpcHandler:
    orders = _Orders()
    unary = grpc.unary_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Read": unary(orders.read, json.loads, _dump),
            "Create": unary(orders.create, json.loads, _dump),
            "Delete": unary(orders.delete, json.loads, _dump),
            "Export": grpc.unary_stream_rpc_method_handler(orders.export, json.loads, _dump),
            "Upload": grpc.stream_unary_rpc_method_handler(orders.upload, json.loads, _dump),
            "Talk": grpc.stream_stream_rpc_method_handler(orders.talk, json.loads, _dump),
            "Wait": unary(orders.wait, json.loads, _dump),
            "Fail": unary(orders.fail, json.loads, _dump),
        },
    )


def _user(context: Any) -> str | None:
    """Believe the token: this is a demo, and the trail is what it shows."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and value.startswith("Bearer "):
            user: str = value.removeprefix("Bearer ")
            annotate(user_id=user, resource_owner="acme")
            return user
    return None


def _dump(message: Message) -> bytes:
    return json.dumps(message).encode()
