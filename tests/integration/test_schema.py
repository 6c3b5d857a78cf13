from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditlog.projections import PROJECTIONS, VIEWS
from auditlog.quota_tables import QUOTA_TABLES
from auditlog.records import LogLevel, Protocol
from auditlog.schema import Column
from auditlog.tables import (
    BATCHES,
    DEAD_LETTERS,
    HOLDS,
    LOGS,
    MIGRATIONS,
    PARTITIONING,
    RETIREMENTS,
    TABLES,
)
from databases import Server, as_role

OF_PARTITIONS = (PARTITIONING, HOLDS, RETIREMENTS)
ALL_TABLES = (
    *TABLES,
    BATCHES,
    DEAD_LETTERS,
    *OF_PARTITIONS,
    *QUOTA_TABLES,
    MIGRATIONS,
    *PROJECTIONS,
)
SCHEMAS = ["logstore", "projections"]

RELATIONS = """
    SELECT n.nspname || '.' || c.relname, c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (%s) AND c.relkind = ANY (%s)
"""
COLUMNS = """
    SELECT a.attname, replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone',
                              'timestamptz'),
           NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
           nullif(order_by.collname, 'default'), a.attidentity = 'a'
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation order_by ON order_by.oid = a.attcollation
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
PRIMARY_KEY = """
    SELECT a.attname FROM pg_constraint c
    CROSS JOIN unnest(c.conkey) WITH ORDINALITY AS key (attnum, position)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = key.attnum
    WHERE c.conrelid = %s AND c.contype = 'p' ORDER BY key.position
"""
INDEXES = """
    SELECT pg_get_indexdef(indexrelid), obj_description(indexrelid, 'pg_class')
    FROM pg_index WHERE indrelid = %s AND NOT indisprimary
"""


@pytest.fixture(scope="module")
def conn(server: Server):
    """A migrated database to look at; every test leaves it as it was."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def test_tables_are_those_described_and_no_others(conn: psycopg.Connection) -> None:
    """Tables, partitioned or not, in both schemas."""
    expected = {table.qualified_name for table in ALL_TABLES}
    assert expected == _relations(conn, "rp").keys()


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_columns_are_those_described(conn: psycopg.Connection, table) -> None:
    """Name, type, order, nullability, default, collation and identity of each."""
    oid = _relations(conn, "rp")[table.qualified_name]
    expected = [_described(column) for column in table.columns]
    assert expected == conn.execute(COLUMNS, [oid]).fetchall()


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_keys_and_indexes_are_those_described(conn: psycopg.Connection, table) -> None:
    """The primary key, and each other index with the question it answers as its comment."""
    oid = _relations(conn, "rp")[table.qualified_name]
    key = [name for (name,) in conn.execute(PRIMARY_KEY, [oid])]
    assert list(table.primary_key) == key
    expected = {table.index_definition(index): index.serves for index in table.indexes}
    assert expected == dict(conn.execute(INDEXES, [oid]).fetchall())


def test_views_are_those_described_and_no_others(conn: psycopg.Connection) -> None:
    """Their columns by name, type and order."""
    views = _relations(conn, "v")
    assert {f"{view.schema}.{view.name}" for view in VIEWS} == views.keys()
    for view in VIEWS:
        columns = conn.execute(COLUMNS, [views[f"{view.schema}.{view.name}"]])
        assert list(view.columns) == [(name, kind) for name, kind, *_ in columns]


def test_reference_views_name_the_milestones(conn: psycopg.Connection) -> None:
    """Four types, and the thirteen milestones that most services care about."""
    types = conn.execute("SELECT * FROM projections.milestone_types ORDER BY type_id").fetchall()
    assert types == [(1, "INSTANCE"), (2, "ORGANIZATION"), (3, "PROJECT"), (4, "USER")]
    names = conn.execute(
        "SELECT milestone_type, array_agg(milestone_name::text ORDER BY milestone_name)"
        " FROM projections.common_milestones GROUP BY milestone_type"
    ).fetchall()
    assert dict(names) == {
        1: ["instance_created", "instance_custom_domain"],
        2: ["org_created", "org_custom_domain", "org_smtp_configured"],
        3: ["project_app_added", "project_created", "project_role_added"],
        4: [
            "user_created",
            "user_email_verified",
            "user_first_login",
            "user_mfa_enabled",
            "user_phone_verified",
        ],
    }


def test_everything_has_a_comment(conn: psycopg.Connection) -> None:
    """Whoever looks with psql finds schemas, tables, columns, views and functions explained."""
    uncommented = conn.execute(
        """
        WITH schemas AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY (%s))
        SELECT nspname FROM schemas WHERE obj_description(oid, 'pg_namespace') IS NULL
        UNION ALL
        SELECT c.relname || coalesce('.' || a.attname, '')
        FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (
            SELECT 0 AS attnum, NULL AS attname
            UNION ALL
            SELECT attnum, attname FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ) a
        WHERE c.relkind IN ('r', 'p', 'v')
            AND CASE a.attnum WHEN 0 THEN obj_description(c.oid, 'pg_class')
                ELSE col_description(c.oid, a.attnum) END IS NULL
        UNION ALL
        SELECT proname FROM pg_proc p JOIN schemas n ON n.oid = p.pronamespace
        WHERE obj_description(p.oid, 'pg_proc') IS NULL
        """,
        [SCHEMAS],
    ).fetchall()
    assert uncommented == []


def test_nothing_is_public(server: Server) -> None:
    """A role that was granted nothing can neither see into the schemas nor call the function."""
    with (
        server.role() as role,
        server.database() as dsn,
        psycopg.connect(as_role(dsn, role)) as conn,
    ):
        held = conn.execute(
            """
                SELECT nspname FROM pg_namespace n
                WHERE nspname = ANY (%(schemas)s) AND has_schema_privilege(n.oid, 'USAGE, CREATE')
                UNION ALL
                SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p', 'v')
                    AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
                UNION ALL
                SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE nspname = ANY (%(schemas)s) AND has_function_privilege(p.oid, 'EXECUTE')
                """,
            {"schemas": SCHEMAS},
        ).fetchall()
    assert held == []


@pytest.mark.parametrize(
    ("table", "column", "accepted", "refused"),
    [
        ("logstore.logs", "protocol", [p.value for p in Protocol], [-1, 4]),
        ("logstore.logs", "log_level", [level.value for level in LogLevel], [0, 5]),
        ("logstore.logs", "response_time_ms", [None, 0, 2**31 - 1], [-1]),
        ("logstore.execution_logs", "log_level", [level.value for level in LogLevel], [0, 5]),
        ("logstore.batches", "sha256", [bytes(32)], [b"", bytes(31), bytes(33)]),
        ("logstore.batches", "logs", [0, 2**31 - 1], [-1]),
        ("projections.actions", "state", [1, 2], [0, 3]),
        ("projections.actions", "timeout", ["0 s", "1 day"], ["-1 s"]),
        ("projections.execution_states", "state", [0, 1, 2, 3, 4], [-1, 5]),
        ("projections.execution_states", "retry_count", [0, 2**15 - 1], [-1]),
        ("projections.milestones", "milestone_type", [1, 2, 3, 4], [0, 5]),
    ],
)
def test_columns_take_only_known_values(
    conn: psycopg.Connection, table: str, column: str, accepted: list, refused: list
) -> None:
    """Every value of an enumeration and both ends of a range, and nothing beyond them."""
    described = next(entry for entry in ALL_TABLES if entry.qualified_name == table)
    for value in accepted:
        with conn.transaction(force_rollback=True):
            _insert(conn, described, {column: value})
    for value in refused:
        with pytest.raises(psycopg.errors.CheckViolation):
            _insert(conn, described, {column: value})


@pytest.mark.parametrize("table", [*TABLES, *PROJECTIONS], ids=lambda table: table.name)
def test_longest_identifiers_fit_into_every_index(conn: psycopg.Connection, table) -> None:
    """An identifier at its limit, incompressible, does not make an index row too large."""
    longest = "".join(chr(0x4E00 + 97 * position % 20_000) for position in range(85))
    assert len(longest.encode()) == 255
    texts = {column.name: longest for column in table.columns if column.max_bytes == 255}
    with conn.transaction(force_rollback=True):
        _insert(conn, table, texts)


def test_identifiers_sort_as_bytes(conn: psycopg.Connection) -> None:
    """So UUIDv7 are in order of time, and a family of event types is a range of the index."""
    with conn.transaction(force_rollback=True):
        for log_id in ("b", "A", "a", "B", "-", "0"):
            _insert(conn, LOGS, {"log_id": log_id})
        stored = conn.execute("SELECT log_id FROM logstore.logs ORDER BY log_id").fetchall()
    assert [log_id for (log_id,) in stored] == ["-", "0", "A", "B", "a", "b"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table_can_become_a_partition_without_building_an_index(
    conn: psycopg.Connection, table
) -> None:
    """The way to partitions stays open: the table as it is, attached to a parent made like it."""
    parent = sql.Identifier(table.schema, f"{table.name}_parent")
    child = sql.Identifier(table.schema, table.name)
    with conn.transaction(force_rollback=True):
        conn.execute(
            sql.SQL(
                "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
                " PARTITION BY RANGE (log_date)"
            ).format(parent, child)
        )
        for index in table.indexes:
            definition = table.index_definition(index)
            conn.execute(
                definition.replace(index.name, f"{index.name}_parent").replace(
                    f"{table.qualified_name} ", f"{table.qualified_name}_parent "
                )
            )
        before = _index_count(conn, table.qualified_name)
        conn.execute(
            sql.SQL(
                "ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ('-infinity') TO ('2100-01-01')"
            ).format(parent, child)
        )
        assert _index_count(conn, table.qualified_name) == before == len(table.indexes) + 1


def _relations(conn: psycopg.Connection, kinds: str) -> dict[str, int]:
    return dict(conn.execute(RELATIONS, [SCHEMAS, list(kinds)]).fetchall())


def _described(column: Column) -> tuple:
    return (
        column.name,
        column.type,
        column.nullable,
        column.default,
        column.collation,
        column.identity,
    )


def _insert(conn: psycopg.Connection, table, values: dict) -> None:
    """Insert a row that has the given values, and something in every column that needs it."""
    row = {
        column.name: SOMETHING[column.type]
        for column in table.columns
        if not column.nullable and column.default is None and not column.identity
    } | values
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table.schema, table.name),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Literal, row.values())),
        )
    )


SOMETHING: dict[str, Any] = {
    "text[]": [],
    "timestamptz": "2026-01-01 00:00+00",
    "text": "x",
    "bigint": 1,
    "integer": 1000,
    "smallint": 1,
    "boolean": True,
    "uuid": "018f0000-0000-7000-8000-000000000000",
    "bytea": bytes(32),
}


def _index_count(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", [table]
    ).fetchone()
    assert row is not None
    return row[0]
