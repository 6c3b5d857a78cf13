"""Every kind of connection that a row can be recorded through, behind one asynchronous face.

A test says what happens in the transaction, once; it is then run over each driver.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import asyncpg
import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from auditlog import AuditLog

HOSTILE_TEXT = "%s %(sent)s :sent $1 \\ '\" \u00e9 \u20ac \U0001f600 \x7f\u2028"
"""What looks like a parameter to one driver or another, and has characters of all kinds."""


class Transaction:
    """What a caller has in hand: a connection of some kind, in a transaction of its own."""

    def __init__(self, connection: Any, *, is_async: bool, execute: Callable[[str], Any]) -> None:
        self.connection = connection
        self._is_async = is_async
        self._execute = execute

    async def record(self, audit: AuditLog, event_type: object, **event: Any) -> str:
        if self._is_async:
            return await audit.arecord_within(self.connection, event_type, **event)
        return audit.record_within(self.connection, event_type, **event)

    async def execute(self, statement: str) -> None:
        await self._settled(self._execute(statement))

    async def commit(self) -> None:
        await self._settled(self.connection.commit())

    async def rollback(self) -> None:
        await self._settled(self.connection.rollback())

    async def _settled(self, result: Any) -> None:
        if isinstance(result, Awaitable):
            await result


Begin: TypeAlias = Callable[[str], AbstractAsyncContextManager[Transaction]]


@asynccontextmanager
async def _psycopg(dsn: str) -> AsyncIterator[Transaction]:
    with psycopg.connect(dsn) as conn:
        yield Transaction(conn, is_async=False, execute=lambda sql: conn.execute(sql.encode()))


@asynccontextmanager
async def _psycopg_async(dsn: str) -> AsyncIterator[Transaction]:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        yield Transaction(conn, is_async=True, execute=lambda sql: conn.execute(sql.encode()))


@asynccontextmanager
async def _sqlalchemy_connection(dsn: str) -> AsyncIterator[Transaction]:
    with running_engine(dsn) as engine, engine.connect() as conn:
        yield Transaction(conn, is_async=False, execute=lambda sql: conn.execute(sa.text(sql)))


@asynccontextmanager
async def _sqlalchemy_session(dsn: str) -> AsyncIterator[Transaction]:
    with running_engine(dsn) as engine, Session(engine) as session:
        yield Transaction(
            session, is_async=False, execute=lambda sql: session.execute(sa.text(sql))
        )


@asynccontextmanager
async def _sqlalchemy_scoped_session(dsn: str) -> AsyncIterator[Transaction]:
    with running_engine(dsn) as engine:
        session = scoped_session(sessionmaker(engine))
        try:
            yield Transaction(
                session, is_async=False, execute=lambda sql: session.execute(sa.text(sql))
            )
        finally:
            session.remove()


def _sqlalchemy_async_connection(driver: str) -> Begin:
    @asynccontextmanager
    async def begin(dsn: str) -> AsyncIterator[Transaction]:
        async with running_async_engine(dsn, driver) as engine, engine.connect() as conn:
            yield Transaction(conn, is_async=True, execute=lambda sql: conn.execute(sa.text(sql)))

    return begin


def _sqlalchemy_async_session(driver: str) -> Begin:
    @asynccontextmanager
    async def begin(dsn: str) -> AsyncIterator[Transaction]:
        async with running_async_engine(dsn, driver) as engine, AsyncSession(engine) as session:
            yield Transaction(
                session, is_async=True, execute=lambda sql: session.execute(sa.text(sql))
            )

    return begin


KINDS: dict[str, Begin] = {
    "psycopg": _psycopg,
    "psycopg async": _psycopg_async,
    "SQLAlchemy Connection": _sqlalchemy_connection,
    "SQLAlchemy Session": _sqlalchemy_session,
    "SQLAlchemy scoped_session": _sqlalchemy_scoped_session,
    "SQLAlchemy AsyncConnection, psycopg": _sqlalchemy_async_connection("psycopg"),
    "SQLAlchemy AsyncConnection, asyncpg": _sqlalchemy_async_connection("asyncpg"),
    "SQLAlchemy AsyncSession, psycopg": _sqlalchemy_async_session("psycopg"),
    "SQLAlchemy AsyncSession, asyncpg": _sqlalchemy_async_session("asyncpg"),
}


@contextmanager
def running_engine(dsn: str, **options: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), **options
    )
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def running_async_engine(dsn: str, driver: str) -> AsyncIterator[AsyncEngine]:
    async def connect(*_: Any, **__: Any) -> Any:
        if driver == "psycopg":
            return await psycopg.AsyncConnection.connect(dsn)
        return await asyncpg_connection(dsn)

    engine = create_async_engine(f"postgresql+{driver}://", async_creator=connect)
    try:
        yield engine
    finally:
        await engine.dispose()


async def asyncpg_connection(dsn: str) -> Any:
    parameters = conninfo_to_dict(dsn)
    return await asyncpg.connect(
        host=parameters.get("host"),
        port=parameters.get("port"),
        user=parameters["user"],
        password=parameters.get("password"),
        database=parameters["dbname"],
    )
