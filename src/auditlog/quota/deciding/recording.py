"""What was decided, as rows of `quota_logs`; what was crossed, as rows and by the callback.

The row of a crossing has the crossing's identity, so it can be there only once. It is not even
submitted twice by one process, nor when it is known to be there: a role that may not read the
table cannot find out that a row which is refused for its identity is the very same one.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from auditlog.capture.recorder import Recorder
from auditlog.quota.deciding.callback import Callback, OnCrossed
from auditlog.quota.model import Actor, Crossing, Decision, Key
from auditlog.records import Outcome, QuotaLogRecord
from auditlog.reporting import describe

TELL_S = 45.0
"""How long all callbacks may take: after 60 s another process takes a crossing for untold."""
MAX_REMEMBERED = 10_000
"""Crossings whose rows this process has submitted."""


class Recording:
    """Tells the log, and the application. Holds on to neither the quotas nor their counters.

    Args:
        recorder: The log.
        on_crossed: The application's callback, if it has one.
    """

    def __init__(self, recorder: Recorder, on_crossed: OnCrossed | None) -> None:
        self._recorder = recorder
        self._callback = None if on_crossed is None else Callback(on_crossed)
        self._submitted: OrderedDict[str, None] = OrderedDict()
        self.crossings = 0
        """Whose rows were submitted."""
        self.failed = 0
        """Calls of the callback that came to nothing."""

    def decided(self, decision: Decision, actor: Actor) -> None:
        """Leave the row of a decision; under `drop_low_priority` a refusal outlives the others."""
        self._recorder.submit(decision_record(decision, actor))

    async def crossed(self, crossings: Sequence[Crossing]) -> list[str]:
        """Leave the rows of crossings, and call back: for each counter, one after the other.

        Returns:
            The identities of those that are told; the others are to be told again.
        """
        for crossing in crossings:
            self._submit(crossing)
        if self._callback is None:
            return [crossing.crossing_id for crossing in crossings]
        gives_up_at = asyncio.get_running_loop().time() + TELL_S
        calling = [
            self._call_all(self._callback, of_one, gives_up_at) for of_one in _by_counter(crossings)
        ]
        return [crossing_id for told in await asyncio.gather(*calling) for crossing_id in told]

    def reset(self) -> None:
        """In a child process: it has told nothing yet."""
        self._submitted = OrderedDict()
        self.crossings = self.failed = 0
        if self._callback is not None:
            self._callback.reset()

    def _submit(self, crossing: Crossing) -> None:
        if crossing.stored_at is not None or crossing.crossing_id in self._submitted:
            return
        if self._recorder.submit(crossing_record(crossing)) is Outcome.DROPPED:
            return  # some process submits it again in a minute
        self.crossings += 1
        self._submitted[crossing.crossing_id] = None
        if len(self._submitted) > MAX_REMEMBERED:
            self._submitted.popitem(last=False)

    async def _call_all(
        self, callback: Callback, crossings: list[Crossing], gives_up_at: float
    ) -> list[str]:
        told = []
        for crossing in crossings:
            try:
                if crossing.called_at is None:
                    async with asyncio.timeout_at(gives_up_at):
                        await callback.call(crossing)
                told.append(crossing.crossing_id)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._note_failure(error)  # of something that the callback has waited for
            except Exception as error:  # noqa: BLE001  # the application's code may do anything
                self._note_failure(error)
        return told

    def _note_failure(self, error: BaseException) -> None:
        self.failed += 1
        self._recorder.reporter.report(
            "auditlog.on_crossed_failed",
            f"on_crossed raised {describe(error)}; it is called again in a minute",
            level=logging.ERROR,
        )


def decision_record(decision: Decision, actor: Actor) -> QuotaLogRecord:
    """Make the row of a decision."""
    key = decision.key
    return QuotaLogRecord(
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


def crossing_record(crossing: Crossing) -> QuotaLogRecord:
    """Make the row of a crossing: the same one, whichever process makes it."""
    return QuotaLogRecord(
        crossing.quota_id,
        crossing.previous_usage,
        crossing.current_usage,
        crossing.quota_limit,
        crossing.resource_owner or crossing.instance_id,
        allowed=True,
        user_id=crossing.user_id,
        action=crossing.action,
        threshold_exceeded=True,
        instance_id=crossing.instance_id,
        log_id=crossing.crossing_id,
        log_date=crossing.crossed_at,
    )


def _by_counter(crossings: Sequence[Crossing]) -> list[list[Crossing]]:
    counters: dict[Key, list[Crossing]] = {}
    for crossing in crossings:
        key = Key(crossing.quota_id, crossing.instance_id, crossing.subject)
        counters.setdefault(key, []).append(crossing)
    return list(counters.values())
