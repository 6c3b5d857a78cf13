"""Look whether a table can become a partitioned one: what stands in the way, and what is seen to.

Nothing is changed and no lock is waited for. Whatever has severity "human" must be mended before;
the rest is told so that nobody is surprised.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection, sql
from psycopg.rows import tuple_row

from auditlog.partitions.conversion.bounding import bound_name
from auditlog.partitions.conversion.members import members_of
from auditlog.partitions.conversion.obstacles import finding
from auditlog.partitions.conversion.scaffold import SCAFFOLD_MARK, asked, legacy, scaffold
from auditlog.partitions.lookups import rows
from auditlog.partitions.model import Finding, Step
from auditlog.partitions.naming import oid_of
from auditlog.partitions.reading.managers import find_manager
from auditlog.partitions.session import scalar
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name as name_of
from auditlog.partitions.windows import window, windows
from auditlog.tables import TABLES

MARGIN = {"day": timedelta(days=1), "week": timedelta(days=3), "month": timedelta(days=7)}
"""At least so far ahead lies the end of the legacy partition.

From the CHECK until the swap, rows from beyond that end are refused: the margin is what a run that
was killed in between has until somebody runs the next one, and what clocks of clients may differ.
"""
AHEAD = Span(months=3)
"""For how long there are to be partitions, if nobody says otherwise."""
_NO_ENTRY = {"not owner", "no right", "row security"}
_ON_THE_WAY_BACK = {
    "referred to",
    "view",
    "view of others",
    "dependent",
    "publication",
    "publication of parts",
    "publication of others",
    "long transaction",
    "prepared transaction",
}
_ONE = {"day": Span(days=1), "week": Span(days=7), "month": Span(months=1)}


def examine(conn: Connection[Any], table: str, step: Step) -> list[Finding]:
    """Return what `enable` would find, "human" where it would refuse.

    Args:
        conn: In the state of `session.maintenance`.
        table: One of `TABLES`.
        step: Length of the partitions.

    Raises:
        psycopg.Error: the database cannot be asked.
    """
    oid = oid_of(conn, table)
    if oid is None:
        return [finding(table, "no table", "")]
    if manager := find_manager(conn, table, oid, {}):
        return [finding(table, "managed", manager)]
    found = list(_obstacles(conn, table, oid))
    if any(code in _NO_ENTRY for code, _ in found):
        return [finding(table, *one) for one in found if one[0] in _NO_ENTRY]
    if _is_partitioned(conn, oid):
        is_ours = asked(conn, "SELECT FROM logstore.partitioning WHERE table_name = %s", table)
        return [finding(table, "partitioned otherwise" if is_ours is None else "partitioned", "")]
    findings = [finding(table, *one) for one in found]
    if any(code == "date type" for code, _ in found):
        return findings
    return findings + list(_of_rows(conn, table, step))


def end_of_legacy(conn: Connection[Any], table: str, step: Step) -> datetime:
    """Return where the rows from before are to end: a boundary beyond all that are there."""
    return _beyond(step, _ahead(conn, table).latest)


def _beyond(step: Step, newest: datetime) -> datetime:
    lower, upper = window(step, newest + MARGIN[step])
    return lower if lower == newest + MARGIN[step] else upper


def examine_back(conn: Connection[Any], table: str) -> list[Finding]:
    """Return what `disable` would find, "human" where it would refuse.

    Raises:
        psycopg.Error: the database cannot be asked.
    """
    oid = oid_of(conn, table)
    if oid is None:
        return [finding(table, "no table", "")]
    is_partitioned = _is_partitioned(conn, oid)
    looked_for = _NO_ENTRY | _ON_THE_WAY_BACK if is_partitioned else _NO_ENTRY
    found = [one for one in _obstacles(conn, table, oid) if one[0] in looked_for]
    findings = [finding(table, *one) for one in found]
    if not is_partitioned or any(code in _NO_ENTRY for code, _ in found):
        return findings
    return findings + list(_of_members(conn, table, oid))


def _of_members(conn: Connection[Any], table: str, oid: int) -> Iterator[Finding]:
    members = members_of(conn, oid)
    if not members:
        yield finding(table, "no partition", "")
    for member in members:
        if member.is_detaching:
            yield finding(table, "detaching", member.name)
        elif not member.is_ours:
            yield finding(table, "foreign", member.name)
    needed = sum(member.locks for member in members)
    budget = scalar(conn, _LOCK_BUDGET)
    if needed > budget // 2:
        yield finding(table, "locks", f"{needed} locks, and the server has {budget}")
    for (name,) in conn.execute(_DETACHED, [table]).fetchall():
        yield finding(table, "detached", name)


def _is_partitioned(conn: Connection[Any], oid: int) -> bool:
    kind = scalar(conn, "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s", oid)
    return bool(kind == "p")


def _obstacles(conn: Connection[Any], table: str, oid: int) -> Iterator[tuple[str, str]]:
    (described,) = (one for one in TABLES if one.name == table)
    found = rows(
        conn,
        "conversion/obstacles",
        table=oid,
        columns=list(described.column_names),
        indexes=[index.name for index in described.indexes],
        bound=bound_name(table),
        names=[legacy(table), scaffold(table)],
        mark=SCAFFOLD_MARK,
    )
    return ((row["code"], row["object"]) for row in found)


def _of_rows(conn: Connection[Any], table: str, step: Step) -> Iterator[Finding]:
    now, latest, nulls, infinite = _ahead(conn, table)
    if nulls:
        yield finding(table, "null dates", str(nulls))
    if infinite:
        yield finding(table, "infinite dates", str(infinite))
    if latest > _ONE[step].after(now):
        yield finding(table, "future dates", f"{latest:%Y-%m-%d %H:%M}")
        return
    if latest > now:
        yield finding(table, "clock ahead", str(latest - now))
    for name in _taken(conn, table, step, latest):
        yield finding(table, "taken name", f"logstore.{name}")


def _taken(conn: Connection[Any], table: str, step: Step, newest: datetime) -> list[str]:
    """Return the names of partitions to come that something has which `enable` does not remove."""
    end = _beyond(step, newest)
    until = max(AHEAD.after(newest), end + timedelta(microseconds=1))
    names = [name_of(table, step, lower) for lower, _ in windows(step, end, until)]
    return list(scalar(conn, _TAKEN, names, scaffold(table)))


class _Ahead(NamedTuple):
    now: datetime
    latest: datetime
    """At least `now`."""
    nulls: int
    infinite: int


def _ahead(conn: Connection[Any], table: str) -> _Ahead:
    """Look at the rows that are not of the past; the index over time finds them."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        (found,) = cursor.execute(_AHEAD.format(sql.Identifier("logstore", table))).fetchall()
    now, latest, nulls, infinite = found
    now = now.astimezone(UTC)
    return _Ahead(now, max(now, latest.astimezone(UTC)) if latest else now, nulls, infinite)


_LOCK_BUDGET = """
    SELECT current_setting('max_locks_per_transaction')::integer
        * (current_setting('max_connections')::integer
           + current_setting('max_prepared_transactions')::integer)
"""
_TAKEN = """
    SELECT array(
        SELECT t.relname::text FROM pg_catalog.pg_class t
        WHERE t.relnamespace = 'logstore'::regnamespace AND t.relname = ANY (%s::text[])
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_inherits i
                JOIN pg_catalog.pg_class parent ON parent.oid = i.inhparent
                WHERE i.inhrelid = t.oid AND parent.relname = %s
            )
    )
"""
_DETACHED = b"""
    SELECT partition_name FROM logstore.retirements
    WHERE table_name = %s AND instance_id IS NULL AND state IN ('detached', 'archived')
    ORDER BY lower_bound
"""
# Years that Python does not know come as the last that it does.
_AHEAD = sql.SQL("""
    SELECT clock_timestamp(),
           max(least(log_date, '9999-12-01 00:00+00')) FILTER (WHERE isfinite(log_date)),
           count(*) FILTER (WHERE log_date IS NULL),
           count(*) FILTER (WHERE log_date = 'infinity')
    FROM ONLY {} WHERE log_date IS NULL OR log_date >= statement_timestamp()
""")
