"""Look whether a table can become a partitioned one: what stands in the way, and what is seen to.

Nothing is changed and no lock is waited for. Whatever has severity "human" must be mended before;
the rest is told so that nobody is surprised.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection, sql
from psycopg.rows import tuple_row

from auditlog.partitions.bounding import bound_name
from auditlog.partitions.conversion import SCAFFOLD_MARK, asked, legacy, oid_of, scaffold
from auditlog.partitions.lookups import rows
from auditlog.partitions.managers import find_manager
from auditlog.partitions.members import members_of
from auditlog.partitions.model import Finding, Severity, Step
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
        return [_finding(table, "no table", "")]
    if manager := find_manager(conn, table, oid, {}):
        return [_finding(table, "managed", manager)]
    found = list(_obstacles(conn, table, oid))
    if any(code in _NO_ENTRY for code, _ in found):
        return [_finding(table, *one) for one in found if one[0] in _NO_ENTRY]
    if _is_partitioned(conn, oid):
        is_ours = asked(conn, "SELECT FROM logstore.partitioning WHERE table_name = %s", table)
        return [_finding(table, "partitioned otherwise" if is_ours is None else "partitioned", "")]
    findings = [_finding(table, *one) for one in found]
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
        return [_finding(table, "no table", "")]
    is_partitioned = _is_partitioned(conn, oid)
    looked_for = _NO_ENTRY | _ON_THE_WAY_BACK if is_partitioned else _NO_ENTRY
    found = [one for one in _obstacles(conn, table, oid) if one[0] in looked_for]
    findings = [_finding(table, *one) for one in found]
    if not is_partitioned or any(code in _NO_ENTRY for code, _ in found):
        return findings
    return findings + list(_of_members(conn, table, oid))


def _of_members(conn: Connection[Any], table: str, oid: int) -> Iterator[Finding]:
    members = members_of(conn, oid)
    if not members:
        yield _finding(table, "no partition", "")
    for member in members:
        if member.is_detaching:
            yield _finding(table, "detaching", member.name)
        elif not member.is_ours:
            yield _finding(table, "foreign", member.name)
    needed = sum(member.locks for member in members)
    budget = scalar(conn, _LOCK_BUDGET)
    if needed > budget // 2:
        yield _finding(table, "locks", f"{needed} locks, and the server has {budget}")
    for (name,) in conn.execute(_DETACHED, [table]).fetchall():
        yield _finding(table, "detached", name)


def _is_partitioned(conn: Connection[Any], oid: int) -> bool:
    kind = scalar(conn, "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s", oid)
    return bool(kind == "p")


def _obstacles(conn: Connection[Any], table: str, oid: int) -> Iterator[tuple[str, str]]:
    (described,) = (one for one in TABLES if one.name == table)
    found = rows(
        conn,
        "obstacles",
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
        yield _finding(table, "null dates", str(nulls))
    if infinite:
        yield _finding(table, "infinite dates", str(infinite))
    if latest > _ONE[step].after(now):
        yield _finding(table, "future dates", f"{latest:%Y-%m-%d %H:%M}")
        return
    if latest > now:
        yield _finding(table, "clock ahead", str(latest - now))
    for name in _taken(conn, table, step, latest):
        yield _finding(table, "taken name", f"logstore.{name}")


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


def _finding(table: str, code: str, about: str) -> Finding:
    severity, detail, remedy = _WORDS[code]
    words = {"table": f"logstore.{table}", "about": about}
    return Finding(code.replace(" ", "_"), severity, detail.format(**words), remedy.format(**words))


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

_WORDS: dict[str, tuple[Severity, str, str]] = {
    "no table": (
        "human",
        "there is no table {table}",
        "auditlog migrate makes it",
    ),
    "partitioned": ("note", "{table} is partitioned already", ""),
    "partitioned otherwise": (
        "human",
        "{table} is partitioned, and not by this package",
        "turn it into a plain table first, or leave it to what made it",
    ),
    "not owner": (
        "human",
        "{table} belongs to {about}, and only its owner can change it",
        "log in as that role, or as a member of it",
    ),
    "row security": (
        "human",
        "row security of {table} hides rows from this role: they would not be looked at",
        "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, or use a role with BYPASSRLS",
    ),
    "no right": (
        "human",
        "this role has no right to {about}",
        "GRANT it, or log in as the owner of schema logstore",
    ),
    "unlogged": (
        "human",
        "{table} is not kept over a crash of the server",
        "ALTER TABLE {table} SET LOGGED",
    ),
    "storage": (
        "note",
        "the storage parameters {about} stay with the rows that are there: partitions made later"
        " have the server's",
        "",
    ),
    "inherits": (
        "human",
        "{table} inherits from {about}",
        "ALTER TABLE {table} NO INHERIT {about}",
    ),
    "inherited": (
        "human",
        "{about} inherits from {table}, as while partitions are given up",
        "end that: auditlog partitions disable; if it is your own, ALTER TABLE {about} NO INHERIT"
        " {table}",
    ),
    "typed": ("human", "{table} is of type {about}", "ALTER TABLE {table} NOT OF"),
    "key": (
        "human",
        "the primary key is {about}; partitions have (instance_id, log_id)",
        "restore it: ALTER TABLE {table} ADD PRIMARY KEY (instance_id, log_id)",
    ),
    "date type": (
        "human",
        "log_date is {about}, and partitions are ranges of timestamptz",
        "ALTER TABLE {table} ALTER COLUMN log_date TYPE timestamptz",
    ),
    "nullable": ("note", "log_date may be null, and will not be", ""),
    "null dates": (
        "human",
        "{about} rows have no log_date and fit no partition",
        "give them one, as owner under SET LOCAL auditlog.maintenance = 'on'",
    ),
    "infinite dates": (
        "human",
        "{about} rows have the log_date infinity, which no partition can have",
        "give them another, as owner under SET LOCAL auditlog.maintenance = 'on'",
    ),
    "future dates": (
        "human",
        "there are rows from the future, up to {about}",
        "mend that client's clock, then give them another log_date, as owner under SET LOCAL"
        " auditlog.maintenance = 'on'",
    ),
    "clock ahead": (
        "note",
        "the newest row is {about} ahead of the server: the first partition ends after it",
        "synchronise the clients' clocks by NTP",
    ),
    "identity": (
        "human",
        "column {about} is an identity, which partitions cannot share",
        "ALTER TABLE {table} ALTER COLUMN {about} DROP IDENTITY",
    ),
    "owned sequence": (
        "human",
        "sequence {about} would be dropped together with the oldest partition",
        "ALTER SEQUENCE {about} OWNED BY NONE",
    ),
    "extra column": ("note", "column {about} is the operator's; partitions will have it", ""),
    "missing column": (
        "human",
        "there is no column {about}",
        "auditlog doctor tells what the schema lacks",
    ),
    "invalid index": (
        "human",
        "index {about} is invalid, and would be built anew under lock",
        "REINDEX INDEX CONCURRENTLY {about}, or drop it",
    ),
    "unique index": (
        "human",
        "index {about} is unique without log_date, which no partitioned table can promise",
        "DROP INDEX CONCURRENTLY {about}, or build it with log_date in it",
    ),
    "missing index": (
        "note",
        "there is no index {about}: partitions will not have it either",
        "build it before, while rows are written: CREATE INDEX CONCURRENTLY",
    ),
    "exclusion": (
        "human",
        "constraint {about} excludes rows, which no partitioned table can",
        "ALTER TABLE {table} DROP CONSTRAINT {about}",
    ),
    "unvalidated": (
        "human",
        "constraint {about} was never validated",
        "ALTER TABLE {table} VALIDATE CONSTRAINT {about}",
    ),
    "not inherited": (
        "human",
        "constraint {about} is NO INHERIT, which a partitioned table cannot have",
        "add it without, drop this one",
    ),
    "refers": (
        "human",
        "foreign key {about} of {table} would be checked under lock",
        "ALTER TABLE {table} DROP CONSTRAINT {about}",
    ),
    "referred to": (
        "human",
        "foreign key {about} refers to {table}, whose key will be each partition's own",
        "drop it",
    ),
    "leftover": (
        "drift",
        "an earlier run was interrupted and left constraint {about}, which refuses rows from"
        " beyond its date",
        "run enable again, or disable to go back",
    ),
    "transition table": (
        "human",
        "trigger {about} has a transition table, which rows of partitions cannot have",
        "make it a statement trigger, or drop it",
    ),
    "rule": ("human", "{table} has the rule {about}", "drop it"),
    "view": ("note", "view {about} will be made to read what takes the table's name", ""),
    "view of others": (
        "human",
        "{about} would go on to read the old rows only, and belongs to another role",
        "log in as a member of its owner too, or drop it and make it again afterwards",
    ),
    "dependent": (
        "human",
        "{about} would go on to refer to the old rows only",
        "drop it, and make it again afterwards",
    ),
    "publication": ("note", "publication {about} will have what takes the table's name", ""),
    "publication by leaf": (
        "human",
        "publication {about} would send rows under the partitions' names",
        "ALTER PUBLICATION {about} SET (publish_via_partition_root = true)",
    ),
    "publication of parts": (
        "human",
        "publication {about} has only some rows or columns of {table}",
        "ALTER PUBLICATION {about} DROP TABLE {table}, and add it again afterwards",
    ),
    "publication of others": (
        "human",
        "publication {about} belongs to another role",
        "log in as a member of its owner too, or take the table out and add it afterwards",
    ),
    "taken name": (
        "human",
        "the name {about} is taken by something else",
        "rename or drop it",
    ),
    "no partition": (
        "human",
        "{table} has no partition that could become the plain table",
        "auditlog partitions maintain makes one",
    ),
    "detaching": (
        "human",
        "the detach of partition {about} was begun and has not ended",
        "auditlog partitions maintain ends it",
    ),
    "foreign": (
        "human",
        "partition {about} is not of this package's making",
        "detach it, and put its rows into {table} afterwards",
    ),
    "locks": (
        "human",
        "its partitions and their indexes need {about}",
        "raise max_locks_per_transaction, or let retention drop partitions first",
    ),
    "detached": (
        "note",
        "partition {about} was detached, and maintain will not come back to it",
        "let maintain archive and drop it before",
    ),
    "managed": ("human", "{table} is not this package's to partition", "{about}"),
    "long transaction": (
        "note",
        "{about}, holds a lock that the swap would wait for",
        "wait for its end, or pg_terminate_backend it",
    ),
    "prepared transaction": (
        "note",
        "the prepared transaction {about} holds a lock that the swap would wait for",
        "COMMIT PREPARED or ROLLBACK PREPARED it",
    ),
}
