"""Faults of the database under traffic: every record is accounted for, and requests are answered.

Each fault is tried in one mode here; the long version tries it in all.
"""

from itertools import cycle

import fault_on_database as faults
import pytest
from fault_postgres import Postgres
from fault_scene import MODES, Fault, tried

FAULTS = (
    faults.crashed,
    faults.backend_killed,
    faults.table_renamed,
    faults.password_changed,
    faults.rights_revoked,
    faults.too_many_connections,
    faults.read_only,
    faults.errors_of_the_server,
    faults.statement_timeout,
    faults.table_locked,
    faults.breaking_trigger,
)


@pytest.mark.parametrize(
    ("fault", "mode"),
    list(zip(FAULTS, cycle(MODES), strict=False)),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_fault_loses_nothing(fault: Fault, mode: str, postgres: Postgres) -> None:
    tried(fault.__name__, fault, postgres, mode, seed=1).check(lossless=True)
