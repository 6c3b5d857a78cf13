"""A service that is killed or stopped: what its mode promises is kept."""

import fault_on_service as faults
import pytest
from fault_postgres import Postgres
from fault_scene import MODES, tried


@pytest.mark.parametrize("mode", MODES)
def test_kill(mode: str, postgres: Postgres) -> None:
    tried("kill -9", faults.killed(5), postgres, mode, seed=1).check()


@pytest.mark.parametrize("mode", MODES)
def test_stop(mode: str, postgres: Postgres) -> None:
    tried("SIGTERM", faults.stopped, postgres, mode, seed=1).check()
