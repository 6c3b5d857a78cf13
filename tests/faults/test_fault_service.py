"""A service that is killed or stopped: what its mode promises is kept."""

import fault_on_service as faults
import pytest
from fault_postgres import Postgres
from fault_scene import MODES, tried
from fault_script import killed_script


@pytest.mark.parametrize("mode", MODES)
def test_kill(mode: str, postgres: Postgres) -> None:
    tried("kill -9", faults.killed(5), postgres, mode, seed=1).check()


@pytest.mark.parametrize(("kind", "mode"), [("grpc_aio", "commit"), ("grpc_sync", "spool")])
def test_kill_of_a_grpc_server(kind: str, mode: str, postgres: Postgres) -> None:
    tried(f"kill -9, {kind}", faults.killed(1), postgres, mode, seed=1, kind=kind).check()


def test_kill_of_a_script(postgres: Postgres) -> None:
    killed_script(postgres, "spool", seed=1, times=2).check()


def test_kill_while_replaying(postgres: Postgres) -> None:
    tried("kill -9 while replaying", faults.killed_while_replaying, postgres, "spool", 1).check()


def test_stop_drains_behind_a_lock(postgres: Postgres) -> None:
    tried("SIGTERM", faults.stopped_while_locked, postgres, "memory", seed=1).check()


def test_stop_in_an_outage_leaves_the_rest_to_the_spool(postgres: Postgres) -> None:
    settings = {"drain_timeout_s": 1, "spool": True}
    fault = faults.stopped_in_an_outage
    tried("SIGTERM in an outage", fault, postgres, "memory", seed=1, **settings).check()


def test_clock_that_jumps(postgres: Postgres) -> None:
    tried("clock", faults.clock_jumps, postgres, "spool", seed=1, clock=True).check()


def test_kill_of_a_worker(postgres: Postgres) -> None:
    """Of a server that loads the application and then forks."""
    served = {"kind": "gunicorn", "options": "--preload --max-requests 60"}
    tried("kill of a worker", faults.worker_killed, postgres, "spool", seed=1, **served).check()


def test_reload(postgres: Postgres) -> None:
    tried("--reload", faults.reloaded, postgres, "spool", seed=1, kind="reload").check()
