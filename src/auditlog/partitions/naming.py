"""Names in schema `logstore`: what is behind one, and what an index is called on another table."""

from hashlib import sha256
from typing import Any, cast

from psycopg import Connection

from auditlog.partitions.session import scalar

_MAX_NAME = 63
_DIGEST = 8

_OID = """
    SELECT (
        SELECT oid FROM pg_catalog.pg_class WHERE relname = %s
            AND relnamespace = 'logstore'::regnamespace AND relkind IN ('r', 'p')
    )
"""


def oid_of(conn: Connection[Any], name: str) -> int | None:
    """Return the identity of a table of the schema."""
    return cast("int | None", scalar(conn, _OID, name))


def index_name(name: str, table: str, other: str) -> str:
    """Return what an index of a table is called where it is another table's."""
    prefix = f"{table}_"
    moved = f"{other}_{name.removeprefix(prefix)}"
    if len(moved.encode()) <= _MAX_NAME:
        return moved
    digest = sha256(moved.encode()).hexdigest()[:_DIGEST]
    head = moved.encode()[: _MAX_NAME - _DIGEST - 1].decode(errors="ignore")
    return f"{head}_{digest}"
