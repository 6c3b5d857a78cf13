"""`durability="commit"`: no audit, no answer, in every kind and shape of both servers."""

import threading
from collections import Counter
from typing import Any

import pytest
from grpc import StatusCode
from rpc_client import look
from rpc_durable_scene import KINDS_AND_SHAPES, method_of, strict_scene
from rpc_durable_trail import DurableTrail, settings_of, stage_of
from rpc_handlers import SHAPES, handler
from rpc_scene import scene
from rpc_steps import ARRIVED, abort, arrive, drain, fail, say, say_skip, send, set_trailing
from rpc_trail import WAIT_S, metadata

from auditlog.capture.rpc.durable import ANSWER_WITHHELD, NOT_CARRIED_OUT
from auditlog.capture.rpc.finishing import AT_ONCE

OK, CANCELLED, UNKNOWN, DEADLINE, NOT_FOUND, UNIMPLEMENTED, UNAVAILABLE = 0, 1, 2, 4, 5, 12, 14
PUSHBACK = "grpc-retry-pushback-ms"
CALLS = 50

every = pytest.mark.parametrize(("name", "kind", "shape"), KINDS_AND_SHAPES)


@every
def test_handler_waits_for_the_received_row(name: str, kind: str, shape: str) -> None:
    """And the client for the complete one."""
    with strict_scene(name, drain, arrive, send("a")) as strict:
        client = strict.client()
        with strict.trail.held():
            call = client.begin(method_of(kind, shape), kind)
            assert strict.trail.waiting.acquire(timeout=WAIT_S)
            assert strict.trail.stages_of(client.request_id) == ["received"]
            assert not ARRIVED[client.request_id].is_set()
        seen = look(call, streams=kind[1] == "s")
        complete = strict.trail.wait_for_stage(client.request_id, "complete")

    assert seen.code == OK
    assert len(seen.messages) == 1
    assert (complete.response_status, metadata(complete)["audit.outcome"]) == (OK, "ok")
    assert metadata(complete)["audit.bytes_out"] == len(seen.messages[0])
    assert not {"audit.refused", "audit.still_running"} & set(metadata(complete))
    assert strict.trail.stages_of(client.request_id) == ["received", "complete"]


@every
def test_answer_waits_for_the_complete_row(name: str, kind: str, shape: str) -> None:
    """Messages of a stream flow meanwhile; its status waits."""
    with strict_scene(name, drain, send("a"), arrive) as strict:
        client = strict.client()
        hold = threading.Event()
        ARRIVED[client.request_id] = hold
        held = strict.trail.held()

        def begin_to_hold() -> None:
            held.__enter__()

        # What is committed before the handler ends is; what comes after is not.
        hold.set = _both(hold.set, begin_to_hold)  # type: ignore[method-assign]
        call = client.begin(method_of(kind, shape), kind)
        messages = iter(call) if kind[1] == "s" else iter(())
        if kind[1] == "s":
            assert next(messages)
        assert strict.trail.waiting.acquire(timeout=WAIT_S)
        assert strict.trail.waiting.acquire(timeout=WAIT_S)
        assert strict.trail.stages_of(client.request_id) == ["received", "complete"]
        assert not call.done()
        held.__exit__(None, None, None)
        assert list(messages) == []
        assert call.code().value[0] == OK


def _both(first: Any, second: Any) -> Any:
    def call_both() -> None:
        first()
        second()

    return call_both


@every
def test_rpc_without_a_received_row_is_refused(name: str, kind: str, shape: str) -> None:
    """Its handler does not run; that is told in its complete row, for which nobody waits."""
    with strict_scene(name, drain, arrive, send("a")) as strict:
        strict.trail.hopeless_from = 0
        client = strict.client()
        seen = client.call(method_of(kind, shape), kind)
        by_then = strict.trail.stages_of(client.request_id)
        row = strict.trail.wait_for_stage(client.request_id, "complete")
        strict.ours.running.stop(0)

    assert (seen.code, seen.details, seen.messages) == (UNAVAILABLE, NOT_CARRIED_OUT, ())
    assert dict(seen.trailing)[PUSHBACK] == "2000"
    assert not ARRIVED[client.request_id].is_set()
    assert by_then == ["received", "complete"]
    assert row.response_status == UNAVAILABLE
    assert metadata(row)["audit.refused"] is True
    assert metadata(row)["audit.outcome"] == "server_error"
    assert metadata(row)["audit.status_source"] == "wire"
    assert strict.trail.stages_of(client.request_id) == ["received", "complete"]


@every
def test_answer_without_a_complete_row_is_withheld(name: str, kind: str, shape: str) -> None:
    """The client is told not to try again; a late row says so."""
    with strict_scene(name, drain, send("a")) as strict:
        strict.trail.hopeless_from = 2
        client = strict.client()
        seen = client.call(method_of(kind, shape), kind)
        complete = strict.trail.wait_for_stage(client.request_id, "complete")
        late = strict.trail.wait_for_stage(client.request_id, "late")

    assert (seen.code, seen.details) == (UNAVAILABLE, ANSWER_WITHHELD)
    assert len(seen.messages) == (1 if kind[1] == "s" else 0)
    assert dict(seen.trailing)[PUSHBACK] == "-1"
    assert complete.response_status == OK
    assert late.response_status == UNAVAILABLE
    assert metadata(late)["audit.refused"] is True
    assert metadata(late)["audit.outcome"] == "server_error"
    assert metadata(late)["audit.exchange_id"] == metadata(complete)["audit.exchange_id"]


@every
@pytest.mark.parametrize("ends", ["raises", "aborts"])
def test_error_without_a_complete_row_is_replaced(
    name: str, kind: str, shape: str, ends: str
) -> None:
    """With its metadata, for the details of a status belong to its code."""
    step = {"raises": fail(ValueError), "aborts": abort(StatusCode.NOT_FOUND, "gone")}[ends]
    with strict_scene(name, drain, set_trailing(("x-details", "gone")), step) as strict:
        strict.trail.hopeless_from = 2
        client = strict.client()
        seen = client.call(method_of(kind, shape), kind)
        complete = strict.trail.wait_for_stage(client.request_id, "complete")
        late = strict.trail.wait_for_stage(client.request_id, "late")

    assert seen.code == UNAVAILABLE
    assert "x-details" not in dict(seen.trailing)
    assert dict(seen.trailing)[PUSHBACK] == "-1"
    assert complete.response_status == (UNKNOWN if ends == "raises" else NOT_FOUND)
    assert late.response_status == UNAVAILABLE
    assert metadata(late)["audit.refused"] is True


@every
@pytest.mark.parametrize("ends", ["raises", "aborts"])
def test_error_waits_for_its_row(name: str, kind: str, shape: str, ends: str) -> None:
    step = {"raises": fail(ValueError), "aborts": abort(StatusCode.NOT_FOUND, "gone")}[ends]
    with strict_scene(name, drain, step) as strict:
        client = strict.client()
        seen = client.call(method_of(kind, shape), kind)
        by_then = strict.trail.stages_of(client.request_id)
        row = strict.trail.wait_for_stage(client.request_id, "complete")
        waits = strict.trail.waited_for

    assert seen.code == row.response_status == (UNKNOWN if ends == "raises" else NOT_FOUND)
    assert by_then == ["received", "complete"]
    assert metadata(row).get("error.type") == ("ValueError" if ends == "raises" else None)
    assert len(waits) == 2


def test_method_that_does_not_exist(rpc_server: str) -> None:
    """Is refused like any other, and answered when its row is committed."""
    with strict_scene(rpc_server, drain) as strict:
        client, refused = strict.client(), strict.client()
        seen = client.call("/rpc.Scene/Unknown", "uu")
        by_then = strict.trail.stages_of(client.request_id)
        strict.trail.hopeless_from = 0
        assert refused.call("/rpc.Scene/Unknown", "uu").code == UNAVAILABLE
        row = strict.trail.wait_for_stage(refused.request_id, "complete")

    assert (seen.code, seen.details) == (UNIMPLEMENTED, "Method not found!")
    assert by_then == ["received", "complete"]
    assert metadata(row)["audit.refused"] is True
    assert (
        not any(name.startswith("aio") for name in strict.trail.waited_for) or rpc_server == "aio"
    )


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_health_check_is_served_while_the_database_is_away(rpc_server: str, method: str) -> None:
    """Nobody waits for it, and it has no row."""
    name = f"/grpc.health.v1.Health/{method}"
    kind = {"Check": "uu", "Watch": "us"}[method]
    trail = DurableTrail(settings_of("commit"))
    trail.hopeless_from = 0
    for shape in SHAPES[rpc_server][kind]:
        methods = {name: handler(kind, shape, (drain, send("SERVING")))}
        with scene(rpc_server, methods, audit=trail) as ours:
            assert ours.call(name, kind).code == OK
            ours.running.stop(0)

    assert trail.rows() == []
    assert trail.waited_for == []


@every
@pytest.mark.parametrize("ends", ["deadline", "cancel"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_client_that_leaves_while_its_rpc_waits(
    name: str, kind: str, shape: str, ends: str, when: str
) -> None:
    """Before its handler: it never runs. After it: the late row says that nobody heard of it."""
    with strict_scene(name, drain, send("a"), arrive) as strict:
        client = strict.client()
        held = strict.trail.held()
        if when == "before":
            held.__enter__()
        else:
            event = ARRIVED[client.request_id]
            event.set = _both(event.set, held.__enter__)  # type: ignore[method-assign]
        timeout = 0.3 if ends == "deadline" else WAIT_S
        call = client.begin(method_of(kind, shape), kind, timeout=timeout)
        for _ in range(1 if when == "before" else 2):
            assert strict.trail.waiting.acquire(timeout=WAIT_S)
        if ends == "cancel":
            call.cancel()
        seen = look(call, streams=kind[1] == "s")
        if name == "aio" and "sync" not in shape:
            # The loop knows at once; a thread when its wait is over.
            expected = "complete" if when == "before" else "late"
            strict.trail.wait_for_stage(client.request_id, expected)
        # Exempt. When it is answered, the server knows of the other's end: that has come before.
        strict.ours.call("/grpc.health.v1.Health/Check")
        held.__exit__(None, None, None)
        row = strict.trail.wait_for_stage(
            client.request_id, "complete" if when == "before" else "late"
        )
        complete = strict.trail.wait_for_stage(client.request_id, "complete")

    assert seen.code == (DEADLINE if ends == "deadline" else CANCELLED)
    assert strict.trail.stages_of(client.request_id)[0] == "received"
    if when == "before":
        assert not ARRIVED[client.request_id].is_set()
        assert row.response_status in {CANCELLED, seen.code}
        assert metadata(row)["audit.status_source"] == "derived"
    else:
        assert complete.response_status == OK
        assert metadata(row)["audit.outcome"] == "cancelled"
        assert metadata(row)["error.type"] in {"CancelledError", "DeadlineExceeded"}


@every
def test_what_is_said_and_skipped(name: str, kind: str, shape: str) -> None:
    """A skipped RPC has an end all the same, without which it would look like a crash."""
    with (
        strict_scene(name, drain, say(user_id="7"), send("a")) as says,
        strict_scene(name, drain, say(user_id="7"), say_skip, send("a")) as skips,
    ):
        client, skipping = says.client(), skips.client()
        assert client.call(method_of(kind, shape), kind).code == OK
        assert skipping.call(method_of(kind, shape), kind).code == OK
        said = says.trail.wait_for_stage(client.request_id, "complete")
        rows = skips.trail.wait_for(2)

    assert said.user_id == "7"
    assert [stage_of(row) for row in rows] == ["received", "complete"]
    assert metadata(rows[1])["audit.left_out"] is True
    assert rows[1].user_id is None


def test_many_at_once(rpc_server: str) -> None:
    """Each has its two rows; they wait together, and the server serves others meanwhile."""
    kinds = [(kind, shape) for server, kind, shape in KINDS_AND_SHAPES if server == rpc_server]
    with strict_scene(rpc_server, drain, send("a"), threads=CALLS) as strict:
        calls = {}
        with strict.trail.held():
            for number in range(CALLS):
                kind, shape = kinds[number % len(kinds)]
                client = strict.client()
                calls[client.request_id] = (client.begin(method_of(kind, shape), kind), kind)
            for _ in range(CALLS):
                assert strict.trail.waiting.acquire(timeout=WAIT_S)
            strict.trail.hopeless_from = None
        codes = [look(call, streams=kind[1] == "s").code for call, kind in calls.values()]
        strict.ours.running.stop(0)

    assert codes == [OK] * CALLS
    found = Counter(
        (metadata(row)["audit.request_id"], stage_of(row)) for row in strict.trail.rows()
    )
    assert found == Counter(
        {(request_id, stage): 1 for request_id in calls for stage in ("received", "complete")}
    )


def test_patience_ends_while_a_row_is_being_committed() -> None:
    """Of the thread that looks after RPCs whose client has left: the row is made once."""
    with strict_scene("threaded", drain, send("a"), arrive) as strict:
        client = strict.client()
        held = strict.trail.held()
        event = ARRIVED[client.request_id]
        event.set = _both(event.set, held.__enter__)  # type: ignore[method-assign]
        call = client.begin(method_of("uu", "sync"), "uu")
        for _ in range(2):
            assert strict.trail.waiting.acquire(timeout=WAIT_S)
        call.cancel()
        strict.ours.call("/grpc.health.v1.Health/Check")
        AT_ONCE.finish_all()
        assert strict.trail.stages_of(client.request_id) == ["received", "complete"]
        held.__exit__(None, None, None)
        strict.trail.wait_for_stage(client.request_id, "late")

    assert strict.trail.stages_of(client.request_id) == ["received", "complete", "late"]


def test_wait_has_an_end(rpc_server: str) -> None:
    """Of a log that never answers, after `commit_timeout_s`."""
    settings = settings_of("commit")
    with strict_scene(rpc_server, drain, settings=settings) as strict, strict.trail.held():
        shape = SHAPES[rpc_server]["uu"][0]
        seen = strict.client().call(method_of("uu", shape), "uu")

    assert (seen.code, seen.details) == (UNAVAILABLE, NOT_CARRIED_OUT)
