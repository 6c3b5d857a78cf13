import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import websockets

ROOT = Path(__file__).parents[2]
ALICE = {"authorization": "Bearer alice"}


@contextmanager
def served(dsn: str) -> Iterator[int]:
    """Serve the example with uvicorn, as its docstring says; yields the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "examples.graphql_app:app", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "AUDITLOG_DSN": dsn},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = (re.search(r"running on http://127.0.0.1:(\d+)", line) for line in process.stderr)
        yield next(int(match[1]) for match in found if match)
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert "auditlog." not in rest


def ask(port: int, query: str, headers: dict[str, str] | None = None, **rest: Any) -> Any:
    """Ask, and return the answer, which is an HTTP 200 whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        body = json.dumps({"query": query, **rest})
        headers = {"content-type": "application/json", **(headers or {})}
        connection.request("POST", "/graphql", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return json.load(answer)
    finally:
        connection.close()


async def subscribe(port: int, query: str) -> list[Any]:
    """Run a subscription to its end, and return its results."""
    protocol = websockets.Subprotocol("graphql-transport-ws")
    url = f"ws://127.0.0.1:{port}/graphql"
    results = []
    async with websockets.connect(url, subprotocols=[protocol]) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
        while (message := json.loads(await socket.recv()))["type"] == "next":
            results.append(message["payload"]["data"])
    assert message["type"] == "complete"
    return results


def test_graphql_example(any_dsn: str) -> None:
    """Queries, mutations that are refused and that are not, and a subscription."""
    pay = "mutation Pay($number: Int!) { payInvoice(number: $number) { number } }"
    with served(any_dsn) as port:
        read = ask(port, "query Read { invoice(number: 13) { paid } }")
        assert read == {"data": {"invoice": {"paid": True}}}
        assert "errors" in ask(port, "{ nothing }")
        for number, headers in ((42, None), (42, ALICE), (13, ALICE)):
            answer = ask(port, pay, headers, variables={"number": number}, operationName="Pay")
            assert ("errors" in answer) == ((number, headers) != (42, ALICE))
        counted = asyncio.run(subscribe(port, "subscription { reminders(count: 2) }"))
        assert counted == [{"reminders": 0}, {"reminders": 1}]
    with psycopg.connect(any_dsn) as conn:
        rows = conn.execute(
            "SELECT protocol, metadata ->> 'graphql.operation.type',"
            " metadata ->> 'graphql.operation.name', metadata ->> 'audit.outcome',"
            " response_status, user_id, aggregate_id, event_type"
            " FROM logstore.logs ORDER BY occurrence_date, log_id"
        ).fetchall()
        (results,) = conn.execute(
            "SELECT metadata -> 'graphql.subscription.results' FROM logstore.logs"
            " WHERE metadata ->> 'graphql.operation.type' = 'subscription'"
        ).fetchall()
    assert results == (2,)
    paid = ("42", "invoice.paid")
    assert rows == [
        (3, "query", "Read", "ok", 200, None, None, None),
        (3, "query", None, "client_error", 200, None, None, None),
        (3, "mutation", "Pay", "denied", 200, None, None, None),
        (3, "mutation", "Pay", "ok", 200, "alice", *paid),
        (3, "mutation", "Pay", "client_error", 200, "alice", "13", "invoice.paid"),
        (1, None, None, "ok", 101, None, None, None),
        (3, "subscription", None, "ok", 101, None, None, None),
    ]
