"""Faults between the service and the database, at every stage of a batch."""

from fault_proxy import Harm
from fault_scene import Fault, Scene
from fault_wire import Stage

STAGES = tuple(stage for stage in Stage if stage is not Stage.MERGE)
"""Those that every batch passes; merged is only what was committed before, and is written again."""

IN_COPY = (Stage.COPY_DATA, Stage.COPY_DONE)
"""Where a server that waits for its client looks at no time-out but TCP's, which the writer sets
to half a minute; the harness does not wait for it, and has no TCP to the server."""


def harmed(stage: Stage, harm: Harm) -> Fault:
    """Return the fault that does one harm at one stage."""

    def fault(scene: Scene) -> None:
        scene.proxy.arm(stage, harm)
        if stage in (Stage.CONNECT, Stage.STARTUP):
            scene.proxy.cut()
        assert scene.proxy.await_strike(stage, harm), f"nothing came to {stage}"
        scene.flow()
        if harm is Harm.HALF_OPEN and stage in IN_COPY:
            scene.flow(100)
            scene.proxy.drop_silent()

    fault.__doc__ = f"{harm.value}, {stage.value}"
    return fault


def every_harm(stage: Stage) -> Fault:
    """Return the fault that does all of them, one after the other, at one stage."""

    def fault(scene: Scene) -> None:
        for harm in scene.random.sample(list(Harm), len(Harm)):
            harmed(stage, harm)(scene)

    return fault


def any_harm_anywhere(scene: Scene) -> None:
    """Twenty times, as chance has it."""
    for _ in range(20):
        harmed(scene.random.choice(STAGES), scene.random.choice(list(Harm)))(scene)


def harmed_while_merging(*harms: Harm) -> Fault:
    """Return the fault that harms the successor of a process which has committed unknowingly."""

    def fault(scene: Scene) -> None:
        for harm in harms:
            scene.flow(60)  # the first batch is the log's own row
            scene.proxy.arm(Stage.COMMITTED, Harm.HALF_OPEN)
            assert scene.proxy.await_strike(Stage.COMMITTED, Harm.HALF_OPEN)
            scene.service.kill()
            scene.proxy.arm(Stage.MERGE, harm)
            scene.service.start()
            assert scene.proxy.await_strike(Stage.MERGE, harm), "nothing was merged"
            scene.flow()

    return fault


def refused(scene: Scene) -> None:
    """Every connection is ended at once, for a while."""
    scene.proxy.refuse()
    scene.flow(100)
    scene.proxy.admit()


def silent(scene: Scene) -> None:
    """All connections are half-open: nothing comes, and nothing ends."""
    scene.proxy.silence()
    scene.flow(100)
