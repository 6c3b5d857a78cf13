"""Who may make partitions, whose they are then, and who may see them."""

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from auditlog.partitions.creating import create
from auditlog.partitions.reading.drift import drift
from auditlog.postgres.migrate import migrate
from databases import Server, as_role, postgres_program
from monthly_scene import INSERT, MAY, comment, dressing, monthly_databases
from partitioned import partition, partitions
from trail import execute, fetch

ENSURE = "SELECT logstore.ensure_partition('logs', now())"
GRANTED = (
    "GRANT USAGE ON SCHEMA logstore TO {0};"
    " GRANT EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz),"
    " logstore.covered_until(text) TO {0}"
)
LEAF = """
    SELECT pg_get_userbyid(relowner), relacl::text, amname, reltablespace
    FROM pg_class JOIN pg_am ON pg_am.oid = relam WHERE pg_class.oid = %s::regclass
"""


@pytest.fixture(scope="module")
def monthly(any_server: Server) -> Iterator[Server]:
    with monthly_databases(any_server) as monthly:
        yield monthly


def test_writer_needs_no_more_than_two_functions(monthly: Server) -> None:
    """It gets a partition that is the owner's and nobody else's, and can do nothing else."""
    with monthly.role() as role, monthly.database() as dsn:
        _execute(dsn, GRANTED, role)
        _execute(dsn, "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")
        with psycopg.connect(as_role(dsn, role), autocommit=True) as conn:
            conn.execute("SET default_table_access_method = 'other'")
            conn.execute("SET default_tablespace = 'pg_global'")
            conn.execute("CREATE TEMP TABLE partitioning (table_name text, step text)")
            conn.execute("SET search_path = pg_temp")
            assert conn.execute(ENSURE).fetchone() == ("made",)
            covered = conn.execute("SELECT logstore.covered_until('logs') > now()")
            assert covered.fetchone() == (True,)
            for statement in REFUSED:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.format(*partitions(dsn)))
        with psycopg.connect(dsn) as conn:
            leaf = f"logstore.{partitions(dsn)[0]}"
            assert conn.execute(LEAF, [leaf]).fetchone() == (conn.info.user, None, "heap", 0)


REFUSED = (
    "SELECT logstore.make_partition('logstore.logs', 'x', now(), now() + interval '1 day')",
    "SELECT logstore.dress_partition('logstore.logs', 'logstore.{0}')",
    "SELECT logstore.make_partitions()",
    "SELECT * FROM logstore.{0}",
    "SELECT * FROM logstore.logs",
    "DROP TABLE logstore.{0}",
)


def test_owner_needs_no_superuser(any_server: Server) -> None:
    """From the migration to the partitions, and a drop of one."""
    with any_server.role() as role, any_server.database(migrated=False) as dsn:
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        _execute(dsn, f'GRANT CREATE ON DATABASE "{database}" TO {{0}}', role)
        own = as_role(dsn, role)
        migrate(own)
        partition(own, step="month", ahead="1 month")
        assert fetch(own, ENSURE) == ["made"]
        execute(own, "SELECT logstore.make_partitions()")
        execute(own, f"DROP TABLE logstore.{partitions(own)[0]}")


def test_partition_belongs_to_the_owner_of_its_table(monthly: Server) -> None:
    """Whoever has made it; otherwise its owner could not detach it."""
    with monthly.role() as owner, monthly.database() as dsn:
        _execute(dsn, "GRANT USAGE, CREATE ON SCHEMA logstore TO {0}", owner)
        _execute(dsn, "ALTER TABLE logstore.logs OWNER TO {0}", owner)
        assert fetch(dsn, ENSURE) == ["made"]
        with psycopg.connect(dsn) as conn:
            leaf = conn.execute(LEAF, [f"logstore.{partitions(dsn)[0]}"]).fetchone()
        assert leaf is not None
        assert leaf[0] == owner
        detach = "ALTER TABLE logstore.logs DETACH PARTITION logstore.{}"
        execute(as_role(dsn, owner), detach.format(partitions(dsn)[0]))


def test_function_has_the_rights_of_its_owner_and_no_others(monthly: Server) -> None:
    """One that belongs to somebody else than the table makes nothing."""
    with monthly.role() as role, monthly.database() as dsn:
        _execute(dsn, GRANTED, role)
        _execute(dsn, "GRANT CREATE ON SCHEMA logstore TO {0}", role)
        _execute(
            dsn, "ALTER FUNCTION logstore.ensure_partition(text, timestamptz) OWNER TO {0}", role
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            fetch(dsn, ENSURE)
        assert partitions(dsn) == []


def test_nobody_has_rights_on_a_partition(monthly: Server) -> None:
    """Not even by default privileges; through the table all works as it is granted there."""
    with monthly.role() as role, monthly.database() as dsn:
        _execute(
            dsn,
            "GRANT USAGE ON SCHEMA logstore TO {0}; GRANT SELECT, INSERT ON logstore.logs TO {0};"
            " ALTER DEFAULT PRIVILEGES IN SCHEMA logstore GRANT ALL ON TABLES TO {0}, PUBLIC",
            role,
        )
        fetch(dsn, ENSURE)
        with psycopg.connect(as_role(dsn, role), autocommit=True) as conn:
            conn.execute(INSERT, ["now"])
            assert conn.execute("SELECT log_id FROM logstore.logs").fetchall() == [("x",)]
            for statement in ("SELECT FROM {}", "TRUNCATE {}", "INSERT INTO {} DEFAULT VALUES"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.format(f"logstore.{partitions(dsn)[0]}"))


POLICIES = (
    "ALTER TABLE logstore.logs ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE logstore.logs FORCE ROW LEVEL SECURITY",
    "CREATE TABLE logstore.members (tenant text, member name)",
    "GRANT SELECT ON logstore.members TO {0}",
    "CREATE POLICY own ON logstore.logs FOR SELECT TO {0} USING (EXISTS (SELECT FROM"
    " logstore.members WHERE tenant = logs.instance_id AND member = current_user))",
    "CREATE POLICY \"not 'x'\" ON logstore.logs AS RESTRICTIVE USING (log_id <> 'x')",
    "CREATE POLICY added ON logstore.logs FOR INSERT WITH CHECK (instance_id <> '')",
)


@pytest.mark.parametrize("dropped", [False, True])
def test_row_security_holds_on_the_partition_too(any_server: Server, *, dropped: bool) -> None:
    """For whoever gets a right on it; with sub-selects, roles, and columns that are gone."""
    with (
        any_server.role() as role,
        monthly_databases(any_server) as monthly,
        monthly.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        for statement in POLICIES[: 3 if dropped else None]:
            _execute(dsn, statement, role)
        if dropped:
            conn.execute("ALTER TABLE logstore.logs DROP COLUMN occurrence_date")
        else:
            conn.execute("INSERT INTO logstore.members VALUES ('t', %s)", [role])
        create(conn, "logs", "logs_p203105", *MAY)
        assert dressing(conn, "logs_p203105") == []
        assert drift(conn, "logs") == {}
        flags = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = %s"
        assert conn.execute(flags, ["logs_p203105"]).fetchone() == (True, True)
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES"
            " ('t', 'x', %(at)s), ('t', 'y', %(at)s), ('u', 'z', %(at)s)",
            {"at": MAY[0]},
        )
        _execute(dsn, "GRANT USAGE ON SCHEMA logstore TO {0}", role)
        _execute(dsn, "GRANT SELECT ON logstore.logs, logstore.logs_p203105 TO {0}", role)
        expected = [] if dropped else ["y"]
        for query in (
            "SELECT log_id FROM logstore.logs",
            "SELECT log_id FROM logstore.logs_p203105",
        ):
            assert fetch(as_role(dsn, role), query) == expected


def test_policies_that_were_there_are_replaced(monthly: Server) -> None:
    """What the table has not, its partition has not either."""
    with monthly.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        create(conn, "logs", "logs_p203105", *MAY)
        conn.execute("CREATE POLICY a ON logstore.logs_p203105 USING (true)")
        conn.execute("CREATE POLICY b ON logstore.logs_p203105 USING (true)")
        conn.execute("CREATE POLICY b ON logstore.logs USING (false)")
        conn.execute("ALTER TABLE logstore.logs_p203105 FORCE ROW LEVEL SECURITY")
        conn.execute(DRESS)
        found = conn.execute(
            "SELECT policyname, qual FROM pg_policies WHERE tablename = 'logs_p203105'"
        )
        assert found.fetchall() == [("b", "false")]
        assert dressing(conn, "logs_p203105") == []


def test_dressing_locks_nothing_where_nothing_is_lacking(monthly: Server) -> None:
    """So it may be repeated while the partition is in use."""
    with (
        monthly.database() as dsn,
        psycopg.connect(dsn) as reader,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        create(conn, "logs", "logs_p203105", *MAY)
        reader.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
        conn.execute("SET lock_timeout = '1ms'")
        conn.execute(DRESS)


def test_remark_of_a_table_that_becomes_a_partition_is_kept(monthly: Server) -> None:
    """Behind the mark."""
    with monthly.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        create(conn, "logs", "logs_p203105", *MAY)
        conn.execute("COMMENT ON TABLE logstore.logs_p203105 IS 'It''s theirs.'")
        conn.execute(DRESS)
        conn.execute(DRESS)
        assert comment(conn, "logs_p203105") == "auditlog partition of logs. It's theirs."


def test_dump_and_restore_keep_what_partitions_are(monthly: Server) -> None:
    """Marks, guards and bounds; and the functions go on where they were."""
    with monthly.database() as dsn, monthly.database(migrated=False) as other:
        execute(dsn, "SELECT logstore.make_partitions()")
        execute(dsn, "ALTER TABLE logstore.logs ENABLE ROW LEVEL SECURITY")
        execute(dsn, "CREATE POLICY p ON logstore.logs USING (instance_id <> '')")
        dump = [postgres_program("pg_dump"), "-d", dsn]
        dumped = subprocess.run(dump, check=True, capture_output=True)
        psql = [postgres_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", other]
        # Of a newer pg_dump than the server.
        statements = dumped.stdout.replace(b"SET transaction_timeout = 0;", b"")
        subprocess.run(psql, check=True, input=statements, capture_output=True)
        expected = partitions(dsn)
        assert partitions(other) == expected
        with psycopg.connect(other, autocommit=True) as conn:
            assert {comment(conn, leaf) for leaf in expected} == {"auditlog partition of logs"}
            lacking = drift(conn, "logs").values()
            assert list(lacking) == [("row security",)] * len(expected)
            for leaf in expected:
                conn.execute(DRESS.replace("logs_p203105", leaf))
            assert drift(conn, "logs") == {}
        assert fetch(other, ENSURE) == ["already"]
        assert fetch(other, "SELECT logstore.make_partitions()") == []


DRESS = "SELECT logstore.dress_partition('logstore.logs', 'logstore.logs_p203105')"


def _execute(dsn: str, statement: str, role: str = "") -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(sql.Identifier(role) if role else sql.SQL("")))  # type: ignore[arg-type]
