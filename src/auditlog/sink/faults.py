"""An error of the database → what may be done about it, by its SQLSTATE.

Only what can succeed is retried. Codes: PostgreSQL, Appendix A; a class is the first two
characters. A failure without a code is the network's, or a server's that died mid-sentence.
"""

import re
from enum import Enum

from psycopg import Error, ProgrammingError

from auditlog.errors import AuditLogError
from auditlog.tables import BATCHES


class Fault(Enum):
    """What a failed batch needs."""

    RETRY = "the connection, or the server's means: wait and try again"
    DATA = "one of the rows: split until it is alone"
    CONFIGURATION = "schema, rights or credentials: tell somebody, and look again now and then"


# No partition for the row (23514) or a duplicate (23505) is one row's fault as well.
_DATA_CLASSES = frozenset({"21", "22", "23", "54"})
_CONFIGURATION_CLASSES = frozenset({"0A", "28", "3D", "3F", "42"})
# Every row is refused when a column was added as NOT NULL (23502) or has another type (22P03,
# 22P04): split down to single rows, all of them would be given up.
_SCHEMA_CODES = frozenset({"22P03", "22P04", "23502"})

_BAD_DSN = "bad DSN"
_OTHER_SCHEMA = "the schema is of another version, or was changed by hand: run `auditlog doctor`"
_REMEDIES = {
    "08P01": "a column has another type, or a pooler gave up: run `auditlog doctor`",
    _BAD_DSN: "the DSN is not a connection string: write postgresql://USER:PASSWORD@HOST/DATABASE",
    "22P03": _OTHER_SCHEMA,
    "22P04": _OTHER_SCHEMA,
    "23502": _OTHER_SCHEMA,
    "25006": "the server takes no writes: use the DSN of the primary",
    "28": "check user, password and pg_hba.conf",
    "3D": "the database does not exist: create it, or correct the DSN",
    "42501": "grant the rights: `auditlog doctor` prints the statements",
    "42P01": "the schema is missing: run `auditlog migrate`",
    "3F": "the schema is missing: run `auditlog migrate`",
    "42703": "the schema is of another version: run `auditlog migrate`",
}


_LEDGER_REMEDY = (
    "the ledger logstore.batches refuses the batch, as when its sequence was not carried over to"
    " this server: SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'),"
    " max(sequence)) FROM logstore.batches"
)
# libpq gives no SQLSTATE for a refused login or an unknown database, only its text.
_SIGNS = (
    (_BAD_DSN, re.compile("invalid integer value|invalid port number")),
    ("28", re.compile("authentication failed|no pg_hba.conf entry|no password|no such user")),
    ("28", re.compile('role ".*" does not exist')),
    ("3D", re.compile('database ".*" does not exist|no such database')),
)


def classify(error: BaseException) -> Fault:
    """Sort an error of a batch or of a connection attempt into its class."""
    sqlstate = _sqlstate(error)
    if isinstance(error, AuditLogError) or sqlstate == _BAD_DSN:
        return Fault.CONFIGURATION
    if sqlstate in _SCHEMA_CODES or sqlstate[:2] in _CONFIGURATION_CLASSES:
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
    found = _REMEDIES.get(sqlstate) or _REMEDIES.get(sqlstate[:2])
    return found or "see `auditlog doctor`; writing goes on when the database is back"


def _sqlstate(error: BaseException) -> str:
    """The error's SQLSTATE, or what its text allows to conclude, or nothing."""
    if not isinstance(error, Error):
        return ""
    if error.sqlstate:
        return error.sqlstate
    if isinstance(error, ProgrammingError):
        return _BAD_DSN
    text = str(error)
    return next((sqlstate for sqlstate, sign in _SIGNS if sign.search(text)), "")


def _is_of_ledger(error: BaseException) -> bool:
    return isinstance(error, Error) and error.diag.table_name == BATCHES.name
