"""A row of the tables: what a client does, what it sees, and what the row then says.

The same over every server; `on` holds what is different on one, and why stands beside it. Recorded
on 2026-11-24 with uvicorn
0.54.0 (h11 0.16.0 with wsproto 1.3.2, httptools 0.9.0 with websockets 17.4), hypercorn 0.18.0 and
granian 2.8.7.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raw_client import Answer, Client

H11, HTTPTOOLS, HYPERCORN, GRANIAN = "uvicorn-h11", "uvicorn-httptools", "hypercorn", "granian"
Talk = Callable[[Client], Any]
Differences = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Scenario:
    """One request.

    `expected` has what the client sees under `sees`, the row's columns `method`, `url`, `status`
    and `headers`, and the metadata under short names; `row` False: there is none, None: chance
    decides.
    """

    name: str
    talk: Talk
    expected: Mapping[str, Any]
    on: Differences = field(default_factory=dict)

    def expected_on(self, server: str) -> dict[str, Any]:
        return {**self.expected, **self.on.get(server, {})}


REFUSED = {"sees": 400, "row": False}
BROKEN = {"outcome": "server_error", "error": "RuntimeError"}
TOO_LARGE = {"sees": 431, "row": False}


def add(name: str, talk: Talk, on: Differences | None = None, **expected: Any) -> Scenario:
    """Anything at all."""
    return Scenario(name, talk, expected, on or {})


def http(  # a table reads better without names
    name: str,
    target: str | bytes,
    sees: int = 200,
    *headers: bytes,
    method: str = "GET",
    body: bytes = b"",
    on: Differences | None = None,
    **expected: Any,
) -> Scenario:
    """A request whose whole answer is read; the row says what the client sees, and `ok`."""

    def talk(client: Client) -> int | None:
        return status_of(client.ask(target, *headers, method=method, body=body))

    url = target if isinstance(target, str) else target.decode("latin-1")
    defaults = {"sees": sees, "method": method, "url": url, "status": sees, "sent": 2}
    return add(name, talk, on, **{**defaults, **expected})


def raw(name: str, data: Callable[[Client], bytes], sees: int = 200, **expected: Any) -> Scenario:
    """Bytes as they are."""

    def talk(client: Client) -> int | None:
        return status_of(client.exchange(data(client)))

    return add(name, talk, sees=sees, **{"status": sees, "sent": 2, **expected})


def status_of(answer: Answer | None) -> int | None:
    """None where the server closed without an answer."""
    return answer.status if answer else None
