"""Faults of the database under traffic: every record is accounted for, and requests are answered.

Each fault is tried in one mode here, several in one trial; the long version tries each in all.
"""

import fault_on_database as faults
import pytest
from fault_on_everything import in_turn
from fault_postgres import Postgres
from fault_scene import Fault, tried

FAULTS = {
    "memory": (
        faults.crashed,
        faults.password_changed,
        faults.read_only,
        faults.table_locked,
        faults.rights_revoked,
    ),
    "spool": (
        faults.backend_killed,
        faults.schema_renamed,
        faults.errors_of_the_server,
        faults.breaking_trigger,
    ),
    "commit": (
        faults.sessions_terminated,
        faults.table_renamed,
        faults.too_many_connections,
        faults.statement_timeout,
    ),
}


@pytest.mark.parametrize(("mode", "several"), FAULTS.items(), ids=FAULTS)
def test_faults_lose_nothing(mode: str, several: tuple[Fault, ...], postgres: Postgres) -> None:
    names = ", ".join(fault.__name__ for fault in several)
    tried(names, in_turn(*several), postgres, mode, seed=1).check(lossless=True)
