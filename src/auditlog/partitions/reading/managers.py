"""Whether something else looks after a table already: then this package stands down."""

from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import Connection, sql

from auditlog.partitions.lookups import rows

_TABLE: dict[str, tuple[str, LiteralString]] = {
    "hypertables": (
        "it is a hypertable of TimescaleDB: use its policies",
        "SELECT 1 FROM {place} WHERE hypertable_schema = 'logstore' AND hypertable_name = {table}",
    ),
    "pg_dist_partition": (
        "it is a distributed table of Citus: use create_time_partitions and"
        " drop_old_time_partitions",
        "SELECT 1 FROM {place} WHERE logicalrelid::oid = {oid}::oid",
    ),
    "part_config": (
        "pg_partman manages it: remove it from part_config first",
        "SELECT 1 FROM {place} WHERE parent_table = 'logstore.' || {table}",
    ),
}


def find_manager(conn: Connection[Any], table: str, oid: int, unread: dict[str, str]) -> str | None:
    """Return who else manages the table and what to do; None: nobody.

    Where that may not be read, it is added to `unread`.
    """
    for place in rows(conn, "reading/managers"):
        why, query = _TABLE[place["name"]]
        if not place["may_read"]:
            unread[f"{place['schema']}.{place['name']}"] = _grant(place)
        elif conn.execute(_asked(query, place, table, oid)).fetchone():
            return why
    return None


def _asked(query: LiteralString, place: Mapping[str, Any], table: str, oid: int) -> sql.Composed:
    # Without parameters, beside which a schema with a % in its name would be taken for one.
    name = sql.Identifier(place["schema"], place["name"])
    return sql.SQL(query).format(place=name, table=table, oid=oid)


def _grant(place: Mapping[str, Any]) -> str:
    return f"GRANT SELECT ON {place['schema']}.{place['name']} to the role of maintenance"
