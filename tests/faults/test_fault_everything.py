"""Faults on top of each other, as chance has it; `auditlog reconcile` agrees with the judge."""

import pytest
from fault_on_everything import chaos
from fault_postgres import Postgres
from fault_scene import tried


@pytest.mark.parametrize("mode", ["spool", "commit"])
def test_chaos_loses_nothing(mode: str, postgres: Postgres) -> None:
    tried("chaos", chaos(4), postgres, mode, seed=2, reconcile=True).check(lossless=True)
