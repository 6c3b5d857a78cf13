"""An error of the database → what may be done about it, by its SQLSTATE.

Only what can succeed is retried. Codes: PostgreSQL, Appendix A; a class is the first two
characters. A failure without a code is the network's, or a server's that died mid-sentence.
"""

from enum import Enum

from psycopg import Error


class Fault(Enum):
    """What a failed batch needs."""

    RETRY = "the connection, or the server's means: wait and try again"
    DATA = "one of the rows: split until it is alone"
    CONFIGURATION = "schema, rights or credentials: tell somebody, and look again now and then"


# No partition for the row (23514) or a duplicate (23505) is one row's fault as well.
_DATA_CLASSES = frozenset({"21", "22", "23", "54"})
_CONFIGURATION_CLASSES = frozenset({"0A", "28", "3D", "3F", "42"})

_REMEDIES = {
    "28": "check user, password and pg_hba.conf",
    "3D": "the database does not exist: create it, or correct the DSN",
    "42501": "grant the rights: `auditlog doctor` prints the statements",
    "42P01": "the schema is missing: run `auditlog migrate`",
    "3F": "the schema is missing: run `auditlog migrate`",
    "42703": "the schema is of another version: run `auditlog migrate`",
}


def classify(error: BaseException) -> Fault:
    """Sort an error of a batch or of a connection attempt into its class."""
    sqlstate = getattr(error, "sqlstate", None)
    if not sqlstate:
        # libpq gives no SQLSTATE for a refused login or an unknown database, only its text.
        return Fault.CONFIGURATION if _refused_login(error) else Fault.RETRY
    if sqlstate[:2] in _DATA_CLASSES:
        return Fault.DATA
    if sqlstate[:2] in _CONFIGURATION_CLASSES:
        return Fault.CONFIGURATION
    return Fault.RETRY


def remedy(error: BaseException) -> str:
    """Say what mends an error, in one clause."""
    sqlstate = getattr(error, "sqlstate", None) or ("28" if _refused_login(error) else "")
    found = _REMEDIES.get(sqlstate) or _REMEDIES.get(sqlstate[:2])
    return found or "see `auditlog doctor`; writing goes on when the database is back"


def _refused_login(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, Error) and any(
        sign in text
        for sign in (
            "authentication failed",
            "no pg_hba.conf entry",
            "does not exist",
            "no password",
        )
    )
