"""`annotate` and `skip` in handlers of every kind, and never about another's RPC."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from grpc import StatusCode
from rpc_client import Client, look
from rpc_handlers import SHAPES, handler, make_handler
from rpc_scene import METHOD, every_shape, scene
from rpc_steps import abort, drain, fail, say, say_skip, send
from rpc_trail import metadata

from auditlog import LogLevel, annotate

CLIENTS = 64
SHAPE_NAMES = [
    (server, kind, shape)
    for server, kinds in SHAPES.items()
    for kind, shapes in kinds.items()
    for shape in shapes
]
in_every_shape = pytest.mark.parametrize(("server_name", "kind", "shape"), SHAPE_NAMES)


@in_every_shape
def test_annotations_are_in_the_row(server_name: str, kind: str, shape: str) -> None:
    """Before, between and after the messages; what is said later counts."""
    steps = (
        say(user_id="bob", aggregate=("order", 7), step="first", card_token="s3cr3t"),
        drain,
        send("a"),
        say(user_id="alice", event_type="order.read", instance_id="acme"),
        send("b"),
        say(message="done", level=LogLevel.WARN, step="last", resource_owner="sales"),
    )
    with scene(server_name, {METHOD: handler(kind, shape, steps)}) as ours:
        row = ours.row_of(kind=kind)

    assert (row.user_id, row.aggregate_type, row.aggregate_id) == ("alice", "order", "7")
    assert (row.instance_id, row.resource_owner) == ("acme", "sales")
    assert (row.event_type, row.message, row.log_level) == ("order.read", "done", LogLevel.WARN)
    assert metadata(row)["step"] == "last"
    assert "s3cr3t" not in repr(row)


@in_every_shape
def test_annotations_of_what_fails_are_in_the_row(server_name: str, kind: str, shape: str) -> None:
    """An abort and an error are when the user matters most."""
    for last in (abort(StatusCode.NOT_FOUND, "gone"), fail(RuntimeError)):
        steps = (drain, say(user_id="alice"), last)
        with scene(server_name, {METHOD: handler(kind, shape, steps)}) as ours:
            assert ours.row_of(kind=kind).user_id == "alice"


@in_every_shape
def test_skipped_rpc_has_no_row(server_name: str, kind: str, shape: str) -> None:
    """Nor has it one when it fails."""
    for last in (send("a"), abort(StatusCode.NOT_FOUND, "gone")):
        with scene(server_name, {METHOD: handler(kind, shape, (drain, say_skip, last))}) as ours:
            ours.call(kind=kind)
            ours.running.stop(0)

            assert ours.trail.rows() == []


def test_annotations_are_never_mixed_up(rpc_server: str) -> None:
    """Sixty-four RPCs in each shape, all of them inside their handlers at the same time."""
    for method, (kind, _) in every_shape(rpc_server, drain).items():
        shape = method.rpartition(".")[2]
        together = _Together()
        steps = (drain, together.say_who, together.meet, send("a"), together.say_again)
        methods = {METHOD: handler(kind, shape, steps)}
        with scene(rpc_server, methods, threads=CLIENTS) as ours:
            clients = [Client(ours.channel) for _ in range(CLIENTS)]
            calls = [client.begin(METHOD, kind) for client in clients]
            for call in calls:
                assert look(call, streams=kind[1] == "s").code == 0
            rows = [ours.trail.one(client.request_id) for client in clients]

        for client, row in zip(clients, rows, strict=True):
            assert row.user_id == client.request_id, method
            assert metadata(row)["again"] == client.request_id, method


class _Together:
    """Steps of handlers that wait for each other."""

    def __init__(self) -> None:
        self._arrived = 0
        self._lock = threading.Lock()
        self._all = threading.Event()

    def say_who(self, call: Any) -> None:
        annotate(user_id=_id_of(call))

    def meet(self, call: Any) -> Any:
        with self._lock:
            self._arrived += 1
            if self._arrived == CLIENTS:
                self._all.set()
        return call.wait_for(self._all)

    def say_again(self, call: Any) -> None:
        annotate(again=_id_of(call))


def _id_of(call: Any) -> str:
    return str(dict(call.context.invocation_metadata())["x-request-id"])


def test_tasks_of_a_handler_speak_for_its_rpc() -> None:
    """So do threads that are given the context, as `asyncio.to_thread` does."""

    async def behaviour(request: Any, context: Any) -> Any:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_say_later(task="said"))
            tasks.create_task(asyncio.to_thread(annotate, thread="said"))
        return request

    with scene("aio", {METHOD: make_handler("uu", behaviour, raw=True)}) as ours:
        said = ours.metadata_of()

    assert (said["task"], said["thread"]) == ("said", "said")


async def _say_later(**words: Any) -> None:
    await asyncio.sleep(0)
    annotate(**words)


def test_generator_that_is_closed_elsewhere_says_its_last_words() -> None:
    """No context variable is set back across a yield: the client leaves, and the rest runs."""
    closed = threading.Event()

    async def behaviour(request: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"message"
                await asyncio.sleep(0.001)
        finally:
            annotate(user_id="alice")
            closed.set()

    with scene("aio", {METHOD: make_handler("us", behaviour, raw=True)}) as ours:
        client = Client(ours.channel)
        call = client.begin(METHOD, "us")
        next(call)
        call.cancel()
        assert closed.wait(10)
        row = ours.trail.one(client.request_id)

    assert row.response_status == 1
    assert row.user_id == "alice"


def test_thread_that_serves_several_rpcs_keeps_nothing(rpc_server: str) -> None:
    """One worker thread, one RPC that names its user, and one that does not."""
    shape = "sync"
    methods = {
        "/rpc.Scene/Named": handler("us", shape, (say(user_id="alice"), send("a"))),
        "/rpc.Scene/Nameless": handler("us", shape, (send("a"),)),
        "/rpc.Scene/Single": handler("uu", shape, (drain,)),
    }
    with scene(rpc_server, methods, threads=1) as ours:
        for _ in range(3):
            assert ours.row_of("/rpc.Scene/Named", "us").user_id == "alice"
            assert ours.row_of("/rpc.Scene/Nameless", "us").user_id is None
            assert ours.row_of("/rpc.Scene/Single").user_id is None


def test_streams_at_the_same_time_are_told_apart() -> None:
    """Between two messages, a thread of the server does nothing for others."""

    def behaviour(request: Any, context: Any) -> Iterator[bytes]:
        name = str(dict(context.invocation_metadata())["x-request-id"])
        for _ in range(20):
            annotate(user_id=name)
            yield b"message"
            annotate(again=name)

    with scene("threaded", {METHOD: make_handler("us", behaviour, raw=True)}) as ours:
        clients = [Client(ours.channel) for _ in range(16)]
        calls = [client.begin(METHOD, "us") for client in clients]
        for call in calls:
            assert len(look(call, streams=True).messages) == 20
        for client in clients:
            row = ours.trail.one(client.request_id)
            assert row.user_id == client.request_id
            assert metadata(row)["again"] == client.request_id
