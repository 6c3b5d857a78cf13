"""`durability="spool"`, and what waits: for the disk, and for room in the queue."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from rpc_client import Client, look
from rpc_durable_scene import KINDS_AND_SHAPES, method_of, strict_scene
from rpc_durable_trail import STRICT, DurableTrail, settings_of, stage_of
from rpc_handlers import SHAPES, handler, make_handler
from rpc_scene import METHOD, one, scene
from rpc_steps import ARRIVED, abort, arrive, drain, fail, send
from rpc_trail import WAIT_S, metadata

from auditlog import Outcome, Settings, annotate
from auditlog.capture.rpc import durable_aio, durable_threaded
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.threaded import ThreadedExchange
from auditlog.records import Record
from auditlog.ticket import Ticket

OK, UNKNOWN, NOT_FOUND, INTERNAL, UNAVAILABLE = 0, 2, 5, 13, 14
ENDS: dict[str, tuple[Any, int]] = {
    "returns": (send("a"), OK),
    "raises": (fail(ValueError), UNKNOWN),
    "aborts": (abort(StatusCode.NOT_FOUND, "gone"), NOT_FOUND),
}
# How long an answer that was sent too early has to show.
GRACE_S = 0.05
LARGE = 1_000_000
SYNCED = settings_of("spool", spool_fsync="always")

every = pytest.mark.parametrize(("name", "kind", "shape"), KINDS_AND_SHAPES)


def test_nothing_is_new_without_being_asked_for() -> None:
    """Memory mode runs the classes that it always ran."""
    assert durable_aio.exchange_class(Settings()) is AioExchange
    assert durable_aio.exchange_class(Settings(on_overflow="block")) is AioExchange
    assert durable_threaded.exchange_class(Settings()) is ThreadedExchange


class GatedTrail(DurableTrail):
    """Takes a row when the test lets it, and blocks whoever has it, be it the event loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate = threading.Event()
        self.at_gate = threading.Semaphore(0)

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        self.at_gate.release()
        assert self.gate.wait(WAIT_S)
        return super().submit(record, ticket)


@every
@pytest.mark.parametrize("ends", ENDS)
def test_row_comes_before_the_answer(name: str, kind: str, shape: str, ends: str) -> None:
    """Nothing that ends an RPC is on its way while its row is not taken over."""
    step, code = ENDS[ends]
    trail = GatedTrail(settings_of("spool"))
    methods = {METHOD: handler(kind, shape, (drain, step))}
    over = threading.Event()
    with scene(name, methods, audit=trail) as ours:
        call = Client(ours.channel).begin(METHOD, kind)
        call.add_callback(over.set) if kind[1] == "s" else call.add_done_callback(_setter(over))
        assert trail.at_gate.acquire(timeout=WAIT_S)
        assert not over.wait(GRACE_S)
        trail.gate.set()
        seen = look(call, streams=kind[1] == "s")

    assert seen.code == code


def _setter(event: threading.Event) -> Any:
    return lambda _: event.set()


@every
def test_answer_waits_for_the_disk(name: str, kind: str, shape: str) -> None:
    with strict_scene(name, drain, send("a"), settings=SYNCED) as strict:
        client = strict.client()
        with strict.trail.held():
            call = client.begin(method_of(kind, shape), kind)
            assert strict.trail.waiting.acquire(timeout=WAIT_S)
            assert strict.trail.stages_of(client.request_id) == ["complete"]
            assert not call.done()
        seen = look(call, streams=kind[1] == "s")

    assert (seen.code, len(seen.messages)) == (OK, 1)
    assert strict.trail.stages_of(client.request_id) == ["complete"]


@every
@pytest.mark.parametrize("ends", ENDS)
def test_full_disk_is_no_error_of_the_rpc(name: str, kind: str, shape: str, ends: str) -> None:
    """It goes on as if nothing were wrong; the row is there."""
    step, code = ENDS[ends]
    with strict_scene(name, drain, step, settings=SYNCED) as strict:
        strict.trail.hopeless_from = 0
        client = strict.client()
        seen = client.call(method_of(kind, shape), kind)
        row = strict.trail.wait_for_stage(client.request_id, "complete")
        strict.ours.running.stop(0)

    assert (seen.code, row.response_status) == (code, code)
    assert strict.trail.stages_of(client.request_id) == ["complete"]
    assert "audit.refused" not in metadata(row)
    assert len(strict.trail.waited_for) == 1


def test_what_is_said_after_an_abort_has_a_row_of_its_own() -> None:
    """The abort's row is made before it; a handler that goes on says more."""

    async def say_more(request: Any, context: Any) -> Any:
        try:
            await context.abort(StatusCode.NOT_FOUND, "gone")
        finally:
            annotate(message="cleaned up")

    trail = DurableTrail(settings_of("spool"))
    with scene("aio", {METHOD: make_handler("uu", say_more)}, audit=trail) as ours:
        client = Client(ours.channel)
        assert client.call(METHOD, "uu").code == NOT_FOUND
        first = trail.wait_for_stage(client.request_id, "complete")
        late = trail.wait_for_stage(client.request_id, "late")

    assert (first.response_status, first.message) == (NOT_FOUND, None)
    assert late.message == "cleaned up"
    assert metadata(late)["audit.exchange_id"] == first.log_id


class FullTrail(DurableTrail):
    """Its queue is full until there is `space`."""

    def __init__(self) -> None:
        super().__init__(Settings(on_overflow="block"))
        self.space = threading.Event()
        self.asked = threading.Semaphore(0)
        self.submitting: list[str] = []

    async def room(self) -> None:
        self.asked.release()
        await asyncio.to_thread(self.space.wait, WAIT_S)

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        self.submitting.append(threading.current_thread().name)
        if not self.submitting[-1].startswith("aio"):
            self.asked.release()
            assert self.space.wait(WAIT_S)
        return super().submit(record, ticket)


def test_full_queue_holds_up_whoever_asks(rpc_server: str) -> None:
    """Before the handler of an asyncio server; in the handler's thread of the other one."""
    trail = FullTrail()
    with scene(rpc_server, one(rpc_server, drain, arrive, send("a")), audit=trail) as ours:
        client = Client(ours.channel)
        call = client.begin(METHOD, "uu")
        assert trail.asked.acquire(timeout=WAIT_S)
        assert not call.done()
        assert ARRIVED[client.request_id].is_set() == (rpc_server == "threaded")
        trail.space.set()
        assert look(call, streams=False).code == OK
        trail.wait_for_stage(client.request_id, "complete")
        ours.running.stop(0)

    assert {name.rpartition("_")[0] or name for name in trail.submitting} == {
        "aio server" if rpc_server == "aio" else "handler"
    }


def test_full_queue_does_not_hold_up_the_server(rpc_server: str) -> None:
    """Nor what has no row. The server's only thread leaves a row that it has to another one."""
    trail = FullTrail()
    health = "/grpc.health.v1.Health/Check"
    methods = one(rpc_server, drain, send("a"))
    methods[health] = methods[METHOD]
    with scene(rpc_server, methods, audit=trail) as ours:
        broken = Client(ours.channel)
        call = broken.begin(METHOD, "uu", [b"\xff"])
        assert trail.asked.acquire(timeout=WAIT_S)
        assert ours.call(health).code == OK
        trail.space.set()
        assert look(call, streams=False).code == (INTERNAL if rpc_server == "threaded" else UNKNOWN)
        trail.wait_for_stage(broken.request_id, "complete")
        ours.running.stop(0)

    assert trail.submitting == ["aio server" if rpc_server == "aio" else "auditlog-rpc"]


class BrokenTrail(DurableTrail):
    """Cannot tell what is durable."""

    async def durable(self, ticket: Ticket) -> bool:
        raise RuntimeError("broken")

    def durable_in_thread(self, ticket: Ticket) -> bool:
        raise RuntimeError("broken")

    async def room(self) -> None:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (settings_of("commit"), UNAVAILABLE),
        (SYNCED, OK),
        (Settings(on_overflow="block"), OK),
    ],
)
def test_log_that_breaks_refuses_only_where_asked_to(
    rpc_server: str, settings: Settings, code: int
) -> None:
    trail = BrokenTrail(settings)
    with scene(rpc_server, one(rpc_server, drain, send("a")), audit=trail) as ours:
        client = Client(ours.channel)
        assert client.call(METHOD, "uu").code == code
        row = trail.wait_for_stage(client.request_id, "complete")

    assert row.response_status == code


@pytest.mark.parametrize("settings", [settings_of("spool"), SYNCED, settings_of("commit")])
def test_nothing_is_kept_of_what_is_over(rpc_server: str, settings: Settings) -> None:
    """No exchange lives on: those that end, that are refused, and that do not exist."""
    before = _living_exchanges()
    with strict_scene(rpc_server, drain, send("a"), settings=settings) as strict:
        for hopeless_from in (None, 0):
            strict.trail.hopeless_from = hopeless_from
            for kind, shapes in SHAPES[rpc_server].items():
                for shape in shapes:
                    # grpcio 1.85 itself keeps some contexts of `context.read()` alive.
                    if not shape.startswith("read"):
                        strict.client().call(method_of(kind, shape), kind)
            strict.ours.call("/rpc.Scene/Unknown")
        strict.ours.running.stop(0)

    assert _living_exchanges() <= before
    assert "complete" in {stage_of(row) for row in strict.trail.rows()}


@pytest.mark.parametrize("durability", STRICT)
def test_row_waits_for_what_a_thread_has_yielded(durability: str) -> None:
    """An asyncio server has some in its queue when the thread is done and the client is slow."""
    written: list[bytes] = []
    yielded: list[bytes] = []
    done = threading.Event()

    def serialize(message: bytes) -> bytes:
        written.append(message)
        return message

    def pour_until_it_stalls(request: Any, context: Any) -> Iterator[bytes]:
        # The loop has had its time to take the last one.
        while not done.wait(GRACE_S) and len(yielded) == len(written):
            yielded.append(b"x" * LARGE)
            yield yielded[-1]
        done.set()

    trail = DurableTrail(settings_of(durability))
    behaviour = grpc.unary_stream_rpc_method_handler(pour_until_it_stalls, None, serialize)
    with scene("aio", {METHOD: behaviour}, audit=trail) as ours:
        client = Client(ours.channel)
        call = client.begin(METHOD, "us")
        assert done.wait(WAIT_S)
        assert not threading.Event().wait(GRACE_S)
        assert "complete" not in trail.stages_of(client.request_id)
        seen = look(call, streams=True)
        row = trail.wait_for_stage(client.request_id, "complete")

    assert (seen.code, len(seen.messages)) == (OK, len(yielded))
    assert metadata(row)["audit.messages_out"] == len(yielded)


def _living_exchanges() -> int:
    gc.collect()
    return sum(issubclass(type(each), GrpcExchange) for each in gc.get_objects())
