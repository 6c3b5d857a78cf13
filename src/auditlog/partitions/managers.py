"""Whether something else looks after a table already: then this package stands down."""

from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import Connection, sql

from auditlog.partitions.lookups import rows

_TABLE: dict[str, tuple[str, LiteralString]] = {
    "hypertables": (
        "it is a hypertable of TimescaleDB: use its policies",
        "SELECT 1 FROM {} WHERE hypertable_schema = 'logstore' AND hypertable_name = %(table)s",
    ),
    "pg_dist_partition": (
        "it is a distributed table of Citus: use create_time_partitions and"
        " drop_old_time_partitions",
        "SELECT 1 FROM {} WHERE logicalrelid::oid = %(oid)s::oid",
    ),
    "part_config": (
        "pg_partman manages it: remove it from part_config first",
        "SELECT 1 FROM {} WHERE parent_table = 'logstore.' || %(table)s",
    ),
}


def find_manager(conn: Connection[Any], table: str, oid: int, unread: dict[str, str]) -> str | None:
    """Return who else manages the table and what to do; None: nobody.

    Where that may not be read, it is added to `unread`.
    """
    for place in rows(conn, "catalog_managers"):
        why, query = _TABLE[place["name"]]
        name = sql.Identifier(place["schema"], place["name"])
        if not place["may_read"]:
            unread[f"{place['schema']}.{place['name']}"] = _grant(place)
        elif conn.execute(sql.SQL(query).format(name), {"table": table, "oid": oid}).fetchone():
            return why
    return None


def _grant(place: Mapping[str, Any]) -> str:
    return f"GRANT SELECT ON {place['schema']}.{place['name']} to the role of maintenance"
