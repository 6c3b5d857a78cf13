"""Faults of the database under traffic: every record is accounted for, and requests are answered."""

import fault_on_database as faults
import pytest
from fault_postgres import Postgres
from fault_scene import Fault, tried

FAULTS = (
    faults.table_renamed,
    faults.schema_renamed,
    faults.rights_revoked,
    faults.password_changed,
    faults.read_only,
    faults.too_many_connections,
    faults.statement_timeout,
    faults.table_locked,
    faults.errors_of_the_server,
    faults.crashed,
    faults.backend_killed,
    faults.sessions_terminated,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_loses_nothing(fault: Fault, postgres: Postgres) -> None:
    tried(fault.__name__, fault, postgres, "memory", seed=1).check()
