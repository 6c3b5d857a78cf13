from typing import Any

import pytest

from asgi_driver import (
    END,
    START,
    audited,
    drive,
    http_scope,
    metadata_of,
    only,
    row_of,
    script,
    start,
)
from auditlog import annotate
from auditlog.testing import MemorySink
from tuples import encoded

OK_ANSWER = script(START, END)


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


async def test_target_is_the_one_that_came() -> None:
    """Whatever a middleware further in makes of it."""

    async def rewrite(scope: Any, _receive: Any, send: Any) -> None:
        scope.update(path="/new", raw_path=b"/new", query_string=b"new=1", method="POST")
        await send(START)
        await send(END)

    record = await row_of(rewrite, http_scope(query_string=b"old=1"))

    assert (record.request_method, record.request_url) == ("GET", "/orders/42?old=1")


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
