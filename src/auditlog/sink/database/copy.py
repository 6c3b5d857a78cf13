"""A batch → one committed transaction: its ledger row, and a binary COPY per table.

The ledger row makes a retry safe. When the answer to COMMIT was lost, the same `batch_id` is
inserted again: if the first attempt is still running, PostgreSQL waits for it; if it was
committed, the conflict says so and nothing is written twice. A replay, whose rows may have been
committed under another identity, is copied likewise; only when it meets a row that is there, it is
merged instead. A batch that lacks a partition is written again when that was made.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from psycopg import Error
from psycopg.errors import UniqueViolation

from auditlog.settings import Settings
from auditlog.sink.database.connection import Cursor, Database
from auditlog.sink.database.faults import (
    Fault,
    RowError,
    bad_row,
    classify,
    entering_ledger,
    lacks_partition,
    note_copying,
    note_remedy,
    sqlstate_of,
)
from auditlog.sink.database.ledger import LEDGER, LOCK_LEDGER, copy_stream, ledger_row, writer_name
from auditlog.sink.database.merge import DIFFERING, MAY_READ, MERGE, Array, columns_of
from auditlog.sink.database.partitions import (
    ALIKE,
    COVERED,
    ENSURE,
    LOCKED,
    LOOK_AGAIN_S,
    LOOK_EVERY_S,
    LOOK_TIMEOUT_S,
    MAX_ALIKE,
    MORE_FOLLOW,
    TABLE_NAMES,
    DateError,
    Ensuring,
    Runway,
    ensuring,
    resembling,
)
from auditlog.sink.dead_letters import BURY, DeadLetter
from auditlog.sink.encoding.reduced import is_tuple
from auditlog.sink.queue.batch import Batch
from auditlog.tables import TABLES

MAX_MADE = 8
"""Partitions that are made for one attempt; a batch that lacks more is repeated for the others."""


class CopyTarget:
    """Writes batches to PostgreSQL over one connection of its own, one batch at a time."""

    def __init__(
        self,
        settings: Settings,
        resolve_dsn: Callable[[], Awaitable[str]],
        on_made: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Keep what is needed to connect; nothing is opened yet.

        Args:
            settings: Time limits.
            resolve_dsn: Gives the libpq connection string; called before each connecting.
            on_made: Told the name of a table for which a partition had to be made.
        """
        self.runway = Runway()
        self.looks_at = 0.0
        """When partitions are to be looked at again, by the monotonic clock."""
        self._database = Database(settings, resolve_dsn, self._look_again)
        self._on_made = on_made
        self._ensuring = Ensuring()
        self._writer = writer_name()

    async def write(self, batch: Batch) -> None:
        """Commit a batch, unless it is already committed; make partitions that it lacks.

        Raises:
            psycopg.Error: nothing of the batch is stored, or the outcome is unknown; either way
                the same batch may be written again. `faults.bad_row` knows which row it is about,
                if that is known.
            OSError, TimeoutError: likewise.
        """
        try:
            await self._write(batch)
        except (Error, ValueError, IndexError) as error:
            if culprit := _malformed(batch, error):
                raise culprit from error
            if not lacks_partition(error):
                raise
            await self._write_with_partitions(batch, error)

    async def look(self) -> None:
        """Ask how far partitions reach, which nobody waits for; unknown if it cannot be asked."""
        self.looks_at = time.monotonic() + LOOK_EVERY_S
        self.runway.note(await self._database.ask(COVERED, (TABLE_NAMES,), LOOK_TIMEOUT_S))

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Commit dead letters, each once; may be called again with the same ones.

        Raises:
            psycopg.Error, OSError, TimeoutError: as `write`.
        """
        async with self._database.session() as cursor:
            for letter in letters:
                await cursor.execute(BURY, letter.parameters)

    async def is_stored(self, table: int, row: bytes) -> bool | None:
        """Tell whether a row is there as it is, and not another one under its identity.

        JSON is compared by its meaning, as the server keeps it.

        Args:
            table: Index into `TABLES`.
            row: The tuple.

        Returns:
            None if this role may not read the table.

        Raises:
            psycopg.Error, OSError, TimeoutError: as `write`.
        """
        async with self._database.session() as cursor:
            found = await _differing(cursor, table, columns_of(table, [row]))
        return None if found is None else not found

    async def close(self) -> None:
        """Close the connection; safe at any time, and it may be opened again by `write`."""
        await self._database.close()

    def hang_up(self) -> bool:
        """Cut the connection, so that a `write` under way fails at once; False if there is none."""
        return self._database.hang_up()

    def _look_again(self) -> None:
        # Another database may be behind the DSN; though not each time that one is cut.
        self.looks_at = min(self.looks_at, time.monotonic() + LOOK_AGAIN_S)

    async def _write(self, batch: Batch) -> None:
        streams = [copy_stream(rows) if rows else b"" for rows in batch.rows]
        try:
            async with self._database.session() as cursor:
                await self._copy(cursor, batch, streams)
        except UniqueViolation:
            if not batch.replay:
                raise
            async with self._database.session() as cursor:
                await self._merge(cursor, batch, streams)

    async def _write_with_partitions(self, batch: Batch, error: Exception) -> None:
        """Write a batch again, after each partition that could be made for a row of it.

        Raises:
            DateError: a row is not to have one.
            Exception: `error`, or what came of another attempt.
        """
        for _ in range(MAX_MADE):
            place = _lacking(batch, error)
            if place is None:
                self._raise_in_pause(error)
                raise RowError("23514", 0, None, "one row has no partition") from error
            await self._ensure(batch, place, error)
            try:
                return await self._write(batch)
            except Error as again:
                if not lacks_partition(again):
                    raise
                if _lacking(batch, again) == place:
                    note_remedy(again, self._ensuring.refused_again())
                    raise
                error = again
        note_remedy(error, MORE_FOLLOW)
        raise error

    async def _ensure(self, batch: Batch, place: tuple[int, int], error: Exception) -> None:
        """Have the partition of a row made, unless it is known that it will not be."""
        table, number = place
        row = batch.rows[table][number]
        refusal = self._ensuring.refusal(table, row)
        if refusal is None:
            self._raise_in_pause(error)
            refusal = self._ensuring.answered(table, row, await self._ask_for(table, row))
        if refusal is not None:
            raise DateError(table, await self._alike(batch, place, refusal), refusal) from error
        self._raise_in_pause(error)

    def _raise_in_pause(self, error: Exception) -> None:
        if (why := self._ensuring.pause()) is not None:
            note_remedy(error, why)
            raise error

    async def _ask_for(self, table: int, row: bytes) -> str:
        """Return the answer to `ENSURE`, or the code with which it failed.

        Raises:
            psycopg.Error: of the connection, or the server's means.
        """
        try:
            async with self._database.session() as cursor:
                await cursor.execute(ENSURE, ensuring(table, row))
                (answer,) = await cursor.fetchone() or ("",)
        except Error as failure:
            code = sqlstate_of(failure)
            if classify(failure) is Fault.RETRY and code != LOCKED:
                self._ensuring.answered(table, row, code)
                raise
            return code
        if answer == "made":
            self._on_made(TABLE_NAMES[table])
        return str(answer)

    async def _alike(self, batch: Batch, place: tuple[int, int], refusal: str) -> list[int]:
        """Return the rows that are refused as one of them is: a clock that is wrong dates all."""
        table, number = place
        rows = batch.rows[table]
        asked = [n for n, row in enumerate(rows) if self._ensuring.refusal(table, row) == refusal]
        asked = [number, *(n for n in asked if n != number)][:MAX_ALIKE]
        if len(asked) == 1:
            return asked
        with suppress(Error):
            async with self._database.session() as cursor:
                sent = resembling(table, [rows[n] for n in asked], refusal)
                await cursor.execute(ALIKE, sent)
                return [asked[n] for (n,) in await cursor.fetchall()] or [number]
        return [number]

    async def _copy(self, cursor: Cursor, batch: Batch, streams: list[bytes]) -> None:
        added = list(map(len, batch.rows))
        entry = ledger_row(batch.batch_id, self._writer, batch.rows, streams, added)
        with entering_ledger():
            await cursor.execute(LEDGER, entry)
        if cursor.rowcount == 0:
            return
        for number, (table, stream) in enumerate(zip(TABLES, streams, strict=True)):
            if not stream:
                continue
            try:
                async with cursor.copy(table.copy_statement) as copy:
                    await copy.write(stream)
            except Error as error:
                note_copying(error, number)
                raise

    async def _merge(self, cursor: Cursor, batch: Batch, streams: list[bytes]) -> None:
        """Add the rows that are not there; the ledger counts them, even if there are none.

        Raises:
            RowError: a row's identity is another row's.
        """
        await cursor.execute(LOCK_LEDGER)
        added = [await _add(cursor, table, rows) for table, rows in enumerate(batch.rows)]
        entry = ledger_row(batch.batch_id, self._writer, batch.rows, streams, added)
        with entering_ledger():
            await cursor.execute(LEDGER, entry)


async def _add(cursor: Cursor, table: int, rows: list[bytes]) -> int:
    """Add the rows that are not there, and count them."""
    if not rows:
        return 0
    columns = columns_of(table, rows)
    await cursor.execute(MERGE[table], columns)
    added = cursor.rowcount
    if added < len(rows):
        for number in await _differing(cursor, table, columns) or ():
            raise RowError("23505", table, number, "another row has its identity")
    return added


async def _differing(cursor: Cursor, table: int, columns: list[Array]) -> list[int] | None:
    """Return the number of the first row that is not there as it is; None if nobody may look."""
    await cursor.execute(MAY_READ, (TABLES[table].qualified_name,))
    if await cursor.fetchone() != (True,):
        return None
    await cursor.execute(DIFFERING[table], columns)
    return [number for (number,) in await cursor.fetchall()]


def _lacking(batch: Batch, error: Exception) -> tuple[int, int] | None:
    """Return the place of the row that lacks a partition.

    None where the server does not name it, as in an INSERT; then a smaller batch tells.
    """
    if batch.size == 1:
        return next(table for table, rows in enumerate(batch.rows) if rows), 0
    place = bad_row(error)
    is_in_batch = place is not None and 0 <= place[1] < len(batch.rows[place[0]])
    return place if is_in_batch else None


def _malformed(batch: Batch, error: Exception) -> RowError | None:
    """Blame the first row that is no tuple, where the server named one and no reason in it.

    It may be another one that it named: a length that is wrong moves all that follows.
    """
    if isinstance(error, Error) and (classify(error) is Fault.DATA or bad_row(error) is None):
        return None
    for table, rows in enumerate(batch.rows):
        for number, row in enumerate(rows):
            if not is_tuple(table, row):
                return RowError("22P04", table, number, "it is no tuple of its table")
    return None
