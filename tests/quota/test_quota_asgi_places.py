"""Where the middleware stands, what it begins and ends, and what a request costs in the end."""

import asyncio
from typing import Any

import pytest
from quota_house import ACCEPT, REFUSED, House, counted
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from asgi_driver import END, START, body, drive, http_scope, script, start, websocket_scope
from auditlog import AuditMiddleware, LogRecord, Settings, annotate
from auditlog.capture import asgi
from auditlog.errors import SettingsError
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Quota
from auditlog.testing import MemoryQuotas, MemorySink
from durable_trail import OrderedSink


async def test_it_brings_its_own_audit_where_there_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And says so once; the one inside steps back."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("daily", 1)])
    inner = AuditMiddleware(script(START, END), audit=sink)
    app = QuotaMiddleware(inner, quotas=quotas)
    statuses = [(await drive(app, http_scope())).sent[0]["status"] for _ in range(2)]

    rows = [row for row in sink.records if isinstance(row, LogRecord)]
    assert statuses == [row.response_status for row in rows] == [200, 429]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("auditlog.quota_outside: a QuotaMiddleware brings")


async def test_application_that_another_one_calls_is_counted_for_itself() -> None:
    """In one task, as an in-process client does: what is current is the other's."""
    calls, app = counted()
    inner = House(app, Quota("inner", 9, per="address"))
    alone: Any = QuotaMiddleware(app, quotas=inner.quotas)

    async def calling(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="outer")
        await drive(alone, http_scope(client=("198.51.100.1", 1)))
        await send(start(500))
        await send(END)

    outer = House(calling, Quota("outer", 9))
    await outer.get()

    rows = [row for row in inner.sink.records if isinstance(row, LogRecord)]
    assert calls() == 1
    assert [(row.response_status, row.user_id) for row in rows] == [(200, None)]
    assert (inner.quotas.stats().given_back, outer.quotas.stats().given_back) == (0, 1)


async def test_mounted_application_is_counted_by_the_whole_path() -> None:
    """As the policy sees it; a mount makes a scope of its own."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("a", 0, routes="/shop/**")])
    inner = QuotaMiddleware(script(START, END), quotas=quotas)
    app = AuditMiddleware(Starlette(routes=[Mount("/shop", inner)]), audit=sink)

    assert (await drive(app, http_scope(path="/shop/orders"))).sent[0]["status"] == 429
    assert (await drive(app, http_scope(path="/other"))).sent[0]["status"] == 404


async def test_request_is_counted_once_by_two_with_the_same_quotas() -> None:
    """One around the application, one in what is mounted there, whose error page is in between."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("a", 9), Quota("exports", 0, counts="reported")])

    async def export(_request: Request) -> PlainTextResponse:
        await quotas.spend("exports")
        return PlainTextResponse("never")

    within = [Middleware(QuotaMiddleware, quotas=quotas)]
    inner = Starlette(routes=[Route("/exports", export)], middleware=within)
    outer = QuotaMiddleware(Starlette(routes=[Mount("/shop", inner)]), quotas=quotas)
    scope = http_scope(path="/shop/exports")
    run = await drive(AuditMiddleware(outer, audit=sink), scope)

    assert run.sent[0]["status"] == 429
    assert (quotas.stats().allowed, quotas.stats().given_back) == (1, 1)


async def test_request_of_which_no_row_can_be_made_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as that goes: nobody says when it is over."""
    monkeypatch.setitem(asgi._EXCHANGES, "http", _no_exchange)
    calls, app = counted()
    house = House(app, Quota("a", 1, routes="/orders/**"))
    statuses = [(await house.get()).sent[0]["status"] for _ in range(2)]

    assert (statuses, calls(), len(house.sink.records)) == ([200, 429], 1, 1)


def _no_exchange(*_: Any) -> Any:
    raise ZeroDivisionError


async def test_request_in_any_durability_is_settled() -> None:
    """Whether its row precedes its answer or not, when it is over."""
    for durability in ("memory", "spool", "commit"):
        sink = MemorySink(Settings(durability=durability, spool_dir="/nowhere"))  # type: ignore[arg-type]  # one of three
        house = House(script(start(500), END), Quota("a", 1), sink=sink)
        statuses = [(await house.get()).sent[0]["status"] for _ in range(2)]

        assert (statuses, house.quotas.stats().given_back) == ([500, 500], 2)


async def test_answer_that_is_withheld_is_given_back() -> None:
    """The client has not got what it paid for."""
    sink = OrderedSink(True, False, durability="commit")
    house = House(script(START, END), Quota("a", 1), sink=sink)
    run = await house.get()

    assert run.sent[0]["status"] == 503
    assert house.quotas.stats().given_back == 1


async def test_cancelled_request_is_given_back() -> None:
    """Whether it waits for the decision or is served."""
    reached = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    house = House(app, Quota("a", 9))
    task = asyncio.create_task(house.app(http_scope(), None, None))
    await reached.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert house.quotas.stats().given_back == 1


async def test_client_that_leaves_is_charged() -> None:
    """Or an attacker would hang up in time."""
    house = House(script(..., START, END), Quota("a", 1))
    await house.get([{"type": "http.disconnect"}])

    assert (await house.get()).sent[0]["status"] == 429


@pytest.mark.parametrize("code", [1011, 1012, 1013, 1014])
async def test_client_of_a_websocket_that_says_it_was_the_server_is_charged(code: int) -> None:
    """It may send any code."""
    house = House(script(..., ACCEPT, ..., ...), Quota("a", 1), Quota("volume", 9, counts="bytes"))
    events = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "x" * 100},
        {"type": "websocket.disconnect", "code": code},
    ]
    await drive(house.app, websocket_scope(), events)

    stats = house.quotas.stats()
    assert (stats.allowed, stats.given_back, stats.charged) == (1, 0, 1)


async def test_bytes_of_streams_are_charged() -> None:
    """All of them, when the last one is through; the next is refused."""
    house = House(
        script(..., START, body(b"abc", more_body=True), body(b"def")),
        Quota("volume", 9, counts="bytes"),
    )
    upload = {"type": "http.request", "body": b"1234"}

    assert len((await house.get([upload])).sent) == 3
    assert (await house.get([upload])).sent[0]["status"] == 429


def test_key_is_counted_and_must_be_a_plain_function() -> None:
    """By the application's callable."""

    async def asynchronous(_: Any) -> str:
        return ""

    async def both() -> list[int]:
        house = House(
            script(START, END),
            Quota("keys", 1, per="key"),
            key=lambda scope: dict(scope["headers"]).get(b"x-api-key", b"").decode(),
        )
        runs = [await house.get(headers=[(b"x-api-key", key)]) for key in (b"a", b"a", b"b", b"")]
        return [run.sent[0]["status"] for run in runs]

    assert asyncio.run(both()) == [200, 429, 200, 200]
    with pytest.raises(SettingsError, match="key must be a plain function"):
        House(script(), key=asynchronous)


def test_lifespan_begins_and_ends_the_quotas() -> None:
    """Within that of the log: what they tell at their end is recorded."""
    entries: list[str] = []

    class Diary(MemorySink):
        async def start(self) -> None:
            entries.append("log starts")

        async def aclose(self) -> None:
            entries.append("log drains")

    class Noted(MemoryQuotas):
        async def start(self) -> None:
            entries.append("quotas begin")

        async def aclose(self) -> None:
            entries.append("quotas end")

    sink = Diary()
    app = Starlette(
        middleware=[
            Middleware(AuditMiddleware, audit=sink),
            Middleware(QuotaMiddleware, quotas=Noted(sink)),
        ]
    )
    with TestClient(app):
        entries.append("serves")

    begin, end = entries[: entries.index("serves")], entries[entries.index("serves") + 1 :]
    assert begin[-1] == "quotas begin"
    assert (end[0], end[-1]) == ("quotas end", "log drains")
    assert entries.count("quotas begin") == entries.count("quotas end") == 1
    assert entries.count("log starts") == entries.count("log drains")


async def test_lifespan_is_lived_for_an_application_that_has_none() -> None:
    """Of the log as well, where no audit middleware is outside; it drains after the quotas."""
    house = House(None)
    app = QuotaMiddleware(ignore, quotas=house.quotas)
    lives: list[Any] = []

    def note(message: Any) -> None:
        lives.append((message["type"], house.quotas.counter.starts, house.sink.starts))

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    await drive(app, scope, messages, refuse=note)

    assert lives == [
        ("lifespan.startup.complete", 1, 1),
        ("lifespan.shutdown.complete", 0, 0),
    ]


async def ignore(_scope: Any, _receive: Any, _send: Any) -> None:
    """As hand-written applications do."""


async def test_other_scopes_pass() -> None:
    """They are not looked at."""
    calls, app = counted()
    house = House(app, Quota("a", 0))
    run = await house.get(type="webtransport")

    assert (calls(), run.sent) == (1, [START, END])


def test_in_an_application_of_starlettes() -> None:
    """Added as users add it; the handler's refusal goes through its layers."""

    async def export(request: Request) -> Response:
        async with quotas.spend("exports", subject=None):
            return PlainTextResponse(request.path_params["name"])

    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("exports", 1, counts="reported"), Quota("all", 3)])
    app = Starlette(routes=[Route("/exports/{name}", export)])
    app.add_middleware(QuotaMiddleware, quotas=quotas, headers=True)
    app.add_middleware(AuditMiddleware, audit=sink)
    with TestClient(app) as client:
        answers = [client.get("/exports/a") for _ in range(3)]
        lost = client.get("/nowhere")
        last = client.get("/nowhere")

    # What a 429 was charged is given back.
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert answers[1].json()["violated-policies"] == ["exports"]
    assert answers[0].headers["ratelimit"].startswith('"all";r=2;')
    assert (lost.status_code, last.status_code) == (404, 404)
    rows = [row for row in sink.records if isinstance(row, LogRecord)]
    assert [(row.metadata or {}).get(REFUSED) for row in rows[:3]] == [None, "exports", "exports"]
