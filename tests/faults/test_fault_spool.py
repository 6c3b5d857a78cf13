"""A spool whose disk is full or whose bytes are not what was written: the loss is told exactly."""

import fault_on_spool as faults
import pytest
from fault_postgres import Postgres
from fault_scene import tried

TINY = {"max_queued_rows": 100}


@pytest.mark.parametrize(("overflow", "answers"), [("drop_low_priority", 300), ("block", 120)])
def test_queue_that_is_full(overflow: str, answers: int, postgres: Postgres) -> None:
    settings = {**TINY, "on_overflow": overflow, "block_timeout_s": 0.1}
    fault = faults.outage(answers)
    result = tried(f"queue full: {overflow}", fault, postgres, "memory", seed=1, **settings)
    result.check()
    assert result.verdict.gaps["overflow"] == len(result.verdict.missing) > 0


def test_disk_that_is_full(postgres: Postgres) -> None:
    """The queue takes some, the rest is told; afterwards the spool is used again."""
    result = tried("disk full", faults.disk_full, postgres, "spool", seed=1, disk=True, **TINY)
    result.check()


def test_cap_that_is_reached(postgres: Postgres) -> None:
    settings = {**TINY, "spool_max_bytes": 200_000}
    fault = faults.outage(400)
    result = tried("spool_max_bytes", fault, postgres, "spool", seed=1, **settings)
    result.check()
    assert sum(result.verdict.gaps.values()) == len(result.verdict.missing) > 0


@pytest.mark.parametrize("fault", [faults.damaged, faults.damaged_alive])
def test_damage_costs_the_records_that_are_told(fault: faults.Fault, postgres: Postgres) -> None:
    result = tried(fault.__name__, fault, postgres, "spool", seed=1)
    result.check()
    assert result.verdict.gaps["damaged"] == len(result.verdict.missing) > 0


def test_torn_tail_costs_no_more_than_what_was_not_forced_out(postgres: Postgres) -> None:
    tried("torn tail", faults.torn, postgres, "spool", seed=1).check()


def test_damaged_header_costs_nothing(postgres: Postgres) -> None:
    result = tried("header damaged", faults.header_damaged, postgres, "spool", seed=1)
    result.check()
    assert not result.verdict.missing


def test_two_services_share_one(postgres: Postgres) -> None:
    tried("shared", faults.shared, postgres, "spool", seed=1).check()
