"""The table of docs/record.md that says which door fills what, against real rows of each."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import trail
from auditlog.records import Protocol
from auditlog.tables import LOGS
from parity_events import record_events, write_lines
from parity_graphql import run_operations
from parity_rpc import Certificate, certificate, make_rpcs
from parity_table import (
    APPLICATION,
    EVENT,
    GRAPHQL,
    GRPC,
    HTTP,
    LIBRARY,
    LINE,
    WEBSOCKET,
    documented_keys,
    filled,
    marked,
    table,
)
from parity_web import make_requests, open_websockets

DRIVERS: dict[str, Callable[..., Awaitable[None]]] = {
    HTTP: make_requests,
    WEBSOCKET: open_websockets,
    GRAPHQL: run_operations,
    EVENT: record_events,
    LINE: write_lines,
}
PROTOCOLS = {
    HTTP: Protocol.HTTP,
    WEBSOCKET: Protocol.HTTP,
    GRPC: Protocol.GRPC,
    GRAPHQL: Protocol.GRAPHQL,
    EVENT: Protocol.UNKNOWN,
    LINE: Protocol.UNKNOWN,
}
# An argument that no event is without.
TYPE = "event_type"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


def test_table_has_a_line_for_every_column_and_every_key() -> None:
    """In the order in which they are explained above it."""
    assert list(table()) == [*LOGS.column_names, *documented_keys()]


def test_cells_hold_marks_only() -> None:
    """And a line without one would say that a key is never filled."""
    cells = table()
    assert {mark for marks in cells.values() for mark in marks} == {LIBRARY, APPLICATION, ""}
    assert [name for name, marks in cells.items() if not any(marks)] == []


@pytest.mark.parametrize("door", DRIVERS)
async def test_library_fills_by_itself_what_the_table_says(door: str, any_dsn: str) -> None:
    """All of it and nothing else, in rows of which the application says nothing."""
    await DRIVERS[door](any_dsn, annotated=False)
    given = {TYPE} if door == EVENT else set()
    assert found(any_dsn, door) - given == marked(door, LIBRARY)


@pytest.mark.parametrize("door", DRIVERS)
async def test_application_adds_what_the_table_says(door: str, any_dsn: str) -> None:
    """All of it and nothing else, when it says all that it can."""
    await DRIVERS[door](any_dsn, annotated=True)
    assert found(any_dsn, door) == marked(door, LIBRARY, APPLICATION)


@pytest.mark.parametrize("annotated", [False, True])
@pytest.mark.parametrize("rpc_server", ["aio", "threaded"])
def test_both_grpc_servers_fill_what_the_table_says(
    rpc_server: str, annotated: bool, any_dsn: str, identity: Certificate
) -> None:
    """The same, but for handlers that run on, of which only threads are capable."""
    make_rpcs(any_dsn, rpc_server, identity, annotated=annotated)
    expected = marked(GRPC, LIBRARY, *([APPLICATION] if annotated else []))
    if rpc_server == "aio":
        expected.remove("audit.still_running")
    assert found(any_dsn, GRPC) == expected


def found(dsn: str, door: str) -> set[str]:
    """What the rows of a door fill; the others are of what carried them."""
    rows: list[dict[str, Any]] = trail.rows(dsn)
    return filled(row for row in rows if row["protocol"] == PROTOCOLS[door])
