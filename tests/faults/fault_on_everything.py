"""Chaos: faults one after the other and on top of each other, as the seed has it."""

from collections.abc import Callable

import fault_on_database as database
import fault_on_network as network
import fault_on_spool as spool
from fault_proxy import Harm
from fault_scene import Fault, Scene

ROUNDS = 12


def _kill(scene: Scene) -> None:
    scene.service.kill()
    scene.service.start()


def _stop(scene: Scene) -> None:
    scene.service.stop()
    scene.service.start()


def _arm(scene: Scene) -> None:
    scene.proxy.arm(scene.random.choice(network.STAGES), scene.random.choice(list(Harm)))


def _kill_in_outage(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.flow(scene.random.randint(1, 50))
    _kill(scene)
    scene.proxy.admit()


DEEDS: tuple[Callable[[Scene], None], ...] = (
    _kill,
    _kill,
    _stop,
    _arm,
    _arm,
    _kill_in_outage,
    spool.outage(30),
    database.table_renamed,
    database.rights_revoked,
    database.sessions_terminated,
    database.read_only,
    database.crashed,
)


def chaos(rounds: int = ROUNDS) -> Fault:
    """Return the fault that does so many of them at random."""

    def fault(scene: Scene) -> None:
        for _ in range(rounds):
            scene.random.choice(DEEDS)(scene)
            scene.flow(scene.random.randint(1, 40))

    return fault


def in_turn(*faults: Fault) -> Fault:
    """Return the fault that does several, one after the other."""

    def fault(scene: Scene) -> None:
        for each in faults:
            each(scene)

    return fault
