"""Many RPCs at once, and RPCs that go on and on."""

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from grpc import StatusCode
from rpc_client import Client, look
from rpc_handlers import handler, make_handler
from rpc_scene import METHOD, Scene, echo, every_shape, scene
from rpc_steps import abort, drain, send
from rpc_trail import metadata

CALLS = 200
FEW, SOME, MANY = 1_000, 20_000, 200_000
KEPT_BYTES = 64 * 1024


def test_each_of_many_concurrent_rpcs_has_one_row(rpc_server: str) -> None:
    """Kinds, shapes and ends mixed; the rows are those that were sent, each once."""
    methods = every_shape(rpc_server, drain, send("a"))
    methods |= {
        f"{method}.aborts": (kind, handler(kind, method.rpartition(".")[2], steps))
        for steps in [(drain, abort(StatusCode.NOT_FOUND, "gone"))]
        for method, (kind, _) in methods.items()
        # See `Client.call_until_it_ends`.
        if (rpc_server, kind[1], method.rpartition(".")[2]) != ("aio", "s", "sync")
    }
    with scene(rpc_server, {method: each for method, (_, each) in methods.items()}) as ours:
        clients = [Client(ours.channel) for _ in range(CALLS)]
        sent = {}
        calls = []
        for number, client in enumerate(clients):
            method = list(methods)[number % len(methods)]
            kind = methods[method][0]
            sent[client.request_id] = method
            calls.append((client, kind, client.begin(method, kind, [b"", b""])))
        seen = {
            client.request_id: look(call, streams=kind[1] == "s").code
            for client, kind, call in calls
        }
        ours.trail.wait_for(CALLS)
        ours.running.stop(0)
        rows = ours.trail.rows()

    found = Counter(metadata(row)["audit.request_id"] for row in rows)
    assert found == Counter(dict.fromkeys(sent, 1))
    for row in rows:
        request_id = metadata(row)["audit.request_id"]
        assert row.request_url == sent[request_id]
        assert row.response_status == seen[request_id]
    assert len({row.log_id for row in rows}) in {1, CALLS}


def message_of(number: int) -> bytes:
    """Every one another, so that none is shared."""
    return b"%064d" % number


async def _pour_async(request: Any, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield message_of(number)


async def _write_async(request: Any, context: Any) -> None:
    for number in range(int(request)):
        await context.write(message_of(number))


def _pour(request: Any, context: Any) -> Iterator[bytes]:
    yield from map(message_of, range(int(request)))


async def _count_async(requests: Any, context: Any) -> bytes:
    count = 0
    async for _ in requests:
        count += 1
    return b"%d" % count


def _count(requests: Any, context: Any) -> bytes:
    return b"%d" % sum(1 for _ in requests)


STREAMS = [
    pytest.param("aio", "us", _pour_async, MANY, marks=pytest.mark.slow),
    ("aio", "us", _write_async, SOME),
    ("aio", "su", _count_async, SOME),
    pytest.param("threaded", "us", _pour, MANY, marks=pytest.mark.slow),
    ("threaded", "su", _count, SOME),
]


@pytest.mark.parametrize(("name", "kind", "behaviour", "count"), STREAMS)
def test_long_stream_costs_constant_memory(
    name: str, kind: str, behaviour: Any, count: int
) -> None:
    """It is counted to the last message; of that many, what is kept is a fraction."""
    with scene(name, {METHOD: make_handler(kind, behaviour, raw=True)}) as ours:
        _stream(Client(ours.channel), kind, FEW)
        gc.collect()
        before = sys.getallocatedblocks()
        client = Client(ours.channel)
        at_its_end = _stream(client, kind, count)
        row = ours.trail.one(client.request_id)

    said = metadata(row)
    counts = (said["audit.messages_in"], said["audit.messages_out"])
    assert counts == ((1, count) if kind == "us" else (count, 1))
    assert said["audit.bytes_out" if kind == "us" else "audit.bytes_in"] == 64 * count
    assert at_its_end - before < SOME / 4


def _stream(client: Client, kind: str, count: int) -> int:
    """Send or receive so many messages; return the memory blocks there are at the last one."""
    blocks = 0

    def messages() -> Iterator[bytes]:
        nonlocal blocks
        for number in range(count):
            yield message_of(number)
        blocks = sys.getallocatedblocks()

    if kind == "su":
        assert int(client.begin(METHOD, kind, messages(), timeout=100).result()) == count
        return blocks
    received = 0
    for _ in client.begin(METHOD, kind, [b"%d" % count], timeout=100):
        received += 1
        if received == count:
            blocks = sys.getallocatedblocks()
    assert received == count
    return blocks


def test_rpcs_one_after_the_other_leave_nothing_behind(rpc_server: str) -> None:
    """What one RPC keeps is gone with it, but for its row."""
    with scene(rpc_server, echo(rpc_server)) as ours:
        _call_many(ours, 100)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            _call_many(ours, 200)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    assert grown < KEPT_BYTES


def _call_many(ours: Scene, count: int) -> None:
    for _ in range(count):
        ours.row_of()
        ours.trail.records.clear()
    gc.collect()
