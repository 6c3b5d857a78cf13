"""A plain table becomes a partitioned one while it is written and read; no row is moved.

    examine → prepare → bound → validate → swap

The partitioned table is prepared beside it, with its future partitions. A CHECK says that all rows
lie below a boundary, validated while writers go on, so that the swap, one transaction of some
milliseconds, attaches the old table without looking at it. Whoever wrote to the name before writes
to the name after; an interruption leaves what the next run finds and uses or removes.

From the CHECK until the swap, rows from beyond that boundary are refused. Whatever goes wrong takes
the CHECK away again; after kill -9 it is there until the next `enable` or `disable`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any, Literal

from psycopg import Connection, sql

from auditlog.errors import PartitionError
from auditlog.partitions import evidence
from auditlog.partitions.conversion.bounding import (
    Range,
    bind,
    bound_of,
    dropped,
    prove,
    undone_on_error,
)
from auditlog.partitions.conversion.leftovers import clear
from auditlog.partitions.conversion.preflight import AHEAD, MARGIN, end_of_legacy, examine
from auditlog.partitions.conversion.scaffold import (
    SCAFFOLD_MARK,
    OnStage,
    asked,
    dependents,
    dressed,
    execute,
    indexes_of,
    legacy,
    renamed,
    scaffold,
    swap,
    traits,
)
from auditlog.partitions.creating import create
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.model import Finding, Step
from auditlog.partitions.naming import index_name, oid_of
from auditlog.partitions.session import only_run, scalar
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import MARK, name, window, windows

_FOR_PARENT = ("column", "identity", "trigger", "grant")


@dataclass(frozen=True, slots=True)
class EnableReport:
    """What became of it."""

    table: str
    result: Literal["done", "already", "refused", "busy"]
    """`refused`: a finding stands in the way. `busy`: another run has the table."""
    findings: tuple[Finding, ...] = ()
    end_of_legacy: datetime | None = None
    """Where the partition of the rows from before ends."""
    partitions: tuple[str, ...] = ()
    """What was made beside it."""
    waited_s: float = 0.0
    """For the lock, in the attempt that got it."""
    locked_s: float = 0.0
    """From then until the commit."""


def enable(
    conn: Connection[Any],
    table: str,
    step: Step,
    *,
    ahead: Span | None = None,
    on_step: OnStage = lambda _stage, _about: None,
) -> EnableReport:
    """Make a table a partitioned one, or finish what an earlier run began.

    Args:
        conn: In the state of `session.maintenance`, the table's owner or a member of it.
        table: One of `TABLES`.
        step: Length of the partitions that are made from now on.
        ahead: For how long there are to be partitions; None: three months, or as it is.
        on_step: Called before each stage.

    Raises:
        PartitionError: it could not be done, and everything is as it was.
        psycopg.Error: likewise.
    """
    with only_run(conn, table) as is_ours:
        if not is_ours:
            return EnableReport(table, "busy")
        on_step("examine", table)
        findings = tuple(examine(conn, table, step))
        if any(finding.severity == "human" for finding in findings):
            return EnableReport(table, "refused", findings)
        if any(finding.code == "partitioned" for finding in findings):
            _adjust(conn, table, step, ahead)
            return EnableReport(table, "already", findings)
        return _Enabling(conn, table, step, ahead or AHEAD, on_step).run(findings)


class _Enabling:
    """One run, that has the table to itself."""

    def __init__(
        self, conn: Connection[Any], table: str, step: Step, ahead: Span, on_step: OnStage
    ) -> None:
        self._conn = conn
        self._table = table
        self._step = step
        self._ahead = ahead
        self._on_step = on_step
        self._oid = oid_of(conn, table) or 0

    def run(self, findings: tuple[Finding, ...]) -> EnableReport:
        """Go through the stages; whatever goes wrong, the table is as it was."""
        left = self._bound_left()
        clear(self._conn, self._table, keep_bound=left is not None)
        end = left or end_of_legacy(self._conn, self._table, self._step)
        with undone_on_error(self._table, lambda: clear(self._conn, self._table)):
            self._on_step("prepare", f"{self._table}, partitioned from {end:%Y-%m-%d} on")
            with self._conn.transaction():
                made = self._prepare(end)
            self._bind(Range(None, end))
            self._on_step("swap", self._table)
            requested, granted = swap(self._conn, self._table, lambda: self._swap(end, len(made)))
            done = perf_counter()
        return EnableReport(
            self._table, "done", findings, end, made, granted - requested, done - granted
        )

    def _bound_left(self) -> datetime | None:
        """Return the end that an earlier run has promised, if there is time enough before it."""
        left = bound_of(self._conn, self._table)
        if left is None:
            return None
        is_boundary = window(self._step, left.upper)[0] == left.upper
        has_time = left.upper - self._now() >= MARGIN[self._step] / 2
        return left.upper if is_boundary and has_time else None

    def _prepare(self, end: datetime) -> tuple[str, ...]:
        """Make the partitioned table under another name, with its future partitions."""
        other = scaffold(self._table)
        execute(
            self._conn,
            _CREATE.format(qualified(other), qualified(self._table)) + self._tablespace(),
            dropped(self._table, other),
            dressed(self._table, other),
            *traits(self._conn, self._oid, other, _FOR_PARENT),
            _COMMENT.format(qualified(other), f"{SCAFFOLD_MARK} of {self._table}: not in use yet"),
            *(
                statement
                for index in indexes_of(self._conn, self._oid)
                if not index.is_primary
                for statement in index.created(other, index_name(index.name, self._table, other))
            ),
        )
        return tuple(self._future_partitions(other, end))

    def _tablespace(self) -> sql.Composable:
        name = scalar(
            self._conn,
            "SELECT (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = c.reltablespace)"
            " FROM pg_catalog.pg_class c WHERE c.oid = %s",
            self._oid,
        )
        return sql.SQL(" TABLESPACE {}").format(sql.Identifier(name)) if name else sql.SQL("")

    def _future_partitions(self, parent: str, end: datetime) -> Iterator[str]:
        until = self._ahead.after(self._now())
        for lower, upper in windows(self._step, end, max(until, end + timedelta(microseconds=1))):
            made = name(self._table, self._step, lower)
            create(self._conn, parent, made, lower, upper)
            # The parent's name was another one when it was made.
            execute(self._conn, _COMMENT.format(qualified(made), f"{MARK}{self._table}"))
            yield made

    def _bind(self, allowed: Range) -> None:
        """Have it promised, then proved, that no row lies beyond the end."""
        self._on_step("bound", f"{self._table}, below {allowed.upper:%Y-%m-%d}")
        bind(self._conn, self._table, allowed)
        self._on_step("validate", self._table)
        prove(self._conn, self._table)

    def _swap(self, end: datetime, made: int) -> tuple[float, float]:
        """Take the name away from the one and give it to the other; return when it got the lock."""
        self._enter(end, made)
        replaced = dependents(self._conn, self._oid, self._table, legacy(self._table))
        statements = [*self._statements(end), *replaced.views, *replaced.publications]
        # Readers of a view lock the view first: likewise, or each would wait for the other.
        execute(self._conn, *replaced.views)
        requested = perf_counter()
        execute(self._conn, _LOCK.format(qualified(self._table)))
        granted = perf_counter()
        self._still_as_prepared(end)
        execute(self._conn, *statements)
        return requested, granted

    def _enter(self, end: datetime, made: int) -> None:
        """What is written down, while others need not wait yet."""
        self._conn.execute(
            "INSERT INTO logstore.partitioning (table_name, step, ahead)"
            " VALUES (%s, %s, %s::text::interval)",
            [self._table, self._step, str(self._ahead)],
        )
        evidence.record(
            self._conn,
            "audit.partitioning.enabled",
            self._table,
            f"logstore.{self._table} is partitioned by {self._step}",
            step=self._step,
            ahead=str(self._ahead),
            until=end.isoformat(),
            partitions=made,
        )

    def _still_as_prepared(self, end: datetime) -> None:
        is_as_prepared = scalar(
            self._conn,
            "SELECT clock_timestamp() < %s AND pg_catalog.to_regclass(%s) = %s::oid",
            end,
            f"logstore.{self._table}",
            self._oid,
        )
        if not is_as_prepared:
            raise PartitionError(
                f"logstore.{self._table} is not what this run began with, or its date"
                f" {end:%Y-%m-%d %H:%M} UTC has passed meanwhile: run it again"
            )

    def _now(self) -> datetime:
        now: datetime = scalar(self._conn, "SELECT clock_timestamp()")
        return now

    def _statements(self, end: datetime) -> Iterator[sql.Composable]:
        table, old, other = self._table, legacy(self._table), scaffold(self._table)
        indexes = indexes_of(self._conn, self._oid)
        yield _RENAME.format(qualified(table), sql.Identifier(old))
        yield from (renamed(i.name, index_name(i.name, table, old)) for i in indexes)
        yield from self._without_triggers(old)
        yield _RENAME.format(qualified(other), sql.Identifier(table))
        yield from (
            renamed(index_name(i.name, table, other), i.name) for i in indexes if not i.is_primary
        )
        yield _NOT_NULL.format(qualified(old))
        yield _ATTACH.format(qualified(table), qualified(old), end.isoformat())
        yield dropped(table, old)
        yield from traits(self._conn, self._oid, table, ["comment"])
        yield dressed(table, old)

    def _without_triggers(self, old: str) -> Iterator[sql.Composable]:
        """Those for rows it gets from its parent, or not at all where it has them already."""
        for (trigger,) in self._conn.execute(_TRIGGERS, [self._oid]).fetchall():
            yield _DROP_TRIGGER.format(sql.Identifier(trigger), qualified(old))


def _adjust(conn: Connection[Any], table: str, step: Step, ahead: Span | None) -> None:
    """Give a table that is partitioned already the settings that are asked for."""
    with conn.transaction():
        found = asked(
            conn,
            "UPDATE logstore.partitioning AS known SET step = %s,"
            " ahead = coalesce(%s::text::interval, known.ahead)"
            " FROM (SELECT step, ahead FROM logstore.partitioning WHERE table_name = %s) AS before"
            " WHERE known.table_name = %s"
            " RETURNING (before.step, before.ahead) <> (known.step, known.ahead),"
            " known.ahead::text",
            step,
            str(ahead) if ahead else None,
            table,
            table,
        )
        if found and found[0]:
            evidence.record(
                conn,
                "audit.partitioning.changed",
                table,
                f"logstore.{table} is partitioned by {step} from now on",
                step=step,
                ahead=found[1],
            )


_CREATE = sql.SQL(
    "CREATE TABLE {} (LIKE {} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING CONSTRAINTS"
    " INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STATISTICS INCLUDING STORAGE)"
    " PARTITION BY RANGE (log_date)"
)
_TRIGGERS = (
    b"SELECT tgname FROM pg_catalog.pg_trigger"
    b" WHERE tgrelid = %s AND NOT tgisinternal AND tgname <> 'append_only'"
)
_DROP_TRIGGER = sql.SQL("DROP TRIGGER {} ON {}")
_COMMENT = sql.SQL("COMMENT ON TABLE {} IS {}")
_RENAME = sql.SQL("ALTER TABLE {} RENAME TO {}")
_NOT_NULL = sql.SQL("ALTER TABLE {} ALTER COLUMN log_date SET NOT NULL")
_LOCK = sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE")
_ATTACH = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ('-infinity') TO ({})")
