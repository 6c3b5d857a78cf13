"""An error of the database → what may be done about it, by its SQLSTATE.

Only what can succeed is retried. Codes: PostgreSQL, Appendix A; a class is the first two
characters. A failure without a code is the network's, or a server's that died mid-sentence.
"""

from enum import Enum

from psycopg import Error

from auditlog.errors import AuditLogError
from auditlog.remedies import BAD_DSN, identify, remedy_of
from auditlog.tables import BATCHES


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

_NO_PARTITION = "23514"

_LEDGER_REMEDY = (
    "the ledger logstore.batches refuses the batch, as when its sequence was not carried over to"
    " this server: SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'),"
    " max(sequence)) FROM logstore.batches"
)


def classify(error: BaseException) -> Fault:
    """Sort an error of a batch or of a connection attempt into its class."""
    sqlstate = _sqlstate(error)
    if isinstance(error, AuditLogError) or sqlstate == BAD_DSN:
        return Fault.CONFIGURATION
    if sqlstate in _SCHEMA_CODES or sqlstate[:2] in _CONFIGURATION_CLASSES:
        return Fault.CONFIGURATION
    if _lacks_partition(error):
        return Fault.CONFIGURATION
    if sqlstate[:2] in _DATA_CLASSES:
        # No row is to blame for what happens in the ledger.
        return Fault.CONFIGURATION if _is_of_ledger(error) else Fault.DATA
    return Fault.RETRY


def remedy(error: BaseException) -> str:
    """Say what mends an error, in one clause."""
    if isinstance(error, AuditLogError):
        return str(error)
    sqlstate = _sqlstate(error)
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


def _sqlstate(error: BaseException) -> str:
    """The error's SQLSTATE, or what its text allows to conclude, or nothing."""
    return identify(error).sqlstate if isinstance(error, Error) else ""


def _lacks_partition(error: BaseException) -> bool:
    """A CHECK that is violated has a name; the bounds of partitions that do not exist have none."""
    return (
        isinstance(error, Error)
        and error.sqlstate == _NO_PARTITION
        and error.diag.constraint_name is None
    )


def _is_of_ledger(error: BaseException) -> bool:
    return isinstance(error, Error) and error.diag.table_name == BATCHES.name
