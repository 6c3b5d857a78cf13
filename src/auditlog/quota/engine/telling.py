"""Crossed thresholds → whoever tells of them, and a note which of them are told.

What is not told here, since the process ends or the teller fails, is told later, by this process or
another: a crossing stands in `logstore.quota_crossings` until its row and its callback are done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeAlias

from auditlog.quota.model import Crossing
from auditlog.reporting import Reporter, describe

MAX_TELLING = 1_000
"""Crossings; what finds no place is told when a process looks for what nobody told."""

Tell: TypeAlias = Callable[[list[Crossing]], Awaitable[Sequence[str]]]
"""Tells crossings, and returns the identities of those that are told."""

_INSTANTS = ("period_start", "period_end", "crossed_at", "stored_at")


class Teller:
    """Tells crossings. All of it belongs to the driver's loop."""

    def __init__(self, tell: Tell, reporter: Reporter, on_told: Callable[[], None]) -> None:
        """Begin with nothing to tell.

        Args:
            tell: Tells the crossings of one spending, in their order.
            reporter: For what it raises.
            on_told: Called when there is something in `told`.
        """
        self.told: list[str] = []
        """Identities of crossings that were told, and are to be marked so."""
        self._tell = tell
        self._reporter = reporter
        self._on_told = on_told
        self._telling: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take over crossings of one spending, as rows of the table."""
        room = MAX_TELLING - len(self._telling)
        crossings = [crossing_from(row) for row in rows[:room]]
        known = self._telling.union(self.told)
        crossings = [each for each in crossings if each.crossing_id not in known]
        if not crossings:
            return
        self._telling.update(each.crossing_id for each in crossings)
        task = asyncio.create_task(self._run(crossings), name="auditlog.crossings")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, timeout_s: float) -> None:
        """Wait until everything is told, or give up; what is left is told by somebody else."""
        loop = asyncio.get_running_loop()
        if tasks := {task for task in self._tasks if task.get_loop() is loop}:
            _, left = await asyncio.wait(tasks, timeout=timeout_s)
            for task in left:
                task.cancel()

    async def _run(self, crossings: list[Crossing]) -> None:
        try:
            told = await self._tell(crossings)
        except Exception as error:  # noqa: BLE001  # the application's: the others go on
            self._reporter.report(
                "auditlog.crossing_failed",
                f"a crossed threshold could not be told, and will be again: {describe(error)}",
            )
        else:
            self.told += told
            self._on_told()
        finally:
            self._telling.difference_update(each.crossing_id for each in crossings)


def crossing_from(row: Mapping[str, Any]) -> Crossing:
    """Read a row of `logstore.quota_crossings`, from the driver or as JSON."""
    values = {field.name: row[field.name] for field in fields(Crossing)}
    for name in _INSTANTS:
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    values["crossing_id"] = str(values["crossing_id"])
    return Crossing(**values)
