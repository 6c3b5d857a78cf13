"""An error of the database → what may be done about it, by its SQLSTATE, and which row is to blame.

Only what can succeed is retried. Codes: PostgreSQL, Appendix A; a class is the first two
characters. A failure without a code is the network's, or a server's that died mid-sentence.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from psycopg import DataError, Error

from auditlog.errors import AuditLogError
from auditlog.remedies import BAD_DSN, identify, remedy_of
from auditlog.tables import BATCHES, TABLES


class Fault(Enum):
    """What a failed batch needs."""

    RETRY = "the connection, or the server's means: wait and try again"
    DATA = "one of the rows: split until it is alone"
    CONFIGURATION = "schema, rights or credentials: tell somebody, and look again now and then"


_PASSING_CLASSES = frozenset(
    {"", "08", "25", "26", "40", "53", "55", "57", "58", "72", "F0", "HV", "XX"}
)
_CONFIGURATION_CLASSES = frozenset({"0A", "28", "3D", "3F", "42"})
# All other classes are one row's fault: a duplicate (23505), and what a trigger of the operator's
# raises on it, under a code of PostgreSQL's (20, 27, 38, P0) or one that it has made up. Waiting
# would hold up every row behind it.
#
# Every row is refused when a column was added as NOT NULL (23502) or has another type (22P03,
# 22P04): split down to single rows, all of them would be given up.
_SCHEMA_CODES = frozenset({"22P03", "22P04", "23502"})

_NOT_NULL = "23502"
_TIMEOUT = "57014"
_NO_PARTITION = "23514"
_OUR_COLUMNS = frozenset(name for table in TABLES for name in table.column_names)

# `COPY logs, line 322, column message` in the languages of PostgreSQL's own translations: the
# relation first, which may be a partition; set off from it a number; and perhaps the column.
# https://github.com/postgres/postgres/tree/master/src/backend/po, "COPY %s, line %llu, column %s"
_COPY_LINE = re.compile(
    r"(?:COPY [^\n]+|[^\n]+のCOPY|[^\n]+ 복사)"
    r"[,、] ?[^\W\d]* ?(\d{1,9})[^,、\d\"]*(?:[,、][^,、\"]*)?"
)
_COPYING = "auditlog: while copying into "
_ENTERING = "auditlog: while writing the ledger"
_MENDED_BY = "auditlog: mended by: "

# Of the CHECK by which a table is made ready to become a partition.
_BOUND = "_partition_bound"
_NO_PARTITION_REMEDY = "the table has no partition for the rows' date: create it"
_BOUND_REMEDY = (
    "making the table a partitioned one was interrupted: run `auditlog partitions enable` again, or"
    " `auditlog partitions maintain`"
)
_LEDGER_REMEDY = (
    "the ledger logstore.batches refuses the batch, as when its sequence was not carried over to"
    " this server: SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'),"
    " max(sequence)) FROM logstore.batches"
)


class RowError(DataError):
    """What a batch is refused for because of one row, found out on our side."""

    def __init__(self, sqlstate: str, table: int, row: int | None, words: str) -> None:
        """Name the row.

        Args:
            sqlstate: The code that comes nearest.
            table: Index into `TABLES`.
            row: Its number within the batch's rows of that table; None: nobody knows which.
            words: What is wrong; nothing out of the row.
        """
        super().__init__(words)
        self.sqlstate = sqlstate
        self.place = None if row is None else (table, row)


def classify(error: BaseException) -> Fault:
    """Sort an error of a batch or of a connection attempt into its class."""
    sqlstate = sqlstate_of(error)
    if isinstance(error, AuditLogError) or sqlstate == BAD_DSN:
        return Fault.CONFIGURATION
    if isinstance(error, RowError) or (sqlstate == _NOT_NULL and _is_null_of_row(error)):
        return Fault.DATA
    if sqlstate[:2] in _PASSING_CLASSES:
        return Fault.RETRY
    if sqlstate in _SCHEMA_CODES or sqlstate[:2] in _CONFIGURATION_CLASSES:
        return Fault.CONFIGURATION
    # No row is to blame for what happens in the ledger.
    if lacks_partition(error) or _meets_bound(error) or _is_of_ledger(error):
        return Fault.CONFIGURATION
    return Fault.DATA


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error, or what its text allows to conclude, or an empty text."""
    return identify(error).sqlstate if isinstance(error, Error) else ""


def note_copying(error: BaseException, table: int) -> None:
    """Note on an error which table was written: its context may name a partition."""
    error.add_note(f"{_COPYING}{TABLES[table].qualified_name}")


@contextmanager
def entering_ledger() -> Iterator[None]:
    """Note on an error that it is of the ledger, which its fields tell of constraints only."""
    try:
        yield
    except Error as error:
        error.add_note(_ENTERING)
        raise


def bad_row(error: BaseException) -> tuple[int, int] | None:
    """Tell which row an error of a batch is about, if the server said so.

    The context is read and never repeated: it quotes the row where COPY is not binary, and always
    where a value is JSON. That comes before the line of the COPY, which is the last, being the
    outermost; and in a binary COPY that line has nothing of the row in it.

    Returns:
        The index into `TABLES`, and the row's number within the batch's rows of that table, from 0.
        The number is the server's: it may be beyond the batch.
    """
    if isinstance(error, RowError):
        return error.place
    table = _table_noted(error)
    if table is None or not isinstance(error, Error):
        return None
    last_line = (error.diag.context or "").rstrip("\n").rpartition("\n")[2]
    match = _COPY_LINE.fullmatch(last_line)
    # Binary COPY counts its tuples from 1.
    return (table, int(match[1]) - 1) if match and int(match[1]) else None


def lacks_partition(error: BaseException) -> bool:
    """Tell whether a row's date has no partition.

    A CHECK that is violated has a name; the bounds of partitions that do not exist have none. What
    a trigger raises under that code names no table either.
    """
    if not isinstance(error, Error) or sqlstate_of(error) != _NO_PARTITION:
        return False
    is_hidden = error.sqlstate != _NO_PARTITION
    return error.diag.constraint_name is None and (is_hidden or error.diag.table_name is not None)


def _meets_bound(error: BaseException) -> bool:
    """Tell whether a conversion that was interrupted refuses every row of a time."""
    if not isinstance(error, Error) or sqlstate_of(error) != _NO_PARTITION:
        return False
    return (error.diag.constraint_name or "").endswith(_BOUND)


def has_run_out(error: BaseException) -> bool:
    """Tell whether the server ended the statement because it took too long."""
    return sqlstate_of(error) == _TIMEOUT


def note_remedy(error: BaseException, words: str) -> None:
    """Note on an error what mends it, where somebody knows better than its code does."""
    error.add_note(f"{_MENDED_BY}{words}")


def remedy(error: BaseException) -> str:
    """Say what mends an error, in one clause."""
    if isinstance(error, AuditLogError):
        return str(error)
    if noted := _remedy_noted(error):
        return noted
    sqlstate = sqlstate_of(error)
    if sqlstate[:2] not in _PASSING_CLASSES | _CONFIGURATION_CLASSES and _is_of_ledger(error):
        return _LEDGER_REMEDY
    if lacks_partition(error) or _meets_bound(error):
        return _NO_PARTITION_REMEDY if lacks_partition(error) else _BOUND_REMEDY
    if sqlstate == BAD_DSN:
        return f"the DSN is not a connection string: {remedy_of(BAD_DSN)}"
    known = identify(error).remedy if isinstance(error, Error) else ""
    advice = known or "see `auditlog doctor`"
    passes = classify(error) is Fault.RETRY
    return f"{advice}; writing goes on when the database is back" if passes else advice


def _is_null_of_row(error: BaseException) -> bool:
    """Tell whether a row has the null: no row of ours has a value for a column of the operator's.

    In a table of the operator's it is a trigger's, and comes from the row.
    """
    return isinstance(error, Error) and (
        error.diag.column_name in _OUR_COLUMNS
        or error.diag.schema_name not in {None, BATCHES.schema}
    )


def _remedy_noted(error: BaseException) -> str:
    notes: list[str] = getattr(error, "__notes__", [])
    return next((n.removeprefix(_MENDED_BY) for n in notes if n.startswith(_MENDED_BY)), "")


def _table_noted(error: BaseException) -> int | None:
    for note in getattr(error, "__notes__", ()):
        for index, table in enumerate(TABLES):
            if note == f"{_COPYING}{table.qualified_name}":
                return index
    return None


def _is_of_ledger(error: BaseException) -> bool:
    if not isinstance(error, Error):
        return False
    place = (error.diag.schema_name or BATCHES.schema, error.diag.table_name)
    return place == (BATCHES.schema, BATCHES.name) or _ENTERING in getattr(error, "__notes__", ())
