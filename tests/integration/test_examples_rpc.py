import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import psycopg
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ALICE = (("authorization", "Bearer alice"),)
TIMEOUT_S = 20.0


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The modules that protoc has written, as a client of the examples imports them."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import shop_pb2  # noqa: PLC0415  # found in the examples' folder only
    import shop_pb2_grpc  # noqa: PLC0415

    return shop_pb2, shop_pb2_grpc


@contextmanager
def served(example: str, dsn: str, number: int = signal.SIGTERM) -> Iterator[grpc.Channel]:
    """Serve an example, as its docstring says; it must drain, and end well, at the signal."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{example}.py"), "--port", "0"],
        env={**os.environ, "AUDITLOG_DSN": dsn},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"serving on (127\.0\.0\.1:\d+)", process.stdout.readline())
        assert found
        with grpc.insecure_channel(found[1]) as channel:
            yield channel
    finally:
        process.send_signal(number)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "auditlog." not in complaints


def status_of(call: Any, request: Any, metadata: Any = None) -> grpc.StatusCode:
    """Make one unary call, and return its status."""
    try:
        call(request, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def rows(dsn: str, *columns: str) -> list[tuple[Any, ...]]:
    """What the example has left, in the order in which it happened."""
    query = "SELECT {} FROM logstore.logs ORDER BY occurrence_date, log_id"
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.format(", ".join(columns)).encode()).fetchall()


COLUMNS = ("request_method", "response_status", "user_id", "aggregate_id", "event_type")
IN, OUT = "(metadata -> 'audit.messages_in')::int", "(metadata -> 'audit.messages_out')::int"


def test_aio_example(shop: tuple[ModuleType, ModuleType], any_dsn: str) -> None:
    """Reads, a deletion with its user and its meaning, a refusal, and streams both ways."""
    pb2, pb2_grpc = shop
    with served("grpc_server", any_dsn) as channel:
        orders = pb2_grpc.OrdersStub(channel)
        request = pb2.OrderRequest(order_id="7")
        assert status_of(orders.Get, request) is grpc.StatusCode.OK
        missing = pb2.OrderRequest(order_id="404")
        assert status_of(orders.Get, missing, ALICE) is grpc.StatusCode.NOT_FOUND
        assert status_of(orders.Delete, request) is grpc.StatusCode.UNAUTHENTICATED
        assert status_of(orders.Delete, request, ALICE) is grpc.StatusCode.OK
        watched = orders.Watch(pb2.WatchRequest(order_id="7", count=3), timeout=TIMEOUT_S)
        assert [order.total_cents for order in watched] == [0, 1, 2]
        parts = (pb2.Part(order_id="7", content=b"x" * size) for size in (1, 20))
        assert orders.Upload(parts, timeout=TIMEOUT_S) == pb2.Receipt(parts=2, size_bytes=21)
    assert rows(any_dsn, *COLUMNS) == [
        ("Get", 0, None, None, None),
        ("Get", 5, "alice", None, None),
        ("Delete", 16, None, "7", "order.deleted"),
        ("Delete", 0, "alice", "7", "order.deleted"),
        ("Watch", 0, None, "7", None),
        ("Upload", 0, None, None, None),
    ]
    assert rows(any_dsn, "protocol", "request_url", IN, OUT)[3:] == [
        (2, "/shop.v1.Orders/Delete", None, None),
        (2, "/shop.v1.Orders/Watch", 1, 3),
        (2, "/shop.v1.Orders/Upload", 2, 1),
    ]
    said = rows(any_dsn, "metadata ->> 'retention'", "metadata ->> 'last_change'")
    assert said[3:5] == [("7 years", None), (None, "2")]


def test_threaded_example(shop: tuple[ModuleType, ModuleType], any_dsn: str) -> None:
    """The same from threads: abort, set_code, an exception, and streams of both directions."""
    pb2, pb2_grpc = shop
    with served("grpc_threaded", any_dsn, signal.SIGINT) as channel:
        orders = pb2_grpc.OrdersStub(channel)
        request = pb2.OrderRequest(order_id="7")
        assert status_of(orders.Get, request, ALICE) is grpc.StatusCode.OK
        missing, broken = (pb2.OrderRequest(order_id=number) for number in ("404", "13"))
        assert status_of(orders.Get, missing) is grpc.StatusCode.NOT_FOUND
        assert status_of(orders.Get, broken) is grpc.StatusCode.UNKNOWN
        assert status_of(orders.Delete, request) is grpc.StatusCode.UNAUTHENTICATED
        assert status_of(orders.Delete, request, ALICE) is grpc.StatusCode.OK
        watched = orders.Watch(pb2.WatchRequest(order_id="7", count=3), timeout=TIMEOUT_S)
        assert [order.total_cents for order in watched] == [0, 1, 2]
        notes = (pb2.Note(text=text) for text in ("a", "b"))
        assert [note.text for note in orders.Chat(notes, timeout=TIMEOUT_S)] == ["A", "B"]
        assert status_of(orders.Upload, iter(())) is grpc.StatusCode.UNIMPLEMENTED
    assert rows(any_dsn, *COLUMNS, IN, OUT) == [
        ("Get", 0, "alice", None, None, None, None),
        ("Get", 5, None, None, None, None, None),
        ("Get", 2, None, None, None, None, None),
        ("Delete", 16, None, "7", "order.deleted", None, None),
        ("Delete", 0, "alice", "7", "order.deleted", None, None),
        ("Watch", 0, None, None, None, 1, 3),
        ("Chat", 0, None, None, None, 2, 2),
        ("Upload", 12, None, None, None, 0, 0),
    ]
    errors = rows(any_dsn, "metadata ->> 'error.type'")
    assert errors[2] == ("RuntimeError",)
