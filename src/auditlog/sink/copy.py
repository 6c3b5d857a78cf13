"""A batch → one committed transaction: its ledger row, and a binary COPY per table.

The ledger row makes a retry safe. When the answer to COMMIT was lost, the same `batch_id` is
inserted again: if the first attempt is still running, PostgreSQL waits for it; if it was
committed, the conflict says so and nothing is written twice. Works through a pooler in
transaction mode: no session state, no prepared statement that outlives the transaction.

One connection, opened when needed and thrown away after any error. No pool: one writer needs one
connection, and a pool answers a failed login with a mere timeout, so that nobody could tell a
wrong password from a database that is down (psycopg_pool 3.3, seen 2026-11-24).
"""

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from auditlog.settings import Settings
from auditlog.sink.buffer import Batch
from auditlog.sink.storable import PG_EPOCH_US
from auditlog.tables import LOGS, TABLES, Table

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_LOG_DATE = {table.name: table.column_names.index("log_date") for table in TABLES}
_SIGN_BIT = 0x80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LEDGER = """
    INSERT INTO logstore.batches (batch_id, writer, logs, execution_logs, quota_logs, bytes,
                                  first_log_date, last_log_date, sha256)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (batch_id) DO NOTHING
"""


class CopyTarget:
    """Writes batches to PostgreSQL over one connection of its own, one batch at a time."""

    def __init__(self, settings: Settings, resolve_dsn: Callable[[], Awaitable[str]]) -> None:
        """Keep what is needed to connect; nothing is opened yet.

        Args:
            settings: Time limits.
            resolve_dsn: Gives the libpq connection string; called before each connecting.
        """
        self._settings = settings
        self._resolve_dsn = resolve_dsn
        self._connection: AsyncConnection[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = writer_name()

    async def write(self, batch: Batch) -> None:
        """Commit a batch, unless it is already committed.

        Raises:
            psycopg.Error: nothing of the batch is stored, or the outcome is unknown; either way
                the same batch may be written again.
            OSError, TimeoutError: likewise.
        """
        payloads = [
            (table, copy_stream(rows))
            for table, rows in zip(TABLES, batch.rows, strict=True)
            if rows
        ]
        try:
            connection = await self._connect()
            with _hang_up_after(connection, self._settings.statement_timeout_s):
                async with connection.transaction(), connection.cursor() as cursor:
                    await cursor.execute(_LEDGER, self._ledger_row(batch, payloads))
                    if cursor.rowcount == 0:
                        return
                    for table, payload in payloads:
                        async with cursor.copy(table.copy_statement) as copy:
                            await copy.write(payload)
        except BaseException:
            await self.close()
            raise

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

    async def _connect(self) -> AsyncConnection[Any]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A loop that died in mid-COPY left a connection whose lock nobody will ever release.
            await self.close()
            self._loop = loop
        if self._connection is None or self._connection.closed:
            dsn = await self._resolve_dsn()
            timeout_s = max(2, round(self._settings.connect_timeout_s))
            # Name and time-out are the DSN's, where it has them. No prepared statements: a pooler
            # may give the next transaction another server.
            self._connection = await AsyncConnection.connect(
                dsn,
                autocommit=True,
                prepare_threshold=None,
                client_encoding="utf8",  # what the tuples are encoded in
                fallback_application_name="auditlog",
                connect_timeout=conninfo_to_dict(dsn).get("connect_timeout", timeout_s),
            )
        return self._connection

    def _ledger_row(self, batch: Batch, payloads: list[tuple[Table, bytes]]) -> tuple[Any, ...]:
        digest = hashlib.sha256()
        for _, payload in payloads:
            digest.update(payload)
        first, last = _date_range(batch)
        return (
            batch.batch_id,
            self._writer,
            *map(len, batch.rows),
            sum(len(payload) for _, payload in payloads),
            first,
            last,
            digest.digest(),
        )


def copy_stream(rows: list[bytes]) -> bytes:
    """Return the COPY stream of some tuples: what the ledger measures and hashes."""
    return b"".join((_SIGNATURE, *rows, _TRAILER))


def writer_name() -> str:
    """Return this process's name in the ledger."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _date_range(batch: Batch) -> tuple[datetime | None, datetime | None]:
    dates: list[bytes] = []
    for table, rows in zip(TABLES, batch.rows, strict=True):
        if table is LOGS:
            # Written out, for it is done for every row: behind two texts, each with its length.
            dates += [row[(at := 14 + row[5] + row[9 + row[5]]) : at + 8] for row in rows]
        else:
            column = _LOG_DATE[table.name]
            dates += [_log_date(row, column) for row in rows]
    if not dates:
        return None, None
    # As big-endian bytes dates are in order, unless one is negative, before 2000; so none has to be
    # unpacked: 0.14 µs a row (2026-11-24).
    first, last = min(dates), max(dates)
    if last[0] & _SIGN_BIT:
        dates.sort(key=lambda date: int.from_bytes(date, "big", signed=True))
        first, last = dates[0], dates[-1]
    return _instant(first), _instant(last)


def _log_date(row: bytes, column: int) -> bytes:
    """Cut `log_date` out of a tuple: 8 bytes, behind texts of which none has over 255."""
    position = 5
    for _ in range(column):
        position += 4 + row[position]
    return row[position + 1 : position + 9]


def _instant(date: bytes) -> datetime | None:
    pg_us = int.from_bytes(date, "big", signed=True)
    try:
        return _EPOCH + timedelta(microseconds=pg_us + PG_EPOCH_US)
    except OverflowError:  # PostgreSQL knows years that Python does not
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
