"""The engine's connection: what it asks the database, each time in one round trip.

A transaction is sent as one message, with what ends it in time: no session state, so it works
through a pooler in transaction mode. Whatever becomes of it, it is over after `call_s` seconds, on
both sides. When that is known to be too late, the outcome is not: whoever asked has to decide what
that means.
"""

import asyncio
import dataclasses
import select
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import AsyncClientCursor, AsyncConnection, Error
from psycopg.rows import RowFactory, dict_row, tuple_row

from auditlog.quota.definitions.rows import DEFINITIONS
from auditlog.settings import Settings
from auditlog.sink.database.connection import Database
from auditlog.sink.database.faults import sqlstate_of

MOST_CONNECT_S = 3.0
"""Meanwhile nothing is decided by counters; a server that is there answers at once."""
# Of the time that a call has: a server that still answers is to say itself what held it up.
_SERVERS_SHARE = 0.8

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {ms}; "
_SPEND = """
    SELECT ask, state, granted, extra, previous, usage, now_us, crossings, free_us
    FROM logstore.spend_quotas(%s::jsonb)
"""
# READ WRITE, on a standby; anything that writes, where something else forbids it.
_TAKES_NO_WRITES = frozenset({"0A000", "25006"})
_RETURN = "SELECT logstore.return_quotas(%s::jsonb)"
_UNFINISHED = "SELECT * FROM logstore.unfinished_crossings(make_interval(secs => %s), %s)"
_CALLED = "SELECT logstore.crossings_called(%s::uuid[])"

Row = tuple[Any, ...]


class Link:
    """One connection of one run, for one call at a time."""

    def __init__(
        self, settings: Settings, resolve_dsn: Callable[[], Awaitable[str]], call_s: float
    ) -> None:
        """Keep what is needed to connect; nothing is opened yet.

        Args:
            settings: The time that connecting may take.
            resolve_dsn: Gives the libpq connection string; called before each connecting.
            call_s: How long a call may take, in seconds.
        """
        self.busy_since: float | None = None
        """When what is under way began, by the monotonic clock; None while nothing is."""
        self.is_connected = False
        """If a call has failed: is its transaction known to be undone?"""
        connect_s = min(settings.connect_timeout_s, MOST_CONNECT_S)
        self._database = Database(
            dataclasses.replace(settings, connect_timeout_s=connect_s), resolve_dsn
        )
        self._call_s = call_s
        self._begin = _BEGIN.format(ms=max(1, round(call_s * _SERVERS_SHARE * 1000)))
        self._is_retired = False

    def retire(self) -> None:
        """Have the run that this is of end at its next step: another run has taken over."""
        self._is_retired = True

    async def connect(self) -> None:
        """See to it that there is a connection; nothing was sent if this fails.

        Raises:
            psycopg.Error, OSError, AuditLogError: there is none to be had.
        """
        with self._busy():
            connection = await self._database.connect()
            if _has_ended(connection):
                await self._database.close()
                await self._database.connect()
        self.is_connected = True

    async def spend(self, asks: str) -> list[Row]:
        """Spend; return an answer for each ask, in the order of the asks.

        Args:
            asks: As JSON.

        Raises:
            psycopg.Error, OSError: nothing is spent, or the outcome is not known.
        """
        return sorted(await self._call(_SPEND, (asks,)))

    async def give_back(self, returns: str) -> None:
        """Give units back, as JSON; raises as `spend`."""
        await self._call(_RETURN, (returns,))

    async def definitions(self) -> Sequence[Mapping[str, Any]]:
        """Read the limits that are laid down in the database; raises as `spend`."""
        return await self._call(DEFINITIONS.decode(), (), dict_row)

    async def unfinished(self, older_than_s: float, most: int) -> Sequence[Mapping[str, Any]]:
        """Undertake to tell crossings that nobody told for so long; raises as `spend`."""
        return await self._call(_UNFINISHED, (older_than_s, most), dict_row)

    async def called(self, crossing_ids: Sequence[str]) -> None:
        """Note that crossings were told; raises as `spend`."""
        await self._call(_CALLED, (list(crossing_ids),))

    def hang_up(self) -> bool:
        """Cut the connection, so that a call fails at once; False if there is none."""
        return self._database.hang_up()

    async def close(self) -> None:
        """Close the connection; safe at any time, and it is opened again when needed."""
        await self._database.close()

    async def _call(
        self, query: str, parameters: tuple[Any, ...], factory: RowFactory[Any] = tuple_row
    ) -> list[Any]:
        """Run one statement as a transaction of its own, in one message; return its rows."""
        with self._busy():
            connection = await self._database.connect()
            # It fills in the parameters here: only then are several statements one message.
            cursor = AsyncClientCursor(connection, row_factory=factory)
            message = f"{self._begin}{query}\n; COMMIT"
            try:
                with self._hanging_up():
                    await cursor.execute(message.encode(), parameters or None)
            except BaseException as error:
                self.is_connected = isinstance(error, Error) and await self._is_usable(connection)
                # Where a standby's address leads by now, only another connection finds out.
                if not self.is_connected or sqlstate_of(error) in _TAKES_NO_WRITES:
                    await self._database.close()
                raise
            cursor.nextset()
            cursor.nextset()
            return await cursor.fetchall()

    async def _is_usable(self, connection: AsyncConnection[Any]) -> bool:
        """Tell whether the connection can go on; a transaction that failed is undone."""
        if connection.closed:
            return False
        try:
            with self._hanging_up():
                await connection.rollback()
        except Error:
            return False
        return True

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.busy_since = time.monotonic()
        try:
            yield
        finally:
            self.busy_since = None
            if self._is_retired:
                raise asyncio.CancelledError

    @contextmanager
    def _hanging_up(self) -> Iterator[None]:
        timer = asyncio.get_running_loop().call_later(self._call_s, self._database.hang_up)
        try:
            yield
        finally:
            timer.cancel()


def _has_ended(connection: AsyncConnection[Any]) -> bool:
    """Tell whether there is something to be read, though nothing was asked: the server's farewell.

    A statement that were sent now would fail, and nobody could tell whether it was carried out.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
