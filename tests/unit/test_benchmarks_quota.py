"""Each benchmark of quotas runs, checks its own result, and prints its table."""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from benchmarks import quota_exact, quota_lease, quota_served
from benchmarks.database import Server
from benchmarks.report import Table

from databases import Server as SharedServer


@pytest.fixture(scope="module")
def bench_server(any_server: SharedServer) -> Iterator[Server]:
    server = Server(any_server.admin_dsn, shutil.which("psql"))
    yield server
    server.close()


def names(table: Table) -> list[str]:
    """The rows' names, after a look at whether they fit their columns."""
    assert table.markdown().startswith(f"### {table.title}\n")
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}
    return [row.name for row in table.rows]


def test_lease_is_held_against_memory_and_against_the_database(bench_server: Server) -> None:
    """What each has counted is checked in the run itself."""
    sizes = quota_lease.Sizes(decisions=5, asked=2, rounds=1)
    (table,) = quota_lease.run(sizes, bench_server)
    assert names(table) == list(quota_lease.NAMES)
    assert [len(row.aims) for row in table.rows] == [1, 0, 0, 0, 0]
    missing = [row.name for row in table.rows if row.cells[0] == "not installed"]
    # It comes with the extra `bench` only.
    assert missing == ([] if find_spec("limits") else [quota_lease.LIMITS])


def test_exact_decisions_are_all_counted(bench_server: Server) -> None:
    """So is that."""
    sizes = quota_exact.Sizes(requests=4, each=2, rounds=1)
    (table,) = quota_exact.run(sizes, bench_server)
    assert names(table) == list(quota_exact.NAMES)


def test_served_requests_have_their_rows_and_their_units(bench_server: Server) -> None:
    """And that."""
    sizes = quota_served.Sizes(seconds=0.3, rounds=1, rate=100, connections=2)
    (table,) = quota_served.run(sizes, bench_server)
    assert names(table) == [quota_served.WITHOUT, quota_served.WITH]
