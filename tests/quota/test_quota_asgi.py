"""A request beyond a quota is not carried out, and its client is told why."""

import json
from typing import Any

import pytest
from quota_house import ACCEPT, AGAIN_LATER, CLOSE, DENIABLE, REFUSED, House, counted, headers_of
from starlette.middleware.gzip import GZipMiddleware

from asgi_driver import END, START, body, drive, http_scope, script, start
from auditlog import AuditMiddleware
from auditlog.quota.answering import refusal as refusals
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Key, Quota, QuotaExceeded
from auditlog.testing import MemoryQuotas, MemorySink


async def test_request_beyond_the_limit_is_not_carried_out() -> None:
    """It is answered by 429, and has its row as any other."""
    calls, app = counted()
    house = House(app, Quota("daily", 2, "day"))
    runs = [await house.get() for _ in range(3)]

    assert calls() == 2
    assert [run.sent[0]["status"] for run in runs] == [200, 200, 429]
    assert house.statuses() == [200, 200, 429]
    metadata = house.requests()[2].metadata or {}
    assert (metadata[REFUSED], metadata["audit.outcome"]) == ("daily", "client_error")


async def test_refusal_says_what_and_when() -> None:
    """As the draft and RFC 9457 have it; the client waits until the period is over."""
    house = House(script(START, END), Quota("daily", 0, "day"))
    house.quotas.counter.now_us = 86_400_000_000 * 3 - 90_000_001
    run = await house.get()
    content = run.sent[1]["body"]

    assert headers_of(run) == {
        b"content-type": b"application/problem+json",
        b"content-length": b"%d" % len(content),
        b"retry-after": b"91",
        b"ratelimit-policy": b'"daily";q=0;w=86400',
        b"ratelimit": b'"daily";r=0;t=91',
    }
    problem = json.loads(content)
    assert (problem["status"], problem["violated-policies"]) == (429, ["daily"])


async def test_head_has_no_body() -> None:
    """And the length that a GET's would have."""
    house = House(script(START, END), Quota("daily", 0))
    run = await house.get(method="HEAD")

    assert run.sent[1]["body"] == b""
    assert int(headers_of(run)[b"content-length"]) > 0


async def test_database_that_is_away_is_told_as_such() -> None:
    """503, and to come again soon."""
    house = House(script(START, END), Quota("daily", 9, on_unavailable="closed"))
    house.quotas.counter.away = True
    run = await house.get()

    assert run.sent[0]["status"] == 503
    assert headers_of(run)[b"retry-after"] == b"1"
    assert b"ratelimit" not in headers_of(run)


async def test_refusal_without_words_is_still_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with it."""
    monkeypatch.setattr(refusals, "problem_of", None)
    calls, app = counted()
    run = await House(app, Quota("daily", 0)).get()

    assert (calls(), run.error) == (0, None)
    assert run.sent == [start(429, headers=[(b"content-length", b"0")]), body()]
    assert caplog.messages[0].startswith("auditlog.quota_failed: a refusal tells nothing")


async def test_client_that_is_gone_needs_no_refusal() -> None:
    """No error of the application's either."""

    def gone(_: Any) -> None:
        raise OSError

    house = House(script(), Quota("daily", 0))
    run = await drive(house.app, http_scope(), refuse=gone)

    assert run.error is None
    assert (house.requests()[0].metadata or {})["audit.outcome"] == "client_disconnect"


async def test_websocket_is_refused_before_it_is_accepted() -> None:
    """By a status where the server can send one, by a code for coming again where it cannot."""
    calls, app = counted()
    house = House(app, Quota("sockets", 0))
    closed, denied = await house.connect(), await house.connect(**DENIABLE)

    assert closed.sent == [AGAIN_LATER]
    assert [message["type"] for message in denied.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert denied.sent[0]["status"] == 429
    assert json.loads(denied.sent[1]["body"])["violated-policies"] == ["sockets"]
    assert headers_of(denied)[b"ratelimit"].startswith(b'"sockets";r=0;')
    assert calls() == 0
    assert [(row.metadata or {})[REFUSED] for row in house.requests()] == ["sockets"] * 2


async def test_websocket_within_the_limit_goes_on() -> None:
    """It is counted once, however long it lasts."""
    house = House(
        script(..., ACCEPT, {"type": "websocket.send", "text": "a"}, CLOSE), Quota("s", 1)
    )
    run = await house.connect()

    assert [message["type"] for message in run.sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert (await house.connect()).sent == [AGAIN_LATER]


def exceeded(quotas: MemoryQuotas, quota: Quota) -> QuotaExceeded:
    """What a handler raises that spends too much."""
    decision = quotas.look_in_thread(quota, Key(quota.id, "default", ""))
    return QuotaExceeded(decision)


async def test_what_a_handler_spends_too_much_becomes_429() -> None:
    """What the middleware has counted is given back, as for each 429."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        async with house.quotas.spend("exports", 2):
            raise AssertionError

    exports = Quota("exports", 1, counts="reported", refunds=())
    house = House(app, Quota("all", 9), exports)
    run = await house.get()

    assert (run.error, run.sent[0]["status"]) == (None, 429)
    assert json.loads(run.sent[1]["body"])["violated-policies"] == ["exports"]
    assert headers_of(run)[b"ratelimit"].startswith(b'"exports";r=1;')
    (row,) = house.requests()
    assert (row.metadata or {})[REFUSED] == "exports"
    assert house.quotas.stats().given_back == 1


async def test_it_passes_once_the_answer_has_begun() -> None:
    """No second one can follow; the server breaks off."""
    quota = Quota("exports", 0, counts="reported")
    house = House(None, quota)
    error = exceeded(house.quotas, quota)
    for steps in ([START, error], [ACCEPT, error], [CLOSE, error]):
        house = House(script(*steps), quota)
        run = await house.get()

        assert run.error is error
        assert run.sent == steps[:-1]


async def test_handler_of_a_websocket_may_refuse_it() -> None:
    """Before it accepts."""
    quota = Quota("exports", 0, counts="reported")
    house = House(None, quota)
    house = House(script(..., exceeded(house.quotas, quota)), quota)

    assert (await house.connect()).sent == [AGAIN_LATER]
    assert (await house.connect(**DENIABLE)).sent[0]["status"] == 429


async def test_refusal_behind_what_holds_the_head_back() -> None:
    """A compressing middleware in between has not sent what the application has begun."""
    quota = Quota("exports", 0, counts="reported")
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [quota])
    error = exceeded(quotas, quota)
    inner = QuotaMiddleware(script(START, error), quotas=quotas)
    run = await drive(AuditMiddleware(GZipMiddleware(inner), audit=sink), http_scope())

    assert (run.error, run.sent) == (error, [])
