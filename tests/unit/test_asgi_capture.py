import asyncio
import contextvars
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
from auditlog import AuditMiddleware, Level, Policy, Rule, Settings, annotate, skip
from auditlog.capture.context import current
from auditlog.testing import MemorySink
from tuples import encoded

OK_ANSWER = script(START, END)


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
    # What only a redactor may let through, text and URL among it, is left out.
    assert (row["event_type"], row["event_sequence"], row["message"]) == ("order.read", 3, None)
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
        def submit(self, record: Any, ticket: Any = None) -> Any:
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


async def test_policy_sees_the_tenant_of_the_setting() -> None:
    """Where a request names none."""
    rule = Rule(name="ours", level=Level.NONE, tenants=("default",))
    middleware, sink = audited(OK_ANSWER, policy=Policy((rule,)))
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
