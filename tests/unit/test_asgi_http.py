import asyncio
import contextvars
import http
import logging
from collections.abc import Callable
from typing import Any

import pytest

from asgi_driver import (
    END,
    START,
    audited,
    body,
    drive,
    http_scope,
    metadata_of,
    only,
    row_of,
    script,
    start,
    upload,
)
from auditlog import AuditMiddleware, Level, LogLevel, Policy, Rule, Settings, annotate, skip
from auditlog.capture.context import current
from auditlog.testing import MemorySink
from tuples import encoded

ERROR = RuntimeError("no")
DISCONNECT = {"type": "http.disconnect"}


class ClientDisconnect(Exception):  # noqa: N818  # Starlette's name for it
    pass


OK_ANSWER = script(START, END)
# What the application does → status, where it comes from, outcome, level, error.type
CONCLUSIONS: dict[str, tuple[Any, tuple[Any, str, str, LogLevel, str | None]]] = {
    "answers": (OK_ANSWER, (200, "wire", "ok", LogLevel.INFO, None)),
    "redirects": (script(start(307), END), (307, "wire", "ok", LogLevel.INFO, None)),
    "is asked wrongly": (
        script(start(404), END),
        (404, "wire", "client_error", LogLevel.WARN, None),
    ),
    "wants credentials": (script(start(401), END), (401, "wire", "denied", LogLevel.WARN, None)),
    "forbids": (script(start(403), END), (403, "wire", "denied", LogLevel.WARN, None)),
    "fails in order": (
        script(start(503), END),
        (503, "wire", "server_error", LogLevel.ERROR, None),
    ),
    "raises": (script(ERROR), (500, "derived", "server_error", LogLevel.ERROR, "RuntimeError")),
    "raises after the start": (
        script(START, ERROR),
        (200, "wire", "server_error", LogLevel.ERROR, "RuntimeError"),
    ),
    "raises in the middle": (
        script(START, body(b"a", more_body=True), ERROR),
        (200, "wire", "server_error", LogLevel.ERROR, "RuntimeError"),
    ),
    "raises after the end": (
        script(START, END, ERROR),
        (200, "wire", "ok", LogLevel.ERROR, "RuntimeError"),
    ),
    "raises a group": (
        script(ExceptionGroup("", [ERROR])),
        (500, "derived", "server_error", LogLevel.ERROR, "ExceptionGroup"),
    ),
    "is cancelled": (
        script(asyncio.CancelledError()),
        (None, "none", "cancelled", LogLevel.WARN, "CancelledError"),
    ),
    "is cancelled in the middle": (
        script(START, asyncio.CancelledError()),
        (200, "wire", "cancelled", LogLevel.WARN, "CancelledError"),
    ),
    "is cancelled after the end": (
        script(START, END, asyncio.CancelledError()),
        (200, "wire", "ok", LogLevel.ERROR, "CancelledError"),
    ),
    "exits": (script(SystemExit(1)), (None, "none", "cancelled", LogLevel.WARN, "SystemExit")),
    "never answers": (script(), (500, "derived", "server_error", LogLevel.ERROR, None)),
    "stops in the middle": (
        script(START, body(b"a", more_body=True)),
        (200, "wire", "incomplete", LogLevel.ERROR, None),
    ),
    "stops after the start": (script(START), (200, "wire", "incomplete", LogLevel.ERROR, None)),
    "sends its body first": (script(END), (None, "none", "unknown", LogLevel.WARN, None)),
    "announces trailers and forgets them": (
        script(start(trailers=True), END),
        (200, "wire", "incomplete", LogLevel.ERROR, None),
    ),
    "sends trailers": (
        script(
            start(trailers=True),
            END,
            {"type": "http.response.trailers", "headers": [], "more_trailers": True},
            {"type": "http.response.trailers", "headers": []},
        ),
        (200, "wire", "ok", LogLevel.INFO, None),
    ),
    "sends a path": (
        script(START, {"type": "http.response.pathsend", "path": "/etc/hostname"}),
        (200, "wire", "ok", LogLevel.INFO, None),
    ),
    "sends a file": (
        script(START, {"type": "http.response.zerocopysend", "file": 3, "count": 9}),
        (200, "wire", "ok", LogLevel.INFO, None),
    ),
    "sends hints and pushes": (
        script(
            {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]},
            {"type": "http.response.push", "path": "/a", "headers": []},
            {"type": "http.response.debug", "info": {}},
            START,
            END,
        ),
        (200, "wire", "ok", LogLevel.INFO, None),
    ),
}


@pytest.mark.parametrize(("app", "expected"), CONCLUSIONS.values(), ids=CONCLUSIONS)
async def test_status_source_and_outcome_tell_how_it_ended(app: Any, expected: Any) -> None:
    """A status is `wire` only if it was sent."""
    record = await row_of(app)
    metadata = metadata_of(record)

    assert expected == (
        record.response_status,
        metadata["audit.status_source"],
        metadata["audit.outcome"],
        record.log_level,
        metadata.get("error.type"),
    )


@pytest.mark.parametrize(
    ("status", "stored", "outcome"),
    [
        (http.HTTPStatus.CREATED, 201, "ok"),
        ("404", 404, "client_error"),
        (99, 99, "unknown"),
        (600, 600, "unknown"),
        (None, None, "unknown"),
        ("nothing", None, "unknown"),
        ([], None, "unknown"),
        (10**30, 2**31 - 1, "unknown"),
    ],
)
async def test_strange_status_is_stored_as_far_as_it_is_one(
    status: Any, stored: int | None, outcome: str
) -> None:
    """An application may send anything that its server lets pass."""
    record = await row_of(script(start(status), END))

    assert (stored, outcome) == (
        encoded(record)["response_status"],
        metadata_of(record)["audit.outcome"],
    )


# What the application does when its client leaves → status, source, error.type
DEPARTURES: dict[str, tuple[Any, tuple[int | None, str, str | None]]] = {
    "stops": (script(...), (None, "none", None)),
    "raises what says so": (script(..., ClientDisconnect()), (None, "none", None)),
    "raises something else": (script(..., ERROR), (None, "none", "RuntimeError")),
    "is cancelled": (script(..., asyncio.CancelledError()), (None, "none", "CancelledError")),
    "answers nobody": (script(..., START, END), (200, "derived", None)),
    "answers an error to nobody": (script(..., start(500), END), (500, "derived", None)),
    "stops in the middle": (
        script(START, body(b"a", more_body=True), ...),
        (200, "wire", None),
    ),
    "ends in the middle in good order": (
        script(START, body(b"a", more_body=True), ..., END),
        (200, "wire", None),
    ),
}


@pytest.mark.parametrize(("app", "expected"), DEPARTURES.values(), ids=DEPARTURES)
async def test_client_that_left_early_is_told_from_an_answer(app: Any, expected: Any) -> None:
    """Whatever the application does after it heard of it; what it sends reaches nobody."""
    record = await row_of(app, None, [DISCONNECT])
    metadata = metadata_of(record)

    assert metadata["audit.outcome"] == "client_disconnect"
    assert record.log_level == LogLevel.WARN
    assert expected == (
        record.response_status,
        metadata["audit.status_source"],
        metadata.get("error.type"),
    )


async def test_disconnect_after_the_end_is_the_normal_end() -> None:
    """Servers answer with it whoever listens on after the response."""
    record = await row_of(script(START, END, ...), None, [DISCONNECT])

    assert metadata_of(record)["audit.outcome"] == "ok"


async def test_disconnect_exception_of_an_application_whose_client_is_there_is_an_error() -> None:
    """Its name alone proves nothing."""
    metadata = metadata_of(await row_of(script(ClientDisconnect())))

    assert (metadata["audit.outcome"], metadata["error.type"]) == (
        "server_error",
        "ClientDisconnect",
    )


@pytest.mark.parametrize("refused", ["http.response.start", "http.response.body"])
async def test_send_that_raises_oserror_is_a_client_that_left(refused: str) -> None:
    """ASGI 2.4 lets a server say it so; the error passes to the application."""

    def refuse(message: Any) -> None:
        if message["type"] == refused:
            raise BrokenPipeError

    sink = MemorySink()
    middleware, _ = audited(OK_ANSWER, sink)
    run = await drive(middleware, http_scope(), refuse=refuse)

    assert isinstance(run.error, BrokenPipeError)
    assert metadata_of(only(sink))["audit.outcome"] == "client_disconnect"


async def test_oserror_after_the_end_changes_nothing() -> None:
    """The response was over."""
    seen: list[Any] = []

    def refuse(message: Any) -> None:
        seen.append(message)
        if len(seen) > 2:
            raise BrokenPipeError

    record = await row_of(script(START, END, END), refuse=refuse)

    assert metadata_of(record)["audit.outcome"] == "ok"


async def test_what_the_server_refuses_was_not_sent() -> None:
    """An illegal second start, refused with an exception, leaves the first one's status."""

    def refuse(message: Any) -> None:
        if message.get("status") == 500:
            raise RuntimeError("response already started")

    record = await row_of(script(START, start(500)), refuse=refuse)

    assert (record.response_status, metadata_of(record)["error.type"]) == (200, "RuntimeError")


async def test_sizes_are_those_that_passed() -> None:
    """In all parts, in both directions."""
    app = script(..., ..., START, body(b"abc", more_body=True), body(memoryview(b"de")))
    record = await row_of(app, http_scope(), [upload(b"1234567", more_body=True), upload(b"89")])
    metadata = metadata_of(record)

    assert (metadata["http.request.body.size"], metadata["http.response.body.size"]) == (9, 5)


async def test_sizes_of_nothing_are_absent() -> None:
    """A key is absent when there is nothing to say."""
    metadata = metadata_of(await row_of(script(..., START, END), None, [upload()]))

    assert not {"http.request.body.size", "http.response.body.size"} & metadata.keys()


async def test_answer_to_head_has_no_size() -> None:
    """Frameworks send the body all the same, and servers drop it."""
    metadata = metadata_of(await row_of(script(START, body(b"abc")), http_scope(method="HEAD")))

    assert "http.response.body.size" not in metadata


async def test_file_of_the_server_counts_what_was_announced() -> None:
    """Zerocopysend has a count; pathsend has none."""
    file = {"type": "http.response.zerocopysend", "file": 3}
    app = script(START, {**file, "count": 40, "more_body": True}, {**file, "count": 2})

    assert metadata_of(await row_of(app))["http.response.body.size"] == 42


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Time that passes only when a test says so, in milliseconds."""
    now = [1_000_000_000]
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])

    def advance(milliseconds: int) -> None:
        now[0] += milliseconds * 1_000_000

    return advance


async def test_duration_ends_with_the_last_body(clock: Callable[[int], None]) -> None:
    """Background tasks run on in the same call, and are not part of the response."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        clock(5)
        await send(START)
        clock(7)
        await send(END)
        clock(10_000)

    assert (await row_of(app)).response_time_ms == 12


async def test_duration_ends_with_the_trailers(clock: Callable[[int], None]) -> None:
    """They are the last of the response, where they are announced."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send(END)
        clock(30)
        await send({"type": "http.response.trailers", "headers": []})
        clock(10_000)

    assert (await row_of(app)).response_time_ms == 30


async def test_duration_of_what_never_ended_goes_to_the_return(
    clock: Callable[[int], None],
) -> None:
    """There is no other end."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        clock(40)

    assert (await row_of(app)).response_time_ms == 40


async def test_first_byte_is_told_of_responses_in_several_parts(
    clock: Callable[[int], None],
) -> None:
    """Of one part it would say the same as the duration."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        clock(5)
        await send(START)
        clock(50)
        await send(body(b"a", more_body=True))
        await send(END)

    metadata = metadata_of(await row_of(app))

    assert metadata["audit.first_byte_ms"] == 5
    assert "audit.first_byte_ms" not in metadata_of(await row_of(OK_ANSWER))


async def test_row_carries_the_request() -> None:
    """Target, method, headers, addresses and correlation, and when it began."""
    scope = http_scope(
        method="PATCH",
        raw_path=b"/orders/4%202",
        path="/orders/4 2",
        query_string=b"a=1&password=hunter2",
        headers=[
            (b"host", b"example.org"),
            (b"accept", b"text/html"),
            (b"accept", b"*/*"),
            (b"authorization", b"Bearer hunter2"),
            (b"x-request-id", b"abc-1"),
            (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
    )
    record = await row_of(OK_ANSWER, scope)
    row = encoded(record)

    assert row["request_url"] == "/orders/4%202?a=1&password=[REDACTED]"
    assert (row["request_method"], row["protocol"], row["instance_id"]) == ("PATCH", 1, "default")
    assert row["request_headers"]["accept"] == ["text/html", "*/*"]
    assert "authorization" not in row["request_headers"]
    assert "hunter2" not in str(row)
    assert row["metadata"] == {
        "audit.outcome": "ok",
        "audit.status_source": "wire",
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "audit.request_id": "abc-1",
    }
    assert abs(row["log_date"] - row["occurrence_date"]) < 10_000_000


# What a server may give instead → a few of the row's values
ODDITIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no client": ({"client": None}, {"network.peer.address": None}),
    "client left out": ({"client": ...}, {"network.peer.address": None}),
    "nameless client": (
        {"client": ("", 0)},
        {"network.peer.address": None, "client.address": None},
    ),
    "empty client": ({"client": ()}, {"network.peer.address": None}),
    "client of granian": ({"client": ("192.0.2.1", "50")}, {"network.peer.address": "192.0.2.1"}),
    "client in a list": ({"client": ["192.0.2.1", 50]}, {"network.peer.address": "192.0.2.1"}),
    "client on a socket": ({"client": ("/run/a.sock", None)}, {"client.address": "/run/a.sock"}),
    "raw_path missing": ({"raw_path": ..., "path": "/ä b"}, {"request_url": "/%C3%A4%20b"}),
    "raw_path None": ({"raw_path": None, "path": "/ä"}, {"request_url": "/%C3%A4"}),
    "surrogate in path": ({"raw_path": None, "path": "/\udcff"}, {"request_url": "/%3F"}),
    "query missing": ({"query_string": ...}, {"request_url": "/orders/42"}),
    "query None": ({"query_string": None}, {"request_url": "/orders/42"}),
    "hostile query": (
        {"query_string": b"a=\xff%ff%zz&&=\0"},
        {"request_url": "/orders/42?a=%FF%ff%zz&&=[REDACTED]"},
    ),
    "http_version missing": ({"http_version": ...}, {"response_status": 200}),
    "state missing": ({"state": ...}, {"response_status": 200}),
    "server missing": ({"server": ...}, {"response_status": 200}),
    "root_path missing": ({"root_path": ...}, {"response_status": 200}),
    "root_path None": ({"root_path": None}, {"response_status": 200}),
    "path missing": ({"path": ..., "raw_path": ...}, {"request_url": "", "response_status": 200}),
    "path missing, raw": ({"path": ...}, {"request_url": "/orders/42"}),
    "method missing": ({"method": ...}, {"request_method": "", "response_status": 200}),
    "headers missing": ({"headers": ...}, {"request_headers": {}, "response_status": 200}),
    "headers None": ({"headers": None}, {"request_headers": {}, "response_status": 200}),
    "headers of lists": ({"headers": [[b"host", b"a"]]}, {"request_headers": {"host": ["a"]}}),
    "headers in a tuple": ({"headers": ((b"host", b"a"),)}, {"request_headers": {"host": ["a"]}}),
    "header names in capitals": (
        {"headers": [(b"Host", b"a"), (b"HOST", b"b"), (b"COOKIE", b"a=hunter2")]},
        {"request_headers": {"host": ["a", "b"]}},
    ),
    "header bytes": (
        {"headers": [(b"host", b"\xff\\x\x01\x7f\x80")]},
        {"request_headers": {"host": ["\xff\\x\x01\x7f\x80"]}},
    ),
    "long method": ({"method": "M" * 5000}, {"request_method": "M" * 64}),
    "lower-case method": ({"method": "get"}, {"request_method": "get"}),
}


@pytest.mark.parametrize(("changes", "expected"), ODDITIES.values(), ids=ODDITIES)
async def test_scope_with_an_oddity_leaves_its_row(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    """What a server leaves out or spells in its own way is no reason to lose the rest."""
    row = encoded(await row_of(OK_ANSWER, http_scope(**changes)))
    found = {**row["metadata"], **row}

    assert expected == {key: found.get(key) for key in expected}
    assert "audit.capture_error" not in found
    assert "hunter2" not in str(found)


BROKEN_SCOPES: dict[str, dict[str, Any]] = {
    "headers of three": {"headers": [(b"a", b"b", b"c")]},
    "headers of str": {"headers": [("host", "a")]},
    "headers that are a number": {"headers": 5},
    "client that is a number": {"client": 5},
    "path that is a number": {"path": 5, "raw_path": None},
    "method that is a number": {"method": 5},
    "query that is str": {"query_string": "a=1"},
    "raw_path that is str": {"raw_path": "/a"},
    "root_path that is a number": {"root_path": 5},
}


@pytest.mark.parametrize("changes", BROKEN_SCOPES.values(), ids=BROKEN_SCOPES)
async def test_scope_that_is_not_asgi_is_served_and_leaves_a_row(changes: dict[str, Any]) -> None:
    """The row may lack what cannot be read; the status and outcome stand."""
    sink = MemorySink()
    middleware, _ = audited(OK_ANSWER, sink)
    run = await drive(middleware, http_scope(**changes))
    record = only(sink)

    assert (run.sent, run.error) == ([START, END], None)
    assert (record.response_status, metadata_of(record)["audit.outcome"]) == (200, "ok")


@pytest.mark.parametrize("kind", ["lifespan2", "webtransport", None, 7, ...])
async def test_scope_of_another_type_only_passes(kind: Any) -> None:
    """No row, no error, and the same scope object for the application."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "something"})

    middleware, sink = audited(app)
    scope = http_scope(type=kind)
    run = await drive(middleware, scope)

    assert (seen[0] is scope, run.sent, run.error) == (True, [{"type": "something"}], None)
    assert (sink.records, sink.errors) == ([], [])


async def test_application_gets_the_scope_itself_and_the_server_gets_it_back_clean() -> None:
    """What routers write into it, outer middleware reads."""
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)
        scope["route_of_mine"] = 1

    middleware, _ = audited(app)
    scope = http_scope()
    await drive(middleware, scope)

    assert seen[0] is scope
    assert scope == {**http_scope(), "route_of_mine": 1}


async def test_installed_twice_records_once() -> None:
    """The outer one records, and what is annotated further in reaches it."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="7")
        await send(START)
        await send(END)

    inner, inner_sink = audited(app)
    outer, outer_sink = audited(inner)
    await drive(outer, http_scope())

    assert (only(outer_sink).user_id, inner_sink.records) == ("7", [])


async def test_installed_twice_survives_a_copied_scope_in_between() -> None:
    """Mounts and middleware hand on copies."""
    inner, sink = audited(OK_ANSWER)

    async def between(scope: Any, receive: Any, send: Any) -> None:
        await inner(dict(scope), receive, send)

    outer, _ = audited(between, sink)
    await drive(outer, http_scope())

    only(sink)


async def test_scope_that_is_served_twice_leaves_two_rows() -> None:
    """A cascade tries one application after the other with one scope."""
    sink = MemorySink()
    first, _ = audited(script(start(404), END), sink)
    second, _ = audited(OK_ANSWER, sink)
    scope = http_scope()

    async def cascade(scope: Any, receive: Any, send: Any) -> None:
        await first(scope, receive, send)
        await second(scope, receive, send)

    await drive(cascade, scope)

    assert [record.response_status for record in sink.records] == [404, 200]  # type: ignore[union-attr]


async def test_key_of_the_applications_own_does_not_switch_recording_off() -> None:
    """`auditlog` is a name that others may use in a scope."""
    await row_of(OK_ANSWER, http_scope(auditlog="mine"))


async def test_identities_are_asked_after_the_application_ran() -> None:
    """With the scope as authentication left it, and only for what no handler has said."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["tenant"] = "acme"
        annotate(resource_owner="from the handler")
        await send(START)
        await send(END)

    record = await row_of(
        app,
        user_id=lambda scope: scope["path"],
        instance_id=lambda scope: scope["tenant"],
        resource_owner=lambda _scope: "not asked",
    )

    assert (record.user_id, record.instance_id, record.resource_owner) == (
        "/orders/42",
        "acme",
        "from the handler",
    )


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("hunter2")

    __repr__ = __str__


def refuse_to_tell(_scope: Any) -> str:
    raise LookupError("hunter2")


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (lambda _scope: 7, "7"),
        (lambda _scope: b"ab", "b'ab'"),
        (lambda _scope: "", ""),
        (lambda _scope: "x" * 10_000_000, "x" * 255),
        (lambda _scope: "\udcff\0", "\ufffd\ufffd"),
        (lambda _scope: None, None),
        (lambda _scope: Unprintable(), None),
        (refuse_to_tell, None),
        (Unprintable(), None),
        (lambda: "wrong signature", None),
    ],
)
async def test_hostile_identity_costs_its_value_and_nothing_else(
    answer: Any, stored: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the callables do, the row is there, and no log line shows a value."""
    record = await row_of(OK_ANSWER, user_id=answer, resource_owner=answer)
    row = encoded(record)

    assert (row["user_id"], row["resource_owner"]) == (stored, stored)
    assert "audit.capture_error" not in row["metadata"]
    assert "hunter2" not in caplog.text


async def test_failing_identity_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """By the function's name and the class of its error."""
    with caplog.at_level(logging.WARNING, "auditlog"):
        await row_of(OK_ANSWER, user_id=refuse_to_tell)

    assert "identify_failed: refuse_to_tell raised LookupError" in caplog.text


async def test_hostile_tenant_falls_back_to_the_setting() -> None:
    """The primary key begins with it."""
    row = encoded(await row_of(OK_ANSWER, instance_id=refuse_to_tell))

    assert row["instance_id"] == "default"


class User:
    """Like the users of Starlette, Django and others, as the keywords say."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class HalfMade(User):
    """Starlette's BaseUser raises for what a subclass leaves out."""

    @property
    def identity(self) -> str:
        raise NotImplementedError

    @property
    def display_name(self) -> str:
        return "half"


class Lazy:
    """Touched outside of a request, it raises, as Channels' user does."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("not resolved")


# Made in the test: pytest looks closely at its parameters.
USERS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "nobody": (lambda: None, None),
    "not authenticated": (lambda: User(is_authenticated=False, identity="1"), None),
    "does not say whether": (lambda: User(identity="1"), None),
    "identity": (lambda: User(is_authenticated=True, identity="1", username="u"), "1"),
    "username": (lambda: User(is_authenticated=True, username="u"), "u"),
    "number": (lambda: User(is_authenticated=True, identity=42), "42"),
    "empty identity": (lambda: User(is_authenticated=True, identity="", display_name="d"), "d"),
    "nameless": (lambda: User(is_authenticated=True), None),
    "half made": (lambda: HalfMade(is_authenticated=True), "half"),
    "lazy": (Lazy, None),
    "object": (object, None),
    "str": (lambda: "alice", None),
    "dict": (lambda: {"id": 1}, None),
    "unprintable": (Unprintable, None),
    "unprintable identity": (
        lambda: User(is_authenticated=True, identity=Unprintable()),
        None,
    ),
}


@pytest.mark.parametrize(("make", "expected"), USERS.values(), ids=USERS)
async def test_user_of_an_authentication_middleware_is_named(
    make: Callable[[], Any], expected: str | None
) -> None:
    """Whatever kind of object it is, and only when it is authenticated."""
    assert (await row_of(OK_ANSWER, http_scope(user=make()))).user_id == expected


class Raising:
    """Stands for a part of the capture that has a defect."""

    matched = None

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("hunter2")


@pytest.mark.parametrize("broken", ["policy", "redactor", "proxies"])
async def test_error_of_the_capture_leaves_a_row_that_says_so(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is unharmed, and who and what is in the row as far as it is certain."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(
            user_id="7",
            instance_id="acme",
            resource_owner="org",
            aggregate=("order", 42),
            event_type="order.read",
            event_sequence=3,
            message="read",
            note="annotated",
        )
        await send(start(201))
        await send(END)

    middleware, sink = audited(app)
    capture = middleware._capture
    replaced = {name: getattr(capture, name) for name in capture.__slots__}
    # Only what runs after the request; before it there is nothing to finish.
    parts = Raising()
    vars(parts)["wants_body"] = lambda *_: None
    middleware._capture = type(capture)(**{**replaced, broken: parts})
    run = await drive(middleware, http_scope())
    row = encoded(only(sink))

    assert (run.error, [message["type"] for message in run.sent]) == (
        None,
        ["http.response.start", "http.response.body"],
    )
    assert row["metadata"] == {
        "audit.outcome": "ok",
        "audit.status_source": "wire",
        "audit.capture_error": "ZeroDivisionError",
    }
    assert (row["response_status"], row["request_method"], row["log_level"]) == (201, "GET", 3)
    assert (row["user_id"], row["instance_id"], row["resource_owner"]) == ("7", "acme", "org")
    assert (row["aggregate_type"], row["aggregate_id"]) == ("order", "42")
    assert (row["event_type"], row["event_sequence"], row["message"]) == ("order.read", 3, "read")
    assert "capture_incomplete: a row lacks details: ZeroDivisionError" in caplog.text
    assert "hunter2" not in caplog.text + str(row)


async def test_error_before_the_application_is_counted_and_the_request_served() -> None:
    """Without an exchange there is no row, and the loss is not silent."""
    middleware, sink = audited(OK_ANSWER)
    capture = middleware._capture
    replaced = {name: getattr(capture, name) for name in capture.__slots__}
    middleware._capture = type(capture)(**{**replaced, "policy": Raising()})
    run = await drive(middleware, http_scope())

    assert (run.sent, run.error) == ([START, END], None)
    assert ([], [ZeroDivisionError]) == (sink.records, [type(error) for error in sink.errors])


async def test_sink_that_raises_harms_no_request() -> None:
    """It is not supposed to; the last net holds all the same."""

    class Broken(MemorySink):
        def submit(self, record: Any) -> Any:
            raise ZeroDivisionError

    sink = Broken()
    middleware, _ = audited(OK_ANSWER, sink)
    run = await drive(middleware, http_scope())

    assert (run.sent, run.error) == ([START, END], None)
    assert [ZeroDivisionError] == [type(error) for error in sink.errors]


async def test_skip_leaves_no_row() -> None:
    """The handler has the last word."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        skip()
        await send(START)
        await send(END)

    middleware, sink = audited(app)
    await drive(middleware, http_scope())

    assert sink.records == []


async def test_policy_decides_with_the_route_status_user_and_tenant() -> None:
    """All that is known after the response."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["route"] = type("Route", (), {"path": "/orders/{id}"})()
        annotate(user_id="robot", instance_id="acme")
        await send(START)
        await send(END)

    rule = Rule(
        name="robots",
        level=Level.NONE,
        routes=("/orders/*",),
        statuses=("2xx",),
        users=("robot",),
        tenants=("acme",),
    )
    middleware, sink = audited(app, policy=Policy((rule,)))
    await drive(middleware, http_scope())

    assert sink.records == []


async def test_level_metadata_leaves_the_headers_out() -> None:
    """And the rule that decided is named."""
    policy = Policy((Rule(name="brief", level=Level.METADATA),))
    record = await row_of(OK_ANSWER, policy=policy)

    assert record.request_headers is None
    assert metadata_of(record)["audit.rule"] == "brief"


JSON_HEADERS = [(b"content-type", b"application/json")]
BODIES = Policy(
    (
        Rule(name="texts", level=Level.BODY, paths=("/notes/**",), statuses=("5xx",)),
        Rule(name="writes", level=Level.BODY, methods=("POST",)),
    )
)


def posted(*steps: Any) -> Any:
    """An application that answers JSON after the steps."""
    return script(
        *steps,
        start(201, headers=list(JSON_HEADERS)),
        body(b'{"id": 1, "token": "hunter2"}'),
    )


async def test_bodies_are_stored_where_a_rule_asks() -> None:
    """Redacted, and counted in bytes."""
    record = await row_of(
        posted(..., ...),
        http_scope(method="POST", headers=JSON_HEADERS),
        [upload(b'{"name": "a", "pass', more_body=True), upload(b'word": "hunter2"}')],
        policy=BODIES,
    )
    metadata = metadata_of(record)

    assert metadata["audit.request_body"] == {
        "bytes": 36,
        "truncated": False,
        "content": {"name": "a", "password": "[REDACTED]"},
    }
    assert metadata["audit.response_body"]["content"] == {"id": 1, "token": "[REDACTED]"}


async def test_body_that_the_application_did_not_read_to_the_end_is_marked() -> None:
    """What is there must not pass for the whole."""
    record = await row_of(
        posted(...),
        http_scope(method="POST", headers=JSON_HEADERS),
        [upload(b'{"name": "a", "b": [1', more_body=True), upload(b"]}")],
        policy=BODIES,
    )
    stored = metadata_of(record)["audit.request_body"]

    assert (stored["incomplete"], stored["truncated"]) == (True, False)


async def test_answer_that_broke_off_is_marked() -> None:
    """Likewise on the way out."""
    app = script(
        start(headers=list(JSON_HEADERS)), body(b'{"a": 1, "b', more_body=True), RuntimeError()
    )
    record = await row_of(app, http_scope(method="POST"), policy=BODIES)

    assert metadata_of(record)["audit.response_body"]["incomplete"] is True


async def test_rule_that_decides_is_the_rule_for_the_bodies() -> None:
    """The first that might have asked for them did not apply in the end."""
    policy = Policy(
        (
            Rule(name="failures", level=Level.BODY, statuses=("5xx",), body_types=("text/plain",)),
            Rule(name="writes", level=Level.BODY, methods=("POST",)),
        )
    )
    record = await row_of(
        posted(...),
        http_scope(method="POST", headers=JSON_HEADERS),
        [upload(b'{"name": "a"}')],
        policy=policy,
    )

    assert metadata_of(record)["audit.request_body"]["content"] == {"name": "a"}


async def test_long_body_is_kept_up_to_the_setting() -> None:
    """A tee, not a buffer."""
    sink = MemorySink(Settings(max_body_bytes=16))
    parts = [upload(b'{"name": "', more_body=True), *[upload(b"x" * 1000, more_body=True)] * 99]
    middleware, _ = audited(posted(*[...] * 101), sink, policy=BODIES)
    scope = http_scope(method="POST", headers=JSON_HEADERS)
    await drive(middleware, scope, [*parts, upload(b'"}')])
    stored = metadata_of(only(sink))["audit.request_body"]

    assert (stored["bytes"], stored["truncated"]) == (99_012, True)
    assert len(str(stored)) < 200


ECHO = Settings(echo_request_id=True)


async def test_request_id_is_echoed() -> None:
    """The client's, if it may be believed."""
    sink = MemorySink(ECHO)
    middleware, _ = audited(OK_ANSWER, sink)
    run = await drive(middleware, http_scope(headers=[(b"x-request-id", b"abc")]))

    assert run.sent[0]["headers"] == [(b"x-request-id", b"abc")]
    assert metadata_of(only(sink))["audit.request_id"] == "abc"


@pytest.mark.parametrize("headers", [[], [(b"x-request-id", b"a b")], [(b"x-request-id", b"")]])
async def test_request_id_that_is_made_is_the_rows_own(headers: Any) -> None:
    """So that the client can name the row."""
    sink = MemorySink(ECHO)
    middleware, _ = audited(OK_ANSWER, sink)
    run = await drive(middleware, http_scope(headers=headers))
    row = encoded(only(sink))

    assert run.sent[0]["headers"] == [(b"x-request-id", row["log_id"].encode())]


@pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
async def test_request_id_of_the_application_is_left_alone(make: Any) -> None:
    """Also in an iterator, which can be read only once."""
    own = [(b"X-Request-Id", b"mine"), (b"a", b"b")]
    message = start(headers=make(own))
    middleware, _ = audited(script(message, END), MemorySink(ECHO))
    run = await drive(middleware, http_scope())

    assert list(run.sent[0]["headers"]) == own


async def test_echo_changes_a_copy_of_the_message() -> None:
    """The application may send the same object for every request."""
    message = start(headers=[(b"a", b"b")])
    middleware, _ = audited(script(message, END), MemorySink(ECHO))
    await drive(middleware, http_scope())

    assert message == start(headers=[(b"a", b"b")])


@pytest.mark.parametrize("headers", [5, ["ab"], [("a", "b")]])
async def test_echo_lets_headers_pass_that_are_none(headers: Any) -> None:
    """The server judges them, not the middleware."""
    message = start(headers=headers)
    middleware, _ = audited(script(message, END), MemorySink(ECHO))
    run = await drive(middleware, http_scope())

    assert (run.sent[0], run.error) == (message, None)


async def test_closed_coroutine_leaves_its_row() -> None:
    """GeneratorExit is how an abandoned call ends."""

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    middleware, sink = audited(app)
    coroutine = middleware(http_scope(), asyncio.Event().wait, None)
    coroutine.send(None)
    coroutine.close()

    assert metadata_of(only(sink))["error.type"] == "GeneratorExit"


async def test_coroutine_closed_elsewhere_takes_no_other_request_away() -> None:
    """The garbage collector closes it wherever it happens to run, also in another request."""
    abandoned, _ = audited(script(...))
    coroutine = abandoned(http_scope(), asyncio.Event().wait, None)
    contextvars.copy_context().run(coroutine.send, None)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        coroutine.close()
        annotate(user_id="7")
        await send(START)
        await send(END)

    assert (await row_of(app)).user_id == "7"


async def test_context_is_left_as_it_was() -> None:
    """For whoever calls the application directly, in one task after the other."""
    middleware, _ = audited(OK_ANSWER)
    await drive(middleware, http_scope())

    assert current.get() is None


def test_policy_file_is_read_when_the_application_is_built(tmp_path: Any) -> None:
    """Not at the first request."""
    file = tmp_path / "policy.toml"
    file.write_text('[[rules]]\nname = "nothing"\nlevel = "none"\n')
    middleware = AuditMiddleware(OK_ANSWER, audit=MemorySink(Settings(policy_file=str(file))))

    assert [rule.name for rule in middleware._capture.policy.rules] == ["nothing"]
