"""A partitioned table becomes a plain one again, while it is written and read; no row is lost.

    examine → swap → move → clear

One transaction takes the largest partition out, which gets the table's name, and lets the others
that have rows inherit from it: whoever reads the table goes on to see every row, and whoever writes
it writes into the plain one. Then the others' rows are moved, each partition in one transaction
that ends with its drop, so that at any moment each row is seen once. An interruption leaves a table
that is whole, and the next run goes on from there.

Only a transaction whose snapshot is older than such a move, and that had not read the table before,
misses what was moved; PostgreSQL promises no more of any table that is dropped.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from psycopg import Connection, sql

from auditlog.errors import PartitionError
from auditlog.partitions import evidence
from auditlog.partitions.conversion.leftovers import clear, find, parts_of
from auditlog.partitions.conversion.members import Member, members_of
from auditlog.partitions.conversion.preflight import examine_back
from auditlog.partitions.conversion.scaffold import (
    LOCK_TIMEOUT_S,
    SCAFFOLD_MARK,
    TRIES,
    OnStage,
    dependents,
    dressed,
    execute,
    indexes_of,
    renamed,
    scaffold,
    swap,
    traits,
    vouched,
)
from auditlog.partitions.locking import NOT_HAD, blockers, named, persistently
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.lookups import rows
from auditlog.partitions.model import Finding
from auditlog.partitions.naming import index_name, oid_of
from auditlog.partitions.session import only_run, scalar

_FROM_PARENT = (
    *("column", "column comment", "identity", "comment"),
    *("trigger", "grant"),
)


@dataclass(frozen=True, slots=True)
class DisableReport:
    """What became of it."""

    table: str
    result: Literal["done", "already", "refused", "busy"]
    """`refused`: a finding stands in the way. `busy`: another run has the table."""
    findings: tuple[Finding, ...] = ()
    rows_moved: int = 0
    waited_s: float = 0.0
    """For the lock, in the attempt that got it."""
    locked_s: float = 0.0
    """From then until the commit."""


def disable(
    conn: Connection[Any], table: str, on_step: OnStage = lambda _stage, _about: None
) -> DisableReport:
    """Make a partitioned table a plain one, or finish what an earlier run began.

    Also removes what an interrupted `enable` has left.

    Args:
        conn: In the state of `session.maintenance`, the table's owner or a member of it.
        table: One of `TABLES`.
        on_step: Called before each stage.

    Raises:
        PartitionError: it could not be done, or not to its end; every row is where it can be read.
        psycopg.Error: likewise.
    """
    with only_run(conn, table) as is_ours:
        if not is_ours:
            return DisableReport(table, "busy")
        on_step("examine", table)
        findings = tuple(examine_back(conn, table))
        if any(finding.severity == "human" for finding in findings):
            return DisableReport(table, "refused", findings)
        return _Disabling(conn, table, on_step).run(findings)


class _Disabling:
    """One run, that has the table to itself."""

    def __init__(self, conn: Connection[Any], table: str, on_step: OnStage) -> None:
        self._conn = conn
        self._table = table
        self._on_step = on_step

    def run(self, findings: tuple[Finding, ...]) -> DisableReport:
        """Go through the stages that are left."""
        requested = granted = done = 0.0
        oid = oid_of(self._conn, self._table) or 0
        kind = scalar(self._conn, "SELECT relkind FROM pg_catalog.pg_class WHERE oid = %s", oid)
        if kind == "p":
            self._on_step("swap", self._table)
            self._dress(members_of(self._conn, oid)[0].name)
            requested, granted = swap(self._conn, self._table, lambda: self._swap(oid))
            done = perf_counter()
        elif not (self._halfway() or find(self._conn, self._table)):
            return DisableReport(self._table, "already", findings)
        moved = sum(self._move_all())
        self._on_step("clear", scaffold(self._table))
        clear(self._conn, self._table)
        return DisableReport(
            self._table, "done", findings, moved, granted - requested, done - granted
        )

    def _dress(self, name: str) -> None:
        """Give what will be the table what it lacks of it, such as row security."""
        swap(self._conn, self._table, lambda: execute(self._conn, dressed(self._table, name)))

    def _swap(self, oid: int) -> tuple[float, float]:
        """Give the name to the largest partition; return when the lock was asked for and had."""
        members = members_of(self._conn, oid)
        plain, others = members[0], [member.name for member in members[1:]]
        full = self._with_rows(others)
        replaced = dependents(self._conn, oid, self._table, scaffold(self._table))
        statements = [*self._statements(oid, plain), *replaced.views, *replaced.publications]
        # This row needs a partition too, and to go back must be possible where there is none.
        is_covered = scalar(
            self._conn, "SELECT logstore.covered_until(%s) IS NOT NULL", self._table
        )
        if is_covered:
            self._enter(plain)
        # Readers of a view lock the view first: likewise, or each would wait for the other.
        execute(self._conn, *replaced.views)
        requested = perf_counter()
        execute(self._conn, _LOCK.format(qualified(self._table)))
        granted = perf_counter()
        if {member.name for member in members} != set(parts_of(self._conn, oid)):
            raise PartitionError(f"the partitions of logstore.{self._table} changed: run it again")
        full |= self._with_rows(set(others) - full)
        execute(self._conn, *statements, *self._inheriting(full))
        if not is_covered:
            self._enter(plain)
        return requested, granted

    def _enter(self, plain: Member) -> None:
        self._conn.execute("DELETE FROM logstore.partitioning WHERE table_name = %s", [self._table])
        evidence.record(
            self._conn,
            "audit.partitioning.disabled",
            self._table,
            f"logstore.{self._table} is not partitioned any more",
            kept=plain.name,
        )

    def _statements(self, oid: int, plain: Member) -> Iterator[sql.Composable]:
        table, other = self._table, scaffold(self._table)
        yield _RENAME.format(qualified(table), sql.Identifier(other))
        for index in indexes_of(self._conn, oid):
            yield renamed(index.name, index_name(index.name, table, other))
        yield _DETACH.format(qualified(other), qualified(plain.name))
        yield _RENAME.format(qualified(plain.name), sql.Identifier(table))
        restored = rows(
            self._conn, "conversion/restored", table=oid, partition=plain.oid, called=table
        )
        yield from (vouched(row["statement"]) for row in restored)
        had = traits(self._conn, plain.oid, table, _FROM_PARENT)
        yield from (one for one in traits(self._conn, oid, table, _FROM_PARENT) if one not in had)
        yield _COMMENT.format(qualified(other), f"{SCAFFOLD_MARK} of {table}: not in use any more")

    def _inheriting(self, names: set[str]) -> Iterator[sql.Composable]:
        for name in sorted(names):
            yield _DETACH.format(qualified(scaffold(self._table)), qualified(name))
            yield _INHERIT.format(qualified(name), qualified(self._table))
            yield _COMMENT.format(
                qualified(name), f"{SCAFFOLD_MARK}: rows on their way into {self._table}"
            )

    def _with_rows(self, names: Collection[str]) -> set[str]:
        """Return those tables that have any; it is asked once more of the others under the lock."""
        if not names:
            return set()
        queries = (_ANY_ROW.format(name, qualified(name)) for name in names)
        return {name for (name,) in self._conn.execute(sql.SQL(" UNION ALL ").join(queries))}

    def _move_all(self) -> Iterator[int]:
        for name in self._halfway():
            self._on_step("move", name)
            with self._conn.transaction():
                moved = self._move(name)
            yield moved

    def _halfway(self) -> list[str]:
        """Return the partitions whose rows are still to be moved, and no table of others."""
        oid = oid_of(self._conn, self._table) or 0
        return parts_of(self._conn, oid, SCAFFOLD_MARK)

    def _move(self, name: str) -> int:
        """Move a partition's rows and drop it, each row being seen once at any moment."""
        place = {"part": qualified(name), "table": qualified(self._table)}
        columns = self._columns()
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        self._locked(name, "SHARE ROW EXCLUSIVE")
        moved = self._conn.execute(_MOVE.format(columns=names, **place)).rowcount
        ((total,),) = self._conn.execute(_COUNT.format(**place)).fetchall()
        if moved != total:
            self._require_duplicates(name, columns)
        evidence.record(
            self._conn,
            "audit.partition.merged",
            self._table,
            f"the rows of logstore.{name} were moved into logstore.{self._table}",
            partition=name,
            rows=total,
        )
        self._locked(name, "ACCESS EXCLUSIVE")
        execute(self._conn, _DROP.format(**place))
        return moved

    def _columns(self) -> list[str]:
        names: list[str] = scalar(
            self._conn,
            "SELECT array(SELECT attname::text FROM pg_catalog.pg_attribute"
            " WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' ORDER BY attnum)",
            f"logstore.{self._table}",
        )
        return names

    def _require_duplicates(self, name: str, columns: list[str]) -> None:
        """See that what was not moved is there as it is: a replay has stored it a second time."""
        query = _ABSENT.format(
            part=qualified(name), table=qualified(self._table), same=self._same(columns)
        )
        ((absent,),) = self._conn.execute(query).fetchall()
        if absent:
            raise PartitionError(
                f"{absent} rows of logstore.{name} have the identity of other rows of"
                f" logstore.{self._table}: they are where they were, and to be read there; give one"
                " of each two another log_id, as owner under SET LOCAL auditlog.maintenance ="
                " 'on', then run this again"
            )

    @staticmethod
    def _same(columns: list[str]) -> sql.Composable:
        compare = sql.SQL("t.{0} IS NOT DISTINCT FROM p.{0}")
        return sql.SQL(" AND ").join(compare.format(sql.Identifier(name)) for name in columns)

    def _locked(self, name: str, mode: str) -> None:
        """Lock a partition whose rows are being moved; what was moved stays so while it waits.

        Raises:
            PartitionError: somebody reads it for long.
        """
        lock = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(qualified(name), vouched(mode))
        try:
            persistently(
                self._conn, lambda: execute(self._conn, lock), timeout_s=LOCK_TIMEOUT_S, tries=TRIES
            )
        except NOT_HAD as error:
            who = named(blockers(self._conn, [name]))
            raise PartitionError(f"logstore.{name} cannot be locked: {who}") from error


_LOCK = sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE")
_RENAME = sql.SQL("ALTER TABLE {} RENAME TO {}")
_COMMENT = sql.SQL("COMMENT ON TABLE {} IS {}")
_DETACH = sql.SQL("ALTER TABLE {} DETACH PARTITION {}")
_ANY_ROW = sql.SQL("SELECT {}::text WHERE EXISTS (SELECT FROM ONLY {})")
_INHERIT = sql.SQL("ALTER TABLE {} INHERIT {}")
_MOVE = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM ONLY {part} ON CONFLICT DO NOTHING"
)
_COUNT = sql.SQL("SELECT count(*) FROM ONLY {part}")
_ABSENT = sql.SQL(
    "SELECT count(*) FROM ONLY {part} AS p WHERE NOT EXISTS (SELECT FROM ONLY {table} AS t"
    " WHERE t.instance_id = p.instance_id AND t.log_id = p.log_id AND {same})"
)
_DROP = sql.SQL("DROP TABLE {part}")
