"""What was decided, as rows of `quota_logs`; what was crossed, as rows and by the callback.

Nothing here raises because of the application's callback or of the log. A callback that fails is
told of, and the crossing counts as not told: some process calls again a minute later.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeAlias

from auditlog.capture.recorder import Recorder
from auditlog.quota.model import Actor, Crossing, Decision
from auditlog.records import QuotaLogRecord
from auditlog.reporting import describe

OnCrossed: TypeAlias = Callable[[Crossing], Awaitable[Any] | Any]
"""The application's: a coroutine function, or a plain one, which is called in a thread."""

CALLBACK_S = 45.0
"""How long a callback may take: after 60 s another process takes the crossing for untold."""
MAX_REMEMBERED = 10_000
"""Crossings whose row was submitted by this process, so that it does not submit a second one."""


class Recording:
    """Tells the log, and the application.

    Args:
        recorder: The log.
        on_crossed: The application's callback, if it has one.
    """

    def __init__(self, recorder: Recorder, on_crossed: OnCrossed | None) -> None:
        self._recorder = recorder
        self._on_crossed = on_crossed
        self._submitted: OrderedDict[str, None] = OrderedDict()
        self.crossings = 0
        self.failed = 0

    def decided(self, decision: Decision, actor: Actor) -> None:
        """Leave the row of a decision; one that was allowed makes room for others."""
        key = decision.key
        self._recorder.submit(
            QuotaLogRecord(
                key.quota_id,
                decision.previous,
                decision.usage,
                decision.quota.limit,
                actor.resource_owner or key.instance_id,
                decision.allowed,
                actor.user_id,
                actor.action,
                instance_id=key.instance_id,
                low_priority=decision.allowed,
            )
        )

    async def crossed(self, crossings: Iterable[Crossing]) -> list[str]:
        """Leave the rows of crossings, then call back.

        Returns:
            The identifiers of those that are told; the others are to be told again.
        """
        crossings = list(crossings)
        for crossing in crossings:
            self._submit(crossing)
        return [each.crossing_id for each in crossings if await self._call(each)]

    def _submit(self, crossing: Crossing) -> None:
        if crossing.crossing_id in self._submitted:
            return
        self._submitted[crossing.crossing_id] = None
        if len(self._submitted) > MAX_REMEMBERED:
            self._submitted.popitem(last=False)
        self.crossings += 1
        self._recorder.submit(crossing_record(crossing))

    async def _call(self, crossing: Crossing) -> bool:
        if self._on_crossed is None:
            return True
        try:
            async with asyncio.timeout(CALLBACK_S):
                await _called(self._on_crossed, crossing)
        except Exception as error:  # noqa: BLE001  # the application's code may do anything
            self.failed += 1
            self._recorder.reporter.report(
                "auditlog.on_crossed_failed",
                f"on_crossed raised {describe(error)}; it is called again in a minute",
                level=logging.ERROR,
            )
            return False
        return True


def crossing_record(crossing: Crossing) -> QuotaLogRecord:
    """Make the row of a crossing: the same one, whichever process makes it."""
    return QuotaLogRecord(
        crossing.quota_id,
        crossing.previous_usage,
        crossing.current_usage,
        crossing.quota_limit,
        crossing.resource_owner or crossing.instance_id,
        True,
        crossing.user_id,
        crossing.action,
        True,
        crossing.instance_id,
        crossing.crossing_id,
        crossing.crossed_at,
    )


async def _called(on_crossed: OnCrossed, crossing: Crossing) -> None:
    if iscoroutinefunction(on_crossed) or iscoroutinefunction(
        getattr(on_crossed, "__call__", None)  # noqa: B004  # not whether it is callable: which
    ):
        await on_crossed(crossing)
        return
    answer = await asyncio.to_thread(on_crossed, crossing)
    if isawaitable(answer):  # of a partial, or a lambda around a coroutine function
        await answer
