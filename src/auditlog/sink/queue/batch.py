"""Rows that are written in one transaction, and the sources that hand them out."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import uuid_utils

from auditlog.sink.queue.stats import LossReason


class Source(Protocol):
    """Where the writer gets its batches. Each that was taken is settled once, whole or in parts."""

    in_order: bool
    """Are rows handed out in the order in which they came?"""

    def seconds_until_due(self) -> float | None:
        """How long the next batch may still wait; 0 when it is due, None when there is none."""

    def pending(self) -> int:
        """How many rows could be taken."""

    def take(self) -> "Batch | None":
        """Hand out the next batch; None when there is none.

        Or when none can be had: then it must not be due for a while, for a writer that is always
        due never lets its event loop go on.
        """

    def settle(self, batch: "Batch", reason: LossReason | None = None) -> None:
        """Count a batch, or a part of one, as written, or as lost for a reason."""

    def bury(self, batch: "Batch") -> None:
        """Count a batch as kept among the dead letters."""

    def give_up(self, batch: "Batch") -> int:
        """Take a batch back that will not be written by this run; return how many rows are lost."""


def new_id() -> UUID:
    """Return an identity for the ledger; in order of time."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


@dataclass(slots=True)
class Batch:
    """Rows that are written in one transaction, under one identity."""

    rows: list[list[bytes]]
    """Tuples by table, in the order of `TABLES`."""
    source: Source
    batch_id: UUID = field(default_factory=new_id)
    replay: bool = False
    """May some of the rows have been committed before, under another identity?"""
    taken: Any = None
    """The source's own note of what this is a part of."""
    refused: bytes | None = None
    """Of a batch of one: the row as it was taken, where `rows` holds what is left of it."""

    @property
    def size(self) -> int:
        """How many rows."""
        return sum(map(len, self.rows))

    def originals(self) -> list[list[bytes]]:
        """Return the rows as they were taken."""
        if self.refused is None:
            return self.rows
        return [[self.refused] if rows else [] for rows in self.rows]

    def become(self, table: int, smallest: bytes) -> None:
        """Replace the only row; the batch is another one then."""
        if self.refused is None:
            self.refused = self.rows[table][0]
        self.rows = [[smallest] if rows else [] for rows in self.rows]
        self.batch_id = new_id()

    def parts(self, at: int) -> list["Batch"]:
        """Split before the row of that number, counted through all tables; no part is empty.

        Each part has a new identity: the old one was rolled back.
        """
        first, second = self._part([]), self._part([])
        for rows in self.rows:
            first.rows.append(rows[:at])
            second.rows.append(rows[at:])
            at = max(0, at - len(rows))
        return [part for part in (first, second) if part.size]

    def apart(self, table: int, numbers: Collection[int]) -> list["Batch"]:
        """Take rows of one table out, which come last; no part is empty."""
        others, these = self._part([]), self._part([])
        for index, rows in enumerate(self.rows):
            chosen = frozenset(numbers if index == table else ())
            others.rows.append([row for n, row in enumerate(rows) if n not in chosen])
            these.rows.append([row for n, row in enumerate(rows) if n in chosen])
        return [part for part in (others, these) if part.size]

    def _part(self, rows: list[list[bytes]]) -> "Batch":
        return Batch(rows, self.source, replay=self.replay, taken=self.taken)
