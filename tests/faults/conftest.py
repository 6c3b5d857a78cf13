"""Fixtures: a PostgreSQL of the harness's own, once for all its tests."""

from collections.abc import Iterator

import pytest
from fault_postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres
