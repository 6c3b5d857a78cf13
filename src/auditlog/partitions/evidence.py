"""What maintenance did with the trail, as rows of the trail: committed with the deed itself."""

from typing import Any

from psycopg import Connection

from auditlog.errors import PartitionError
from auditlog.partitions.session import scalar
from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.database.transactional import insert
from auditlog.sink.encoding.encode import Encoder

AGGREGATE = "auditlog.table"

# The server's clock, not this machine's, which may be the one that is wrong; and its partition is
# made, since a hold is placed, or a table enabled, just when nobody had seen to that. A DEFAULT
# takes the row as it is, and may have others by which the partition could not be made.
_NOW = """
    SELECT
        (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
        CASE WHEN NOT EXISTS (
            SELECT FROM pg_catalog.pg_partitioned_table
            WHERE partrelid = 'logstore.logs'::regclass AND partdefid <> 0
        ) THEN logstore.ensure_partition('logs', statement_timestamp()) END
"""


_MAY_RECORD = """
    SELECT has_table_privilege('logstore.logs', 'INSERT')
        AND has_table_privilege('logstore.batches', 'INSERT')
        AND has_function_privilege('logstore.ensure_partition(text, timestamptz)', 'EXECUTE')
"""


def require_rights(conn: Connection[Any]) -> None:
    """Find out before a deed begins whether it can be told when it is done.

    Raises:
        PartitionError: this role may not.
    """
    if not scalar(conn, _MAY_RECORD):
        raise PartitionError(
            "this role may not record what it does: run it as the owner of the tables, or GRANT"
            " INSERT ON logstore.logs, logstore.batches and EXECUTE ON FUNCTION"
            " logstore.ensure_partition(text, timestamptz) to it"
        )


def record(
    conn: Connection[Any], event_type: str, table: str, message: str, **metadata: Any
) -> None:
    """Add a row, with its entry in the ledger, to the transaction that the connection is in.

    Args:
        conn: With the right to insert into `logstore.logs` and `logstore.batches`, and to execute
            `logstore.ensure_partition`.
        event_type: Such as `audit.partition.dropped`.
        table: Table that it is about, the row's aggregate; "*" for all.
        message: A sentence.
        metadata: Stored under `audit.NAME`.

    Raises:
        psycopg.Error: the row cannot be stored, and so the deed must not be done.
    """
    now_us = _now(conn)
    entry = LogRecord(
        event_type=event_type,
        occurrence_date=now_us,
        log_date=now_us,
        aggregate_type=AGGREGATE,
        aggregate_id=table,
        user_id=conn.info.user,
        message=message,
        metadata={f"audit.{name}": value for name, value in metadata.items()},
    )
    _, row = Encoder(Settings()).encode(entry)
    insert(conn, row)


def _now(conn: Connection[Any]) -> int:
    """Return the server's time, in microseconds since 1970; rows of that time have a partition."""
    return int(scalar(conn, _NOW))
