"""`record_within` and what SQLAlchemy keeps: sessions, options of engines, codecs of drivers."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import trail
from auditlog import AuditLog
from transactions import HOSTILE_TEXT, running_async_engine, running_engine


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


def test_session_is_not_flushed(any_dsn: str) -> None:
    """What is pending stays so, even where a flush would fail; and commits with the row."""
    with running_engine(any_dsn) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([order := Order(id=1), Order(id=2)])
            AuditLog(any_dsn).record_within(session, "x")
            assert session.new
            assert sa.inspect(order).pending
            assert len(trail.rows(any_dsn)) == 0
            session.commit()
        with Session(engine) as session:
            AuditLog(any_dsn).record_within(session, "x")
            session.add(Order(id=1))
            with pytest.raises(sa.exc.IntegrityError):
                session.commit()
    assert trail.fetch(any_dsn, "SELECT id FROM orders ORDER BY id") == [1, 2]
    assert len(trail.rows(any_dsn)) == 1
    assert trail.ledger_agrees(any_dsn)


def test_session_joins_its_nested_transaction(any_dsn: str) -> None:
    """`begin_nested` is a savepoint, and its rollback takes the row along."""
    audit = AuditLog(any_dsn)
    with running_engine(any_dsn) as engine, Session(engine) as session, session.begin():
        audit.record_within(session, "kept")
        with session.begin_nested() as nested:
            audit.record_within(session, "lost")
            nested.rollback()
        audit.record_within(session, "kept")
    assert [row["event_type"] for row in trail.rows(any_dsn)] == ["kept", "kept"]
    assert trail.ledger_agrees(any_dsn)


@pytest.mark.parametrize(
    "options",
    [
        {"stream_results": True},
        {"yield_per": 10},
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "SERIALIZABLE"},
        {"compiled_cache": None},
        {"schema_translate_map": {None: "elsewhere", "logstore": "elsewhere"}},
        {"no_parameters": True},
    ],
    ids=str,
)
def test_options_of_an_engine(any_dsn: str, options: dict[str, Any]) -> None:
    """Of SQLAlchemy's execution options none gets in the way."""
    with running_engine(any_dsn, execution_options=options) as engine, engine.connect() as conn:
        AuditLog(any_dsn).record_within(conn, "x", message=HOSTILE_TEXT)
        conn.commit()
    assert [row["message"] for row in trail.rows(any_dsn)] == [HOSTILE_TEXT]


async def test_synchronous_code_over_an_asynchronous_driver(any_dsn: str) -> None:
    """Within `run_sync` a session is an ordinary one."""
    audit = AuditLog(any_dsn)
    async with running_async_engine(any_dsn, "asyncpg") as engine, AsyncSession(engine) as session:
        for _ in range(3):
            await session.run_sync(lambda inner: audit.record_within(inner, "x"))
        await session.commit()
    assert len(trail.rows(any_dsn)) == 3


async def test_codecs_of_the_caller(any_dsn: str) -> None:
    """A connection of asyncpg's may turn what is sent as json into JSON once more."""
    audit = AuditLog(any_dsn)
    async with running_async_engine(any_dsn, "asyncpg") as engine, engine.connect() as conn:
        raw = await conn.get_raw_connection()
        for name in ("json", "jsonb"):
            await raw.driver_connection.set_type_codec(  # type: ignore[union-attr]
                name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads
            )
        await audit.arecord_within(conn, "x", after={"a": [1]})
        await conn.commit()
    assert trail.rows(any_dsn)[0]["metadata"]["audit.after"] == {"a": [1]}


def test_another_database_of_sqlalchemy(any_dsn: str) -> None:
    """Known before anything is sent."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as conn, pytest.raises(TypeError, match="leads to sqlite"):
        AuditLog(any_dsn).record_within(conn, "x")
    engine.dispose()
