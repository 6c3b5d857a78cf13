import psycopg, time
from auditlog.partitions.session import maintenance
from auditlog.partitions.enabling import enable
from auditlog.partitions.disabling import disable
from auditlog.partitions.preflight import examine, examine_back

def test_try(dsn):
    with psycopg.connect(dsn, autocommit=True) as c:
        c.execute("INSERT INTO logstore.logs (instance_id, log_id, log_date) SELECT 't', n::text, now() - n * interval '1 minute' FROM generate_series(1,100000) n")
        c.execute("CREATE VIEW logstore.v AS SELECT log_id FROM logstore.logs")
    with maintenance(dsn) as conn:
        for f in examine(conn, "logs", "month"): print(f)
        t=time.perf_counter()
        print(enable(conn, "logs", "month", on_step=lambda *a: print(a)), time.perf_counter()-t)
        print(enable(conn, "logs", "day"))
        for r in conn.execute("select c.relname, pg_get_expr(relpartbound, c.oid), obj_description(c.oid), relacl from pg_class c where relnamespace='logstore'::regnamespace and relkind in ('r','p','I')  and relname like 'logs%'"): print(r)
        print(conn.execute("select pg_get_viewdef('logstore.v')").fetchone())
        print([dict(r) if 0 else r for r in conn.execute("table logstore.partitioning")])
        conn.execute("INSERT INTO logstore.logs (instance_id, log_id, log_date) SELECT 't', 'x' || n::text, now() + interval '50 days' FROM generate_series(1,1000) n")
        print(disable(conn, "logs", on_step=lambda *a: print(a)))
        for r in conn.execute("select c.relname, relkind, obj_description(c.oid), relacl from pg_class c where relnamespace='logstore'::regnamespace  and relname like 'logs%'"): print(r)
        print(conn.execute("select count(*) from logstore.logs").fetchone())
        print(conn.execute("select pg_get_viewdef('logstore.v')").fetchone())
        print(disable(conn, "logs", on_step=lambda *a: print(a)))
