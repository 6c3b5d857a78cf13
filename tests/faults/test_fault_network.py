"""A network that fails at every stage of a batch: nothing is lost, nothing is stored twice.

Cut and reset everywhere here, slow and half-open at some stages; the long version does every harm
at each.
"""

import pytest
from fault_on_everything import in_turn
from fault_on_network import STAGES, harmed, harmed_while_merging
from fault_postgres import Postgres
from fault_proxy import Harm
from fault_scene import tried
from fault_wire import Stage


@pytest.mark.parametrize(("harm", "mode"), [(Harm.CUT, "spool"), (Harm.RESET, "commit")])
def test_end_of_a_connection_at_every_stage(harm: Harm, mode: str, postgres: Postgres) -> None:
    fault = in_turn(*(harmed(stage, harm) for stage in STAGES))
    tried(f"{harm.value} at every stage", fault, postgres, mode, seed=1).check(lossless=True)


def test_half_open_and_slow_connections(postgres: Postgres) -> None:
    """Neither side hears of the other's end, as behind a firewall that has forgotten them."""
    fault = in_turn(
        harmed(Stage.COPY_DATA, Harm.HALF_OPEN),
        harmed(Stage.COPIED, Harm.HALF_OPEN),
        harmed(Stage.COMMITTED, Harm.HALF_OPEN),
        harmed(Stage.COPIED, Harm.DELAY),
        harmed(Stage.COPY_DATA, Harm.THROTTLE),
    )
    impatient = {"statement_timeout_s": 0.5}
    result = tried("half-open, slow", fault, postgres, "memory", seed=1, **impatient)
    result.check(lossless=True)


def test_harm_while_a_replay_is_merged(postgres: Postgres) -> None:
    fault = harmed_while_merging(Harm.CUT)
    tried("cut while merging", fault, postgres, "spool", seed=1).check(lossless=True)
