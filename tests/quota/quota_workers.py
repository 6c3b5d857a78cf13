"""The workers of one service, each a process that spends from the same quota; run as a program.

They are forked, get ready, and begin together when the input ends. Half of them spend on an event
loop, half in threads. Each thing that happens is a line of the output, `PID WORD DETAIL`, written
in one piece before anything else is done: what a killed worker was granted is known to its last
unit. The first argument is a `Scene` as JSON.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    """Units of a worker's spendings, in turn."""
    dies_telling: int | None = None
    """The threshold whose callback kills its process, before anything was told."""


def main() -> None:
    scene = Scene(**json.loads(sys.argv[1]))
    # For what others have not told, a process looks soon, instead of twice a minute.
    driver.LOOK_FOR_CROSSINGS_S = 0.2
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
    async with audit, quotas, asyncio.TaskGroup() as tasks:
        _say("ready")
        await asyncio.to_thread(os.read, 0, 1)
        for _ in range(scene.at_once):
            tasks.create_task(_spend(quotas, scene.amounts))


async def _spend(quotas: Quotas, amounts: tuple[int, ...]) -> None:
    number = 0
    try:
        while True:
            amount = amounts[number % len(amounts)]
            await quotas.spend(QUOTA_ID, amount, instance_id=TENANT, user_id=str(os.getpid()))
            _say("granted", amount)
            number += 1
    except QuotaExceeded as refusal:
        _say("refused", refusal.decision.usage)


def _in_threads(scene: Scene) -> None:
    audit, quotas = _opened(scene)
    with audit, quotas, ThreadPoolExecutor(scene.at_once) as threads:
        _say("ready")
        os.read(0, 1)
        for ended in [
            threads.submit(_spend_in_thread, quotas, scene.amounts) for _ in range(scene.at_once)
        ]:
            ended.result()


def _spend_in_thread(quotas: Quotas, amounts: tuple[int, ...]) -> None:
    number = 0
    try:
        while True:
            amount = amounts[number % len(amounts)]
            with quotas.spend(QUOTA_ID, amount, instance_id=TENANT, user_id=str(os.getpid())):
                _say("granted", amount)
            number += 1
    except QuotaExceeded as refusal:
        _say("refused", refusal.decision.usage)


def _opened(scene: Scene) -> tuple[AuditLog, Quotas]:
    # Rows wait for the end of the process: those of a killed one are lost with it.
    settings = Settings(batch_age_s=60, life_rows=False)
    audit = AuditLog(scene.dsn, settings=settings)
    quota = Quota(QUOTA_ID, counts="reported", **scene.quota)
    return audit, Quotas(audit, [quota], on_crossed=_telling(scene))


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
