"""Clients that write and read while a table is converted, and what the catalog says of it."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.database.ledger import copy_stream
from auditlog.sink.encoding.encode import Encoder
from auditlog.tables import LOGS

OLD = "old"
"""Tenant of the rows that are there before."""
LIVE = "live"
"""Tenant of the rows that are written meanwhile."""
BATCH = 20


DRESSED = """
    ALTER TABLE logstore.logs ADD COLUMN region text DEFAULT 'eu' CHECK (region <> '');
    ALTER TABLE logstore.logs ALTER COLUMN user_id SET STATISTICS 500;
    ALTER TABLE logstore.logs ALTER COLUMN user_id SET (n_distinct = 1000);
    COMMENT ON COLUMN logstore.logs.region IS 'the operator''s';
    CREATE INDEX in_region ON logstore.logs (region, log_date) WHERE region <> 'eu';
    COMMENT ON INDEX logstore.in_region IS 'what is where';
    CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER each_row AFTER INSERT ON logstore.logs
        FOR EACH ROW WHEN (NEW.log_level = 3) EXECUTE FUNCTION public.watch();
    CREATE TRIGGER each_statement AFTER INSERT ON logstore.logs
        FOR EACH STATEMENT EXECUTE FUNCTION public.watch();
    ALTER TABLE logstore.logs DISABLE TRIGGER each_statement;
    ALTER TABLE logstore.logs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON logstore.logs AS RESTRICTIVE FOR SELECT TO {reader}
        USING (instance_id = current_setting('app.tenant', true));
    CREATE POLICY all_rows ON logstore.logs USING (true) WITH CHECK (log_level > 0);
    GRANT USAGE ON SCHEMA logstore TO {reader};
    GRANT SELECT ON logstore.logs TO {reader} WITH GRANT OPTION;
    GRANT UPDATE (message) ON logstore.logs TO {reader};
    CREATE VIEW public.failed WITH (security_barrier) AS
        SELECT log_id, user_id FROM logstore.logs WHERE log_level = 3;
    GRANT SELECT ON public.failed TO {reader};
    CREATE PUBLICATION trail FOR TABLE logstore.logs WITH (publish_via_partition_root = true);
"""
"""What operators add to the table: for `sql.SQL`, with `reader`."""


@dataclass
class Clients:
    """What came of their work; complete when `clients` has ended."""

    sent: int = 0
    counts: set[int] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)
    slowest_s: float = 0.0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def note(self, seconds: float, *, sent: int = 0, counts: tuple[int, ...] = ()) -> None:
        with self._mutex:
            self.slowest_s = max(self.slowest_s, seconds)
            self.sent += sent
            self.counts.update(counts)


@contextmanager
def clients(dsn: str, *, ahead: timedelta = timedelta()) -> Iterator[Clients]:
    """Two writers, by binary COPY, and two readers of the old rows, for the length of the context.

    Args:
        dsn: Where.
        ahead: Every second batch is dated so far into the future.
    """
    seen, stop = Clients(), threading.Event()
    begun = [threading.Semaphore(0) for _ in range(4)]
    works: list[Callable[[psycopg.Connection[Any]], None]] = [
        lambda conn: _write(conn, seen, timedelta()),
        lambda conn: _write(conn, seen, ahead),
        lambda conn: _read(conn, seen, "logstore.logs"),
        lambda conn: _read(conn, seen, "public.of_old"),
    ]
    threads = [
        threading.Thread(target=_work, args=(dsn, work, seen, stop, signal))
        for work, signal in zip(works, begun, strict=True)
    ]
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "CREATE OR REPLACE VIEW public.of_old AS"
            " SELECT * FROM logstore.logs WHERE instance_id = 'old'"
        )
    for thread in threads:
        thread.start()
    for signal in begun:
        assert signal.acquire(timeout=20)
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def fill(dsn: str, count: int, start: datetime, end: datetime, tenant: str = OLD) -> None:
    """Add rows, evenly between two instants."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, log_date, occurrence_date, user_id)"
            " SELECT %(tenant)s, %(tenant)s || extract(epoch FROM %(start)s) || n, date, date,"
            " 'user-' || n %% 97 FROM generate_series(0, %(count)s - 1) AS n,"
            " LATERAL (SELECT %(start)s + (%(end)s - %(start)s) * n / %(count)s) AS _ (date)",
            {"tenant": tenant, "start": start, "end": end, "count": count},
        )


def stored(dsn: str, tenant: str) -> int:
    """How many rows of a tenant there are, each identity counted once."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT count(*), count(DISTINCT log_id) FROM logstore.logs WHERE instance_id = %s",
            [tenant],
        ).fetchone()
    assert row is not None
    assert row[0] == row[1]
    return int(row[0])


def _work(
    dsn: str,
    work: Callable[[psycopg.Connection[Any]], None],
    seen: Clients,
    stop: threading.Event,
    begun: threading.Semaphore,
) -> None:
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.is_set():
                work(conn)
                begun.release()
    except BaseException as error:  # noqa: BLE001  # the test looks at it
        seen.errors.append(error)
        begun.release()


def _write(conn: psycopg.Connection[Any], seen: Clients, ahead: timedelta) -> None:
    now = datetime.now().astimezone()
    rows = [
        Encoder(Settings()).encode(LogRecord(instance_id=LIVE, log_date=now + ahead))[1]
        for _ in range(BATCH)
    ]
    begun = time.perf_counter()
    with conn.transaction(), conn.cursor().copy(LOGS.copy_statement) as copy:
        copy.write(copy_stream(rows))
    seen.note(time.perf_counter() - begun, sent=BATCH)


def _read(conn: psycopg.Connection[Any], seen: Clients, relation: str) -> None:
    begun = time.perf_counter()
    query = f"SELECT count(*) FROM {relation} WHERE instance_id = '{OLD}'"  # noqa: S608  # ours
    ((count,),) = conn.execute(query.encode()).fetchall()
    seen.note(time.perf_counter() - begun, counts=(count,))


FACTS = """
    WITH facts (kind, name, fact) AS (
        SELECT 'column', attname::text,
               concat_ws(' | ', format_type(atttypid, atttypmod), attnotnull,
                         pg_get_expr(adbin, adrelid), col_description(attrelid, attnum),
                         nullif(attstattarget, -1), attoptions, attacl, attstorage)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT 'constraint', conname, pg_get_constraintdef(oid) || convalidated
        FROM pg_constraint WHERE conrelid = %(table)s AND contype <> 'n'
        UNION ALL
        SELECT 'index', indexrelid::regclass::text,
               concat_ws(' | ', replace(pg_get_indexdef(indexrelid), ' ONLY ', ' '), indisvalid,
                         obj_description(indexrelid, 'pg_class'))
        FROM pg_index WHERE indrelid = %(table)s
        UNION ALL
        SELECT 'trigger', tgname, pg_get_triggerdef(oid) || tgenabled::text
        FROM pg_trigger WHERE tgrelid = %(table)s AND NOT tgisinternal
        UNION ALL
        SELECT 'policy', polname, concat_ws(' | ', polcmd, polpermissive, polroles::regrole[],
               pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
        FROM pg_policy WHERE polrelid = %(table)s
        UNION ALL
        SELECT 'table', relname, concat_ws(' | ', relowner::regrole, relrowsecurity,
               relforcerowsecurity, relreplident, obj_description(oid, 'pg_class'))
        FROM pg_class WHERE oid = %(table)s
        UNION ALL
        SELECT 'grant', coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC'),
               privilege_type || is_grantable
        FROM pg_class, aclexplode(relacl) WHERE oid = %(table)s AND grantee <> relowner
        UNION ALL
        SELECT 'publication', pubname, '' FROM pg_publication_rel
        JOIN pg_publication p ON p.oid = prpubid WHERE prrelid = %(table)s
        UNION ALL
        SELECT DISTINCT 'view', ev_class::regclass::text,
               concat_ws(' | ', pg_get_viewdef(ev_class), reloptions, relacl)
        FROM pg_rewrite r JOIN pg_depend ON objid = r.oid JOIN pg_class v ON v.oid = ev_class
        WHERE refobjid = %(table)s
    )
    SELECT kind, name, fact FROM facts ORDER BY 1, 2, 3
"""


def facts(conn: psycopg.Connection[Any], table: str = "logstore.logs") -> set[tuple[str, ...]]:
    """Everything that the catalog says of a table, in words that do not hang on its identity."""
    oid = conn.execute("SELECT %s::regclass::oid", [table]).fetchone()
    assert oid is not None
    return {tuple(map(str, row)) for row in conn.execute(FACTS, {"table": oid[0]})}


@contextmanager
def unread(conn: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """See that a table is attached in the context, and not read for that while it is locked."""
    told: list[str] = []
    conn.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    conn.execute("SET client_min_messages = debug1")
    yield
    conn.execute("RESET client_min_messages")
    assert f'partition constraint for table "{table}" is implied by existing constraints' in told, (
        told
    )


_KILLED = """
import sys
from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.session import maintenance

def pause(stage, about):
    if stage == sys.argv[3]:
        print(stage, flush=True)
        sys.stdin.read()

with maintenance(sys.argv[1]) as conn:
    if sys.argv[2] == "enable":
        enable(conn, "logs", "month", on_step=pause)
    else:
        disable(conn, "logs", on_step=pause)
"""


def kill_before(dsn: str, deed: str, stage: str) -> None:
    """Run `enable` or `disable` in a process that is killed where a stage begins."""
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, dsn, deed, stage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == stage
        finally:
            process.kill()
    with psycopg.connect(dsn, autocommit=True) as conn:
        # The server notices in its own time that nobody is there any more.
        query = (
            "SELECT pg_advisory_lock(hashtextextended('auditlog:logstore.logs', 0)),"
            " pg_advisory_unlock(hashtextextended('auditlog:logstore.logs', 0))"
        )
        conn.execute("SET lock_timeout = '20s'")
        conn.execute(query)
