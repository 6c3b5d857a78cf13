"""Rows that the server refuses: each is stored in a smaller form, or kept as a dead letter."""

import fault_on_records as faults
import pytest
from fault_hostile import hostile_records
from fault_postgres import Postgres
from fault_scene import tried


def test_hostile_records_are_stored_or_buried(postgres: Postgres) -> None:
    result, reduced = hostile_records(postgres, seed_=1, examples=200)
    result.check(lossless=True)
    assert result.verdict.sent >= 150
    assert result.verdict.dead > 10
    assert reduced > 1


@pytest.mark.parametrize("mode", ["memory", "commit"])
def test_refused_rows_are_reduced_or_buried(mode: str, postgres: Postgres) -> None:
    """One in ten, by turns, while connections are cut."""
    fault = faults.refused_and_cut
    result = tried("rows refused", fault, postgres, mode, seed=1, user=faults.some)
    result.check()
    assert result.verdict.dead > 0


def test_dead_letters_without_a_table_go_to_their_file(postgres: Postgres) -> None:
    fault = faults.refused_and_no_place
    result = tried("no table", fault, postgres, "spool", seed=1, user=faults.some)
    result.check()
    assert result.verdict.dead > 0
