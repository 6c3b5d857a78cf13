"""What is let pass goes on as if no quota were there, but for the fields that are asked for."""

import asyncio
from typing import Any

import pytest
from quota_house import ACCEPT, CLOSE, House, counted

from asgi_driver import END, START, body, drive, http_scope, script, start, websocket_scope
from auditlog import Settings
from auditlog.quota.model import Quota
from auditlog.testing import MemorySink

STEPS: list[list[Any]] = [
    [START, END],
    [start(404), body(b"a", more_body=True), body(b"b", more_body=True), body()],
    [start(200, trailers=True), body(b"a"), {"type": "http.response.trailers", "headers": []}],
    [{"type": "http.response.early_hint", "links": []}, START, END],
    [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
    [None, 5, {"type": ["x"]}, {}],
    [START, RuntimeError("in the body")],
    [RuntimeError("before")],
    [asyncio.CancelledError()],
    [SystemExit(3)],
    [ACCEPT, {"type": "websocket.send", "text": "a"}, CLOSE],
    [{"type": "websocket.http.response.start", "status": 401, "headers": []}],
]


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
@pytest.mark.parametrize("quotas", [(), (Quota("a", 9), Quota("v", 9, counts="bytes"))], ids=len)
async def test_messages_pass_as_the_same_objects(
    steps: list[Any], scope: dict[str, Any], quotas: Any
) -> None:
    """In the same order, and the exceptions; what is received as well."""
    seen: list[Any] = []
    received = [{"type": "http.request", "body": b"a"}, {"type": "http.disconnect"}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive(), await receive(), scope])
        await script(*steps)(scope, receive, send)

    house = House(app, *quotas)
    run = await drive(house.app, scope, received)

    sent = [step for step in steps if not isinstance(step, BaseException)]
    assert list(map(id, run.sent)) == list(map(id, sent))
    assert list(map(id, seen)) == list(map(id, [*received, scope]))
    assert run.error is (steps[-1] if isinstance(steps[-1], BaseException) else None)
    assert len(house.requests()) == 1


async def test_fields_where_they_are_asked_for() -> None:
    """What is left of every quota, in answers of any status; the application's message stays."""
    head = start(404, headers=[(b"x-a", b"1")])
    quotas = Quota("a", 3, "hour", rolling=True), Quota("b", 9, "minute", rolling=True)
    house = House(script(head, END), *quotas, headers=True)
    run = await house.get()

    assert run.sent[0]["headers"] == [
        (b"x-a", b"1"),
        (b"ratelimit-policy", b'"a";q=3;w=3600, "b";q=9;w=60'),
        (b"ratelimit", b'"a";r=2;t=3600, "b";r=8;t=60'),
    ]
    assert head == start(404, headers=[(b"x-a", b"1")])
    assert run.sent[1] is END


@pytest.mark.parametrize("headers", [iter([(b"x-a", b"1")]), ((b"x-a", b"1"),), None])
async def test_fields_are_added_to_any_kind_of_headers(headers: Any) -> None:
    """Iterators, too, which can be read only once."""
    house = House(script(start(headers=headers), END), Quota("a", 3), headers=True)
    names = [name for name, _ in (await house.get()).sent[0]["headers"]]

    assert names == [*([b"x-a"] if headers else []), b"ratelimit-policy", b"ratelimit"]


async def test_fields_of_the_applications_own_stay() -> None:
    """A client would not know which to believe."""
    own = (b"RateLimit", b'"own";r=1')
    house = House(script(start(headers=[own]), END), Quota("a", 3), headers=True)

    assert (await house.get()).sent[0]["headers"] == [own]


async def test_no_quota_has_no_fields() -> None:
    """And the message is the application's."""
    house = House(script(START, END), Quota("a", 9, methods="POST"), headers=True)

    assert (await house.get()).sent[0] is START


async def test_trailers_have_no_fields() -> None:
    """They must not have them."""
    trailers = {"type": "http.response.trailers", "headers": []}
    house = House(script(start(trailers=True), body(b"a"), trailers), Quota("a", 3), headers=True)
    run = await house.get()

    assert run.sent[2] is trailers
    assert trailers["headers"] == []


async def test_fields_that_cannot_be_made_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Never an error of the request."""
    monkeypatch.setattr("auditlog.quota.asgi.fields_of", None)
    run = await House(script(START, END), Quota("a", 3), headers=True).get()

    assert run.sent == [START, END]
    assert caplog.messages[0].startswith("auditlog.quota_failed: a request is not held")


async def test_head_that_is_none_passes(caplog: pytest.LogCaptureFixture) -> None:
    """Though fields were to be added."""
    head = start(headers=5)
    run = await House(script(head, END), Quota("a", 3), headers=True).get()

    assert run.sent[0] is head
    assert caplog.messages[0].startswith("auditlog.message_unreadable")


@pytest.mark.parametrize("changes", [{"headers": 5}, {"method": []}, {"client": 5}], ids=str)
async def test_scope_that_is_none_is_served(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the server means by it."""
    calls, app = counted()
    sink = MemorySink(Settings(trusted_proxies=("0.0.0.0/0",)))
    run = await House(app, Quota("a", 0), sink=sink).get(**changes)

    assert (calls(), run.error, run.sent) == (1, None, [START, END])
    assert any(line.startswith("auditlog.quota_failed") for line in caplog.messages)


async def test_health_checks_count_where_a_quota_names_them() -> None:
    """What the trail leaves out from the beginning; a used-up quota must not end the service."""
    house = House(script(START, END), Quota("daily", 1), Quota("probes", 2, routes="/healthz"))
    for _ in range(2):
        assert (await house.get(path="/healthz", raw_path=b"/healthz")).sent[0]["status"] == 200
    assert (await house.get(path="/healthz", raw_path=b"/healthz")).sent[0]["status"] == 429
    assert (await house.get()).sent[0]["status"] == 200
    assert (await house.get()).sent[0]["status"] == 429
