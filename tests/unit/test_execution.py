"""`execution`: the lines of one run, with the stack trace of what ended it."""

import asyncio
import threading
from typing import Any

import pytest

from asgi_driver import END, START, audited, drive, http_scope
from auditlog import ExecutionLogRecord, LogRecord, Outcome, Settings, annotate, bound
from auditlog.settings import MIN_ROW_BYTES
from auditlog.testing import MemorySink
from hostile import OBJECTS
from tuples import encoded, repaired


def lines(sink: MemorySink) -> list[dict[str, Any]]:
    """What is stored of the executions, in order."""
    assert sink.errors == []
    return [encoded(record) for record in sink.records if isinstance(record, ExecutionLogRecord)]


def test_lines_have_their_levels() -> None:
    """By the numbers of the table, which are no order."""
    sink = MemorySink()
    with sink.execution("run-1", "target-7") as run:
        assert run.info("started", step=1) is Outcome.ACCEPTED
        run.warn("slow")
        run.error("refused")
        run.debug("payload", size=3)
    stored = lines(sink)

    assert [(line["message"], line["log_level"]) for line in stored] == [
        ("started", 1),
        ("slow", 2),
        ("refused", 3),
        ("payload", 4),
    ]
    assert {(line["execution_id"], line["target_id"]) for line in stored} == {("run-1", "target-7")}
    assert [line["metadata"] for line in stored] == [{"step": 1}, None, None, {"size": 3}]
    assert [line["stack_trace"] for line in stored] == [None] * 4
    assert stored[0]["instance_id"] == "default"


def test_error_leaves_a_line_and_goes_on() -> None:
    """The very same object, and what it says is in the trace."""
    sink = MemorySink()
    error = ValueError("no such order")
    with pytest.raises(ValueError, match="no such order") as raised, sink.execution("r", "t"):
        raise error
    (line,) = lines(sink)

    assert raised.value is error
    assert error.__context__ is None
    assert (line["message"], line["log_level"]) == ("ValueError", 3)
    assert line["metadata"] == {"error.type": "ValueError"}
    assert line["stack_trace"].startswith("Traceback (most recent call last):\n")
    assert line["stack_trace"].endswith("ValueError: no such order\n")
    assert "raise error" in line["stack_trace"]
    assert repaired(line) == []


async def test_it_serves_async_with() -> None:
    """Cancellation is no failure, and leaves a line as well."""
    sink = MemorySink()
    begun = asyncio.Event()

    async def job() -> None:
        async with sink.execution("r", "t") as run:
            run.info("started")
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(job())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [(line["message"], line["log_level"]) for line in lines(sink)] == [
        ("started", 1),
        ("CancelledError", 2),
    ]


def test_exception_that_was_caught() -> None:
    """The one at hand, or the one given; with the application's words instead of the class."""
    sink = MemorySink()
    with sink.execution("r", "t") as run:
        try:
            raise KeyError("at hand")
        except KeyError as error:
            run.exception()
            kept = error
        run.exception(kept, "attempt failed", attempt=2)
        run.exception()
    first, second, third = lines(sink)

    assert first["message"] == "KeyError"
    assert "KeyError: 'at hand'" in first["stack_trace"]
    assert (second["message"], second["metadata"]) == (
        "attempt failed",
        {"error.type": "KeyError", "attempt": 2},
    )
    assert second["stack_trace"] == first["stack_trace"]
    assert (third["message"], third["stack_trace"]) == ("no exception", None)


def test_text_in_place_of_the_exception_is_the_message() -> None:
    """As in `logging`: the exception is the one being handled, and no word is lost."""
    sink = MemorySink()
    with sink.execution("r", "t") as run:
        try:
            raise KeyError("at hand")
        except KeyError:
            run.exception("could not ship", attempt=2)
    (line,) = lines(sink)

    assert (line["message"], line["log_level"]) == ("could not ship", 3)
    assert line["metadata"] == {"error.type": "KeyError", "attempt": 2}
    assert line["stack_trace"].endswith("KeyError: 'at hand'\n")


def test_secrets_are_redacted_in_all_of_it() -> None:
    """In the message, the metadata, and the words of the exception."""
    sink = MemorySink()
    bait = "hunter2"
    run = sink.execution("r", "t")
    run.info(f"password={bait}", token=bait)
    with pytest.raises(ValueError, match=bait), run:
        raise ValueError("password=" + bait)

    assert bait not in str(lines(sink))
    assert "ValueError: password=[REDACTED]" in lines(sink)[1]["stack_trace"]


@pytest.mark.parametrize("words", ["x" * 100_000, "\U0001f600" * 100_000, "a=b " * 50_000])
def test_long_words_of_an_error_are_cut(words: str) -> None:
    """From the end: they begin with the error's name."""
    sink = MemorySink(Settings(max_row_bytes=MIN_ROW_BYTES))
    with sink.execution("r", "t") as run:
        run.exception(ValueError(words))
    (line,) = (encoded(record, sink.settings) for record in sink.records)

    assert line["stack_trace"].startswith(f"ValueError: {words[:100]}")
    assert line["stack_trace"].endswith("(cut)\n")
    assert repaired(line) == []


def test_of_a_long_trace_the_end_is_kept() -> None:
    """It names the error, and where it was raised."""

    def one(depth: int, password: str) -> None:
        two(depth - 1, password=password) if depth else int(password)

    def two(depth: int, password: str) -> None:
        one(depth - 1, password=password) if depth else int(password)

    sink = MemorySink()
    with sink.execution("r", "t") as run:
        try:
            one(400, password="hunter2")
        except ValueError as error:
            run.exception(error)
    (line,) = lines(sink)

    assert line["stack_trace"].startswith("(the beginning is cut)\n")
    assert "ValueError: invalid literal for int() with base 10" in line["stack_trace"][-200:]
    assert 10_000 < len(line["stack_trace"].encode()) <= Settings().max_row_bytes // 4
    assert repaired(line) == []


def test_errors_of_a_group_are_all_in_the_trace() -> None:
    """With what caused them."""
    sink = MemorySink()

    def chained(number: int) -> Exception:
        error = ValueError(f"token={number}bait")
        error.__cause__ = KeyError(number)
        return error

    with pytest.raises(ExceptionGroup), sink.execution("r", "t"):
        raise ExceptionGroup("both", [chained(1), chained(2)])
    (line,) = lines(sink)

    assert line["message"] == "ExceptionGroup"
    assert line["stack_trace"].count("ValueError: token=[REDACTED]") == 2
    assert "KeyError: 1" in line["stack_trace"]
    assert "bait\n" not in line["stack_trace"]


def test_recursion_without_end() -> None:
    """The trace is made when the stack is free again."""
    sink = MemorySink()

    def forever() -> None:
        forever()

    with pytest.raises(RecursionError), sink.execution("r", "t"):
        forever()
    (line,) = lines(sink)
    assert "RecursionError" in line["stack_trace"][-200:]


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__

    @property
    def __notes__(self) -> Any:
        raise RuntimeError("no")

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")


def test_hostile_error_leaves_a_line() -> None:
    """It says that there is no trace to be had, and passes."""
    sink = MemorySink()
    with pytest.raises(HostileError), sink.execution("r", "t"):
        raise HostileError
    (line,) = lines(sink)

    assert line["message"] == "HostileError"
    assert line["stack_trace"]


@pytest.mark.parametrize("index", range(len(OBJECTS)))
def test_hostile_values_leave_lines(index: int) -> None:
    """Whatever is said, nothing is raised."""
    value = OBJECTS[index]
    sink = MemorySink()
    with sink.execution(value, value, instance_id=value) as run:
        run.info(value, odd=value)
        run.exception(None, value)
    assert len(lines(sink)) == 2


def test_tenant_is_that_of_the_place_where_it_was_made() -> None:
    """So that all lines of a run belong together, from whatever thread they come."""
    sink = MemorySink()
    with bound(instance_id="acme", job="nightly"):
        run = sink.execution("r", "t")
        with bound(step="one"):
            run.info("here")
        worker = threading.Thread(target=run.info, args=("in a thread",))
        worker.start()
        worker.join()
    run.info("afterwards")
    sink.execution("r", "t", instance_id="other").info("explicit")
    stored = lines(sink)

    assert [line["instance_id"] for line in stored] == ["acme", "acme", "acme", "other"]
    assert [line["metadata"] for line in stored] == [
        {"job": "nightly", "step": "one"},
        {"job": "nightly"},
        {"job": "nightly"},
        None,
    ]


async def test_line_in_a_request_is_tied_to_it() -> None:
    """By the identifier of its row, and by the tenant."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(instance_id="acme")
        with sink.execution("r", "t") as run:
            run.info("started")
        await send(START)
        await send(END)

    middleware, sink = audited(app)
    await drive(middleware, http_scope())
    line, request = sink.records

    assert isinstance(request, LogRecord)
    assert (line.instance_id, request.instance_id) == ("acme", "acme")
    assert encoded(line)["metadata"] == {"audit.parent_id": request.log_id}
