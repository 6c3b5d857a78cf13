"""Quotas in the database: what is laid down is read back, deeds are told, no row hides others."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from auditlog.errors import QuotaError
from auditlog.postgres.causes import connect
from auditlog.quota.definitions.rows import DEFINITIONS, quota_from
from auditlog.quota.keeping.store import alone, put, remove, stored, values_before
from auditlog.quota.keeping.usage import has_other_periods
from auditlog.quota.model import Quota
from databases import Server, as_role
from trail import waits_for_a_lock

EXPORTS = Quota("exports", limit=10, counts="reported", per="user", period="day")
FULL = Quota(
    "everything",
    limit=2**53 - 1,
    period="3 months",
    counts="bytes",
    per=("organisation", "user", "route"),
    anchor=datetime(2026, 1, 31, 6, 0, 0, 1, UTC),
    time_zone="Europe/Berlin",
    thresholds=(50, 100, 1000),
    enforced=False,
    exact=True,
    on_unavailable="closed",
    refunds=("denied", "404"),
    routes=("/orders/*", '/{a},"b"\\\'/**'),
    methods=("GET", "QUERY"),
    tenant='ac"me',
    log_allowed=True,
)


@pytest.fixture(scope="module")
def conn(any_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """One database for all of them; each test begins without quotas."""
    with any_server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(autouse=True)
def _empty(conn: psycopg.Connection[Any]) -> None:
    conn.execute("TRUNCATE logstore.quotas, logstore.quota_usage, logstore.quota_windows")


def quotas(conn: psycopg.Connection[Any]) -> list[Quota | None]:
    return [each.quota for each in stored(conn)]


def told(conn: psycopg.Connection[Any], quota_id: str) -> list[dict[str, Any]]:
    """The rows of the trail about a quota, in the order in which they were written."""
    query = "SELECT * FROM logstore.logs WHERE aggregate_type = 'auditlog.quota'"
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"{query} AND aggregate_id = %s ORDER BY log_id", [quota_id])
        return cursor.fetchall()


@pytest.mark.parametrize(
    "quota",
    [
        EXPORTS,
        FULL,
        Quota("rolling", limit=0, period="minute", rolling=True),
        Quota("bare", limit=1, refunds=()),
    ],
    ids=lambda quota: quota.id,
)
def test_what_is_put_is_what_is_read(conn: psycopg.Connection[Any], quota: Quota) -> None:
    """Every field; the same again changes nothing, and says so."""
    assert put(conn, quota, by="ada") == "set"
    (found,) = stored(conn)
    assert (found.quota, found.problem, found.changed_by) == (quota, None, "ada")
    assert (found.id, found.tenant) == (quota.id, quota.tenant)
    assert put(conn, quota, by="grace") == "unchanged"
    assert stored(conn) == [found]


def test_what_applications_read_is_the_same(conn: psycopg.Connection[Any]) -> None:
    """In a session of any time zone and style of dates."""
    put(conn, FULL)
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        conn.execute("SET LOCAL timezone = 'Asia/Kathmandu'")
        conn.execute("SET LOCAL datestyle = 'German'")
        assert [quota_from(row) for row in cursor.execute(DEFINITIONS)] == [FULL]


def test_one_for_all_and_one_for_a_tenant_are_two(conn: psycopg.Connection[Any]) -> None:
    """The one for all comes first; each is changed and removed by itself."""
    own = Quota("exports", limit=500, tenant="acme")
    for quota in (own, EXPORTS):
        put(conn, quota)
    assert quotas(conn) == [EXPORTS, own]
    with pytest.raises(QuotaError, match="for tenant 'globex'; there is none at all"):
        remove(conn, "exports", "globex")
    assert remove(conn, "exports", "acme").quota == own
    assert quotas(conn) == [EXPORTS]


def test_each_deed_is_told_with_what_was_before(conn: psycopg.Connection[Any]) -> None:
    """By whom, from what to what; what changes nothing leaves no row."""
    put(conn, Quota("told", limit=10, tenant="acme"), by="ada")
    put(conn, Quota("told", limit=20, thresholds=(80,), tenant="acme"))
    put(conn, Quota("told", limit=20, thresholds=(80,), tenant="acme"))
    remove(conn, "told", "acme", by="grace")
    first, second, last = told(conn, "told")
    assert [row["event_type"] for row in (first, second, last)] == [
        "audit.quota.set",
        "audit.quota.set",
        "audit.quota.removed",
    ]
    assert first["metadata"]["audit.before"] is None
    assert (first["metadata"]["audit.by"], first["metadata"]["audit.tenant"]) == ("ada", "acme")
    assert second["metadata"]["audit.before"] == first["metadata"]["audit.after"]
    assert second["metadata"]["audit.after"]["thresholds"] == [80]
    assert second["message"] == (
        "the quota told of tenant acme was set: limit from 10 to 20, thresholds from [] to [80]"
    )
    assert last["metadata"]["audit.before"] == second["metadata"]["audit.after"]
    assert (last["metadata"]["audit.by"], last["metadata"]["audit.after"]) == ("grace", None)
    assert last["user_id"] == conn.info.user


def test_what_cannot_be_told_is_not_done(any_server: Server) -> None:
    """A role that may change quotas, and not record it, changes none."""
    with (
        any_server.role() as role,
        any_server.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as owner,
    ):
        put(owner, EXPORTS)
        owner.execute(f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        owner.execute(f'GRANT ALL ON logstore.quotas TO "{role}"')
        with psycopg.connect(as_role(dsn, role), autocommit=True) as other:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                put(other, Quota("exports", limit=11))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                remove(other, "exports")
        assert quotas(owner) == [EXPORTS]


def test_what_does_not_exist_is_not_removed(conn: psycopg.Connection[Any]) -> None:
    """The error names what was probably meant."""
    with pytest.raises(QuotaError, match="no quota 'exprts' for all tenants; there is none at all"):
        remove(conn, "exprts")
    put(conn, EXPORTS)
    with pytest.raises(QuotaError, match="did you mean 'exports'"):
        remove(conn, "exprts")
    assert told(conn, "exprts") == []


def test_two_changes_wait_for_each_other(conn: psycopg.Connection[Any]) -> None:
    """And readers for neither of them."""
    put(conn, EXPORTS)
    with connect(conn.info.dsn) as other:
        with alone(conn):
            raising = threading.Thread(target=put, args=(other, Quota("exports", limit=11)))
            raising.start()
            try:
                while not waits_for_a_lock(conn.info.dsn):
                    assert raising.is_alive()
                with psycopg.connect(conn.info.dsn, autocommit=True) as reader:
                    assert quotas(reader) == [EXPORTS]
            finally:
                put(conn, Quota("exports", limit=12))
        raising.join()
    assert [row["metadata"]["audit.before"] for row in told(conn, "exports")[-2:]] == [
        row["metadata"]["audit.after"] for row in told(conn, "exports")[-3:-1]
    ]
    assert quotas(conn) == [Quota("exports", limit=11)]


def test_a_row_that_is_no_quota_is_told_and_hides_no_other(conn: psycopg.Connection[Any]) -> None:
    """Whoever writes it by hand; it can be removed, or mended by its own values."""
    for quota in (EXPORTS, Quota("imports", limit=5)):
        put(conn, quota)
    conn.execute(
        "UPDATE logstore.quotas SET period = 'fortnight', anchor = 'infinity',"
        " changed_at = '-infinity' WHERE quota_id = 'exports'"
    )
    broken, whole = stored(conn)
    assert whole.quota == Quota("imports", limit=5)
    assert (broken.quota, broken.changed_at) == (None, None)
    assert broken.problem
    assert "'fortnight' is no period" in broken.problem
    assert "`auditlog quota set exports` mends it" in broken.problem
    mended = {**values_before([broken], "exports"), "period": "day", "anchor": None}
    assert Quota(**mended) == EXPORTS
    assert put(conn, Quota(**mended)) == "set"
    assert quotas(conn) == [EXPORTS, Quota("imports", limit=5)]
    conn.execute("UPDATE logstore.quotas SET anchor = '4713-01-01 BC' WHERE quota_id = 'exports'")
    assert remove(conn, "exports").problem
    assert quotas(conn) == [Quota("imports", limit=5)]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
words = texts | st.sampled_from(["requests", "tenant", "route", "1 month", "UTC", "401", "/a"])
several = st.lists(words | st.none(), max_size=3)
anchors = st.sampled_from(
    [None, "infinity", "-infinity", "4713-01-01 BC", "294276-12-31", "2026-1-1"]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"quota_id": texts, "quota_limit": st.integers(0, 2**63 - 1)},
        optional={
            "instance_id": texts,
            "counts": words,
            "per": several,
            "period": words,
            "rolling": st.booleans(),
            "anchor": anchors,
            "time_zone": words,
            "thresholds": st.lists(st.integers(-(2**31), 2**31 - 1) | st.none(), max_size=3),
            "refunds": several,
            "routes": several,
            "methods": several,
        },
    )
)
def test_no_row_raises_anything_but_a_quota_error(
    conn: psycopg.Connection[Any], row: dict[str, Any]
) -> None:
    """One row that somebody writes by hand must not keep a service from reading the others."""
    conn.execute("TRUNCATE logstore.quotas")
    columns = sql.SQL(", ").join(map(sql.Identifier, row))
    insert = (
        "INSERT INTO logstore.quotas ({0})"
        " SELECT {0} FROM jsonb_populate_record(NULL::logstore.quotas, %s)"
    )
    conn.execute(sql.SQL(insert).format(columns), [Jsonb(row)])
    (found,) = stored(conn)
    assert (found.quota is None) == (found.problem is not None)
    remove(conn, found.id, found.tenant)


def test_nested_lists_are_no_quota(conn: psycopg.Connection[Any]) -> None:
    """An array of the database's has any number of dimensions."""
    put(conn, EXPORTS)
    for column in ("per", "refunds", "routes", "methods"):
        nested = sql.SQL("UPDATE logstore.quotas SET {} = '{{{{a,b}},{{c,d}}}}'")
        conn.execute(nested.format(sql.Identifier(column)))
        assert quotas(conn) == [None]
    conn.execute("UPDATE logstore.quotas SET thresholds = '{{80}}'")
    assert quotas(conn) == [None]


def test_a_tenants_first_one_is_as_for_all_tenants(conn: psycopg.Connection[Any]) -> None:
    """Else as it is defined elsewhere; its own goes before both."""
    elsewhere = Quota("exports", limit=7, period="hour")
    nowhere = values_before(stored(conn), "exports", "acme", otherwise=elsewhere)
    assert Quota(**nowhere) == Quota("exports", limit=7, period="hour", tenant="acme")
    put(conn, EXPORTS)
    first = values_before(stored(conn), "exports", "acme", otherwise=elsewhere)
    assert (first["limit"], first["period"], first["tenant"]) == (10, "1 day", "acme")
    put(conn, Quota("exports", limit=3, period="week", tenant="acme"))
    own = values_before(stored(conn), "exports", "acme", otherwise=elsewhere)
    assert (own["limit"], own["period"]) == (3, "1 week")
    assert values_before([], "exports") == {"id": "exports", "tenant": None}


def test_counters_with_other_periods_are_found(conn: psycopg.Connection[Any]) -> None:
    """They tell that an application's quota of that name is another; not those of other tenants."""
    daily, hourly = Quota("q", limit=9, period="day"), Quota("q", limit=9, period="hour")
    rolling = Quota("q", limit=9, period="day", rolling=True)
    for quota in (daily, hourly, rolling):
        assert not has_other_periods(conn, quota)
    count(conn, daily, "acme")
    assert not has_other_periods(conn, daily)
    assert has_other_periods(conn, hourly)
    assert has_other_periods(conn, rolling)
    assert not has_other_periods(conn, Quota("q", limit=9, period="hour", tenant="globex"))
    put(conn, Quota("q", limit=1, period="day", tenant="acme"))
    assert not has_other_periods(conn, hourly), "acme has a quota of its own"
    count(conn, rolling, "globex")
    assert not has_other_periods(conn, rolling)
    assert has_other_periods(conn, Quota("q", limit=9, period="hour", rolling=True))
    assert has_other_periods(conn, hourly)


def count(conn: psycopg.Connection[Any], quota: Quota, tenant: str) -> None:
    """Spend one unit at this moment."""
    (now_us,) = conn.execute("SELECT logstore.microseconds(clock_timestamp())").fetchone() or (0,)
    start, end = quota.of_instant(now_us)
    when = {"window": quota.window_us} if quota.rolling else {"start": start, "end": end}
    ask = {"q": quota.id, "t": tenant, "s": "", "n": 1, "a": 1, "limit": quota.limit, **when}
    conn.execute("SELECT logstore.spend_quotas(%s)", [Jsonb([ask])])
