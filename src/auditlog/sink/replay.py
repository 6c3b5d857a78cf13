"""Dead letters → stored after all, or discarded with a row in the trail that says so.

Blocking; for the command line and for scripts. A letter is stored in the transaction that takes it
out of `logstore.dead_letters`, so two who replay the same one store it once; the order of the locks
is the writer's. A letter of a file is taken out of that afterwards: after a crash in between, its
replay adds nothing, and a discarded one is told twice.
"""

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, LiteralString
from uuid import UUID

import uuid_utils
from psycopg import Connection, Cursor, Error
from psycopg.rows import dict_row

from auditlog.errors import PartitionError
from auditlog.settings import Settings
from auditlog.sink.database.faults import (
    Fault,
    RowError,
    classify,
    entering_ledger,
    lacks_partition,
    sqlstate_of,
)
from auditlog.sink.database.ledger import LEDGER, LOCK_LEDGER, copy_stream, ledger_row, writer_name
from auditlog.sink.database.merge import DIFFERING, MERGE, accept_arrays, columns_of
from auditlog.sink.database.partitions import (
    ENSURE,
    LOCKED,
    REFUSED_AGAIN,
    DateError,
    ensuring,
    obstacle_of,
    refusal_of,
)
from auditlog.sink.database.transactional import insert
from auditlog.sink.dead_letters import COLUMNS, DeadLetter
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.encoding.reduced import is_tuple, reduced, tuple_of
from auditlog.sink.encoding.tuples import fields, log_date_of
from auditlog.sink.queue.gaps import Gap, Gaps
from auditlog.sink.told.own_rows import gap_record
from auditlog.tables import DEAD_LETTERS, TABLES

DISCARDED = "discarded"
WHY = "audit.gap.why"
MAX_DISCARDED = 1000
"""Letters in one transaction: it keeps the beginnings of their rows in memory, 2 MB."""

_FORM = "22P04"
_DUPLICATE = "23505"
_NAMES = [table.name for table in TABLES]
_NAME = DEAD_LETTERS.qualified_name
_IDS: LiteralString = f"SELECT letter_id FROM {_NAME} ORDER BY died_at, letter_id"  # noqa: S608
_FETCH: LiteralString = f"SELECT {COLUMNS} FROM {_NAME} WHERE letter_id = %s"  # noqa: S608
_TAKE_OUT: LiteralString = f"DELETE FROM {_NAME} WHERE letter_id = %s"  # noqa: S608
_COUNT: LiteralString = f"UPDATE {_NAME} SET attempts = attempts + 1 WHERE letter_id = %s"  # noqa: S608
# The date stands within the first bytes of a tuple, and a row may have 64 KiB.
_DISCARD: LiteralString = f"""
    DELETE FROM {_NAME} WHERE letter_id = ANY (%s)
    RETURNING table_name, substring("row" FROM 1 FOR 2048), instance_id, died_at
"""  # noqa: S608  # our own constants, here and above


class Outcome(Enum):
    """What became of a letter that was replayed."""

    STORED = "stored"
    THERE = "was stored already"
    GONE = "was dealt with by somebody else"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Replayed:
    """The outcome, and the code if it was refused."""

    outcome: Outcome
    sqlstate: str = ""


def letter_ids(conn: Connection[Any]) -> list[UUID]:
    """Return the identities of all letters, the oldest first."""
    return [letter_id for (letter_id,) in conn.execute(_IDS)]


def fetch(conn: Connection[Any], letter_id: UUID) -> DeadLetter | None:
    """Return a letter with its row; None if there is none of that identity."""
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_FETCH, (letter_id,)).fetchone()
    return DeadLetter(**found | {"columns": tuple(found["columns"])}) if found else None


def replay(
    conn: Connection[Any], letter: DeadLetter, *, smallest: bool = False, filed: bool = False
) -> Replayed:
    """Store a letter's row, and take the letter out of `logstore.dead_letters` with it.

    The partition for its date is made if it is missing and this role may.

    Args:
        conn: In autocommit mode, with the rights to SELECT, UPDATE and DELETE dead letters, to
            write like the sink, and to SELECT from the table where the row is there already.
        letter: As `fetch` or a file gave it.
        smallest: Store no more than `reduced` leaves of it.
        filed: It is from a file, which is the caller's.

    Raises:
        PartitionError: nothing has changed, and the partition cannot be had; says what mends it.
        psycopg.Error: nothing has changed, and no row is to blame.
    """
    table = _NAMES.index(letter.table_name) if letter.table_name in _NAMES else None
    row = None if table is None else _today(table, letter)
    if table is None or row is None:
        return Replayed(Outcome.REFUSED, _FORM)
    if smallest:
        row = reduced(table, row, letter.sqlstate)
    taken = None if filed else letter.letter_id
    try:
        try:
            return _store(conn, taken, table, row)
        except Error as error:
            if not lacks_partition(error):
                raise
            _ensure(conn, table, row)
            return _store(conn, taken, table, row)
    except Error as error:
        if lacks_partition(error):
            raise PartitionError(REFUSED_AGAIN) from error
        if classify(error) is not Fault.DATA:
            raise
        if not filed:
            conn.execute(_COUNT, (letter.letter_id,))
        return Replayed(Outcome.REFUSED, sqlstate_of(error))


def discard(
    conn: Connection[Any], letter_ids: Sequence[UUID], *, who: str, why: str, settings: Settings
) -> int:
    """Take letters away, and tell the trail of it in the same transaction; return how many.

    Args:
        conn: In autocommit mode, with the rights of `replay`.
        letter_ids: At most `MAX_DISCARDED`; those that are gone by now are passed over.
        who: Who did it.
        why: The reason in their words.
        settings: Names the tenant of rows that name none.

    Raises:
        psycopg.Error: nothing has changed.
    """
    with conn.transaction():
        conn.execute(LOCK_LEDGER)
        taken = conn.execute(_DISCARD, (list(letter_ids),)).fetchall()
        _tell(conn, (_loss(*letter) for letter in taken), who=who, why=why, settings=settings)
    return len(taken)


def tell_discarded(
    conn: Connection[Any], letters: Iterable[DeadLetter], *, who: str, why: str, settings: Settings
) -> None:
    """Tell the trail that letters of a file are discarded; then the caller removes them there.

    Raises:
        psycopg.Error: nothing has changed.
    """
    losses = (
        _loss(letter.table_name, letter.row, letter.instance_id, letter.died_at)
        for letter in letters
    )
    with conn.transaction():
        _tell(conn, losses, who=who, why=why, settings=settings)


def _today(table: int, letter: DeadLetter) -> bytes | None:
    """Return the row in the form that its table has today; None if it has none.

    Columns that a later version added are null, as they are in the rows of before.
    """
    described = TABLES[table]
    try:
        values = dict(zip(letter.columns, fields(letter.row), strict=True))
    except (struct.error, ValueError):
        return None
    row = tuple_of([values.pop(name, None) for name in described.column_names])
    return None if values or not is_tuple(table, row) else row


def _store(conn: Connection[Any], letter_id: UUID | None, table: int, row: bytes) -> Replayed:
    """Store a row in one transaction with the removal of its letter, if that is in the table."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(LOCK_LEDGER)
        if letter_id is not None and not cursor.execute(_TAKE_OUT, (letter_id,)).rowcount:
            return Replayed(Outcome.GONE)
        return Replayed(Outcome.STORED if _add(cursor, table, row) else Outcome.THERE)


def _ensure(conn: Connection[Any], table: int, row: bytes) -> None:
    """Have the partition for a row's date made, if it is not there.

    Raises:
        DateError: there is to be none.
        PartitionError: it cannot be made for now.
    """
    try:
        with conn.cursor() as cursor:
            accept_arrays(cursor)
            found = cursor.execute(ENSURE, ensuring(table, row)).fetchone()
            answer = str(found and found[0])
    except Error as error:
        answer = sqlstate_of(error)
        if classify(error) is Fault.RETRY and answer != LOCKED:
            raise
    if (refusal := refusal_of(answer)) is not None:
        raise DateError(table, [0], refusal)
    if (why := obstacle_of(answer)) is not None:
        raise PartitionError(why)


def _add(cursor: Cursor[Any], table: int, row: bytes) -> bool:
    """Add a row with its ledger entry, unless it is there.

    Raises:
        RowError: its identity is another row's.
    """
    accept_arrays(cursor)
    columns = columns_of(table, [row])
    is_new = cursor.execute(MERGE[table], columns).rowcount == 1
    # Without the right to look this fails, and the letter stays: it may be all there is of the row.
    if not is_new and cursor.execute(DIFFERING[table], columns).fetchone():
        raise RowError(_DUPLICATE, table, 0, "another row has its identity")
    rows: list[list[bytes]] = [[] for _ in TABLES]
    rows[table] = [row]
    streams = [copy_stream(of_table) if of_table else b"" for of_table in rows]
    added = [len(of_table) if is_new else 0 for of_table in rows]
    batch_id = UUID(bytes=uuid_utils.uuid7().bytes)
    with entering_ledger():
        cursor.execute(LEDGER, ledger_row(batch_id, writer_name(), rows, streams, added))
    return is_new


def _tell(
    conn: Connection[Any], losses: Iterable[Gap], *, who: str, why: str, settings: Settings
) -> None:
    gaps = Gaps()
    for loss in losses:
        gaps.add(loss)
    encoder = Encoder(settings)
    for gap in gaps.take():
        record = gap_record(gap, None, writer_name(), settings.instance_id)
        record.user_id = who
        record.metadata = {**(record.metadata or {}), WHY: why}
        insert(conn, encoder.encode(record)[1])


def _loss(table_name: str, row: bytes, tenant: bytes | None, died_at: datetime) -> Gap:
    """Return what is missing without a letter; `row` may be no more than its beginning."""
    when = int(died_at.timestamp() * 1_000_000)
    # Where there is a tenant, the row has the form of a tuple; unless somebody made the letter up.
    if tenant is not None and table_name in _NAMES:
        with suppress(IndexError, struct.error):
            when = log_date_of(_NAMES.index(table_name), row)
    named = None if tenant is None else tenant.decode(errors="replace")
    return Gap(DISCARDED, named, 1, when, when)
