"""The workers of one service, each a process that spends from the same quota; run as a program.

They are forked, get ready, and begin together, with a byte of the input each. Half of them spend on
an event loop, half in threads. Each thing that happens is a line of the output, `PID WORD DETAIL`,
written in one piece before anything else is done: what a killed worker was granted is known to its
last unit. The first argument is a `Scene` as JSON.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from auditlog import AuditLog, Settings
from auditlog.quota.engine import driver
from auditlog.quota.model import Crossing, Quota, QuotaExceeded
from auditlog.quota.quotas import Quotas

QUOTA_ID, TENANT = "jobs", "acme"


@dataclass(frozen=True)
class Scene:
    """What they do."""

    dsn: str
    quota: dict[str, Any]
    """Fields of the quota, but for its name."""
    workers: int = 10
    at_once: int = 2
    """Spendings that a worker has under way at one time."""
    amounts: tuple[int, ...] = (1,)
    """Units of spendings, in turn."""
    spendings: int | None = None
    """How many of them each does that are under way at one time; None: until it is refused."""
    stays: bool = False
    """Does a worker that has done its spendings wait for the end of the input?"""
    lease_s: float = 1.0
    dies_telling: int | None = None
    """The threshold whose callback kills its process, before anything was told."""


def main() -> None:
    scene = Scene(**json.loads(sys.argv[1]))
    # For what others have not told, a process looks soon, instead of twice a minute.
    driver.LOOK_EVERY_S /= 100
    for number in range(scene.workers):
        if os.fork() == 0:
            _work(scene, on_a_loop=number % 2 == 0)
            os._exit(0)
    ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(scene.workers)]
    sys.exit(any(code not in {0, -signal.SIGKILL} for code in ended))


def _work(scene: Scene, *, on_a_loop: bool) -> None:
    if on_a_loop:
        asyncio.run(_on_a_loop(scene))
    else:
        _in_threads(scene)
    _say("done")


async def _on_a_loop(scene: Scene) -> None:
    audit, quotas = _opened(scene)
    async with audit, quotas:
        _say("ready")
        await asyncio.to_thread(os.read, 0, 1)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(scene.at_once):
                tasks.create_task(_spend(quotas, scene))
        _say("idle")
        if scene.stays:
            await asyncio.to_thread(os.read, 0, 1)


async def _spend(quotas: Quotas, scene: Scene) -> None:
    try:
        for amount in _amounts(scene):
            await quotas.spend(QUOTA_ID, amount, instance_id=TENANT, user_id=os.getpid())
            _say("granted", amount)
            await asyncio.sleep(0)  # as a server does between requests
    except QuotaExceeded as refusal:
        _say("refused", refusal.decision.usage)


def _in_threads(scene: Scene) -> None:
    audit, quotas = _opened(scene)
    with audit, quotas:
        _say("ready")
        os.read(0, 1)
        with ThreadPoolExecutor(scene.at_once) as threads:
            spending = [
                threads.submit(_spend_in_thread, quotas, scene) for _ in range(scene.at_once)
            ]
        for ended in spending:
            ended.result()
        _say("idle")
        if scene.stays:
            os.read(0, 1)


def _spend_in_thread(quotas: Quotas, scene: Scene) -> None:
    try:
        for amount in _amounts(scene):
            with quotas.spend(QUOTA_ID, amount, instance_id=TENANT, user_id=os.getpid()):
                _say("granted", amount)
    except QuotaExceeded as refusal:
        _say("refused", refusal.decision.usage)


def _amounts(scene: Scene) -> Iterator[int]:
    return islice(cycle(scene.amounts), scene.spendings)


def _opened(scene: Scene) -> tuple[AuditLog, Quotas]:
    # Rows wait for the end of the process: those of a killed one are lost with it.
    settings = Settings(batch_age_s=60, life_rows=False)
    audit = AuditLog(scene.dsn, settings=settings)
    quota = Quota(QUOTA_ID, counts="reported", **scene.quota)
    # On a busy machine the database may be slow, and is not away.
    waiting = {"timeout_s": 20.0, "lease_s": scene.lease_s}
    return audit, Quotas(audit, [quota], on_crossed=_telling(scene), **waiting)


def _telling(scene: Scene) -> Callable[[Crossing], None]:
    def tell(crossing: Crossing) -> None:
        if crossing.percent == scene.dies_telling:
            _say("killed", crossing.percent)
            os.kill(os.getpid(), signal.SIGKILL)
        _say("told", f"{crossing.percent}:{crossing.crossing_id}")

    return tell


def _say(word: str, detail: object = "-") -> None:
    # One write of less than PIPE_BUF is whole, whoever else writes to the same pipe.
    os.write(1, f"{os.getpid()} {word} {detail}\n".encode())


if __name__ == "__main__":
    main()
