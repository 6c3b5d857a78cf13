r"""A gRPC server with threads and an audit trail: one row in PostgreSQL for every call.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded,grpc]' protobuf
    AUDITLOG_DSN=embedded:./trail python examples/grpc_threaded.py --port 50051

    grpcurl -plaintext -import-path examples -proto shop.proto -H 'authorization: Bearer alice' \
        -d '{"order_id": "7"}' 127.0.0.1:50051 shop.v1.Orders/Get
    auditlog tail --dsn embedded:./trail

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

import argparse
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import shop_pb2
import shop_pb2_grpc

from auditlog import AuditLog, annotate
from auditlog.capture.grpc_sync import AuditInterceptor

GRACE_S = 5.0


def user_of(context: Any) -> str | None:
    """Name the user of every call in one place; asked only where no handler has named him."""
    metadata = dict(context.invocation_metadata())
    return metadata.get("authorization", "").removeprefix("Bearer ") or None


class Orders(shop_pb2_grpc.OrdersServicer):
    """A small shop: order 404 is the one that does not exist, and order 13 is a defect."""

    def Get(self, request: Any, context: Any) -> shop_pb2.Order:
        """Method, status, time, peer and much else are stored without a word from here."""
        if request.order_id == "404":
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such order")
        if request.order_id == "13":
            raise RuntimeError("nobody expected that")  # the row says UNKNOWN, as the client does
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_OPEN)

    def Delete(self, request: Any, context: Any) -> shop_pb2.Order:
        """What only the application knows, it says: to what it was done, and what it means."""
        annotate(aggregate=("order", request.order_id), event_type="order.deleted")
        if user_of(context) is None:
            context.set_code(grpc.StatusCode.UNAUTHENTICATED)  # without an exception, if you like
            return shop_pb2.Order()
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_CANCELLED)

    def Watch(self, request: Any, context: Any) -> Iterator[shop_pb2.Order]:
        """A stream is one row, written at its end; handlers of every kind annotate."""
        for number in range(request.count):
            annotate(last_change=number)
            yield shop_pb2.Order(order_id=request.order_id, total_cents=number)

    def Chat(self, requests: Iterator[Any], context: Any) -> Iterator[shop_pb2.Note]:
        """Messages and bytes of both directions are counted, and their content is not stored."""
        for note in requests:
            yield shop_pb2.Note(text=note.text.upper(), number=note.number)


def main() -> None:
    parser = argparse.ArgumentParser(description="A shop's orders, with an audit trail.")
    parser.add_argument("--port", type=int, default=50051, help="0: any that is free")
    port = parser.parse_args().port

    # The whole set-up. AuditLog() writes to where AUDITLOG_DSN says, from a thread of its own.
    with AuditLog() as audit:
        server = grpc.server(
            ThreadPoolExecutor(max_workers=10),
            interceptors=[AuditInterceptor(audit, user_id=user_of)],
        )
        shop_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()

        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        print(f"serving on 127.0.0.1:{port}", flush=True)
        stopped.wait()
        server.stop(GRACE_S).wait()
    # Everything recorded is in the database now; only handlers that outlived the grace come later.


if __name__ == "__main__":
    main()
