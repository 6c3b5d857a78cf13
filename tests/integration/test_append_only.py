import psycopg
import pytest
from psycopg import sql

from auditlog.tables import BATCHES, TABLES
from databases import Server, as_role

APPEND_ONLY = [table.qualified_name for table in (*TABLES, BATCHES)]
INSERT = "INSERT INTO logstore.logs (instance_id, log_id) VALUES ('tenant', 'row')"


@pytest.fixture(scope="module")
def conn(server: Server):
    """A migrated database to try changes on; every test leaves it as it was."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = NULL", "DELETE FROM {}", "TRUNCATE {}"])
def test_append_only_tables_refuse_every_change(
    conn: psycopg.Connection, table: str, change: str
) -> None:
    """Even to the owner, with a hint how maintenance is done."""
    statement = change.format(table, "writer" if table.endswith("batches") else "instance_id")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only") as caught:
        conn.execute(statement)
    assert "SET LOCAL auditlog.maintenance = 'on'" in (caught.value.diag.message_hint or "")


def test_append_only_tables_refuse_upserts_but_skip_duplicates(conn: psycopg.Connection) -> None:
    """ON CONFLICT DO NOTHING is how a repeated batch is recognised; DO UPDATE would be a change."""
    insert = """
        INSERT INTO logstore.batches (batch_id, writer, bytes, sha256)
        VALUES ('018f0000-0000-7000-8000-000000000000', 'host:1', 0, sha256(''))
        ON CONFLICT (batch_id) DO {}
    """
    with conn.transaction(force_rollback=True):
        assert conn.execute(insert.format("NOTHING")).rowcount == 1
        assert conn.execute(insert.format("NOTHING")).rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        conn.execute(insert.format("UPDATE SET writer = 'host:2'"))


def test_owner_may_change_rows_for_maintenance_in_one_transaction(dsn: str) -> None:
    """The setting ends with the transaction, and so does the permission."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(INSERT)
        with conn.transaction():
            conn.execute("SET LOCAL auditlog.maintenance = 'on'")
            assert conn.execute("DELETE FROM logstore.logs").rowcount == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            conn.execute("DELETE FROM logstore.logs")


def test_maintenance_is_for_the_owner_and_its_members_only(server: Server) -> None:
    """DELETE granted by mistake does not open the trail; membership of the owner does."""
    with server.role() as owner, server.role() as user, server.database() as dsn:
        names = [sql.Identifier(owner), sql.Identifier(user)]
        with psycopg.connect(dsn, autocommit=True) as admin:
            for statement in (
                "GRANT USAGE ON SCHEMA logstore TO {0}, {1}",
                "ALTER TABLE logstore.logs OWNER TO {0}",
                "GRANT DELETE ON logstore.logs TO {1}",
            ):
                admin.execute(sql.SQL(statement).format(*names))
            with psycopg.connect(as_role(dsn, user), autocommit=True) as conn:
                conn.execute("SET auditlog.maintenance = 'on'")
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                    conn.execute("DELETE FROM logstore.logs")
                admin.execute(sql.SQL("GRANT {0} TO {1}").format(*names))
                conn.execute("DELETE FROM logstore.logs")


def test_nothing_runs_when_rows_are_added(conn: psycopg.Connection) -> None:
    """No trigger of the append-only tables fires on INSERT, so COPY pays nothing for the guard."""
    triggers = conn.execute(
        "SELECT tgrelid::regclass::text, tgtype & 4 FROM pg_trigger"
        " WHERE tgrelid = ANY (%s::regclass[]) AND NOT tgisinternal",
        [APPEND_ONLY],
    ).fetchall()
    assert dict(triggers) == dict.fromkeys(APPEND_ONLY, 0)
