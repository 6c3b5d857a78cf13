"""A batch → one committed transaction: its ledger row, and a binary COPY per table.

The ledger row makes a retry safe. When the answer to COMMIT was lost, the same `batch_id` is
inserted again: if the first attempt is still running, PostgreSQL waits for it; if it was
committed, the conflict says so and nothing is written twice. A replay, whose rows may have been
committed under another identity, is copied likewise; only when it meets a row that is there, it is
merged instead. Works through a pooler in transaction mode: no session state, no prepared statement
that outlives the transaction.

One connection, opened when needed and thrown away after any error. No pool: one writer needs one
connection, and a pool answers a failed login with a mere timeout, so that nobody could tell a
wrong password from a database that is down (psycopg_pool 3.3, seen 2026-11-24).
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

from psycopg import AsyncConnection, AsyncCursor, Error
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UniqueViolation
from psycopg.pq import TransactionStatus

from auditlog.settings import Settings
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
from auditlog.sink.database.merge import (
    DIFFERING,
    MAY_READ,
    MERGE,
    Array,
    accept_arrays,
    columns_of,
)
from auditlog.sink.database.partitions import (
    ALIKE,
    COVERED,
    ENSURE,
    LOCKED,
    LOOK_AGAIN_S,
    LOOK_EVERY_S,
    LOOK_TIMEOUT_S,
    MAX_ALIKE,
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

_KEEPALIVE: dict[str, Any] = {
    # A firewall forgets a connection that is silent for some minutes, and tells nobody.
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # How long sent bytes may wait for the other machine to have them, in ms. It has them although
    # its server is slow or stopped: that is what `statement_timeout_s` is for.
    "tcp_user_timeout": 15_000,
}

_MAX_TIMEOUT_MS = 2**31 - 1
# Of the time that a batch has: a server that still answers is to say itself what held a statement
# up, before the connection is taken for dead.
_SERVERS_SHARE = 0.8
# A server that gets no word from a client whose network is gone goes on waiting for it, in the
# middle of the data of a COPY too, where no other time-out counts; and what it has written by then
# holds up the writer's next attempt.
_BEGIN = """
    BEGIN;
    SET LOCAL statement_timeout = {ms};
    SET LOCAL idle_in_transaction_session_timeout = {ms};
    SET LOCAL tcp_keepalives_idle = 15;
    SET LOCAL tcp_keepalives_interval = 5;
    SET LOCAL tcp_keepalives_count = 3
"""

MAX_MADE = 8
"""Partitions that are made for one attempt; a batch that lacks more is repeated for the others."""

Cursor: TypeAlias = AsyncCursor[Any]


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
        self._settings = settings
        self._resolve_dsn = resolve_dsn
        self._on_made = on_made
        self._ensuring = Ensuring()
        self._connection: AsyncConnection[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = writer_name()
        self._begin = _begin(settings.statement_timeout_s)

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
        seen: list[tuple[str, float | None]] = []
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                with suppress(Error), _hang_up_after(connection, LOOK_TIMEOUT_S):
                    cursor = await connection.execute(COVERED, (TABLE_NAMES,))
                    seen = await cursor.fetchall()
            except BaseException:
                await self.close()
                raise
        self.runway.note(seen)

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Commit dead letters, each once; may be called again with the same ones.

        Raises:
            psycopg.Error, OSError, TimeoutError: as `write`.
        """
        async with self._session() as cursor:
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
        async with self._session() as cursor:
            found = await _differing(cursor, table, columns_of(table, [row]))
        return None if found is None else not found

    async def close(self) -> None:
        """Close the connection; safe at any time, and it may be opened again by `write`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def hang_up(self) -> bool:
        """Cut the connection, so that a `write` under way fails at once; False if there is none."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        _hang_up(connection)
        return True

    async def _write(self, batch: Batch) -> None:
        streams = [copy_stream(rows) if rows else b"" for rows in batch.rows]
        try:
            async with self._session() as cursor:
                await self._copy(cursor, batch, streams)
        except UniqueViolation:
            if not batch.replay:
                raise
            async with self._session() as cursor:
                await self._merge(cursor, batch, streams)

    async def _write_with_partitions(self, batch: Batch, error: Exception) -> None:
        """Write a batch again, after each partition that could be made for a row of it.

        Raises:
            DateError: a row is not to have one.
            Exception: `error`, or what came of another attempt.
        """
        for _ in range(MAX_MADE):
            place = _lacking(batch, error)
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
        raise error

    async def _ensure(self, batch: Batch, place: tuple[int, int], error: Exception) -> None:
        """Have the partition of a row made, unless it is known that it will not be."""
        table, number = place
        row = batch.rows[table][number]
        refusal = self._ensuring.refusal(table, row)
        if refusal is None and self._ensuring.pause() is None:
            refusal = self._ensuring.answered(table, row, await self._ask_for(table, row))
        if refusal is not None:
            raise DateError(table, await self._alike(batch, place, refusal), refusal) from error
        if (why := self._ensuring.pause()) is not None:
            note_remedy(error, why)
            raise error

    async def _ask_for(self, table: int, row: bytes) -> str:
        """Return the answer to `ENSURE`, or the code with which it failed.

        Raises:
            psycopg.Error: of the connection, or the server's means.
        """
        try:
            async with self._session() as cursor:
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
            async with self._session() as cursor:
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

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Cursor]:
        """Begin a transaction that ends in time, one way or the other, on both sides."""
        try:
            connection = await self._connect()
            with _hang_up_after(connection, self._settings.statement_timeout_s):
                async with connection.cursor() as cursor:
                    await cursor.execute(self._begin)
                    yield cursor
                await connection.commit()
        except BaseException as error:
            # What a row is to blame for is no reason to doubt the connection, and of such errors
            # there may be one for each row.
            is_of_row = classify(error) is Fault.DATA or lacks_partition(error)
            if not is_of_row or not await self._roll_back():
                await self.close()
            raise

    async def _roll_back(self) -> bool:
        """Tell whether the connection can be used again, once its transaction is undone."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        try:
            with _hang_up_after(connection, self._settings.statement_timeout_s):
                await connection.rollback()
        except Error:
            return False
        return connection.info.transaction_status is TransactionStatus.IDLE

    async def _connect(self) -> AsyncConnection[Any]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A loop that died in mid-COPY left a connection whose lock nobody will ever release.
            await self.close()
            self._loop = loop
        if self._connection is None or self._connection.closed:
            dsn = await self._resolve_dsn()
            # No prepared statements: a pooler may give the next transaction another server.
            connection = self._connection = await AsyncConnection.connect(
                dsn,
                autocommit=True,
                prepare_threshold=None,
                client_encoding="utf8",  # what the tuples are encoded in
                **self._defaults(conninfo_to_dict(dsn)),
            )
            accept_arrays(connection)
            # Another database may be behind the DSN; though not each time that one is cut.
            self.looks_at = min(self.looks_at, time.monotonic() + LOOK_AGAIN_S)
        return self._connection

    def _defaults(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the DSN does not say itself."""
        defaults = {
            **_KEEPALIVE,
            "fallback_application_name": "auditlog",
            "connect_timeout": max(2, round(self._settings.connect_timeout_s)),
        }
        if "," in str(given.get("host") or given.get("hostaddr") or ""):
            # The first host that answers may be the standby, after a failover for ever.
            defaults["target_session_attrs"] = "read-write"
        return {name: value for name, value in defaults.items() if name not in given}


def _begin(statement_timeout_s: float) -> bytes:
    """One message, and so one round trip; local, so a pooler's next client sees nothing of it."""
    ms = min(max(1, round(statement_timeout_s * _SERVERS_SHARE * 1000)), _MAX_TIMEOUT_MS)
    return _BEGIN.format(ms=ms).encode()


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


def _lacking(batch: Batch, error: Exception) -> tuple[int, int]:
    """Return the place of the row that lacks a partition.

    Raises:
        RowError: the server does not name it, as in an INSERT; then a smaller batch tells.
    """
    if batch.size == 1:
        return next(table for table, rows in enumerate(batch.rows) if rows), 0
    place = bad_row(error)
    if place is None or not 0 <= place[1] < len(batch.rows[place[0]]):
        raise RowError("23514", 0, None, "a row of the batch has no partition") from error
    return place


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


@contextmanager
def _hang_up_after(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Shut the socket down when time is up, so that libpq sees an end and not silence.

    Cancelling the task instead would make psycopg ask a server that no longer answers to stop.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: AsyncConnection[Any]) -> None:
    if connection.closed:
        return
    # ENOTCONN: the other side was first.
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
