"""Fixtures for tests of the functions that count: a database for a module, a subject for a test."""

from collections.abc import Iterator

import psycopg
import pytest
from quota_counters import Subject

from databases import Server


@pytest.fixture(scope="module")
def conn(server: Server) -> Iterator[psycopg.Connection]:
    """One database for all of them; each test has a subject of its own."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def any_conn(any_server: Server) -> Iterator[psycopg.Connection]:
    with any_server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def subject(conn: psycopg.Connection) -> Subject:
    return Subject(conn)


@pytest.fixture
def any_subject(any_conn: psycopg.Connection) -> Subject:
    return Subject(any_conn)
