"""A handler that calls another audited application in process: two requests, two rows."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from asgi_driver import END, START, audited, drive, http_scope, metadata_of, only, row_of
from auditlog import annotate, skip
from auditlog.testing import MemorySink


def saying(*says: Callable[[], Any]) -> Any:
    """An application that says something about its request, and answers."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for say in says:
            said = say()
            if asyncio.iscoroutine(said):
                await said
        await send(START)
        await send(END)

    return app


async def test_request_within_a_request_has_a_row_of_its_own() -> None:
    """A handler calls another application in process; what is said after is the outer's again."""
    inner_sink, outer_sink = MemorySink(), MemorySink()
    inner, _ = audited(saying(lambda: annotate(user_id="inner", note="inner")), inner_sink)

    async def call_inner() -> None:
        annotate(note="outer")
        transport = httpx.ASGITransport(app=inner)
        async with httpx.AsyncClient(transport=transport, base_url="http://inner") as client:
            response = await client.post("/inner", content=b"abc")
            assert response.status_code == 200
        annotate(user_id="outer")

    outer, _ = audited(saying(call_inner), outer_sink)
    await drive(outer, http_scope(path="/outer", raw_path=b"/outer"))
    inner_record, outer_record = only(inner_sink), only(outer_sink)

    assert (inner_record.request_url, inner_record.user_id) == ("/inner", "inner")
    assert metadata_of(inner_record)["note"] == "inner"
    assert (outer_record.request_url, outer_record.user_id) == ("/outer", "outer")
    assert metadata_of(outer_record)["note"] == "outer"


async def test_request_within_a_request_that_fails_leaves_the_outer_one_whole() -> None:
    """Its exception passes through, and the holder is the outer's again."""
    inner, inner_sink = audited(saying(lambda: 1 / 0))

    async def call_inner() -> None:
        run = await drive(inner, http_scope())
        assert isinstance(run.error, ZeroDivisionError)
        annotate(user_id="outer")

    record = await row_of(saying(call_inner))

    assert (record.user_id, metadata_of(record)["audit.outcome"]) == ("outer", "ok")
    assert metadata_of(only(inner_sink))["error.type"] == "ZeroDivisionError"


async def test_skip_of_an_inner_request_leaves_the_outer_row() -> None:
    """Each holder has its own."""
    inner, inner_sink = audited(saying(skip))

    async def call_inner() -> None:
        await drive(inner, http_scope())

    await row_of(saying(call_inner))

    assert inner_sink.records == []
