"""A connection for maintenance, and what a failure means: the cause in a line and the remedy.

Blocking. The texts may name host, user and database, as libpq's do; never a password, nor a part
of one that a badly written DSN made look like something else.
"""

import re
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

Connection: TypeAlias = psycopg.Connection[Any]

CONNECT_TIMEOUT_S = 10
OLDEST_SERVER, NEWEST_SERVER = 14, 18


class Cause(NamedTuple):
    """Why something failed, and what to do about it."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def connect(dsn: str) -> Connection:
    """Open an autocommit connection that also works through a pooler in transaction mode.

    Raises:
        psycopg.Error: `explain` says what it means.
    """
    host = str(conninfo_to_dict(dsn).get("host") or "")
    if "@" in host:
        raise psycopg.ProgrammingError(_BAD_DSN.problem)
    # Prepared statements live in a server connection, and a pooler changes that underneath.
    return psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        prepare_threshold=None,
        application_name="auditlog",
        client_encoding="utf8",
    )


def explain(error: psycopg.Error) -> Cause:
    """Return the cause in short with its remedy; the server's own words where none is known."""
    text = str(error)
    if _is_bad_dsn(error, text):
        return _BAD_DSN
    for kind, remedy in _BY_SQLSTATE:
        if isinstance(error, kind):
            return Cause(error.diag.message_primary or text, remedy)
    for pattern, remedy in _BY_TEXT:
        if match := re.search(pattern, text):
            return Cause(match[0], remedy)
    return Cause(error.diag.message_primary or text.partition("\n")[0], "see the server's log")


def wrong_version(server_version: int) -> Cause | None:
    """Judge `server_version` as libpq gives it, 140005 for 14.5; None if it will do."""
    major = server_version // 10_000
    if major >= OLDEST_SERVER:
        return None
    return Cause(f"the server is PostgreSQL {major}", f"upgrade it to {OLDEST_SERVER} or newer")


def wrong_encoding(server_encoding: str | None) -> Cause | None:
    """Judge the encoding of a database; None if it will do."""
    if server_encoding == "UTF8":
        return None
    return Cause(
        f"the database is encoded in {server_encoding} and cannot hold every text",
        "make another: createdb --encoding=UTF8 --template=template0 NAME",
    )


def _is_bad_dsn(error: psycopg.Error, text: str) -> bool:
    # A ":", "/" or "@" in a password moves part of it into the host or the port, and libpq's
    # message quotes that; so these messages are never repeated.
    if error.sqlstate is None and isinstance(error, psycopg.ProgrammingError):
        return True
    return "invalid integer value" in text or "invalid port number" in text


_BAD_DSN = Cause(
    "the DSN is not a connection string",
    "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE with special characters of the password"
    " percent-encoded (@ is %40, / is %2F), or host=... dbname=... user=...",
)

_NAME_IS_TAKEN = (
    "the database has an object of this name that auditlog did not make:"
    " rename or drop it, or use another database"
)
_BY_SQLSTATE: tuple[tuple[type[psycopg.Error], str], ...] = (
    (
        errors.InsufficientPrivilege,
        "run it as the owner of schemas logstore and projections, or give this role the right to"
        " make them: GRANT CREATE ON DATABASE ... TO ...",
    ),
    (
        errors.LockNotAvailable,
        "another transaction holds a lock on it: try again when that has ended"
        " (pg_stat_activity shows it)",
    ),
    (errors.ReadOnlySqlTransaction, "the server takes no writes: use the DSN of the primary"),
    (errors.DuplicateSchema, _NAME_IS_TAKEN),
    (errors.DuplicateTable, _NAME_IS_TAKEN),
    (errors.DuplicateFunction, _NAME_IS_TAKEN),
    (errors.DuplicateObject, _NAME_IS_TAKEN),
)

# libpq gives no SQLSTATE for a connection that failed. Poolers have texts of their own.
_BY_TEXT = (
    (
        r"connection to server (at|on) [^\n]*Connection refused",
        "start the server, or correct host and port in the DSN",
    ),
    (
        r"connection to server on socket [^\n]*No such file or directory",
        "start the server, or correct the folder of its socket in the DSN",
    ),
    (
        r"failed to resolve host '[^'\n]*'",
        "correct the host in the DSN, or ask whoever keeps the DNS",
    ),
    (
        r"\w+ authentication failed for user \"[^\"\n]*\"|SASL authentication failed"
        r"|fe_sendauth: no password supplied",
        "correct the password in the DSN or in ~/.pgpass",
    ),
    (r"no pg_hba.conf entry [^\n]*", "let the server's pg_hba.conf admit this user from here"),
    (
        r"database \"[^\"\n]*\" does not exist|no such database: [^\n]*",
        "create it (createdb NAME), or correct the name in the DSN",
    ),
    (
        r"role \"[^\"\n]*\" does not exist|no such user[^\n]*",
        "create it (createuser NAME), or correct the user in the DSN",
    ),
    (
        r"(connection )?time(d out|out expired)|connection timeout expired",
        "correct host and port in the DSN, or let the firewall pass it",
    ),
    (
        r"(sorry, )?too many clients already|remaining connection slots are reserved[^\n]*"
        r"|too many connections for [^\n]*|no more connections allowed[^\n]*",
        "raise max_connections, or use a pooler",
    ),
    (r"the database system is [^\n]*", "wait until the server is up"),
    (
        r"(SSL|certificate)[^\n]*|server does not support SSL[^\n]*",
        "correct sslmode and sslrootcert in the DSN",
    ),
)
