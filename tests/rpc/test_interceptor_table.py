from typing import Any

import pytest
from rpc_case import Row
from rpc_client import Client, Seen
from rpc_stage import Stage
from rpc_table import ROWS
from rpc_trail import metadata

from auditlog import LogRecord
from auditlog.records import Protocol

KINDS = {"uu": "unary", "us": "server_stream", "su": "client_stream", "ss": "bidi_stream"}
OUTCOMES = {
    **dict.fromkeys((3, 5, 6, 8, 9, 10, 11, 12), "client_error"),
    **dict.fromkeys((2, 13, 14, 15), "server_error"),
    **dict.fromkeys((7, 16), "denied"),
    0: "ok",
    1: "cancelled",
    4: "deadline",
}
CANCELLED, DEADLINE = 1, 4
MAX_DETAILS_CHARS = 2048


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_says_what_the_client_saw(row: Row, stages: dict[str, Stage]) -> None:
    """The status above all; and it is `wire` unless the table allows that it was derived."""
    stage = stages[row.server]
    client = Client(stage.audited)

    seen = row.talk(client)
    found = stage.trail.one(client.request_id)

    assert seen.code == row.case.code, seen.details
    if row.case.details is not None:
        assert seen.details == row.case.details
    assert found_in(found, row) == expected_of(seen, row, found)
    if row.case.talk is None and not row.case.derived:
        assert counted_in(found, row) == counts_of(seen, row, found)


@pytest.mark.parametrize("row", [row for row in ROWS if row.case.comparable], ids=str)
def test_client_sees_the_same_as_from_a_bare_server(row: Row, stages: dict[str, Stage]) -> None:
    """Code, details, metadata of both ends, messages in their order, and the exception's type."""
    stage = stages[row.server]

    bare, audited = (row.talk(Client(channel)) for channel in (stage.bare, stage.audited))

    assert audited == bare


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
def test_deadline_is_told_from_a_client_that_left(
    rpc_server: str, kind: str, stages: dict[str, Stage]
) -> None:
    """In the table chance may bring CANCELLED; here it is DEADLINE_EXCEEDED, if not each time."""
    rows = [
        row
        for row in ROWS
        if (row.server, row.kind, row.case.name) == (rpc_server, kind, "deadline in the handler")
    ]
    for row in rows:
        assert any(_status_of(row, stages[rpc_server]) == DEADLINE for _ in range(10)), str(row)


def _status_of(row: Row, stage: Stage) -> int | None:
    client = Client(stage.audited)
    row.talk(client)
    return stage.trail.one(client.request_id).response_status


def found_in(row: LogRecord, expected: Row) -> dict[str, Any]:
    said = metadata(row)
    return {
        "protocol": row.protocol,
        "url": row.request_url,
        "method": row.request_method,
        "status": row.response_status,
        "source": said["audit.status_source"],
        "outcome": said["audit.outcome"],
        "kind": said["audit.rpc_kind"],
        "service": said["rpc.service"],
        "error": said.get("error.type"),
        "details": said.get("audit.status_details"),
    }


def expected_of(seen: Seen, expected: Row, found: LogRecord) -> dict[str, Any]:
    """All of it; what the table leaves open is taken from the row."""
    case, said = expected.case, metadata(found)
    status = {None: seen.code, ...: found.response_status}.get(case.row, case.row)
    if case.is_deadline and found.response_status == CANCELLED:
        status = CANCELLED
    may_be_derived = case.derived and seen.code
    derived = case.row is ... or (may_be_derived and said["audit.status_source"] == "derived")
    source = "derived" if derived else "wire"
    details = said.get("audit.status_details")
    if case.details is not None and source == "wire":
        details = case.details[:MAX_DETAILS_CHARS] if status and case.details else None
    return {
        "protocol": Protocol.GRPC,
        "url": expected.method,
        "method": expected.method.rpartition("/")[2],
        "status": status,
        "source": source,
        "outcome": said["audit.outcome"] if case.outcome is ... else OUTCOMES[status],
        "kind": KINDS[expected.kind],
        "service": "rpc.Cases",
        "error": said.get("error.type") if case.error is ... else case.error,
        "details": details,
    }


def counted_in(row: LogRecord, expected: Row) -> dict[str, Any]:
    said = metadata(row)
    return {key: said.get(f"audit.{key}") for key in ("messages_out", "bytes_out")}


def counts_of(seen: Seen, expected: Row, found: LogRecord) -> dict[str, Any]:
    """Of a single answer beside an error, the client sees nothing."""
    messages = [message or b"" for message in seen.messages]
    if not expected.streams and seen.code:
        return counted_in(found, expected)
    return {
        "messages_out": len(messages) if expected.kind != "uu" else None,
        "bytes_out": sum(map(len, messages)),
    }
