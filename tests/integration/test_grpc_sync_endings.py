"""The two ends of an RPC on the threaded server, and the ends that never come."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from auditlog import LogRecord, annotate
from auditlog.capture.rpc import unwrapped
from auditlog.capture.rpc.finishing import FINISHING
from threaded_scene import WAIT_S, Interceptor, Trail, serving, su, us, uu

GONE = grpc.StatusCode.NOT_FOUND


class Gate:
    """A handler that waits until it may go on."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.over = threading.Event()

    def __call__(self, _: Any, context: Any) -> bytes:
        context.add_callback(self.over.set)
        self.arrived.release()
        assert self.may_go.wait(WAIT_S)
        annotate(event_type="said late")
        return b"late"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for its other end."""
    monkeypatch.setattr(FINISHING, "_patience_ns", 0)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.may_go.set()


def facts(row: LogRecord) -> tuple[int | None, Any, Any]:
    said = dict(row.metadata or {})
    return row.response_status, said["audit.status_source"], said["audit.outcome"]


def test_what_a_handler_says_after_its_client_left_is_stored(gate: Gate) -> None:
    """The row waits for the handler; its time is the client's."""
    trail = Trail()
    with serving(trail, slow=uu(gate)) as scene:
        call = scene.begin("slow")
        gate.arrived.acquire(timeout=WAIT_S)
        call.cancel()
        assert gate.over.wait(WAIT_S)
        assert not trail.records
        gate.may_go.set()
        row = trail.one()
    assert facts(row) == (1, "derived", "cancelled")
    assert row.event_type == "said late"
    assert "audit.still_running" not in (row.metadata or {})


def test_row_does_not_wait_for_ever_for_a_handler(gate: Gate, impatient: None) -> None:
    """It says that the handler is still at work; there is no second one when it ends."""
    trail = Trail()
    with serving(trail, slow=uu(gate)) as scene:
        assert scene.refused("slow", timeout=0.1) is grpc.StatusCode.DEADLINE_EXCEEDED
        row = trail.one()
        gate.may_go.set()
    assert facts(row) == (4, "derived", "deadline")
    assert (row.metadata or {})["audit.still_running"] is True
    assert row.event_type is None
    assert len(trail.records) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_handler_that_the_server_leaves_without_an_answer(
    error: type[BaseException], impatient: None
) -> None:
    """Nothing was sent, so no status is made up."""
    trail = Trail()

    def leave(_: Any, __: Any) -> bytes:
        raise error

    with serving(trail, leave=uu(leave)) as scene:
        call = scene.begin("leave")
        row = trail.one()
        call.cancel()
    assert facts(row) == (None, "none", "incomplete")
    assert (row.metadata or {})["error.type"] == error.__name__


def test_client_that_left_before_its_turn() -> None:
    """All threads are busy when it gives up: no handler runs, and there is a row."""
    trail, gate = Trail(), Gate()
    ran = []
    with serving(trail, threads=1, slow=uu(gate), quick=uu(lambda *_: ran.append(1))) as scene:
        busy = scene.begin("slow")
        gate.arrived.acquire(timeout=WAIT_S)
        assert scene.refused("quick", timeout=0.1) is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.may_go.set()
        busy.result(WAIT_S)
        rows = {row.request_method: row for row in trail.wait_for(2)}
    assert facts(rows["quick"]) == (1, "derived", "cancelled")
    assert not ran


def test_more_rpcs_than_allowed_have_rows() -> None:
    """The server refuses them after the interceptors, and asks no handler."""
    trail, gate = Trail(), Gate()
    with serving(trail, limit=1, slow=uu(gate)) as scene:
        busy = scene.begin("slow")
        gate.arrived.acquire(timeout=WAIT_S)
        refused = [scene.refused("slow") for _ in range(3)]
        assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
        gate.may_go.set()
        busy.result(WAIT_S)
        rows = trail.wait_for(4)
    assert sorted(facts(row)[:2] for row in rows) == [(0, "wire")] + [(8, "derived")] * 3


@pytest.mark.parametrize("grace", [None, 0, 0.1])
def test_stopped_server_does_not_blame_the_client(gate: Gate, grace: float | None) -> None:
    """The client gets UNAVAILABLE, which the server tells nobody."""
    trail = Trail()
    with serving(trail, slow=uu(gate)) as scene:
        call = scene.begin("slow")
        gate.arrived.acquire(timeout=WAIT_S)
        scene.server.stop(grace)
        assert call.exception(WAIT_S).code() is grpc.StatusCode.UNAVAILABLE
        gate.may_go.set()
        row = trail.one()
    assert facts(row) == (14, "derived", "cancelled")


def test_stopped_server_has_told_everything() -> None:
    """Who waits for the server to stop finds all rows."""
    trail = Trail()
    with serving(trail, ok=uu(lambda *_: b"")) as scene:
        for _ in range(20):
            scene.call("ok")
        assert scene.server.stop(5).wait(WAIT_S)
        assert len(trail.records) == 20


def test_generator_ends_by_its_client_and_may_still_speak() -> None:
    """It learns so at its next yield; what its `finally` says is stored."""
    trail = Trail()

    def talk(_: Any, __: Any) -> Iterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            annotate(event_type="ended")

    with serving(trail, talk=us(talk)) as scene:
        call = scene.watch("talk")
        next(call)
        call.cancel()
        row = trail.one()
    assert facts(row) == (1, "derived", "cancelled")
    assert row.event_type == "ended"


def test_request_that_breaks_off_ends_its_handler() -> None:
    """The error that the server raises in the handler is not the handler's."""
    trail = Trail()
    began = threading.Event()

    def collect(requests: Any, _: Any) -> bytes:
        began.set()
        return b"".join(requests)

    def endless() -> Iterator[bytes]:
        yield b"1"
        began.wait(WAIT_S)
        call.cancel()
        while True:
            yield b"2"

    with serving(trail, collect=su(collect)) as scene:
        call = scene.channel.stream_unary("/t/collect").future(endless())
        row = trail.one()
    assert facts(row) == (1, "derived", "cancelled")
    assert "error.type" not in (row.metadata or {})


def test_request_too_large_for_the_server() -> None:
    """The server's core ends it and no handler runs."""
    trail = Trail()
    with serving(trail, ok=uu(lambda *_: b"")) as scene:
        code = scene.refused("ok", request=b"x" * (2 << 20))
        row = trail.one()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert facts(row) == (1, "derived", "cancelled")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (lambda _: b"", (0, "derived", "ok")),
        (lambda context: context.abort(GONE, "gone"), (5, "derived", "client_error")),
        (lambda context: context.set_code(GONE) or b"", (5, "derived", "client_error")),
        (lambda _: 1 // 0, (2, "derived", "server_error")),
        (lambda _: None, (13, "derived", "server_error")),
    ],
)
def test_other_grpcio_costs_certainty_only(
    steps: Any, expected: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the server's private state, statuses are derived, and they are the same."""
    monkeypatch.setattr(unwrapped, "state_of", lambda _: None)
    monkeypatch.setattr(unwrapped, "was_aborted", lambda _: None)
    trail = Trail()
    with serving(trail, method=uu(lambda _, context: steps(context))) as scene:
        scene.begin("method").exception(WAIT_S)
        row = trail.one()
    assert facts(row) == expected
    assert ("error.type" in (row.metadata or {})) == (expected[0] == 2)


def test_interceptor_in_front_that_swallows_an_error() -> None:
    """Of a stream it cannot be seen whether it did: nothing is claimed to be from the wire."""
    trail = Trail()

    def broken(_: Any, __: Any) -> Iterator[bytes]:
        yield b"1"
        raise ValueError

    def swallow(continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def quiet(request: Any, context: Any) -> Iterator[bytes]:
            try:
                yield from handler.unary_stream(request, context)
            except ValueError:
                return

        return handler._replace(unary_stream=quiet)

    with serving(trail, before=[Interceptor(swallow)], broken=us(broken)) as scene:
        assert list(scene.watch("broken")) == [b"1"]
        row = trail.one()
    assert facts(row) == (2, "derived", "server_error")
    assert (row.metadata or {})["error.type"] == "ValueError"
