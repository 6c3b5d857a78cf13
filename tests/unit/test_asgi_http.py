import asyncio
import http
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
from auditlog import LogLevel
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


async def test_what_is_sent_to_nobody_has_no_size() -> None:
    """It counts up to where the client left."""
    app = script(START, body(b"abc", more_body=True), ..., body(b"de"))
    metadata = metadata_of(await row_of(app, None, [DISCONNECT]))

    assert metadata["http.response.body.size"] == 3


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
