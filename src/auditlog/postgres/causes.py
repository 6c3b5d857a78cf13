"""A connection for maintenance, and what a failure means: the cause in a line and the remedy.

Blocking. The texts may name host, user and database, as libpq's do; never a password, nor a part
of one that a badly written DSN made look like something else.
"""

from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from auditlog.remedies import BAD_DSN, identify

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

    Name and time-out of the connection are the DSN's, where it has them.

    Raises:
        psycopg.Error: `explain` says what it means.
    """
    given = conninfo_to_dict(dsn)
    if "@" in str(given.get("host") or ""):
        raise psycopg.ProgrammingError("part of the DSN's password was read as its host")
    return psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=given.get("connect_timeout", CONNECT_TIMEOUT_S),
        # Prepared statements live in a server connection, and a pooler changes that underneath.
        prepare_threshold=None,
        fallback_application_name="auditlog",
        client_encoding="utf8",
    )


def explain(error: psycopg.Error) -> Cause:
    """Return the cause in short with its remedy, as it is for whoever keeps the schema."""
    sqlstate, words, remedy = identify(error)
    return Cause(words, _OF_MAINTENANCE.get(sqlstate) or remedy or "see the server's log")


def is_bad_dsn(error: psycopg.Error) -> bool:
    """Tell whether the DSN could not be read, so that nobody was asked at all."""
    return identify(error).sqlstate == BAD_DSN


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


_NAME_IS_TAKEN = (
    "the database has an object of this name that auditlog did not make:"
    " rename or drop it, or use another database"
)
# What a sink cannot run into, or would have to mend in another way.
_OF_MAINTENANCE = {
    "42501": "run it as the owner of schemas logstore and projections, or make this role their"
    " owner (ALTER SCHEMA ... OWNER TO ...); where there are none yet, let it make them:"
    " GRANT CREATE ON DATABASE ... TO ...",
    "42710": _NAME_IS_TAKEN,  # an object of another kind
    "42723": _NAME_IS_TAKEN,  # a function
    "42P06": _NAME_IS_TAKEN,  # a schema
    "42P07": _NAME_IS_TAKEN,  # a table, an index or a view
    "55P03": "another transaction holds a lock on it: try again when that has ended"
    " (pg_stat_activity shows it)",
}
