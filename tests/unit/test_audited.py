"""`audited`: every call of a function is an event, also the one that fails."""

import asyncio
import functools
import gc
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from asgi_driver import END, START, drive, http_scope
from auditlog import (
    AuditLog,
    AuditMiddleware,
    LogLevel,
    LogRecord,
    RequestOutcome,
    Settings,
    annotate,
    annotate_event,
    audited,
    bound,
)
from auditlog.capture.application import call as call_module
from auditlog.capture.application import events as events_module
from auditlog.capture.application.call import at_hand
from auditlog.reporting import Reporter
from auditlog.testing import MemorySink, capture
from tuples import encoded

BY_NAME = "more/{'b': 2}"
NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds the logs, or the silence, of another."""
    monkeypatch.setattr(events_module, "_living", {})
    monkeypatch.setattr(call_module, "_reporter", Reporter())
    yield
    assert at_hand.get() is None


def rows(sink: MemorySink) -> list[dict[str, Any]]:
    """What is stored, in order."""
    assert sink.errors == []
    return [encoded(record) for record in sink.records if isinstance(record, LogRecord)]


def row(sink: MemorySink) -> dict[str, Any]:
    """The one row there is."""
    (stored,) = rows(sink)
    return stored


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The library's own lines."""
    return [record.getMessage() for record in caplog.records if record.name == "auditlog"]


def by_user(user_id: Any) -> tuple[str, Any]:
    return "user", user_id


def test_success_is_a_row(sink: MemorySink) -> None:
    """With the time it took, from its beginning."""

    @audited("user.deleted", target=by_user, audit=sink, message="gone", source="admin")
    def delete_user(user_id: int) -> str:
        return f"deleted {user_id}"

    assert delete_user(7) == "deleted 7"
    stored = row(sink)

    assert (stored["event_type"], stored["message"]) == ("user.deleted", "gone")
    assert (stored["aggregate_type"], stored["aggregate_id"]) == ("user", "7")
    assert stored["metadata"] == {"audit.outcome": "ok", "source": "admin"}
    assert (stored["log_level"], stored["protocol"]) == (1, 0)
    assert stored["response_time_ms"] == 0
    assert stored["occurrence_date"] <= stored["log_date"]


async def test_async_success_is_a_row(sink: MemorySink) -> None:
    """The time is that of the call, waiting included."""

    @audited("user.deleted", target=by_user, audit=sink)
    async def delete_user(user_id: int) -> str:
        await asyncio.sleep(0.02)
        return f"deleted {user_id}"

    assert await delete_user(user_id=7) == "deleted 7"
    assert row(sink)["aggregate_id"] == "7"
    assert 19 <= row(sink)["response_time_ms"] < 10_000


FAILURES: list[tuple[BaseException, str, int]] = [
    (ValueError("secret words"), "server_error", 3),
    (PermissionError("secret words"), "denied", 2),
    (PermissionError(13, "Permission denied"), "server_error", 3),
    (KeyboardInterrupt(), "cancelled", 2),
    (asyncio.CancelledError(), "cancelled", 2),
    (GeneratorExit(), "cancelled", 2),
    (SystemExit(1), "cancelled", 2),
]


@pytest.mark.parametrize(("error", "outcome", "level"), FAILURES, ids=repr)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_failure_is_a_row(
    sink: MemorySink, error: BaseException, outcome: str, level: int, kind: str
) -> None:
    """The class of the error, never its words; the error itself passes as it is."""

    def fail(user_id: int) -> None:
        raise error

    async def fail_later(user_id: int) -> None:
        raise error

    function: Any = fail if kind == "sync" else fail_later
    decorated = audited("user.deleted", target=by_user, audit=sink)(function)
    with pytest.raises(type(error)) as raised:
        decorated(7) if kind == "sync" else decorated(7).send(None)
    stored = row(sink)

    assert raised.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert stored["metadata"] == {"audit.outcome": outcome, "error.type": type(error).__name__}
    assert (stored["log_level"], stored["aggregate_id"]) == (level, "7")


async def test_cancelled_task_is_a_row(sink: MemorySink) -> None:
    """As it is in life: from outside, in the middle."""
    begun = asyncio.Event()

    @audited("report.made", audit=sink)
    async def make_report() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(make_report())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert row(sink)["metadata"]["audit.outcome"] == "cancelled"


def test_level_is_for_success(sink: MemorySink) -> None:
    """A failure is an error, however harmless a success would be."""

    @audited("cache.cleared", level=LogLevel.DEBUG, audit=sink)
    def clear(*, fail: bool) -> None:
        if fail:
            raise ValueError

    clear(fail=False)
    with pytest.raises(ValueError):  # noqa: PT011  # it has no words
        clear(fail=True)
    assert [stored["log_level"] for stored in rows(sink)] == [4, 3]


class Users:
    """Methods of every kind; and what each has as its target."""

    sink = MemorySink()
    kind = "user"

    def __init__(self, name: str) -> None:
        self.name = name

    @audited("method", target=lambda self, role: (self.name, role), audit=sink)
    def method(self, role: str = "reader") -> "Users":
        return self

    @audited("method.async", target=lambda self: (self.kind, self.name), audit=sink)
    async def async_method(self) -> "Users":
        return self

    @classmethod
    @audited("class", target=lambda cls, number: (cls.kind, number), audit=sink)
    def class_method(cls, number: int) -> tuple[type["Users"], int]:
        return cls, number

    @staticmethod
    @audited("static", target=lambda number: ("number", number), audit=sink)
    def static_method(number: int) -> int:
        return number


async def test_methods_of_every_kind() -> None:
    """`self` and `cls` are arguments like others."""
    users = Users("ada")
    Users.sink.records.clear()

    assert users.method() is users
    assert await users.async_method() is users
    assert users.class_method(1) == (Users, 1)
    assert Users.class_method(number=2) == (Users, 2)
    assert users.static_method(3) == 3
    assert [(stored["aggregate_type"], stored["aggregate_id"]) for stored in rows(Users.sink)] == [
        ("ada", "reader"),
        ("user", "ada"),
        ("user", "1"),
        ("user", "2"),
        ("number", "3"),
    ]


Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
CALLS: list[tuple[Callable[..., Any], Any, Call, str]] = [
    (lambda a, b: (a, b), lambda a, b: (a, b), ((1, 2), {}), "1/2"),
    (lambda a, b: (a, b), lambda b, a: (a, b), ((1, 2), {}), "1/2"),
    (lambda a, b: (a, b), lambda b: ("b", b), ((1,), {"b": 2}), "b/2"),
    (lambda a, b=2: (a, b), lambda b: ("b", b), ((1,), {}), "b/2"),
    (lambda a, *, b=2: (a, b), lambda b: ("b", b), ((1,), {}), "b/2"),
    (lambda a, *, b: (a, b), lambda b: ("b", b), ((1,), {"b": 3}), "b/3"),
    (lambda a, *more: (a, more), lambda more: ("more", more), ((1, 2, 3), {}), "more/(2, 3)"),
    (lambda a, **more: (a, more), lambda more: ("more", more), ((), {"a": 1, "b": 2}), BY_NAME),
    (lambda a, **more: (a, more), lambda b: ("b", b), ((1,), {"b": 2}), "b/2"),
    (lambda a, **more: (a, more), lambda b=9: ("b", b), ((1,), {}), "b/9"),
    (lambda a, /, **more: (a, more), lambda a: ("a", a), ((1,), {"a": 2}), "a/1"),
    (lambda a=5, /: a, lambda a: ("a", a), ((), {}), "a/5"),
    (lambda a: a, lambda a, kind="k": (kind, a), ((1,), {}), "k/1"),
    (lambda a: a, lambda: ("all", "of them"), ((1,), {}), "all/of them"),
    (lambda a: a + 1, lambda result, a: (a, result), ((1,), {}), "1/2"),
    (lambda result: result + 1, lambda result: ("own", result), ((1,), {}), "own/1"),
    (lambda **more: len(more), lambda result: ("of", result), ((), {"a": 1}), "of/1"),
    (functools.partial(lambda a, b: (a, b), 1), lambda b: ("b", b), ((2,), {}), "b/2"),
    (lambda a: a, functools.partial(lambda k, a: (k, a), "k"), ((1,), {}), "k/1"),
]


@pytest.mark.parametrize(("function", "target", "call", "expected"), CALLS)
def test_target_is_asked_for_the_arguments_it_names(
    sink: MemorySink,
    function: Callable[..., Any],
    target: Any,
    call: Call,
    expected: str,
) -> None:
    """However they were passed, in whatever order."""
    args, kwargs = call
    audited("event", target=target, audit=sink)(function)(*args, **kwargs)
    stored = row(sink)
    assert f"{stored['aggregate_type']}/{stored['aggregate_id']}" == expected


def test_target_is_asked_before_the_call_may_change_it(sink: MemorySink) -> None:
    """A deleted thing may not know any more which one it was."""

    @audited("order.deleted", target=lambda order: ("order", order["id"]), audit=sink)
    def delete(order: dict[str, int]) -> None:
        order.clear()

    delete({"id": 42})
    assert row(sink)["aggregate_id"] == "42"


def test_result_is_not_asked_for_after_a_failure(
    sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """There is none: the row says what failed, and not on what."""

    @audited("user.created", target=lambda result: ("user", result.id), audit=sink)
    def create() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it has no words
        create()
    assert row(sink)["aggregate_type"] is None
    assert told(caplog) == []


def test_question_that_fails_costs_its_answer(
    sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on, the row is written, and a line says why it lacks something."""

    @audited("user.deleted", target=lambda user: ("user", user.id), audit=sink)
    def delete(user: object) -> str:
        return "done"

    assert delete("a text") == "done"
    assert row(sink)["aggregate_type"] is None
    (line,) = told(caplog)
    assert line.startswith("auditlog.question_failed: ")
    assert "delete: asking for target raised AttributeError" in line


def test_other_facts_may_be_asked_for_as_well(sink: MemorySink) -> None:
    """Who acts is an argument of many functions."""

    @audited(
        "order.paid",
        user_id=lambda actor: actor["name"],
        resource_owner=lambda actor: actor["org"],
        instance_id=lambda tenant: tenant,
        message=lambda result: f"paid with {result}",
        audit=sink,
    )
    def pay(actor: dict[str, str], tenant: int) -> str:
        return "a card"

    with bound(user_id="bound", instance_id="bound", job="checkout"):
        pay({"name": "ada", "org": "acme"}, 7)
    stored = row(sink)

    assert (stored["user_id"], stored["resource_owner"]) == ("ada", "acme")
    assert (stored["instance_id"], stored["message"]) == ("7", "paid with a card")
    assert stored["metadata"]["job"] == "checkout"


def plain(user_id: int) -> int:
    return user_id


async def coroutine(user_id: int) -> int:
    return user_id


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class CallableGenerator:
    def __call__(self) -> Iterator[int]:
        yield 1


MISTAKES: list[tuple[Any, dict[str, Any], str]] = [
    (plain, {"target": lambda other: ("user", other)}, "'other' cannot be asked for; .*user_id"),
    (plain, {"target": lambda *user_id: ("user", user_id)}, "user_id cannot be asked for"),
    (plain, {"target": lambda **user_id: ("user", user_id)}, "user_id cannot be asked for"),
    (plain, {"target": coroutine}, "must be a plain function"),
    (plain, {"audit": "postgresql://"}, "takes an AuditLog"),
    (generator, {}, "takes no generators"),
    (async_generator, {}, "takes no generators"),
    (Users, {}, "takes a function or a method"),
    (7, {}, "takes a function or a method"),
    (CallableGenerator(), {}, "takes no generators"),
    (plain, {"user_id": str}, "does not tell its arguments: wrap it in a lambda"),
    (plain, {"target": ("user", lambda user_id: user_id)}, "target= is asked as a whole"),
    (plain, {"amount": lambda user_id: user_id}, r"annotate_event\(amount=\.\.\.\)"),
    (staticmethod(plain), {}, "below @staticmethod"),
    (classmethod(plain), {}, "below @classmethod"),
    (property(plain), {}, "below @property"),
]


@pytest.mark.parametrize(("function", "options", "message"), MISTAKES)
def test_mistakes_are_found_when_the_function_is_decorated(
    function: Any, options: dict[str, Any], message: str
) -> None:
    """And not at the first call; the text says what to do."""
    with pytest.raises(TypeError, match=message):
        audited("event", **options)(function)


async def test_function_keeps_its_kind_and_its_signature(sink: MemorySink) -> None:
    """Frameworks look at both."""
    sync, later = (audited("event", audit=sink)(function) for function in (plain, coroutine))

    assert inspect.iscoroutinefunction(later)
    assert not inspect.iscoroutinefunction(sync)
    for decorated, function in ((sync, plain), (later, coroutine)):
        assert inspect.signature(decorated) == inspect.signature(function)
        assert (decorated.__name__, decorated.__module__) == (function.__name__, __name__)


class CallableObject:
    async def __call__(self, user_id: int) -> int:
        await asyncio.sleep(0)
        return user_id


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not care whether the function is async."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def failing(user_id: int) -> None:
    await asyncio.sleep(0)
    raise PermissionError


ASYNC: list[tuple[Callable[..., Awaitable[Any]], str]] = [
    (CallableObject(), "ok"),
    (functools.partial(coroutine), "ok"),
    (passing(coroutine), "ok"),
    (passing(failing), "denied"),
    (passing(audited("inner", audit=MemorySink())(failing)), "denied"),
]


@pytest.mark.parametrize(("function", "outcome"), ASYNC)
async def test_async_functions_in_disguise(
    sink: MemorySink, function: Callable[..., Awaitable[Any]], outcome: str
) -> None:
    """The call ends when its coroutine does."""
    decorated = audited("event", target=by_user, audit=sink)(function)
    waiting = decorated(7)
    assert sink.records == []
    try:
        assert await waiting == 7
    except PermissionError:
        assert outcome == "denied"
    assert row(sink)["metadata"]["audit.outcome"] == outcome


def test_function_adds_to_its_event(sink: MemorySink) -> None:
    """What is known only inside; it wins over what the decorator says."""

    @audited("user.renamed", target=by_user, message="from outside", audit=sink)
    def rename(user_id: int, name: str) -> None:
        user = {"name": "old", "password": "bait"}
        annotate_event(before=user, target=("person", user_id), event_sequence=3)
        user["name"] = name
        annotate_event(after=user, message="from inside", level=LogLevel.WARN, user_id=1)
        annotate_event(instance_id="acme", resource_owner="org", reason="marriage")

    rename(7, "new")
    annotate_event(reason="nobody hears this")
    stored = row(sink)

    assert stored["metadata"] == {
        "audit.outcome": "ok",
        "audit.before": {"name": "old", "password": "[REDACTED]"},
        "audit.after": {"name": "new", "password": "[REDACTED]"},
        "reason": "marriage",
    }
    assert (stored["aggregate_type"], stored["event_sequence"]) == ("person", 3)
    assert (stored["message"], stored["log_level"]) == ("from inside", 2)
    assert (stored["user_id"], stored["instance_id"], stored["resource_owner"]) == (
        "1",
        "acme",
        "org",
    )


def test_function_names_its_outcome(sink: MemorySink) -> None:
    """An exception of a framework says nothing to us; the level follows the outcome."""

    @audited("order.paid", audit=sink)
    def pay() -> None:
        annotate_event(outcome=RequestOutcome.DENIED)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it has no words
        pay()
    assert row(sink)["metadata"] == {"audit.outcome": "denied", "error.type": "ValueError"}
    assert row(sink)["log_level"] == 2


async def test_each_call_has_an_event_of_its_own(sink: MemorySink) -> None:
    """Calls within calls, at once in tasks, and in threads."""

    @audited("inner", audit=sink)
    async def inner(number: int) -> None:
        annotate_event(number=number)
        await asyncio.sleep(0)
        await asyncio.to_thread(annotate_event, thread=number)

    @audited("outer", audit=sink)
    async def outer() -> None:
        await asyncio.gather(*map(inner, range(5)))
        annotate_event(number="outer")

    await outer()
    metadata = [stored["metadata"] for stored in rows(sink)]
    assert sorted((said["number"], said["thread"]) for said in metadata[:5]) == [
        (number, number) for number in range(5)
    ]
    assert metadata[5] == {"audit.outcome": "ok", "number": "outer"}


class Order:
    """What a test can see go."""


async def test_job_that_plans_its_next_run_keeps_no_run_alive(sink: MemorySink) -> None:
    """What is planned in a call inherits it; its arguments, result and outer calls are let go."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    alive: weakref.WeakSet[Order] = weakref.WeakSet()
    seen: list[tuple[int, int]] = []

    @audited("order.checked", audit=sink)
    def check(order: Order, number: int) -> Order:
        alive.add(order)
        gc.collect()
        seen.append((len(alive), len(calls_around())))
        if number < 20:
            loop.call_soon(check, Order(), number + 1)
        else:
            ended.set_result(None)
        return order

    check(Order(), 0)
    await ended
    assert len(rows(sink)) == len(seen) == 21
    assert max(orders for orders, _ in seen) == 1
    assert max(calls for _, calls in seen) == 2


def calls_around() -> list[Any]:
    """The audited calls to which this code leads, the innermost first."""
    calls = []
    call = at_hand.get()
    while call is not None:
        calls.append(call)
        call = call._outer
    return calls


def test_redaction_with_a_key_hides_once(sink: MemorySink) -> None:
    """What a function adds can be searched for as all else can."""
    sink = MemorySink(Settings(redact_key="k" * 32))

    @audited("user.changed", audit=sink)
    def change() -> None:
        annotate_event(before={"password": "bait"})

    change()
    assert row(sink)["metadata"]["audit.before"] == {"password": sink.redactor.hash_value("bait")}


async def in_request(sink: MemorySink, work: Callable[[], Any]) -> LogRecord:
    """Do something in a request; return the request's own record."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        work()
        await send(START)
        await send(END)

    run = await drive(AuditMiddleware(app, audit=sink), http_scope())
    assert run.error is None
    request = sink.records[-1]
    assert isinstance(request, LogRecord)
    return request


async def test_in_a_request_its_log_is_meant(sink: MemorySink) -> None:
    """However many there are; `annotate` speaks of the request, `annotate_event` of the call."""
    others = [MemorySink(), MemorySink()]

    @audited("user.deleted", target=by_user)
    def delete_user(user_id: int) -> None:
        annotate(user_id="ada", note="request")
        annotate_event(note="event")

    request = await in_request(sink, lambda: delete_user(7))
    event = rows(sink)[0]

    assert [other.records for other in others] == [[], []]
    assert request.metadata is not None
    assert request.metadata["note"] == "request"
    assert request.aggregate_type is None
    assert event["user_id"] == "ada"
    assert event["metadata"] == {
        "audit.outcome": "ok",
        "audit.parent_id": request.log_id,
        "note": "event",
    }


def test_only_log_of_the_process_is_meant(sink: MemorySink) -> None:
    """In a script there is one, and nobody has to pass it on."""
    audited("event")(plain)(7)
    assert row(sink)["event_type"] == "event"


def test_log_that_is_listened_to_is_meant() -> None:
    """`capture` hears what decorated functions record."""
    audit = AuditLog(NOWHERE)
    with capture(audit) as records:
        audited("event")(plain)(7)
    assert len(records) == 1
    assert audit.stats().submitted == 0


def test_log_may_be_asked_for(sink: MemorySink) -> None:
    """When the function is decorated, an application's factory has not run yet."""
    logs: list[MemorySink] = []
    decorated = audited("event", audit=lambda: logs[0])(plain)
    logs.append(sink)
    _other = MemorySink()
    decorated(7)
    assert len(sink.records) == 1


def fail() -> MemorySink:
    raise RuntimeError


@pytest.mark.parametrize(
    ("audit", "remedy"),
    [
        (None, "pass audit= to audited()"),
        (fail, "the function of audit= raised RuntimeError"),
        (lambda: "no log", "the function of audit= must return an AuditLog, not str"),
    ],
    ids=["several", "raises", "text"],
)
def test_event_without_a_log_is_told_of(
    sink: MemorySink, audit: Any, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The function does its work all the same; one line says what is to be done."""
    other = MemorySink()

    @audited("event", audit=audit)
    def work() -> int:
        annotate_event(note=1)
        return 7

    assert [work(), work()] == [7, 7]
    assert [sink.records, other.records] == [[], []]
    (line,) = told(caplog)
    assert line.startswith("auditlog.event_unheard: ")
    assert "work: its event is lost: " in line
    assert remedy in line
    assert caplog.records[-1].levelno == logging.ERROR


def test_no_log_at_all(caplog: pytest.LogCaptureFixture) -> None:
    """As when several are there."""
    assert audited("event")(plain)(7) == 7
    assert "auditlog.event_unheard" in caplog.text


def test_error_of_ours_is_no_error_of_the_function(
    sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and what the function raises is still what it raised."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(call_module, "event_record", broken)
    error = ValueError("theirs")

    @audited("event", audit=sink)
    def work(*, well: bool) -> int:
        if well:
            return 7
        raise error

    assert work(well=True) == 7
    with pytest.raises(ValueError, match="theirs") as raised:
        work(well=False)
    assert raised.value is error
    assert error.__context__ is None
    assert [type(lost).__name__ for lost in sink.errors] == ["RuntimeError"] * 2


def test_wrong_call_is_a_failure_of_the_function(sink: MemorySink) -> None:
    """The error is Python's own."""
    decorated: Any = audited("event", target=by_user, audit=sink)(plain)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'user_id'"):
        decorated()
    assert row(sink)["metadata"] == {"audit.outcome": "server_error", "error.type": "TypeError"}
