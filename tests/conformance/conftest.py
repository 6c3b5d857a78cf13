"""Fixtures: each server once for all tests, all of them writing to one database.

`running`  a server, one after the other; asked for, a test runs once on each
`client`   a client of that server, with a request id of its own
`rows`     reads the rows of a client's requests from the database
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from raw_client import Client
from servers import SERVERS, Running, serving

from databases import Server

_numbers = itertools.count(1)
_ROWS = """
    SELECT * FROM logstore.logs
    WHERE metadata->>'audit.request_id' = %s
    ORDER BY occurrence_date, log_id
"""


@pytest.fixture(scope="session")
def trail_dsn(any_server: Server) -> Iterator[str]:
    with any_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="session", params=SERVERS)
def running(
    request: pytest.FixtureRequest, trail_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(request.param, trail_dsn, log) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Client:
    return Client(running.address, f"{running.name}-{next(_numbers)}")


@pytest.fixture(scope="session")
def rows(trail_dsn: str) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    with psycopg.connect(trail_dsn, autocommit=True, row_factory=dict_row) as connection:

        def read(request_id: str) -> list[dict[str, Any]]:
            return connection.execute(_ROWS, (request_id,)).fetchall()

        yield read
