"""One bad row among good ones: it goes alone, and is kept in the fullest form that can be kept.

The server names the row, so a batch is split there: what stands before it is good, and each row is
sent at most twice. A row that is refused alone is stored in its smallest form, else as a dead
letter, in the database or in a file; only what none of these take is lost, and counted. Rows that
are refused for their dates are dead letters at once, all of a kind together.
"""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import psycopg

from auditlog.reporting import Reporter, describe
from auditlog.sink.database.faults import Fault, bad_row, classify
from auditlog.sink.database.partitions import DateError
from auditlog.sink.dead_letters import DeadLetter, DeadLetterFile, letter_of
from auditlog.sink.encoding.reduced import reduced
from auditlog.sink.queue.batch import Batch

_DUPLICATE = "23505"
# What a database that is away raises; anything else does not pass by waiting.
_PASSING = (psycopg.Error, OSError, TimeoutError)


class Morgue(Protocol):
    """Where dead letters are kept."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Commit letters, each once, or raise."""

    async def is_stored(self, table: int, row: bytes) -> bool | None:
        """Tell whether the very row is in its table; None if that may not be asked."""


class Fate(Enum):
    """What became of rows that were refused, as a rule of one alone."""

    AGAIN = "to be written once more, in its smallest form"
    STORED = "it is there already"
    BURIED = "kept among the dead letters"
    LOST = "nothing would take it"


class Isolation:
    """Splits refused batches, and finds a place for refused rows."""

    def __init__(
        self, morgue: Morgue, file: DeadLetterFile | None, writer: str, reporter: Reporter
    ) -> None:
        self._morgue = morgue
        self._file = file
        self._writer = writer
        self._reporter = reporter

    def is_isolated(self, batch: Batch, error: Exception) -> bool:
        """Tell whether all rows of a batch are refused for what an error says."""
        return batch.size == (len(error.rows) if isinstance(error, DateError) else 1)

    def split(self, batch: Batch, error: Exception) -> list[Batch]:
        """Return the parts of a batch of several rows; the bad ones apart, if they are known."""
        if isinstance(error, DateError):
            return batch.apart(error.table, error.rows)
        at = _position(batch, error)
        if at is None:
            return batch.parts(batch.size // 2)
        parts = batch.parts(at)
        return [*parts[:-1], *parts[-1].parts(1)]

    async def keep(self, batch: Batch, error: Exception) -> Fate:
        """Find a place for the rows of a batch that is isolated.

        Raises:
            Exception: the database cannot be asked for the moment; the batch is as it was.
        """
        table = next(index for index, rows in enumerate(batch.rows) if rows)
        row = batch.rows[table][0]
        if isinstance(error, DateError):
            return await self._bury(table, batch, error)
        if _sqlstate(error) == _DUPLICATE:
            # Of an attempt of which nobody heard; or else another record has its identity.
            if await self._morgue.is_stored(table, row):
                return Fate.STORED
        elif batch.refused is None and (smallest := reduced(table, row, _sqlstate(error))) != row:
            batch.become(table, smallest)
            return Fate.AGAIN
        return await self._bury(table, batch, error)

    def note_reduced(self) -> None:
        """Say that a row was stored in its smallest form."""
        self._reporter.report(
            "auditlog.row_reduced",
            "the database refused a row and took what is left without its texts: see audit.reduced",
        )

    async def _bury(self, table: int, batch: Batch, error: Exception) -> Fate:
        letters = [
            letter_of(table, row, _sqlstate(error), _reason(error), self._writer)
            for row in batch.originals()[table]
        ]
        try:
            await self._morgue.bury(letters)
        except _PASSING as failure:
            if classify(failure) is Fault.RETRY:
                raise
            return await self._file_away(letters, error)
        except Exception:  # noqa: BLE001  # of our own making: it would be there the next time, too
            return await self._file_away(letters, error)
        self._tell("kept in logstore.dead_letters: see `auditlog dead-letters`", error)
        return Fate.BURIED

    async def _file_away(self, letters: list[DeadLetter], error: Exception) -> Fate:
        try:
            if self._file is not None:
                await asyncio.to_thread(self._file.append, *letters)
                self._tell("kept in the file of dead letters in spool_dir", error)
                return Fate.BURIED
        except BlockingIOError:
            raise  # somebody rewrites the file just now
        except OSError as failure:
            self._reporter.report(
                "auditlog.dead_letter_failed", f"a dead letter found no place: {describe(failure)}"
            )
        self._tell("lost: there is no logstore.dead_letters, and no spool_dir takes it", error)
        return Fate.LOST

    def _tell(self, fate: str, error: Exception) -> None:
        self._reporter.report(
            "auditlog.row_rejected",
            f"the database refused a row, {_reason(error)}; it is {fate}",
            level=logging.ERROR,
        )


def _position(batch: Batch, error: Exception) -> int | None:
    """Return the bad row's number, counted through all tables; None if it is not known."""
    place = bad_row(error)
    if place is None:
        return None
    table, row = place
    if not 0 <= row < len(batch.rows[table]):
        return None
    return sum(map(len, batch.rows[:table])) + row


def _reason(error: Exception) -> str:
    """Say why, in our own words; the server's quote the row."""
    return str(error) if isinstance(error, DateError) else describe(error)


def _sqlstate(error: Exception) -> str:
    return getattr(error, "sqlstate", None) or ""
