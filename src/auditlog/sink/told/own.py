"""The rows that a log writes about itself: that it began, that it ended, and what was lost.

A source of the writer's like any other, but that its rows are not counted: nobody submitted them.
A loss is told when the database takes rows again, or to the spool at the end; what cannot be told
is kept for the next life of the log.
"""

import time
from collections.abc import Callable

import uuid_utils

from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.buffer import Spill
from auditlog.sink.queue.gaps import Gap
from auditlog.sink.queue.stats import LossReason, Stats
from auditlog.sink.told.own_rows import gap_record, start_record, stop_record
from auditlog.tables import LOGS, TABLES

_LOGS = TABLES.index(LOGS)

GAP_AGE_S = 5.0
"""How long losses are gathered: an overflow is one row and not a hundred."""


class OwnRows:
    """What one log says of itself. A life begins with a record to write and ends with a drain."""

    in_order = False

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        encoder: Encoder,
        *,
        writer: str,
        read_stats: Callable[[], Stats],
        spill: Spill | None,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._encode = encoder.encode
        self._writer = writer
        self._read_stats = read_stats
        self._spill = spill
        self._run_id: str | None = None
        self._has_begun = self._is_ending = False

    def begin(self) -> None:
        """Have it said that a life begins, unless one is under way."""
        if self._run_id is None:
            self._run_id = str(uuid_utils.uuid7())
            self._has_begun = self._settings.life_rows

    def end(self) -> None:
        """Have it said that the life has ended, if one was under way."""
        self._is_ending = self._run_id is not None

    @property
    def has_last_words(self) -> bool:
        """Is there something to say if this life ends now?"""
        is_told = self._settings.life_rows or bool(self._accounts.gaps)
        return self._run_id is not None and is_told

    def seconds_until_due(self) -> float | None:
        """0 for a beginning or an end; a loss waits for others like it."""
        if self._has_begun or self._is_ending:
            return 0.0
        if self._accounts.gaps:
            return max(0.0, self._accounts.gaps_since + GAP_AGE_S - time.monotonic())
        return None

    def pending(self) -> int:
        """Tell whether there is anything to say."""
        return int(self.seconds_until_due() is not None)

    def take(self) -> Batch | None:
        """Hand out everything there is to say."""
        said = self._say()
        if not said:
            return None
        rows: list[list[bytes]] = [[] for _ in TABLES]
        rows[_LOGS] = [self._encode(record)[1] for record, _ in said]
        return Batch(
            rows,
            self,
            taken={id(row): gap for row, (_, gap) in zip(rows[_LOGS], said, strict=True)},
        )

    def settle(self, batch: Batch, reason: LossReason | None = None) -> None:
        """Forget what was told; and what the database will not hear, as that was logged."""

    def bury(self, batch: Batch) -> None:
        """Forget what is told among the dead letters."""

    def give_up(self, batch: Batch) -> int:
        """Tell it to the spool; or keep the losses for the next life of the log."""
        with self._accounts.lock:
            for row in batch.originals()[_LOGS]:
                gap = batch.taken[id(row)]
                if self._spill is not None and self._spill(_LOGS, row, False):
                    # From there it is shipped and counted like any other.
                    self._accounts.submitted += 1
                    self._accounts.spooled += 1
                elif gap is not None:
                    self._accounts.gaps.add(gap)
        return 0

    def _say(self) -> list[tuple[LogRecord, Gap | None]]:
        """Return the rows to write, each with the loss that it tells of."""
        run_id, tenant = self._run_id, self._settings.instance_id
        said: list[tuple[LogRecord, Gap | None]] = []
        if self._has_begun and run_id is not None:
            said.append((start_record(self._settings, run_id, self._writer), None))
        with self._accounts.lock:
            gaps = self._accounts.gaps.take()
        said += [(gap_record(gap, run_id, self._writer, tenant), gap) for gap in gaps]
        if self._is_ending and run_id is not None:
            if self._settings.life_rows:
                said.append((stop_record(self._read_stats(), run_id, self._writer, tenant), None))
            self._run_id = None
        self._has_begun = self._is_ending = False
        return said
