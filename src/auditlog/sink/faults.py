"""An error of the database → what may be done about it, by its SQLSTATE, and which row is to blame.

Only what can succeed is retried. Codes: PostgreSQL, Appendix A; a class is the first two
characters. A failure without a code is the network's, or a server's that died mid-sentence.
"""

import re
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


# A duplicate (23505) is one row's fault as well, and so is what a trigger or a rule of the
# operator's raises on it (P0, 44, 2F, 38, 39): waiting would hold up every row behind it.
_DATA_CLASSES = frozenset({"21", "22", "23", "2F", "38", "39", "44", "54", "P0"})
_CONFIGURATION_CLASSES = frozenset({"0A", "28", "3D", "3F", "42"})
# Every row is refused when a column was added as NOT NULL (23502) or has another type (22P03,
# 22P04): split down to single rows, all of them would be given up.
_SCHEMA_CODES = frozenset({"22P03", "22P04", "23502"})

_NOT_NULL = "23502"
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

_LEDGER_REMEDY = (
    "the ledger logstore.batches refuses the batch, as when its sequence was not carried over to"
    " this server: SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'),"
    " max(sequence)) FROM logstore.batches"
)


class RowError(DataError):
    """What a batch is refused for because of one row, found out on our side."""

    def __init__(self, sqlstate: str, table: int, row: int, words: str) -> None:
        """Name the row.

        Args:
            sqlstate: The code that comes nearest.
            table: Index into `TABLES`.
            row: Its number within the batch's rows of that table.
            words: What is wrong; nothing out of the row.
        """
        super().__init__(words)
        self.sqlstate = sqlstate
        self.place = (table, row)


def classify(error: BaseException) -> Fault:
    """Sort an error of a batch or of a connection attempt into its class."""
    sqlstate = sqlstate_of(error)
    if isinstance(error, AuditLogError) or sqlstate == BAD_DSN:
        return Fault.CONFIGURATION
    if isinstance(error, RowError) or (sqlstate == _NOT_NULL and _is_of_our_column(error)):
        return Fault.DATA
    if sqlstate in _SCHEMA_CODES or sqlstate[:2] in _CONFIGURATION_CLASSES:
        return Fault.CONFIGURATION
    if _lacks_partition(error):
        return Fault.CONFIGURATION
    if sqlstate[:2] in _DATA_CLASSES:
        # No row is to blame for what happens in the ledger.
        return Fault.CONFIGURATION if _is_of_ledger(error) else Fault.DATA
    return Fault.RETRY


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error, or what its text allows to conclude, or an empty text."""
    return identify(error).sqlstate if isinstance(error, Error) else ""


def note_copying(error: BaseException, table: int) -> None:
    """Note on an error which table was written: its context may name a partition."""
    error.add_note(f"{_COPYING}{TABLES[table].qualified_name}")


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


def remedy(error: BaseException) -> str:
    """Say what mends an error, in one clause."""
    if isinstance(error, AuditLogError):
        return str(error)
    sqlstate = sqlstate_of(error)
    if sqlstate[:2] in _DATA_CLASSES and _is_of_ledger(error):
        return _LEDGER_REMEDY
    if _lacks_partition(error):
        return "the table has no partition for the rows' date: create it"
    if sqlstate == BAD_DSN:
        return f"the DSN is not a connection string: {remedy_of(BAD_DSN)}"
    known = identify(error).remedy if isinstance(error, Error) else ""
    advice = known or "see `auditlog doctor`"
    if classify(error) is Fault.RETRY:
        return f"{advice}; writing goes on when the database is back"
    return advice


def _lacks_partition(error: BaseException) -> bool:
    """A CHECK that is violated has a name; the bounds of partitions that do not exist have none."""
    return (
        isinstance(error, Error)
        and sqlstate_of(error) == _NO_PARTITION
        and error.diag.constraint_name is None
    )


def _is_of_our_column(error: BaseException) -> bool:
    """Others are the operator's: no row that we write has a value for them."""
    return isinstance(error, Error) and error.diag.column_name in _OUR_COLUMNS


def _table_noted(error: BaseException) -> int | None:
    for note in getattr(error, "__notes__", ()):
        for index, table in enumerate(TABLES):
            if note == f"{_COPYING}{table.qualified_name}":
                return index
    return None


def _is_of_ledger(error: BaseException) -> bool:
    return isinstance(error, Error) and error.diag.table_name == BATCHES.name
