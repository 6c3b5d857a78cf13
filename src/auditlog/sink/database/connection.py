"""One connection, opened when needed and thrown away after any error that is not a row's.

No pool: one writer needs one connection, and a pool answers a failed login with a mere timeout, so
that nobody could tell a wrong password from a database that is down (psycopg_pool 3.3, seen
2026-11-24). Works through a pooler in transaction mode: no session state, no prepared statement
that outlives the transaction. Whatever is done with it ends in time.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, LiteralString, TypeAlias

from psycopg import AsyncConnection, AsyncCursor, Error
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from auditlog.settings import Settings
from auditlog.sink.database.faults import Fault, classify, lacks_partition
from auditlog.sink.database.merge import accept_arrays

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

Cursor: TypeAlias = AsyncCursor[Any]


class Database:
    """The connection of one writer, for one transaction at a time."""

    def __init__(
        self,
        settings: Settings,
        resolve_dsn: Callable[[], Awaitable[str]],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep what is needed to connect; nothing is opened yet.

        Args:
            settings: Time limits.
            resolve_dsn: Gives the libpq connection string; called before each connecting.
            on_connected: Called when a connection was made.
        """
        self._settings = settings
        self._resolve_dsn = resolve_dsn
        self._on_connected = on_connected
        self._connection: AsyncConnection[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin = _begin(settings.statement_timeout_s)

    async def ask(
        self, query: LiteralString, parameters: tuple[Any, ...], within_s: float
    ) -> list[Any]:
        """Return what a short question finds, by itself; nothing if it cannot be asked at once."""
        connection = self._connection
        if connection is None or connection.closed:
            return []
        try:
            with suppress(Error), _hang_up_after(connection, within_s):
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall()
        except BaseException as error:
            await self.close()
            if not isinstance(error, Exception):
                raise
        return []

    async def close(self) -> None:
        """Close the connection; safe at any time, and it is opened again when needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def hang_up(self) -> bool:
        """Cut the connection, so that what is under way fails at once; False if there is none."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        _hang_up(connection)
        return True

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Cursor]:
        """Begin a transaction that ends in time, one way or the other, on both sides."""
        try:
            connection = await self.connect()
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

    async def connect(self) -> AsyncConnection[Any]:
        """Return the connection; open it, if there is none on this loop."""
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
            self._on_connected()
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
