"""A network that fails at every stage of a batch: nothing is lost, nothing is stored twice."""

import fault_on_network as faults
import pytest
from fault_postgres import Postgres
from fault_scene import tried
from fault_wire import Stage


@pytest.mark.parametrize("stage", faults.STAGES, ids=lambda stage: stage.name)
def test_every_harm_at_a_stage(stage: Stage, postgres: Postgres) -> None:
    tried(f"network: {stage.value}", faults.every_harm(stage), postgres, "memory", seed=1).check()
