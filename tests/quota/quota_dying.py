"""A process that crosses two thresholds, and is killed while it tells of the first.

Run as a program, with a DSN and the moment: `before` anything is told, or in the `callback`, when
the rows are stored.
"""

import asyncio
import os
import signal
import sys

from auditlog import AuditLog, Settings
from auditlog.quota.model import Crossing, Quota
from auditlog.quota.quotas import Quotas


def die(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(dsn: str, moment: str) -> None:
    audit = AuditLog(dsn, settings=Settings(life_rows=False))

    async def die_stored(_: Crossing) -> None:
        await audit.flush()
        die()

    quota = Quota("exports", limit=10, counts="reported", exact=True, thresholds=(50, 80, 100))
    quotas = Quotas(audit, [quota], on_crossed=die_stored)
    if moment == "before":
        quotas._recording._submit = die  # type: ignore[method-assign]
    async with quotas:
        await quotas.spend("exports", 8, instance_id="acme")
        await asyncio.sleep(20)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
