"""One encoded row → one INSERT on a connection of the caller's, within the caller's transaction.

The row and its entry in the ledger are one statement: they commit or roll back together with the
change they tell of. The connection is left as it was found: no cursor factory of the caller's is
asked, no session of SQLAlchemy's is flushed, nothing is prepared that a pooler would not know.
Takes connections of psycopg 3, and sessions and connections of SQLAlchemy over any driver for
PostgreSQL. What the connection raises is raised, with the remedy as a note.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import uuid_utils
from psycopg.rows import tuple_row

from auditlog.remedies import remedy_of
from auditlog.sink.database.ledger import copy_stream, writer_name
from auditlog.sink.encoding.tuples import fields
from auditlog.tables import BATCHES, LOGS

# Everything goes as one document in ASCII: the drivers disagree about the form and the types of
# parameters (for json a codec of the caller's may be registered), and the encoding of the session
# need not be one that has every character. There is no ON CONFLICT, as the batch is new: that would
# take the right to SELECT.
_OF_LEDGER = ("batch_id", "writer", "bytes", "sha256")
_LEDGER = [column for column in BATCHES.columns if column.name in _OF_LEDGER]
_SENT = ", ".join(f"{column.name} {column.type}" for column in (*_LEDGER, *LOGS.columns))
_ROW = ", ".join(LOGS.column_names)
_STATEMENT = f"""\
WITH sent AS (
    SELECT * FROM pg_catalog.json_to_record(CAST(CAST({{}} AS text) AS json)) AS sent ({_SENT})
), ledger AS (
    INSERT INTO logstore.batches (batch_id, writer, logs, bytes, first_log_date, last_log_date,
                                  sha256)
    SELECT batch_id, writer, 1, bytes, log_date, log_date, sha256 FROM sent
)
INSERT INTO logstore.logs ({_ROW}) SELECT {_ROW} FROM sent"""  # noqa: S608  # our own constants
_PSYCOPG = _STATEMENT.format("%s").encode()
_SQLALCHEMY = _STATEMENT.format(":sent")

_SESSIONS = ("sqlalchemy.orm.Session", "sqlalchemy.orm.scoped_session")
_CONNECTIONS = ("sqlalchemy.engine.Connection",)
_ASYNC_SESSIONS = (
    "sqlalchemy.ext.asyncio.AsyncSession",
    "sqlalchemy.ext.asyncio.async_scoped_session",
)
_ASYNC_CONNECTIONS = ("sqlalchemy.ext.asyncio.AsyncConnection",)
_ALL_SYNC = (*_SESSIONS, *_CONNECTIONS)
_ALL_ASYNC = (*_ASYNC_SESSIONS, *_ASYNC_CONNECTIONS)

_PG_EPOCH_JULIAN_DAY = 2_451_545
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

_ABORTED = "25P02"
_NOT_ALLOWED = "42501"
_NO_PARTITION = "23514"
_REMEDIES = {
    _ABORTED: "an earlier statement failed: roll back, to the start or to a savepoint, and record"
    " again",
    _NOT_ALLOWED: "GRANT USAGE ON SCHEMA logstore and GRANT INSERT ON logstore.logs,"
    " logstore.batches to the role of this connection",
    _NO_PARTITION: "logstore.logs has no partition for its date: `auditlog partitions maintain`"
    " makes those to come",
}


def insert(connection: Any, row: bytes) -> None:
    """Insert a tuple of `logstore.logs` through the connection; blocks.

    Raises:
        TypeError: not a connection that this can be done with; nothing was sent.
        Exception: the connection's own, as for any statement of the caller's.
    """
    document = _document(row)
    if _is_a(connection, _SESSIONS):
        _execute(connection.connection(), document)
    elif _is_a(connection, _CONNECTIONS):
        _execute(connection, document)
    elif isinstance(connection, psycopg.Connection):
        with _remedies():
            # Not `connection.cursor()`: its class may take other placeholders. Never prepared,
            # though that takes a third off (2026-11-25): a pooler may know nothing of it.
            psycopg.Cursor(connection, row_factory=tuple_row).execute(
                _PSYCOPG, (document,), prepare=False
            )
    else:
        raise TypeError(_unfit(connection))


async def ainsert(connection: Any, row: bytes) -> None:
    """Do what `insert` does, through an asynchronous connection or session."""
    document = _document(row)
    if _is_a(connection, _ASYNC_SESSIONS):
        await (await connection.connection()).run_sync(_execute, document)
    elif _is_a(connection, _ASYNC_CONNECTIONS):
        await connection.run_sync(_execute, document)
    elif isinstance(connection, psycopg.AsyncConnection):
        with _remedies():
            await psycopg.AsyncCursor(connection, row_factory=tuple_row).execute(
                _PSYCOPG, (document,), prepare=False
            )
    else:
        raise TypeError(_unfit(connection))


def _execute(connection: Any, document: str) -> None:
    """Execute the statement through a Connection of SQLAlchemy's."""
    from sqlalchemy import text  # noqa: PLC0415  # whose connection it is

    if connection.dialect.name != "postgresql":
        raise TypeError(
            f"this connection leads to {connection.dialect.name}: a row can only be recorded in"
            " the transaction of a PostgreSQL that has the schema logstore"
        )
    with _remedies():
        connection.execute(
            text(_SQLALCHEMY),
            {"sent": document},
            # A session that streams would declare a cursor for it, which takes no INSERT.
            execution_options={"stream_results": False, "yield_per": None},
        )


def _is_a(connection: Any, classes: tuple[str, ...]) -> bool:
    """Tell whether it is of a class of SQLAlchemy's, without importing what may be missing."""
    for module, _, name in (qualified.rpartition(".") for qualified in classes):
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(connection, getattr(loaded, name)):
            return True
    return False


def _unfit(connection: Any) -> str:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if isinstance(connection, psycopg.AsyncConnection) or _is_a(connection, _ALL_ASYNC):
        return f"{kind} is asynchronous: await arecord_within(...) instead of record_within"
    if isinstance(connection, psycopg.Connection) or _is_a(connection, _ALL_SYNC):
        return f"{kind} is synchronous: call record_within(...) instead of arecord_within"
    return (
        f"{kind} is nothing to record through: pass a connection of psycopg 3, or a Session or"
        " Connection of SQLAlchemy 2; not their pool, engine or cursor"
    )


@contextmanager
def _remedies() -> Iterator[None]:
    """Add to an error what mends it."""
    try:
        yield
    except Exception as error:
        # SQLAlchemy wraps the driver's error; psycopg2 and asyncpg have another name for the code.
        cause = getattr(error, "orig", None) or error
        sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        if sqlstate == _NO_PARTITION and _constraint(cause):
            raise  # a CHECK; partitions that are not there have no name
        if isinstance(sqlstate, str) and (remedy := _REMEDIES.get(sqlstate) or remedy_of(sqlstate)):
            error.add_note(f"the audit row was not recorded: {remedy}")
        raise


def _constraint(cause: Any) -> str | None:
    """Return the name of the constraint that an error of any driver's names."""
    places = (getattr(cause, "diag", None), cause, cause.__cause__)
    names = (getattr(place, "constraint_name", None) for place in places)
    return next((name for name in names if name), None)


def _document(row: bytes) -> str:
    """Return a tuple and its ledger entry as one JSON object, in ASCII."""
    stream = copy_stream([row])
    entry = {
        "batch_id": str(uuid_utils.uuid7()),
        "writer": writer_name(),
        "bytes": len(stream),
        "sha256": "\\x" + hashlib.sha256(stream).hexdigest(),
    }
    columns = ",".join(
        f'"{column.name}":{"null" if data is None else _JSON[column.type](data)}'
        for column, data in zip(LOGS.columns, fields(row), strict=True)
    )
    return f"{json.dumps(entry)[:-1]},{columns}}}"


def _text(data: bytes) -> str:
    return json.dumps(data.decode())


def _integer(data: bytes) -> str:
    return str(int.from_bytes(data, "big", signed=True))


def _jsonb(data: bytes) -> str:
    """Write JSON text in ASCII: outside its strings it is that already."""
    return _NOT_ASCII.sub(lambda character: json.dumps(character[0])[1:-1], data[1:].decode())


def _timestamp(data: bytes) -> str:
    """Write an instant by its Julian day, which has no era, no month and no fifth digit."""
    # https://www.postgresql.org/docs/current/datetime-input-rules.html
    days, us = divmod(int.from_bytes(data, "big", signed=True), 86_400_000_000)
    minutes, us = divmod(us, 60_000_000)
    time = f"{minutes // 60:02}:{minutes % 60:02}:{us // 1_000_000:02}.{us % 1_000_000:06}"
    return f'"J{_PG_EPOCH_JULIAN_DAY + days} {time}+00"'


_JSON: dict[str, Callable[[bytes], str]] = {
    "text": _text,
    "jsonb": _jsonb,
    "timestamptz": _timestamp,
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
}
