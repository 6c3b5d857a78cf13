"""A network that fails at every stage of a batch: nothing is lost, nothing is stored twice.

Cut and reset everywhere here, half-open at some stages; the long version does every harm at each.
"""

import fault_on_network as faults
import pytest
from fault_postgres import Postgres
from fault_proxy import Harm
from fault_scene import Scene, tried
from fault_wire import Stage

IMPATIENT = {"statement_timeout_s": 0.5, "connect_timeout_s": 2}


@pytest.mark.parametrize(("harm", "mode"), [(Harm.CUT, "spool"), (Harm.RESET, "commit")])
def test_end_of_a_connection_at_every_stage(harm: Harm, mode: str, postgres: Postgres) -> None:
    def fault(scene: Scene) -> None:
        for stage in faults.STAGES:
            faults.harmed(stage, harm)(scene)

    tried(f"{harm.value} at every stage", fault, postgres, mode, seed=1).check(lossless=True)


@pytest.mark.parametrize("stage", [Stage.COPY_DATA, Stage.COPIED, Stage.COMMITTED])
def test_half_open_connection(stage: Stage, postgres: Postgres) -> None:
    """Neither side hears of the other's end, as behind a firewall that has forgotten them."""
    fault = faults.harmed(stage, Harm.HALF_OPEN)
    tried(f"half-open: {stage.value}", fault, postgres, "memory", seed=1, **IMPATIENT).check(
        lossless=True
    )


def test_slow_network(postgres: Postgres) -> None:
    def fault(scene: Scene) -> None:
        faults.harmed(Stage.COPIED, Harm.DELAY)(scene)
        faults.harmed(Stage.COPY_DATA, Harm.THROTTLE)(scene)

    tried("delay, throttle", fault, postgres, "spool", seed=1).check(lossless=True)


def test_harm_while_a_replay_is_merged(postgres: Postgres) -> None:
    fault = faults.harmed_while_merging(Harm.CUT)
    tried("cut while merging", fault, postgres, "spool", seed=1).check(lossless=True)
