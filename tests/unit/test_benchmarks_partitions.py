"""Each benchmark of partitions runs, checks its own result, and prints its table."""

import shutil
from collections.abc import Iterator

import pytest
from benchmarks import (
    partitions_convert,
    partitions_copy,
    partitions_idle,
    partitions_retire,
    partitions_size,
)
from benchmarks.database import Server
from benchmarks.partitions_traffic import Seen
from benchmarks.partitions_watch import Locks
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


def test_copy_holds_partitions_against_the_plain_table(bench_server: Server) -> None:
    """Each way is checked for its rows in the run itself."""
    (table,) = partitions_copy.run(partitions_copy.Sizes(rows=40, rounds=1), bench_server)
    ours = [f"{partitions_copy.OURS}, {rows}" for rows in partitions_copy.ROWS]
    assert set(ours) <= set(names(table))
    assert [len(row.aims) for row in table.rows] == [1] * len(table.rows)


def test_size_compares_a_small_table_with_a_large_one(bench_server: Server) -> None:
    """So is what is read back."""
    sizes = partitions_size.Sizes(small=400, large=800, rows=20, rounds=1)
    (table,) = partitions_size.run(sizes, bench_server)
    assert [len(row.aims) for row in table.rows[:4]] == [0, 0, 1, 2]


def test_convert_counts_what_the_writers_sent(bench_server: Server) -> None:
    """Sent = stored is checked in the run itself, and nobody is refused anything."""
    sizes = partitions_convert.Sizes(rows=400, rounds=1, pause_s=0.05)
    (table,) = partitions_convert.run(sizes, bench_server)
    assert names(table) == list(partitions_convert.NAMES)
    assert [row.cells[-1] for row in table.rows] == ["0"] * len(table.rows)


def test_retire_takes_the_month_away_by_every_way(bench_server: Server) -> None:
    """That it is gone is checked in the run itself."""
    sizes = partitions_retire.Sizes(rows=400, rounds=1, reading_s=0.1, settle_s=0.05)
    (table,) = partitions_retire.run(sizes, bench_server)
    assert names(table) == list(partitions_retire.NAMES)


def test_idle_has_nothing_to_do(bench_server: Server) -> None:
    """So is that."""
    (table,) = partitions_idle.run(partitions_idle.Sizes(days=20, rounds=1), bench_server)
    assert len(names(table)) == 4


def test_a_lock_lasts_from_the_last_look_before_it_to_the_first_after() -> None:
    """What nobody looked at counts against whoever held it."""
    free, held = False, True
    locks = Locks([(0, free), (1, free), (2, held), (3, held), (5, free), (6, held), (7, free)])
    assert locks.longest_ms(0, 7) == 4_000
    assert locks.longest_ms(0, 3) == 2_000
    assert locks.longest_ms(5, 7) == 2_000
    assert locks.longest_ms(0, 1) == 0


def test_the_worst_wait_is_of_whoever_was_under_way() -> None:
    """One that began before and ended after is one of them."""
    seen = Seen([(0.0, 1.0), (2.0, 0.5), (3.0, 4.0)])
    assert seen.worst_ms(0.5, 2.1) == 1_000
    assert seen.worst_ms(4.0, 5.0) == 4_000
    assert seen.worst_ms(8.0, 9.0) == 0
