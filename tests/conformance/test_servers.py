import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hostile_scenarios
import http_scenarios
import pytest
import websocket_scenarios
from raw_client import Client
from scenario import Scenario
from servers import Running

# As in served.py, which only a server can import.
BACKGROUND_S = 0.4

Rows = Callable[[str], list[dict[str, Any]]]

# The short names of the scenarios → the keys of the metadata
KEYS = {
    "source": "audit.status_source",
    "outcome": "audit.outcome",
    "repaired": "audit.repaired",
    "error": "error.type",
    "route": "http.route",
    "received": "http.request.body.size",
    "sent": "http.response.body.size",
    "subprotocol": "websocket.subprotocol",
    "reason": "websocket.close_reason",
}
PAIRS = {
    "closed": ("websocket.close_code", "websocket.closed_by"),
    "frames": ("websocket.frames_in", "websocket.frames_out"),
    "bytes": ("websocket.bytes_in", "websocket.bytes_out"),
}
LEVELS = {"ok": 1, "server_error": 3, "incomplete": 3}
WARN, ERROR = 2, 3
# Other from run to run.
CHANGING = {"audit.request_id", "audit.first_byte_ms"}
PEER = {"client.address": "127.0.0.1", "network.peer.address": "127.0.0.1"}


SCENARIOS = [
    *http_scenarios.SCENARIOS,
    *hostile_scenarios.SCENARIOS,
    *websocket_scenarios.SCENARIOS,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_row_says_what_happened(
    scenario: Scenario, client: Client, running: Running, rows: Rows
) -> None:
    """Joined by the request id to what was sent, and to what the client saw."""
    expected = scenario.expected_on(running.name)

    assert expected.get("sees") == scenario.talk(client)
    if not expected.get("row", True):
        # What a request that was answered leaves is there; so would this one's row be.
        barrier = Client(running.address, f"after-{client.request_id}")
        barrier.ask("/read")
        barrier.wait_for_rows()
        if expected["row"] is False or not rows(client.request_id):
            assert rows(client.request_id) == []
            return
    client.wait_for_rows()
    (row,) = rows(client.request_id)
    assert expected_row(expected, row) == found_row(row)


def expected_row(expected: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """All that is expected of the row, and of what the scenario leaves out what it usually is."""
    expected = {"status": 200, "source": "wire", "outcome": "ok", **expected}
    metadata = {KEYS[key]: expected[key] for key in KEYS if expected.get(key) is not None}
    for key, names in PAIRS.items():
        metadata.update(zip(names, expected.get(key) or (), strict=False))
    found = row["metadata"]
    metadata = {key: found.get(key) if value is ... else value for key, value in metadata.items()}
    if expected.get("address", True) or PEER.items() <= found.items():
        metadata.update(PEER)
    headers = {**row["request_headers"], **expected.get("headers", {})}
    if "headers" in expected:
        headers = {**expected["headers"], "x-request-id": row["request_headers"]["x-request-id"]}
    broken_after_all = expected["outcome"] == "ok" and expected.get("error")
    return {
        "level": ERROR if broken_after_all else LEVELS.get(expected["outcome"], WARN),
        "method": expected.get("stored_method", expected.get("method", row["request_method"])),
        "url": expected.get("url", row["request_url"]),
        "status": expected["status"],
        "headers": headers,
        "metadata": metadata,
    }


def found_row(row: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: row["metadata"][key] for key in row["metadata"].keys() - CHANGING}
    return {
        "level": row["log_level"],
        "method": row["request_method"],
        "url": row["request_url"],
        "status": row["response_status"],
        "headers": row["request_headers"],
        "metadata": metadata,
    }


@pytest.mark.parametrize("pipelined", [True, False], ids=["pipelined", "kept alive"])
def test_requests_of_one_connection_have_a_row_each(
    pipelined: bool, client: Client, rows: Rows
) -> None:
    """In their order, with their own status and sizes."""
    heads = [client.head(path) for path in ("/read", "/status?status=404", "/stream")]
    with client.connect() as connection:
        if pipelined:
            connection.send(b"".join(heads))
        answers = []
        for head in heads:
            if not pipelined:
                connection.send(head)
            answers.append(connection.read_answer())
    client.wait_for_rows(3)

    assert [answer and answer.status for answer in answers] == [200, 404, 200]
    assert [
        (row["request_url"], row["response_status"], row["metadata"]["http.response.body.size"])
        for row in rows(client.request_id)
    ] == [("/read", 200, 2), ("/status?status=404", 404, 2), ("/stream", 200, 11)]


def test_both_cookies_reach_the_client(client: Client) -> None:
    """A header that comes twice comes twice."""
    answer = client.ask("/cookies")

    assert answer is not None
    assert answer.all("set-cookie") == ["a=1", "b=2"]


def test_background_task_is_no_part_of_the_duration(client: Client, rows: Rows) -> None:
    """The client has its answer long before; the row is written when the task is done."""
    began = time.monotonic()
    client.ask("/starlette/background")
    answered_ms = (time.monotonic() - began) * 1000
    client.wait_for_rows()
    waited_s = time.monotonic() - began
    (row,) = rows(client.request_id)

    assert waited_s >= BACKGROUND_S
    assert row["response_time_ms"] <= answered_ms


def test_many_frames_are_counted_exactly(client: Client, rows: Rows) -> None:
    """Both ways, text and binary."""
    with client.websocket("/ws/echo") as connection:
        for _ in range(2000):
            connection.send("x" * 10)
            connection.send(b"y" * 20)
            connection.recv()
            connection.recv()
    client.wait_for_rows()
    (row,) = rows(client.request_id)

    assert tuple(
        row["metadata"][f"websocket.{name}"]
        for name in ("frames_in", "frames_out", "bytes_in", "bytes_out")
    ) == (4000, 4000, 60_000, 60_000)


def test_many_clients_at_once_have_their_own_rows(client: Client, rows: Rows) -> None:
    """Each with the sizes that it sent and got."""
    numbers = range(100)

    def ask(number: int) -> bytes:
        own = Client(client.address, f"{client.request_id}-{number}")
        answer = own.ask(f"/echo?{number}", method="POST", body=b"x" * (number + 1))
        own.wait_for_rows()
        return answer.body if answer else b""

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, numbers))

    assert [number + 1 for number in numbers] == [len(answer) for answer in answers]
    for number in numbers:
        (row,) = rows(f"{client.request_id}-{number}")
        metadata = row["metadata"]
        assert row["request_url"] == f"/echo?{number}"
        assert metadata["http.request.body.size"] == number + 1
        assert metadata["http.response.body.size"] == number + 1
