"""Quotas as clients of real servers see them, counted by a real database."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import websockets.exceptions
from raw_client import Answer, Client
from servers import SERVERS, Running, serving
from test_transparent import TARGETS, _bytes_of

from databases import Server

Rows = Callable[[str], list[dict[str, Any]]]
LIMIT = 2  # as in quota_served.py, which only a server can import


@pytest.fixture(scope="module", params=SERVERS)
def limited(
    request: pytest.FixtureRequest, trail_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("limited") / "log"
    with serving(request.param, trail_dsn, log, app="quota_served:app") as running:
        yield running


@pytest.fixture
def client(limited: Running, request: pytest.FixtureRequest) -> Client:
    """Has all its quotas left."""
    return Client(limited.address, re.sub(r"[^\w-]", "-", request.node.name))


def spend(client: Client, target: str = "/read") -> None:
    """Use up what the client has."""
    for _ in range(LIMIT):
        answer = client.ask(target)
        assert answer is not None
        assert answer.status == 200


def test_refusal_tells_why_and_has_its_row(client: Client, rows: Rows) -> None:
    """Like any other request."""
    spend(client)
    answer = client.ask("/read")
    client.wait_for_rows(LIMIT + 1)

    assert answer is not None
    assert (answer.status, answer.all("content-type")) == (429, ["application/problem+json"])
    assert json.loads(answer.body)["violated-policies"] == ["few"]
    (seconds,) = answer.all("retry-after")
    assert answer.all("ratelimit") == [f'"few";r=0;t={seconds}']
    assert answer.all("ratelimit-policy") == [f'"few";q={LIMIT};w=86400']
    statuses = [row["response_status"] for row in rows(client.request_id)]
    assert sorted(statuses) == [200] * LIMIT + [429]
    refused = [row["metadata"].get("audit.quota_refused") for row in rows(client.request_id)]
    assert refused.count("few") == 1


def test_decision_has_its_row(client: Client, trail_dsn: str) -> None:
    """Who asked for what, beside the request's."""
    spend(client)
    client.ask("/read")
    client.wait_for_rows(LIMIT + 1)
    query = """
        SELECT quota_id, previous_usage, current_usage, quota_limit, allowed
        FROM logstore.quota_logs WHERE action = 'GET /read' ORDER BY log_date DESC LIMIT 1
    """
    with psycopg.connect(trail_dsn) as connection:
        row = connection.execute(query).fetchone()

    assert row == ("few", LIMIT, LIMIT, LIMIT, False)


@pytest.mark.parametrize("body", [b"", b"x" * 100_000], ids=["none", "large"])
def test_refused_request_leaves_the_connection_in_order(client: Client, body: bytes) -> None:
    """Whatever the server does with a body that nobody reads: the next answer is the next one's."""
    spend(client)
    head = client.head("/read", b"Content-Length: %d" % len(body), method="POST")
    following = Client(client.address, f"{client.request_id}-{len(body)}")
    with client.connect() as connection:
        connection.send(head)
        with suppress(ConnectionError):
            connection.send(body)
        refused = connection.read_answer()
        with suppress(ConnectionError):
            connection.send(following.head("/status?status=404"))
        answer = connection.read_answer()

    assert refused is not None
    assert refused.status == 429
    assert answer is None or answer.status == 404
    assert body or answer is not None


def test_head_is_refused_without_a_body(client: Client) -> None:
    """The next answer on the connection would be taken for one."""
    spend(client)
    with client.connect() as connection:
        connection.send(client.head("/read", method="HEAD") + client.head("/describe"))
        answers = [connection.read_answer(to_head=True), connection.read_answer()]

    assert [answer.status for answer in answers if answer] == [429, 200]


def test_what_failed_is_given_back(client: Client) -> None:
    """Each time."""
    statuses = []
    for _ in range(LIMIT + 1):
        answer = client.ask("/status?status=503")
        assert answer is not None
        statuses.append(answer.status)

    assert statuses == [503] * (LIMIT + 1)
    client.wait_for_rows(LIMIT + 1)
    spend(client)


def test_bytes_of_a_stream_are_charged_at_its_end(client: Client) -> None:
    """Eleven of them; the limit is ten."""
    answers: list[Answer | None] = []
    for _ in range(2):
        answers.append(client.ask("/stream"))
        client.wait_for_rows()

    assert [answer.status for answer in answers if answer] == [200, 429]
    assert answers[0] is not None
    assert answers[0].body == b"onetwothree"


@pytest.mark.parametrize("target", ["/told/read", "/told/stream"])
def test_answers_tell_what_is_left(client: Client, target: str) -> None:
    """Where it is asked for, once each; the content is what it was."""
    mine = Client(client.address, client.request_id + target.replace("/", "-"))
    first, second = mine.ask(target), mine.ask(target)

    assert first is not None
    assert second is not None
    assert first.body == second.body == {"d": b"ok", "m": b"onetwothree"}[target[-1]]
    assert [answer.all("ratelimit")[0][:9] for answer in (first, second)] == [
        '"few";r=1',
        '"few";r=0',
    ]
    assert len(first.all("ratelimit-policy")) == 1


def test_websocket_is_refused_before_it_is_accepted(client: Client) -> None:
    """All of these servers can send a status then."""
    spend(client)
    with (
        pytest.raises(websockets.exceptions.InvalidStatus) as refused,
        client.websocket("/ws/echo"),
    ):
        pytest.fail("it is open")

    answer = refused.value.response
    assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (429, True)
    assert json.loads(answer.body or b"")["violated-policies"] == ["few"]


def test_websocket_within_the_limit_is_served(client: Client) -> None:
    """As if no quota were there."""
    with client.websocket("/ws/echo") as connection:
        connection.send("a")
        assert connection.recv() == "a"


def test_what_is_held_in_advance_is_given_back_at_shutdown(
    any_server: Server, tmp_path: Any
) -> None:
    """With the lifespan, while the log is still there: the counter tells what was used."""
    used = {}
    for name in SERVERS:
        with any_server.database() as dsn:
            with serving(name, dsn, tmp_path / name, app="quota_served:app") as running:
                for _ in range(20):
                    Client(running.address, "all").ask("/cookies")
                running.stop()
            with psycopg.connect(dsn) as connection:
                query = "SELECT used FROM logstore.quota_usage WHERE quota_id = 'leased'"
                used[name] = connection.execute(query).fetchall()

    assert used == {name: [(20,)] for name in SERVERS}


def test_bytes_on_the_wire_are_the_same(limited: Running, tmp_path: Any) -> None:
    """Of every answer within the limit, with and without quotas."""
    with serving(
        limited.name, "postgresql://nowhere.invalid/", tmp_path / "log", app="served:bare"
    ) as bare:
        for target in TARGETS:
            one, other = (
                _bytes_of(running, target, method="POST", body=b"x") for running in (bare, limited)
            )
            assert one == other, target
