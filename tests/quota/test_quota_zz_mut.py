import psycopg, pytest
import test_quota_processes as t
def mutate(dsn, fn, a, b):
    with psycopg.connect(dsn, autocommit=True) as c:
        oid = c.execute("select oid from pg_proc where proname=%s", [fn]).fetchone()[0]
        d = c.execute("select pg_get_functiondef(%s)", [oid]).fetchone()[0]
        assert a in d, d
        c.execute(d.replace(a, b))
def test_a(any_dsn):
    mutate(any_dsn, "quota_share", '(ask."limit" - used) / ask.a', '(ask."limit" - used + 1) / ask.a')
    with pytest.raises(AssertionError): t.test_exactly_the_limit_is_allowed(any_dsn)
def test_b(any_dsn):
    mutate(any_dsn, "cross_thresholds", "ON CONFLICT DO NOTHING", "LIMIT 1 ON CONFLICT DO NOTHING")
    with pytest.raises(AssertionError): t.test_each_threshold_is_told_once_however_many_a_spending_jumps_over(any_dsn, t.EXACT)
def test_c(any_dsn):
    mutate(any_dsn, "return_quotas_at", "greatest(0, used - each.units)", "used")
    with pytest.raises(AssertionError): t.test_leases_allow_the_limit_once_the_idle_ones_have_come_back(any_dsn, False)
def test_d(any_dsn):
    mutate(any_dsn, "quota_share", '(ask."limit" - share.usage) / 8', '(ask."limit" - share.usage)')
    with pytest.raises(AssertionError): t.test_killed_workers_take_their_leases_with_them(any_dsn)
def test_e(any_dsn):
    mutate(any_dsn, "unfinished_crossings", "SKIP LOCKED", "SKIP LOCKED LIMIT 0")
    with pytest.raises(AssertionError): t.test_what_a_killed_worker_had_not_told_another_one_tells(any_dsn)
