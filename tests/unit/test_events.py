"""`record`: what the application says happened, as the row that it becomes."""

import asyncio
import datetime as dt
import gc
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given

from asgi_driver import END, START, audited, drive, http_scope, metadata_of
from auditlog import (
    AuditLog,
    Level,
    LogLevel,
    LogRecord,
    Outcome,
    Policy,
    RequestOutcome,
    Rule,
    Settings,
    SettingsError,
    annotate,
    bound,
    skip,
)
from auditlog.capture.application.events import living_logs
from auditlog.capture.context import Annotations, current, pair_of, text_of
from auditlog.testing import MemorySink, capture
from hostile import OBJECTS, anything
from trail import quick
from tuples import encoded, repaired

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(sink: MemorySink) -> LogRecord:
    """The one record there is."""
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    assert sink.errors == []
    return record


def row(**said: Any) -> dict[str, Any]:
    """The row of one event, by column."""
    sink = MemorySink()
    assert sink.record("order.refunded", **said) is Outcome.ACCEPTED
    return encoded(event(sink))


async def in_request(
    *does: Callable[[MemorySink], Any], scope: Any = None, **options: Any
) -> tuple[list[LogRecord], LogRecord | None]:
    """The events that are recorded within one request, and the request's own record."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for do in does:
            done = do(sink)
            if asyncio.iscoroutine(done):
                await done
        await send(START)
        await send(END)

    middleware, sink = audited(app, **options)
    run = await drive(middleware, scope or http_scope())
    assert run.error is None
    assert sink.errors == []
    records = [record for record in sink.records if isinstance(record, LogRecord)]
    requests = [record for record in records if record.protocol == 1]
    events = [record for record in records if record.protocol == 0]
    return events, requests[0] if requests else None


def test_everything_that_is_said_has_its_place() -> None:
    """Columns where there are columns; what has none stands in the metadata."""
    stored = row(
        user_id=7,
        target=("order", 42),
        before={"state": "paid"},
        after={"state": "refunded", "lines": [1, 2]},
        message="refunded by hand",
        level=LogLevel.WARN,
        resource_owner="org",
        instance_id="acme",
        event_sequence=3,
        occurrence_date=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        reason="damaged",
    )

    assert (stored["event_type"], stored["event_sequence"]) == ("order.refunded", 3)
    assert (stored["aggregate_type"], stored["aggregate_id"]) == ("order", "42")
    assert (stored["user_id"], stored["resource_owner"]) == ("7", "org")
    assert (stored["instance_id"], stored["log_level"]) == ("acme", 2)
    assert (stored["message"], stored["protocol"]) == ("refunded by hand", 0)
    assert stored["occurrence_date"] == 1_767_312_000_000_000
    assert stored["metadata"] == {
        "audit.outcome": "ok",
        "reason": "damaged",
        "audit.before": {"state": "paid"},
        "audit.after": {"state": "refunded", "lines": [1, 2]},
    }
    assert [stored[name] for name in ("request_url", "request_method", "response_status")] == [
        None,
        None,
        None,
    ]


def test_what_is_not_said_is_absent() -> None:
    """No key without a value, and the clock of the recording as that of the event."""
    stored = row()

    assert stored["metadata"] == {"audit.outcome": "ok"}
    assert (stored["aggregate_type"], stored["user_id"], stored["message"]) == (None, None, None)
    assert (stored["log_level"], stored["instance_id"]) == (1, "default")
    assert stored["occurrence_date"] == stored["log_date"]


@pytest.mark.parametrize("nothing", [0, False, "", [], {}])
def test_empty_is_not_absent(nothing: Any) -> None:
    """A counter that was 0 and is 1 has changed."""
    assert row(before=nothing)["metadata"]["audit.before"] == nothing


def test_secrets_are_redacted_wherever_they_are_said() -> None:
    """In the states, in the metadata and in the message."""
    bait = "hunter2"
    with bound(api_key=bait):
        stored = row(
            before={"user": {"password": bait}},
            after=[{"token": bait}],
            message=f"reset with password={bait}",
            client_secret=bait,
            url=f"https://x.example/?access_token={bait}",
        )

    assert bait not in str(stored)
    assert stored["metadata"]["audit.before"] == {"user": {"password": "[REDACTED]"}}


def test_redaction_is_that_of_the_settings() -> None:
    """The names and the key that requests are redacted with."""
    sink = MemorySink(Settings(redact_fields=("salary",), redact_key="k" * 32))
    sink.record("user.changed", before={"salary": 1}, after={"salary": 2})
    metadata = metadata_of(event(sink))

    assert metadata["audit.before"] == {"salary": sink.redactor.hash_value(1)}
    assert metadata["audit.after"] == {"salary": sink.redactor.hash_value(2)}


def test_what_the_library_says_cannot_be_overwritten() -> None:
    """The application may add, but not forge, not even by accident."""
    metadata = row(**{"audit.outcome": "denied", "audit.before": 1, "mine": 2}, before=3)[
        "metadata"
    ]

    assert metadata == {"audit.outcome": "ok", "audit.before": 3, "mine": 2}


@pytest.mark.parametrize("outcome", [RequestOutcome.DENIED, "denied"])
def test_outcome_is_said_where_it_is_not_well(outcome: str) -> None:
    """A refusal is an event too, and must not read as if it had gone well."""
    assert row(outcome=outcome)["metadata"] == {"audit.outcome": "denied"}


def test_states_are_fixed_when_they_are_recorded() -> None:
    """What changes afterwards does not change the row."""
    sink = MemorySink()
    state = {"lines": [1]}
    sink.record("order.changed", before=state)
    state["lines"].append(2)

    assert metadata_of(event(sink))["audit.before"] == {"lines": [1]}


@pytest.mark.parametrize("index", range(len(OBJECTS)))
def test_hostile_values_leave_a_row(index: int) -> None:
    """Whatever is said: it does not raise, and what could be kept is kept."""
    value = OBJECTS[index]
    names = ("user_id", "target", "before", "message", "level", "event_sequence", "outcome", "odd")
    for name in names:
        stored = row(**{name: value})
        assert stored["event_type"] == "order.refunded", name
    stored = row(target=(value, value), instance_id=value, resource_owner=value, after=[value])
    assert stored["aggregate_type"] is not None


@given(said=anything)
def test_any_value_leaves_a_row(said: Any) -> None:
    """The property behind the list."""
    stored = row(target=said, before=said, after={"a": said}, message=said, odd=said, user_id=said)
    assert stored["metadata"]["audit.outcome"] == "ok"


@pytest.mark.parametrize("target", ["order", ("order",), ("order", 1, 2), {"order": 1}, 7, object])
def test_target_that_is_no_pair_becomes_a_type(target: Any) -> None:
    """As `annotate` has it."""
    stored = row(target=target)

    assert (stored["aggregate_type"], stored["aggregate_id"]) == (str(target)[:255], None)


class HostilePair(tuple[Any, ...]):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no")

    __iter__ = __str__ = __repr__ = __len__  # type: ignore[assignment]


def test_pair_of_a_hostile_class_becomes_its_name() -> None:
    """Foreign code in a target costs the target, not the request."""
    assert pair_of(HostilePair((1, 2))) == ("<HostilePair>", None)
    assert text_of(HostilePair()) == "<HostilePair>"


def test_what_does_not_fit_is_cut_and_named() -> None:
    """The small facts stay: they come first."""
    stored = row(before={"page": "x" * 100_000}, after={"page": "y" * 100_000}, note="kept")

    assert stored["metadata"]["note"] == "kept"
    assert {"metadata.audit.before", "metadata.audit.after"} <= set(repaired(stored))


def test_endless_message_takes_no_time() -> None:
    """It is cut before it is redacted, far beyond what is kept of it."""
    begin = time.process_time()
    stored = row(message="password=bait " * 1_000_000)
    assert time.process_time() - begin < 0.5
    assert len(stored["message"]) <= 8192
    assert "bait" not in stored["message"]
    assert repaired(stored) == ["message"]


def test_wrong_call_is_a_mistake_of_the_code() -> None:
    """Unlike a wrong value, it is found by the first test that runs it."""
    sink = MemorySink()
    with pytest.raises(TypeError):
        sink.record()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        sink.record("order.refunded", 7)  # type: ignore[misc]
    assert sink.records == []


def test_event_that_cannot_be_put_together_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever went wrong is no error of the application."""

    class Broken(Annotations):
        pass

    audit = AuditLog(NOWHERE, settings=quick())
    current.set(Broken())
    try:
        assert audit.record("order.refunded") is Outcome.DROPPED
    finally:
        current.set(None)

    assert audit.stats().dropped_by_reason == {"capture": 1}
    assert "auditlog.capture_failed" in caplog.text


async def test_event_in_a_request_is_tied_to_its_row() -> None:
    """By the identifier of the row, and by the trace; the request's identity is inherited."""
    events, request = await in_request(
        lambda _: annotate(user_id="ada", resource_owner="org", instance_id="acme"),
        lambda _: annotate(aggregate=("cart", 1), event_type="cart.paid", note="of the request"),
        lambda sink: sink.record("order.created", target=("order", 1)),
        lambda sink: sink.record("order.paid"),
        scope=http_scope(headers=[(b"traceparent", TRACEPARENT.encode())]),
    )
    assert request is not None
    first, second = map(encoded, events)

    for stored in (first, second):
        assert stored["metadata"] == {
            "audit.outcome": "ok",
            "audit.parent_id": request.log_id,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "span_id": "b7ad6b7169203331",
        }
        assert (stored["user_id"], stored["resource_owner"]) == ("ada", "org")
        assert stored["instance_id"] == "acme"
    assert (first["aggregate_type"], second["aggregate_type"]) == ("order", None)
    assert first["log_id"] != second["log_id"] != request.log_id


async def test_identity_is_asked_for_where_no_handler_names_it() -> None:
    """The callables of the middleware, which may not know yet and then are reported."""
    known: dict[str, str] = {}
    events, _ = await in_request(
        lambda sink: sink.record("early"),
        lambda _: known.update(user="ada"),
        lambda sink: sink.record("late"),
        user_id=lambda _: known["user"],
        instance_id=lambda _: "acme",
    )

    assert [(record.user_id, record.instance_id) for record in events] == [
        (None, "acme"),
        ("ada", "acme"),
    ]


async def test_what_is_said_explicitly_wins() -> None:
    """Over what is bound, which wins over the request in which it is bound."""

    def with_bound(sink: MemorySink) -> None:
        with bound(user_id="bound", resource_owner="bound"):
            sink.record("event", user_id="explicit")

    events, request = await in_request(
        lambda _: annotate(user_id="request", resource_owner="request", instance_id="request"),
        with_bound,
    )

    (record,) = events
    assert (record.user_id, record.resource_owner, record.instance_id) == (
        "explicit",
        "bound",
        "request",
    )
    assert request is not None
    assert request.user_id == "request"


async def test_bound_around_a_server_does_not_replace_its_users() -> None:
    """It was bound before the request began, so the request is nearer."""
    with bound(user_id="server", resource_owner="org", job="serve"):
        events, _ = await in_request(
            lambda _: annotate(user_id="ada"), lambda sink: sink.record("event")
        )

    (record,) = events
    assert (record.user_id, record.resource_owner) == ("ada", "org")
    assert metadata_of(record)["job"] == "serve"


@pytest.mark.parametrize(
    "options",
    [{}, {"policy": Policy([Rule(name="nothing", level=Level.NONE)])}],
    ids=["skip", "policy"],
)
async def test_event_outlives_a_request_that_is_left_out(options: Any) -> None:
    """A business event is recorded because the application says so."""
    events, request = await in_request(
        lambda sink: sink.record("order.paid"), lambda _: None if options else skip(), **options
    )

    assert [record.event_type for record in events] == ["order.paid"]
    assert request is None


async def test_task_that_outlives_its_request_still_names_its_row() -> None:
    """The identifier of a row that is written without being asked for is remembered."""
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def straggler(sink: MemorySink) -> None:
        await go_on.wait()
        sink.record("mail.sent")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(straggler(sink)))
        await send(START)
        await send(END)

    middleware, sink = audited(app)
    await drive(middleware, http_scope())
    go_on.set()
    await asyncio.gather(*tasks)
    request, late = sink.records

    assert isinstance(late, LogRecord)
    assert request.log_id is not None
    assert metadata_of(late)["audit.parent_id"] == request.log_id


async def test_threads_of_one_request_name_one_row() -> None:
    """They ask for its identifier all at once."""
    threads = 16
    barrier = threading.Barrier(threads)

    def speak(sink: MemorySink) -> None:
        barrier.wait()
        sink.record("part.done")

    async def at_once(sink: MemorySink) -> None:
        await asyncio.gather(*(asyncio.to_thread(speak, sink) for _ in range(threads)))

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    events, request = await in_request(at_once)

    assert request is not None
    assert {metadata_of(record)["audit.parent_id"] for record in events} == {request.log_id}
    assert len(events) == threads


def test_capture_hears_events() -> None:
    """Users test with the log that their application has."""
    audit = AuditLog(NOWHERE)
    with capture(audit) as records:
        audit.record("order.paid")
        with audit.execution("run", "target") as run:
            run.info("started")

    assert [type(record).__name__ for record in records] == ["LogRecord", "ExecutionLogRecord"]
    assert audit.stats().submitted == 0


def test_log_that_cannot_redact_is_not_made() -> None:
    """It is known at the start, and not when the first event is lost."""
    with pytest.raises(SettingsError, match="redact_key"):
        AuditLog(NOWHERE, settings=Settings(redact_key="short"))


def test_forgotten_log_is_not_found() -> None:
    """Only what lives can be meant."""
    gc.collect()
    before = len(living_logs())
    sink = MemorySink()
    assert sink in living_logs()
    del sink
    gc.collect()
    assert len(living_logs()) == before


def test_signal_handler_may_record_at_any_moment() -> None:
    """Also in the middle of recording: every event is there, tied to one row."""
    handled = 0

    class Request(Annotations):
        def identity(self) -> tuple[str | None, str | None, str | None]:
            return None, None, None

        def trace(self) -> tuple[str | None, str | None]:
            return None, None

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        sink.record("signal", before={"password": "bait"})

    sink = MemorySink()
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0003)
    recorded = 0
    try:
        while handled < 300:
            holder = Request()
            holder.log_id = None
            current.set(holder)
            already = len(sink.records)
            sink.record("main", before={"token": "bait"})
            recorded += 1
            parents = {
                record.metadata["audit.parent_id"]
                for record in sink.records[already:]
                if isinstance(record, LogRecord) and record.metadata is not None
            }
            assert len(parents) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        current.set(None)

    assert sink.errors == []
    assert len(sink.records) == recorded + handled


def test_secret_at_the_cut_of_a_long_message_is_hidden() -> None:
    """A message is cut after it is redacted: half a URL has no `@` to tell its password."""
    sink = MemorySink()
    sink.record("x", message="a " * 32_760 + "postgresql://bob:hunter2secret@db/shop")
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    assert record.message is not None
    assert "hunter2" not in record.message
