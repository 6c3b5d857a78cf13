"""What the database knows of the archives that its partitions went to."""

from typing import Any

from psycopg import Connection
from psycopg.rows import scalar_row

from auditlog.partitions.archive.statements import statement


def known_digests(conn: Connection[Any], uri: str) -> frozenset[bytes]:
    """Return the SHA-256 of the manifests that were written there; empty: it knows of none."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return frozenset(cursor.execute(statement("known"), {"uri": uri}).fetchall())
