"""`AuditHandler` never raises, waits or prints, and does not feed on the library's own work."""

import asyncio
import logging
import logging.config
import logging.handlers
import threading
from typing import Never

import pytest

import hostile
from auditlog import LogRecord
from auditlog.capture.stdlib import AuditHandler
from auditlog.records import Record
from auditlog.testing import MemorySink
from log_lines import metadata, only

NAME = "tests.application"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def log() -> logging.Logger:
    """A logger of the application's, which nobody else hears."""
    return logging.Logger(NAME, level=1)  # noqa: LOG001  # pytest hears all others


@pytest.fixture
def handler(sink: MemorySink, log: logging.Logger) -> AuditHandler:
    handler = AuditHandler(sink)
    log.addHandler(handler)
    return handler


@pytest.mark.usefixtures("handler")
def test_arguments_that_do_not_fit(
    sink: MemorySink, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is a row all the same, which says that it is not whole; nothing is printed."""
    log.info(*("%s and %s", "one"))
    assert only(sink).message == "%s and %s"
    assert metadata(sink)["audit.capture_error"] == "TypeError"
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("number", range(len(hostile.OBJECTS)))
def test_hostile_values(
    sink: MemorySink, log: logging.Logger, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """As message, argument and in every field: one row each, and no word."""
    value = hostile.OBJECTS[number]
    log.info(value)
    log.info("%s %s", "one", value)
    log.info("m", extra=dict.fromkeys(("user_id", "event_type", "target", "key"), value))
    assert len(sink.records) == 3
    assert sink.errors == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("handler")
def test_argument_that_logs(sink: MemorySink, log: logging.Logger) -> None:
    """What a line says while it is being recorded is dropped: it could go round for ever."""

    class Talkative:
        def __str__(self) -> str:
            log.info("%s", self)
            return "said"

    log.info("%s", Talkative())
    assert [record.message for record in sink.records] == ["said"]  # type: ignore[union-attr]
    log.info("and on it goes")
    assert len(sink.records) == 2


def test_submit_that_fails(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss is counted, and whoever logs does not hear of it."""

    class Broken(MemorySink):
        def submit(self, record: Record) -> Never:
            raise OSError

    sink = Broken()
    log.addHandler(AuditHandler(sink))
    log.info("m")
    assert [type(error) for error in sink.errors] == [OSError]
    assert capsys.readouterr() == ("", "")


def test_lose_that_fails(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even then."""

    class Hopeless(MemorySink):
        def submit(self, record: Record) -> Never:
            raise OSError

        def lose(self, error: BaseException) -> Never:
            raise RecursionError

    log.addHandler(AuditHandler(Hopeless()))
    log.info("m")
    log.info("m")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["auditlog", "auditlog.sink", "auditlog.capture.x"])
def test_own_lines_are_not_taken(sink: MemorySink, name: str) -> None:
    """The trail does not feed on itself."""
    AuditHandler(sink).handle(logging.LogRecord(name, 40, "f.py", 1, "m", (), None))
    assert sink.records == []


@pytest.mark.parametrize("name", ["auditlogger", "psycopg", "psycopg.pool", "asyncio"])
def test_lines_of_others_are(sink: MemorySink, name: str) -> None:
    """Also those of psycopg that are about the application's own connections."""
    AuditHandler(sink).handle(logging.LogRecord(name, 40, "f.py", 1, "m", (), None))
    assert len(sink.records) == 1


@pytest.mark.parametrize("name", ["psycopg", "psycopg.transaction", "asyncio"])
async def test_lines_of_the_writers_work_are_not_taken(sink: MemorySink, name: str) -> None:
    """Whether it works on the application's loop, or on its own thread."""
    logger = logging.getLogger(name)
    handler = AuditHandler(sink)
    logger.addHandler(handler)
    try:

        async def work() -> None:
            logger.warning("m")

        await asyncio.create_task(work(), name="auditlog.writer")
        thread = threading.Thread(target=logger.warning, args=("m",), name="auditlog")
        thread.start()
        await asyncio.to_thread(thread.join)
        assert sink.records == []
        await work()
        assert len(sink.records) == 1
    finally:
        logger.removeHandler(handler)


def test_slow_writer_is_not_taken(sink: MemorySink) -> None:
    """In debug mode asyncio tells of slow callbacks, outside of their task."""
    text = "Executing <Task pending name='auditlog.writer' coro=<Writer.run()>> took 0.2 seconds"
    AuditHandler(sink).handle(logging.LogRecord("asyncio", 30, "f.py", 1, text, (), None))
    assert sink.records == []


@pytest.mark.usefixtures("handler")
def test_threads(sink: MemorySink, log: logging.Logger) -> None:
    """Every line of every thread."""

    def work(number: int) -> None:
        for turn in range(200):
            log.info("m", extra={"user_id": f"{number}-{turn}"})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    users = {record.user_id for record in sink.records if isinstance(record, LogRecord)}
    assert len(users) == len(sink.records) == 1000


@pytest.mark.usefixtures("handler")
def test_no_lock_is_held_while_the_application_formats(log: logging.Logger) -> None:
    """A thread that holds a lock and logs, another whose argument takes the lock: no deadlock."""
    lock, is_formatting, has_logged = threading.Lock(), threading.Event(), threading.Event()

    class Careful:
        def __str__(self) -> str:
            is_formatting.set()
            assert has_logged.wait(10)
            with lock:
                return "careful"

    thread = threading.Thread(target=log.info, args=("%s", Careful()))
    with lock:
        thread.start()
        assert is_formatting.wait(10)
        log.info("while the other formats")
        has_logged.set()
    thread.join(10)
    assert not thread.is_alive()
