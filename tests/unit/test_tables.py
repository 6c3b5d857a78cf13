import re

import pytest

from auditlog.projections import PROJECTIONS
from auditlog.records import ExecutionLogRecord, LogRecord, QuotaLogRecord
from auditlog.tables import BATCHES, DEAD_LETTERS, EXECUTION_LOGS, LOGS, QUOTA_LOGS, TABLES

ALL_TABLES = (*TABLES, BATCHES, DEAD_LETTERS, *PROJECTIONS)
MAX_BTREE_ROW = 2704
BEGINNING = re.compile(r'"left"\(\((\w+) ->> \'[a-z._]+\'::text\), (\d+)\) COLLATE "C"')
"""The beginning of a text within a jsonb, so many characters of it."""
EXCHANGE = "\"left\"((metadata ->> 'audit.exchange_id'::text)"


@pytest.mark.parametrize(
    ("record", "table"),
    [(LogRecord, LOGS), (ExecutionLogRecord, EXECUTION_LOGS), (QuotaLogRecord, QUOTA_LOGS)],
)
def test_record_has_a_field_for_every_column(record: type, table) -> None:
    """What the application fills is what the table holds, name for name."""
    assert set(record.__slots__) - {"low_priority"} == set(table.column_names)


def test_sink_writes_three_tables_in_a_fixed_order() -> None:
    """The ledger has a count for each, named like the table."""
    assert TABLES == (LOGS, EXECUTION_LOGS, QUOTA_LOGS)
    assert [table.name for table in TABLES] == [
        name for name in BATCHES.column_names if name.endswith("logs")
    ]


def test_copy_names_every_column_in_order() -> None:
    """A column that a later version appends does not shift the others."""
    assert (
        EXECUTION_LOGS.copy_statement
        == "COPY logstore.execution_logs (instance_id, log_id, execution_id, target_id, log_date,"
        " log_level, message, stack_trace, metadata) FROM STDIN (FORMAT binary)"
    )


def test_index_definition_reads_as_postgresql_prints_it() -> None:
    """Method, storage parameters and predicate stand where pg_get_indexdef puts them."""
    definitions = {index.name: LOGS.index_definition(index) for index in LOGS.indexes}
    assert definitions["logs_in_time"] == (
        "CREATE INDEX logs_in_time ON logstore.logs USING brin (log_date) WITH (autosummarize='on')"
    )
    assert definitions["logs_newest_of_user"] == (
        "CREATE INDEX logs_newest_of_user ON logstore.logs USING btree"
        " (instance_id, user_id, log_date DESC) WHERE (user_id IS NOT NULL)"
    )


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_index_is_led_by_the_tenant_or_by_time(table) -> None:
    """A query that names a tenant never reads another tenant's part of an index."""
    leaders = {index.key.split(",")[0] for index in table.indexes}
    # The id of an exchange is a UUIDv7, led by its time; the tenant may not be known yet when an
    # exchange begins, so its two rows may differ in that.
    assert leaders <= {"instance_id", "log_date", "sequence", EXCHANGE}


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_no_index_can_outgrow_a_btree_row(table) -> None:
    """Every text in a key has a limit, and together they stay under PostgreSQL's."""
    columns = {column.name: column for column in table.columns}
    for key in (", ".join(table.primary_key), *(index.key for index in table.indexes)):
        beginnings = [4 * int(length) for _, length in BEGINNING.findall(key)]
        names = [part.split()[0] for part in BEGINNING.sub("", key).split(",") if part]
        limits = [columns[name].max_bytes for name in names if columns[name].type == "text"]
        assert None not in limits
        assert not [name for name in names if columns[name].type == "jsonb"]
        assert sum(limits + beginnings) < MAX_BTREE_ROW
