"""Many RPCs at once, and RPCs that go on and on."""

import gc
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
MESSAGES = 10_000
MANY_MESSAGES = 200_000
SAMPLE = 2_000
# Far less than the messages themselves, if all of them were kept.
KEPT_BYTES = 256 * 1024


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


STREAMS = [("aio", "us", _pour_async), ("aio", "us", _write_async), ("aio", "su", _count_async)]
STREAMS += [("threaded", "us", _pour), ("threaded", "su", _count)]


@pytest.mark.parametrize(("name", "kind", "behaviour"), STREAMS)
def test_long_stream_costs_constant_memory(name: str, kind: str, behaviour: Any) -> None:
    """It is counted to the last message, and what is kept of it does not grow with it."""
    _look_at_memory(name, kind, behaviour, MESSAGES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "behaviour"), STREAMS)
def test_very_long_stream_costs_constant_memory(name: str, kind: str, behaviour: Any) -> None:
    """Twenty times as long, and no more memory."""
    _look_at_memory(name, kind, behaviour, MANY_MESSAGES)


def _look_at_memory(name: str, kind: str, behaviour: Any, count: int) -> None:
    with scene(name, {METHOD: make_handler(kind, behaviour, raw=True)}) as ours:
        _stream(ours.channel, kind, SAMPLE)
        gc.collect()
        tracemalloc.start()
        try:
            client = Client(ours.channel)
            assert _stream(ours.channel, kind, count, client) == count
            row = ours.trail.one(client.request_id)
            grown = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    said = metadata(row)
    counts = (said["audit.messages_in"], said["audit.messages_out"])
    assert counts == ((1, count) if kind == "us" else (count, 1))
    assert said["audit.bytes_out" if kind == "us" else "audit.bytes_in"] == 64 * count
    assert grown < KEPT_BYTES


def _stream(channel: Any, kind: str, count: int, client: Client | None = None) -> int:
    """Send or receive so many messages, without keeping them."""
    client = client or Client(channel)
    if kind == "us":
        call = client.begin(METHOD, kind, [b"%d" % count], timeout=100)
        return sum(1 for _ in call)
    call = client.begin(METHOD, kind, map(message_of, range(count)), timeout=100)
    return int(call.result())


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

    assert grown < KEPT_BYTES // 4


def _call_many(ours: Scene, count: int) -> None:
    for _ in range(count):
        ours.row_of()
        ours.trail.records.clear()
    gc.collect()
