"""A server that stops with RPCs under way: they have rows, and nothing of ours is left behind."""

import gc
import threading
import time
from typing import Any

import psutil
import pytest
from rpc_client import Client, Seen, look
from rpc_handlers import SHAPES, handler
from rpc_scene import every_shape, one, scene
from rpc_steps import ARRIVED, OVER, arrive, drain, hang, send
from rpc_trail import metadata

from auditlog.capture.rpc.exchange import GrpcExchange

CANCELLED, DEADLINE, RESOURCE_EXHAUSTED, UNAVAILABLE = 1, 4, 8, 14
WAIT_S = 10.0


@pytest.mark.parametrize("grace", [None, 0, 0.3])
def test_stop_leaves_a_row_for_every_rpc(rpc_server: str, grace: float | None) -> None:
    """In every kind and shape; that the status was never sent, the row says."""
    methods = every_shape(rpc_server, drain, arrive, hang, send("a"))
    handlers = {method: each for method, (_, each) in methods.items()}
    with scene(rpc_server, handlers) as ours:
        calls = {}
        for method, (kind, _) in methods.items():
            client = Client(ours.channel)
            calls[client.request_id] = (kind, client.begin(method, kind, [b""]))
        for request_id in calls:
            assert ARRIVED[request_id].wait(WAIT_S)
        ours.running.stop(grace)
        seen = {
            request_id: look(call, streams=kind[1] == "s")
            for request_id, (kind, call) in calls.items()
        }
        for request_id in calls:
            OVER[request_id].set()
        rows = {request_id: ours.trail.one(request_id) for request_id in calls}

    for request_id, row in rows.items():
        assert seen[request_id].code in {CANCELLED, UNAVAILABLE}, row.request_url
        assert row.response_status in {CANCELLED, UNAVAILABLE}, row.request_url
        assert metadata(row)["audit.outcome"] == "cancelled", row.request_url
        assert metadata(row)["audit.status_source"] == "derived", row.request_url


def test_stop_with_grace_lets_rpcs_end(rpc_server: str) -> None:
    """They succeed, and say so."""
    release = threading.Event()

    def wait_for_release(call: Any) -> Any:
        return call.wait_for(release)

    with scene(rpc_server, one(rpc_server, arrive, wait_for_release, send("a"))) as ours:
        client = Client(ours.channel)
        call = client.begin("/rpc.Scene/Method", "uu")
        assert ARRIVED[client.request_id].wait(WAIT_S)
        stopping = threading.Thread(target=ours.running.stop, args=(WAIT_S,))
        stopping.start()
        release.set()
        seen: Seen = look(call, streams=False)
        stopping.join(WAIT_S)
        row = ours.trail.one(client.request_id)

    assert (seen.code, row.response_status) == (0, 0)
    assert metadata(row)["audit.outcome"] == "ok"


def test_rpc_whose_deadline_is_over_when_it_comes_has_no_lie(rpc_server: str) -> None:
    """A server that is busy takes the RPC up when its client has gone; there is one row or none."""
    busy = threading.Event()

    def block(call: Any) -> None:
        ARRIVED["busy"].set()
        assert busy.wait(WAIT_S)

    methods = {"/rpc.Scene/Block": handler("uu", SHAPES[rpc_server]["uu"][0], (block,))}
    methods |= one(rpc_server, drain, send("a"))
    with scene(rpc_server, methods, threads=1) as ours:
        ARRIVED["busy"].clear()
        blocking = Client(ours.channel).begin("/rpc.Scene/Block", "uu")
        assert ARRIVED["busy"].wait(WAIT_S)
        late = Client(ours.channel)
        seen = late.call("/rpc.Scene/Method", "uu", timeout=0.05)
        busy.set()
        look(blocking, streams=False)
        # When this one has its row, the late one has been taken up or thrown away.
        ours.row_of()
        ours.running.stop(WAIT_S)
        rows = ours.trail.of(late.request_id)

    assert seen.code == DEADLINE
    assert len(rows) <= 1
    for row in rows:
        # No handler has run that could tell whether the client left or ran out of time.
        assert row.response_status in {CANCELLED, DEADLINE}
        assert metadata(row)["audit.status_source"] == "derived"


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
def test_rpc_that_is_one_too_many(rpc_server: str, kind: str) -> None:
    """The server refuses it beside its interceptors: no row, or one that does not lie."""
    methods = one(rpc_server, drain, arrive, hang, kind=kind)
    with scene(rpc_server, methods, most_at_once=1) as ours:
        first, second = Client(ours.channel), Client(ours.channel)
        call = first.begin("/rpc.Scene/Method", kind)
        assert ARRIVED[first.request_id].wait(WAIT_S)
        seen = second.call("/rpc.Scene/Method", kind)
        call.cancel()
        OVER[first.request_id].set()
        ours.trail.one(first.request_id)
        ours.running.stop(0)
        gc.collect()
        rows = ours.trail.of(second.request_id)

    assert seen.code == RESOURCE_EXHAUSTED
    assert len(rows) <= 1
    for row in rows:
        derived = metadata(row)["audit.status_source"] == "derived"
        assert row.response_status == RESOURCE_EXHAUSTED or derived
        assert metadata(row)["audit.outcome"] != "ok"


def test_nothing_is_left_of_a_stopped_server(rpc_server: str) -> None:
    """No thread, no file, no exchange; what grpcio itself keeps is there from the first one on."""
    _serve_some(rpc_server)
    before = _left()
    for _ in range(3):
        _serve_some(rpc_server)

    # grpcio's own threads end a little later than its servers.
    deadline = time.monotonic() + WAIT_S
    while any(now > then for now, then in zip(_left(), before, strict=True)):
        assert time.monotonic() < deadline, (_left(), before)
        time.sleep(0.01)


def _left() -> tuple[int, int, int]:
    gc.collect()
    return psutil.Process().num_fds(), threading.active_count(), _living_exchanges()


def _serve_some(server: str) -> None:
    methods = every_shape(server, drain, send("a"))
    with scene(server, {method: each for method, (_, each) in methods.items()}) as ours:
        for method, (kind, _) in methods.items():
            if "read" in method:
                # grpcio 1.85 itself keeps some contexts of `context.read()` alive.
                continue
            assert ours.call(method, kind).code == 0
        ours.call("/rpc.Scene/Unknown")
        ours.running.stop(0)


def _living_exchanges() -> int:
    return sum(issubclass(type(each), GrpcExchange) for each in gc.get_objects())
