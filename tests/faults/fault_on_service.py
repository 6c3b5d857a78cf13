"""Faults of the service's process: killed, stopped while the database is away, at a wrong clock."""

import signal
import time
from datetime import timedelta

import psutil
from fault_client import until
from fault_scene import Fault, Scene

DAY_S = timedelta(days=1).total_seconds()


def killed(times: int) -> Fault:
    """Return the fault that kills it so often, each time at another moment."""

    def fault(scene: Scene) -> None:
        for _ in range(times):
            scene.flow(scene.random.randint(1, 60))
            # Not always just behind an answer.
            time.sleep(scene.random.uniform(0, 0.05))
            scene.service.kill()
            scene.service.start()

    return fault


def killed_in_an_outage(scene: Scene) -> None:
    """Several times while the database is away: what is in the spool is all there is."""
    scene.proxy.refuse()
    for _ in range(3):
        scene.flow(scene.random.randint(20, 100))
        scene.service.kill()
        scene.service.start()
    scene.flow()
    scene.proxy.admit()


def killed_while_replaying(scene: Scene) -> None:
    """While it writes what an earlier one has left."""
    scene.proxy.refuse()
    scene.flow(300)
    scene.service.kill()
    scene.proxy.admit()
    for _ in range(3):
        scene.service.start()
        time.sleep(scene.random.uniform(0, 0.2))
        scene.service.kill()
    scene.service.start()


def stopped(scene: Scene) -> None:
    """By SIGTERM in the middle of requests, and started again."""
    scene.flow(scene.random.randint(10, 60))
    scene.service.stop()
    scene.service.start()


def stopped_while_locked(scene: Scene) -> None:
    """It drains while the table is locked; the lock is let go before it gives up."""
    with scene.database.locked("logs"):
        scene.flow(50)
        scene.service.terminate()
        time.sleep(scene.random.uniform(0.2, 1))
    scene.service.stop()
    scene.service.start()


def killed_while_draining(scene: Scene) -> None:
    """SIGTERM, and SIGKILL while it drains, as supervisors do that wait no longer."""
    with scene.database.locked("logs"):
        scene.flow(50)
        scene.service.terminate()
        time.sleep(scene.random.uniform(0.2, 1))
        scene.service.kill()
    scene.service.start()


def stopped_in_an_outage(scene: Scene) -> None:
    """The database stays away for longer than the drain may take."""
    scene.proxy.refuse()
    scene.flow(50)
    scene.service.stop()
    scene.proxy.admit()
    scene.service.start()


def clock_jumps(scene: Scene) -> None:
    """By days in both directions, and then by years."""
    for days in (1, -3, 400, -4000, 0):
        (scene.folder / "clock").write_text(str(days * DAY_S))
        scene.flow(30)


def worker_killed(scene: Scene) -> None:
    """One of several, three times; the others go on."""
    for _ in range(3):
        scene.flow(scene.random.randint(10, 60))
        scene.service.kill_worker(scene.random)
        scene.flow()


def workers_replaced(scene: Scene) -> None:
    """All workers, one after the other, by SIGHUP to their leader."""
    for _ in range(2):
        before = set(scene.service.workers())
        scene.service.signal(signal.SIGHUP)
        _await_new_workers(scene, before)
        scene.flow()


def reloaded(scene: Scene) -> None:
    """A file of the application is changed, and uvicorn starts it anew."""
    before = set(scene.service.workers())

    def is_new() -> bool:
        # Again and again: its watcher may not watch yet.
        (scene.folder / "changed.py").touch()
        time.sleep(0.3)
        return not before & set(scene.service.workers())

    until(is_new, "it was started anew")
    scene.flow()


def _await_new_workers(scene: Scene, before: set[psutil.Process]) -> None:
    until(lambda: not before & set(scene.service.workers()), "all workers are new")
