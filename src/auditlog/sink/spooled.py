"""What the writer ships from the spool: this process's own records, and those of dead ones.

Both are sources as the buffer is. A record in the spool is durable already; its rows are counted as
`spooled` until they are committed. What an earlier process left was counted there: here it is
`recovered`, and goes out as a replay, for some of it may have been committed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditlog.settings import Settings
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.buffer import SPILLED, Buffer, Put
from auditlog.sink.queue.stats import LossReason
from auditlog.sink.spool.spool import Spool
from auditlog.sink.spool.taken import Lost, Taken
from auditlog.ticket import Ticket

MAX_TURN_ROWS = 200
"""How many rows are read at once, on the event loop: 1.6 µs each, for so long nobody is served.

While an outage is made up for, the p99 of requests is 1.3 ms with 200, 2.3 to 3.4 with 400, 4.6
with 1000; it takes no longer (2026-11-28)."""

ADOPT_EVERY_S = 10.0
"""How often the writer looks for what dead processes have left."""
UNREADABLE_S = 0.5
"""How long rows are left alone that could not be read: a writer that is due never yields."""


@dataclass(slots=True)
class _Share:
    """What was taken from the spool at once, however many batches it becomes."""

    taken: Taken
    settled: int = 0


class Spooled:
    """The records of this process, in its lane of the spool."""

    in_order = True

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        spool: Spool,
        on_due: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        """Make the source of a spool.

        Args:
            settings: The sizes and the age that make a turn due.
            accounts: Where it counts.
            spool: The spool.
            on_due: As the buffer's.
            tell: Logs what the spool has to say; called without any lock.
        """
        self._settings = settings
        self._accounts = accounts
        self._spool = spool
        self._on_due = on_due
        self._tell = tell
        # What makes a turn full makes it due: what is left of a larger backlog would else grow old.
        self._turn_rows = min(settings.batch_rows, MAX_TURN_ROWS)
        # Rows that wait, as far as the writer was told of them.
        self._waiting = 0
        self._looks_at = 0.0
        # After a `give_up`, in that lane: how many rows come again, and how many of these are
        # counted already.
        self._lane = ""
        self._again = 0
        self._counted = 0

    def putter(self, buffer: Buffer) -> Put:
        """Return a `put` like the buffer's, which uses that one only where the spool fails."""
        accounts, append, on_due = self._accounts, self._spool.append, self._on_due
        turn_rows = self._turn_rows

        def put(
            table: int, row: bytes, low_priority: bool, ticket: Ticket | None = None
        ) -> Sequence[bytes]:
            on_durable = None
            if ticket is not None:
                ticket.expect()
                on_durable = ticket.settle
            with accounts.lock:
                is_kept = append(table, row, low_priority is True, on_durable)
                if is_kept:
                    accounts.submitted += 1
                    accounts.spooled += 1
                    self._waiting = waiting = self._waiting + 1
            if is_kept:
                if waiting in {1, turn_rows}:
                    on_due()
                return SPILLED
            self._tell()
            if ticket is not None:
                ticket.settle(durable=False)
            return buffer.put(table, row, low_priority)

        return put

    def spill(self, table: int, row: bytes, low_priority: bool) -> bool:
        """Take what finds no room in the queue, whose writer is at work as it is."""
        return self._spool.append(table, row, low_priority)

    def seconds_until_due(self) -> float | None:
        """How long the next batch may still wait; 0 when it is full or old, None when empty."""
        oldest_at = self._spool.oldest_at
        if oldest_at is None:
            return None
        now = time.monotonic()
        if self._spool.waiting_rows >= self._turn_rows:
            return max(0.0, self._looks_at - now)
        return max(0.0, self._looks_at - now, oldest_at + self._settings.batch_age_s - now)

    def pending(self) -> int:
        """How many rows could be taken."""
        return self._spool.waiting_rows

    def take(self) -> Batch | None:
        """Hand out the next rows, in the order in which they came."""
        taken = self._spool.take(self._turn_rows, self._settings.batch_bytes)
        note_damage(self._accounts, self._spool.lost())
        with self._accounts.lock:
            # No `put` is halfway: the next one finds nothing waiting, or the writer has a timer.
            self._waiting = self._spool.waiting_rows
        self._tell()
        if taken is None:
            self._looks_at = time.monotonic() + (UNREADABLE_S if self._waiting else 0.0)
            return None
        if taken.lane != self._lane:
            # What was given up is in another lane, and comes home as somebody else's.
            self._lane, self._again, self._counted = taken.lane, 0, 0
        is_replay = self._again > 0
        self._again = max(0, self._again - taken.size)
        return Batch(taken.rows, self, replay=is_replay, taken=_Share(taken))

    def settle(self, batch: Batch, reason: LossReason | None = None) -> None:
        """Count a batch, or a part of one, as written, or as lost for a reason."""
        with self._accounts.lock:
            fresh = self._decide(batch)
            if reason is None:
                self._accounts.written += fresh
            elif fresh:
                self._accounts.lose_all(reason, batch.originals())
        self._let_go(batch)

    def bury(self, batch: Batch) -> None:
        """Count a batch as kept among the dead letters."""
        with self._accounts.lock:
            self._accounts.dead_lettered += self._decide(batch)
        self._let_go(batch)

    def give_up(self, batch: Batch) -> int:
        """Leave it in the spool; it comes again whole, as some of it may be committed."""
        share: _Share = batch.taken
        before = self._spool.waiting_rows
        self._spool.put_back()
        with self._accounts.lock:
            self._again += self._spool.waiting_rows - before
            self._counted += share.settled
            share.settled = 0
        return 0

    def _decide(self, batch: Batch) -> int:
        """Count rows as decided; return how many of them were not counted before."""
        rows = batch.size
        batch.taken.settled += rows
        fresh = max(0, rows - self._counted)
        self._counted -= rows - fresh
        self._accounts.spooled -= fresh
        return fresh

    def _let_go(self, batch: Batch) -> None:
        # Not under the lock: files are deleted, and a `submit` must not wait for that.
        self._spool.settle(batch.taken.taken, batch.size)
        self._tell()


class Recovered:
    """The records that dead processes have left in the spool."""

    in_order = True

    def __init__(
        self, settings: Settings, accounts: Accounts, spool: Spool, tell: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._spool = spool
        self._tell = tell
        self._looks_at = 0.0
        self._is_waiting = False
        self.is_done = False
        """Was nothing left when it was last looked for?"""
        self.rows = 0
        """How many have been committed, or were found to be."""
        self.buried = 0
        """How many of them are kept among the dead letters."""
        self.lost = 0
        """How many of them were damaged, or refused."""

    def seconds_until_due(self) -> float | None:
        """0 while there is something to recover; else how long until it is looked for again."""
        if self._is_waiting:
            return 0.0
        return max(0.0, self._looks_at - time.monotonic())

    def pending(self) -> int:
        """Say none: nobody who waits for his own records waits for these."""
        return 0

    def take(self) -> Batch | None:
        """Hand out the next rows of the oldest lane whose owner is dead."""
        taken = self._next() if self._is_waiting else None
        # Only so many lanes are held at once: when these are home, others may wait for a place.
        if taken is None and (self._is_waiting or time.monotonic() >= self._looks_at):
            self._looks_at = time.monotonic() + ADOPT_EVERY_S
            self._spool.adopt()
            taken = self._next()
        self._tell()
        self._is_waiting = taken is not None
        self.is_done = taken is None
        return None if taken is None else Batch(taken.rows, self, replay=True, taken=taken)

    def settle(self, batch: Batch, reason: LossReason | None = None) -> None:
        """Count a batch, or a part of one, as recovered, or as lost for a reason."""
        with self._accounts.lock:
            if reason is None:
                self.rows += batch.size
                self._accounts.recovered += batch.size
            else:
                self.lost += batch.size
                self._accounts.lose_all(reason, batch.originals(), is_own=False)
        self._spool.settle(batch.taken, batch.size)

    def bury(self, batch: Batch) -> None:
        """Let rows go that are kept among the dead letters."""
        self.buried += batch.size
        self._spool.settle(batch.taken, batch.size)

    def give_up(self, _batch: Batch) -> int:
        """Leave it in the spool."""
        self._is_waiting = False
        self._spool.put_back()
        return 0

    def _next(self) -> Taken | None:
        rows = min(self._settings.batch_rows, MAX_TURN_ROWS)
        taken = self._spool.take_recovered(rows, self._settings.batch_bytes)
        self.lost += note_damage(self._accounts, self._spool.lost())
        return taken


def note_damage(accounts: Accounts, losses: Sequence[Lost]) -> int:
    """Count what the spool could not read any more; return how many records that are."""
    for lost in losses:
        with accounts.lock:
            accounts.lose_unread(
                lost.count,
                lost.first_us,
                lost.last_us,
                exact=lost.exact,
                is_own=lost.own,
            )
    return sum(lost.count for lost in losses)
