"""What partitions lack of their table: that is what attaching does not hand down, or hands took."""

from typing import Any

from psycopg import Connection

from auditlog.partitions.lookups import rows

PRIMARY_KEY = "primary key"
INDEX = "index "
"""The name of the table's index follows."""


def drift(conn: Connection[Any], table: str) -> dict[int, tuple[str, ...]]:
    """Return what each partition of a table of the schema lacks, by its OID; of most nothing.

    In words: `owner`, `grants` (too many), `guard`, `row security`, `primary key`, `index NAME`.
    """
    return {row["oid"]: tuple(row["lacks"]) for row in rows(conn, "reading/drift", table=table)}
