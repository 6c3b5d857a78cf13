"""A connection for maintenance, and what a failure means: the cause in a line and the remedy.

Blocking. The texts may name host, user and database, as libpq's do; never a password, nor a part
of one that a badly written DSN made look like something else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from auditlog.remedies import BAD_DSN, identify

Connection: TypeAlias = psycopg.Connection[Any]

CONNECT_TIMEOUT_S = 10
# A server that vanished while a long statement ran would be waited for for hours.
_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
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
        **{name: value for name, value in _KEEPALIVE.items() if name not in given},
        # Prepared statements live in a server connection, and a pooler changes that underneath.
        prepare_threshold=None,
        fallback_application_name="auditlog",
        client_encoding="utf8",
    )


def explain(error: psycopg.Error, remedies: Mapping[str, str] | None = None) -> Cause:
    """Return the cause in short with its remedy; `remedies`, by SQLSTATE, precede the usual."""
    sqlstate, words, remedy = identify(error)
    own = (remedies or {}).get(sqlstate)
    return Cause(words, own or remedy or "see the server's log")


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
