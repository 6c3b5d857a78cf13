from datetime import timedelta

import psycopg
import pytest
from benchmarks.index_cost import SAMPLE_ROWS

from auditlog.projections import PROJECTIONS
from auditlog.query.statements import statement
from auditlog.tables import BATCHES, LOGS, TABLES
from databases import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOG_ROWS = 1_000_000
OTHER_ROWS = 100_000
OF_TENANT = "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7'"
INDEXES = [
    pytest.param(table, index, id=index.name)
    for table in (*TABLES, BATCHES, *PROJECTIONS)
    for index in table.indexes
]

# For the other tables: twenty tenants of different size, and everything else spread evenly.
# The planner gives up an index sooner on a small table, so these need fewer rows.
FILL = {
    "logstore.execution_logs": """
        SELECT tenant, 'log-' || n, 'execution-' || n / 100 % 1000, 'target-' || n % 50, instant,
            CASE WHEN n % 20 = 0 THEN 3 ELSE 1 END, 'called', NULL, '{"attempt": 1}'::jsonb
        FROM sample
    """,
    "logstore.quota_logs": """
        SELECT tenant, 'log-' || n, 'quota-' || n % 100, instant, n, n + 1, 1000000,
            'org-' || n % 40, CASE WHEN n % 10 < 6 THEN 'user-' || n % 5000 END, 'request',
            n % 50 > 0, false
        FROM sample
    """,
    "logstore.batches": """
        SELECT gen_random_uuid(), 'host:1', 1000, 0, 0, 600000, instant, instant, sha256('')
        FROM sample
    """,
    "projections.actions": """
        SELECT 'action-' || n, tenant, 'org-' || n % 200, instant, instant, n, 'name', 'script',
            '10 s'::interval, false, CASE WHEN n % 50 = 0 THEN 2 ELSE 1 END
        FROM sample
    """,
    "projections.action_flows": """
        SELECT 'flow-' || n % 5, 'trigger-' || n % 10, 'action-' || n / 2, tenant, 'org-' || n % 40,
            instant, instant, n, 0
        FROM sample
    """,
    "projections.executions": """
        SELECT 'execution-' || n, tenant, 'order', 'order-' || n % 20000, 'action-' || n % 100,
            instant, 'order.paid', n, '[]'::jsonb
        FROM sample
    """,
    "projections.execution_states": """
        SELECT 'execution-' || n, tenant, 'target-' || n % 3,
            CASE WHEN n % 40 = 0 THEN 1 ELSE 2 END, instant,
            CASE WHEN n % 40 > 0 THEN instant END, NULL, 0, '{"status": 200}'::jsonb
        FROM sample
    """,
    "projections.milestones": """
        SELECT 'milestone-' || n, tenant, 1 + n % 4, 'user', 'user-' || n % 20000,
            CASE WHEN n % 500 = 0 THEN 'org_smtp_configured' ELSE 'user_first_login' END,
            CASE WHEN n % 10 > 0 THEN instant END, NULL, NULL, instant, instant, n
        FROM sample
    """,
}
SAMPLE = """
    WITH sample AS (
        SELECT n, 'tenant-' || floor(20 * random() ^ 2) AS tenant,
            timestamptz '2026-01-01 00:00+00' + n * interval '8640 ms' AS instant
        FROM generate_series(1, {rows}) AS n
    )
"""


# Ten thousand requests of one day that have a row at their beginning; every hundredth has none at
# its end.
EXCHANGES = """
    INSERT INTO logstore.logs (instance_id, log_id, log_date, request_url, metadata)
    SELECT tenant, CASE stage WHEN 'received' THEN id ELSE gen_random_uuid()::text END, instant,
        '/events', jsonb_build_object('audit.stage', stage, 'audit.exchange_id', id)
    FROM (
        SELECT n, tenant, instant, overlay(
            lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0')
            PLACING '-' FROM 9 FOR 0
        ) || '-7000-8000-' || lpad(n::text, 12, '0') AS id
        FROM sample
    ) AS exchanges
    CROSS JOIN (VALUES ('received'), ('complete')) AS stages (stage)
    WHERE stage = 'received' OR n % 100 > 0
"""


@pytest.fixture(scope="module")
def full(server: Server):
    """A database with a million rows of the trail, analysed as autovacuum would."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        _fill_logs(conn)
        for table, select in FILL.items():
            _fill(conn, table, SAMPLE.replace("{rows}", str(OTHER_ROWS)) + select)
        conn.execute("VACUUM ANALYZE")  # which summarises BRIN ranges too
        yield conn


@pytest.mark.parametrize(("table", "index"), INDEXES)
def test_query_that_an_index_is_named_for_uses_it(full: psycopg.Connection, table, index) -> None:
    """The planner chooses it by itself."""
    plan = _plan(full, index.example)
    assert index.name in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("user_id = 'user-0'", "logs_newest_of_user"),
        ("event_type = 'event.7'", "logs_of_event_type"),
        ("resource_owner = 'org-0'", "logs_newest_of_resource_owner"),
        ("log_level <> 1", "logs_warnings_and_errors"),
        ("log_level = 3", "logs_warnings_and_errors"),
        ("log_level IN (2, 3)", "logs_warnings_and_errors"),
    ],
)
def test_newest_rows_of_a_busy_key_are_read_in_order(
    full: psycopg.Connection, key: str, index: str
) -> None:
    """No sort: fifty rows cost fifty rows, however many there are of the key."""
    plan = _plan(full, f"{OF_TENANT} AND {key} ORDER BY log_date DESC LIMIT 50")
    assert index in plan
    assert "Sort" not in plan


@pytest.mark.parametrize(
    ("rest", "index"),
    [
        ("ORDER BY log_id DESC LIMIT 50", "logs_pkey"),
        ("AND log_id < '019b8b00' ORDER BY log_id DESC LIMIT 50", "logs_pkey"),
        ("AND event_type LIKE 'event.39%'", "logs_of_event_type"),
        (
            "AND log_date >= '2026-01-03 10:00+00' AND log_date < '2026-01-03 10:10+00'"
            " AND metadata ->> 'trace_id' = 'a'",
            "logs_in_time",
        ),
    ],
    ids=["newest of a tenant", "its next page", "family of events", "trace within minutes"],
)
def test_question_without_an_index_of_its_own_is_served_too(
    full: psycopg.Connection, rest: str, index: str
) -> None:
    """What the comments in the migration promise."""
    assert index in _plan(full, f"{OF_TENANT} {rest}")


def test_bound_parameters_use_the_index_too(full: psycopg.Connection) -> None:
    """Partial indexes need the predicate to follow from the value, which a driver sends apart."""
    plan = full.execute(
        "EXPLAIN SELECT * FROM logstore.logs WHERE instance_id = %s AND log_level = %s"
        " ORDER BY log_date DESC LIMIT 50",
        ["tenant-7", 3],
    ).fetchall()
    assert "logs_warnings_and_errors" in str(plan)


@pytest.mark.parametrize("tenant", [None, "tenant-7"])
@pytest.mark.parametrize("since", [timedelta(days=1), timedelta(days=36_500)])
def test_orphans_are_looked_for_among_exchanges_only(
    full: psycopg.Connection, since: timedelta, tenant: str | None
) -> None:
    """Whatever the window: the index holds nothing else, and has the other row as well."""
    parameters = {"since": since, "older_than": timedelta(0), "limit": 100, "tenant": tenant}
    lines = full.execute(b"EXPLAIN " + statement("orphans"), parameters).fetchall()
    plan = "\n".join(line for (line,) in lines)
    assert plan.count(" logs_of_exchange ") == 2
    assert "Seq Scan" not in plan


def test_orphans_among_a_million_rows_are_read_in_order(full: psycopg.Connection) -> None:
    """The newest hundred; no more rows are touched than exchanges have."""
    parameters = {
        "since": timedelta(days=36_500),
        "older_than": timedelta(0),
        "limit": 1_000,
        "tenant": None,
    }
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement("orphans")
    ((plan,),) = full.execute(query, parameters)
    top = plan[0]["Plan"]
    assert top["Actual Rows"] == 100
    blocks = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    assert blocks < 120_000  # four index pages and two rows for each of ten thousand exchanges


def test_time_index_stays_tiny(full: psycopg.Connection) -> None:
    """A million rows in a few pages: BRIN keeps a summary of each megabyte only."""
    size = full.execute("SELECT pg_relation_size('logstore.logs_in_time')").fetchone()
    assert size is not None
    assert size[0] < 200_000


def _fill_logs(conn: psycopg.Connection) -> None:
    # Keys and indexes built afterwards, and no WAL, take half the time; the planner sees no
    # difference, and test_schema is what compares the definitions.
    conn.execute("ALTER TABLE logstore.logs SET UNLOGGED, DROP CONSTRAINT logs_pkey")
    for index in LOGS.indexes:
        conn.execute(f"DROP INDEX logstore.{index.name}")
    conn.execute(f"INSERT INTO logstore.logs {SAMPLE_ROWS.format(rows=LOG_ROWS)}")
    conn.execute(SAMPLE.replace("{rows}", "10000") + EXCHANGES)
    conn.execute("ALTER TABLE logstore.logs ADD PRIMARY KEY (instance_id, log_id)")
    for index in LOGS.indexes:
        conn.execute(LOGS.index_definition(index))


def _fill(conn: psycopg.Connection, table: str, query: str) -> None:
    if table == BATCHES.qualified_name:
        columns = [c.name for c in BATCHES.columns if not c.identity and c.name != "committed_at"]
        table = f"{table} ({', '.join(columns)})"
    conn.execute(f"INSERT INTO {table} {query}")


def _plan(conn: psycopg.Connection, query: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN {query}"))
