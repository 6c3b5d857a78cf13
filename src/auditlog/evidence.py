"""What people and maintenance did with the trail, as rows of the trail: in the deed's transaction.

Blocking; for the command line and for jobs. The application's own events go through
`AuditLog.record_within`.
"""

from typing import Any, cast

from psycopg import Connection
from psycopg.rows import scalar_row

from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.database.transactional import insert
from auditlog.sink.encoding.encode import Encoder

RIGHTS = (
    "run it as the owner of the tables, or GRANT INSERT ON logstore.logs, logstore.batches and"
    " EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz) to it"
)
"""What mends `may_record` being false."""

# The server's clock, not this machine's, which may be the one that is wrong; and its partition is
# made, since a hold is placed, or a table enabled, just when nobody had seen to that. A DEFAULT
# takes the row as it is, and may have others by which the partition could not be made.
_NOW = b"""
    SELECT
        (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
        CASE WHEN NOT EXISTS (
            SELECT FROM pg_catalog.pg_partitioned_table
            WHERE partrelid = 'logstore.logs'::regclass AND partdefid <> 0
        ) THEN logstore.ensure_partition('logs', statement_timestamp()) END
"""

_MAY_RECORD = b"""
    SELECT has_table_privilege('logstore.logs', 'INSERT')
        AND has_table_privilege('logstore.batches', 'INSERT')
        AND has_function_privilege('logstore.ensure_partition(text, timestamptz)', 'EXECUTE')
"""


def may_record(conn: Connection[Any]) -> bool:
    """Find out before a deed begins whether it can be told when it is done."""
    return bool(_scalar(conn, _MAY_RECORD))


def record(
    conn: Connection[Any],
    event_type: str,
    aggregate: tuple[str, str],
    message: str,
    **metadata: Any,
) -> None:
    """Add a row, with its entry in the ledger, to the transaction that the connection is in.

    Args:
        conn: With the right to insert into `logstore.logs` and `logstore.batches`, and to execute
            `logstore.ensure_partition`.
        event_type: Such as `audit.partition.dropped`.
        aggregate: What it is about, as type and identifier.
        message: A sentence.
        metadata: Stored under `audit.NAME`.

    Raises:
        psycopg.Error: the row cannot be stored, and so the deed must not be done.
    """
    now_us = int(_scalar(conn, _NOW))
    kind, identifier = aggregate
    entry = LogRecord(
        event_type=event_type,
        occurrence_date=now_us,
        log_date=now_us,
        aggregate_type=kind,
        aggregate_id=identifier,
        user_id=conn.info.user,
        message=message,
        metadata={f"audit.{name}": value for name, value in metadata.items()},
    )
    _, row = Encoder(Settings()).encode(entry)
    insert(conn, row)


def _scalar(conn: Connection[Any], query: bytes) -> Any:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cast("Any", cursor.execute(query).fetchone())
