"""One run of maintenance: each table is looked at, planned for and brought to its plan, by itself.

Nothing that is wrong with one table keeps the others from being maintained, and a run that ends
anywhere is taken further by the next one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection

from auditlog.errors import PartitionError
from auditlog.partitions import locking
from auditlog.partitions.applying import apply, in_words, silent, why
from auditlog.partitions.archive import archive
from auditlog.partitions.conversion.leftovers import clear, find
from auditlog.partitions.model import Operation, Outcome, Plan, TableConfig, TableReport
from auditlog.partitions.planning import plan
from auditlog.partitions.reading.catalog import read
from auditlog.partitions.retention.retiring import Archiver, OnProgress
from auditlog.partitions.session import maintenance, only_run
from auditlog.partitions.statements import statement
from auditlog.postgres.causes import explain

_GOOD = frozenset({"done", "already"})


def preview(dsn: str, configs: Mapping[str, TableConfig]) -> list[TableReport]:
    """Return what `maintain` would do at this moment, and touch nothing.

    Raises:
        PartitionError: the DSN leads to a standby, or through a pooler.
        psycopg.Error: nothing answers, or the DSN is none.
    """
    _require_server(dsn)
    return [_previewed(dsn, config) for config in configs.values()]


def maintain(
    dsn: str,
    configs: Mapping[str, TableConfig],
    *,
    on_step: Callable[[Operation], None] = lambda _: None,
    on_done: Callable[[Outcome], None] = lambda _: None,
    on_progress: OnProgress = silent,
    archiver: Archiver = archive,
) -> list[TableReport]:
    """Plan for each table, and do it; safe at any time, and from several machines at once.

    Args:
        dsn: Of the primary itself, as the owner of the tables.
        configs: What is wanted, by table.
        on_step: Called before each step.
        on_done: Called after it.
        on_progress: Called with rows done and rows in all, while a partition is archived.
        archiver: Brings a partition into the archive.

    Raises:
        PartitionError: the DSN leads to a standby, or through a pooler; nothing was done.
        psycopg.Error: nothing answers, or the DSN is none; likewise.
    """
    _require_server(dsn)
    runs = [_Run(config, on_step, on_done, on_progress, archiver) for config in configs.values()]
    for run in runs:
        run.go(dsn)
    return [run.report() for run in runs]


@dataclass
class _Run:
    """One table's run, and what is known of it so far."""

    config: TableConfig
    on_step: Callable[[Operation], None]
    on_done: Callable[[Outcome], None]
    on_progress: OnProgress
    archiver: Archiver
    plan: Plan | None = None
    """The one that is carried out."""
    after: Plan | None = None
    """The one that would be next."""
    outcomes: list[Outcome] = field(default_factory=list)
    error: str | None = None
    is_busy: bool = False

    def go(self, dsn: str) -> None:
        """Look, do, and write down that it was done; whatever goes wrong is the report's error."""
        try:
            with maintenance(dsn) as conn, only_run(conn, self.config.table) as is_ours:
                self.is_busy = not is_ours
                if is_ours:
                    self._work(conn)
        except Exception as error:  # noqa: BLE001  # no table stops the others
            self._lost(dsn, error)

    def report(self) -> TableReport:
        """Return what the run did."""
        last = self.after or self.plan
        return TableReport(
            self.config.table,
            self.plan,
            tuple(self.outcomes),
            last.covered_until if last else None,
            self.error,
            self.is_busy,
        )

    def _work(self, conn: Connection[Any]) -> None:
        locking.limit(conn, "lock_timeout", self.config.lock_timeout_s, is_local=False)
        with self._told(conn):
            _adopt(conn, self.config)
            self.plan = _planned(conn, self.config)
            if not any(operation.kind == "heal" for operation in self.plan.operations):
                # Healing goes on with what it has left itself.
                clear(conn, self.config.table)
            self._carry_out(conn, self.plan)
            if self.plan.operations:
                self.after = _planned(conn, self.config)
        with self._told(conn):
            self._stamp(conn)

    @contextmanager
    def _told(self, conn: Connection[Any]) -> Iterator[None]:
        """Keep an error for the report, unless it is that the connection is lost."""
        try:
            yield
        except Exception as error:
            if conn.broken:
                raise
            self.error = self.error or why(conn, self.config.table, error)

    def _carry_out(self, conn: Connection[Any], plan: Plan) -> None:
        stuck: dict[str, Operation] = {}
        for operation in plan.operations:
            outcome = self._applied(conn, operation, stuck.get(operation.partition))
            if outcome.result not in _GOOD:
                stuck.setdefault(operation.partition, operation)

    def _applied(
        self, conn: Connection[Any], operation: Operation, stuck: Operation | None
    ) -> Outcome:
        if stuck is not None:
            return self._ended(Outcome(operation, "waiting", f"{stuck.kind} comes before it"))
        self.on_step(operation)
        try:
            outcome = apply(
                conn,
                operation,
                self.config,
                archiver=self.archiver,
                on_progress=self.on_progress,
            )
        except psycopg.Error as error:
            self._ended(Outcome(operation, "failed", str(explain(error))))
            raise
        return self._ended(outcome)

    def _ended(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        self.on_done(outcome)
        return outcome

    def _lost(self, dsn: str, error: Exception) -> None:
        """Go no further with this table, but let it be known that it was looked at."""
        self.error = self.error or in_words(error)
        with suppress(psycopg.Error, PartitionError), maintenance(dsn) as conn:
            self._stamp(conn)

    def _stamp(self, conn: Connection[Any]) -> None:
        if (last := self.after or self.plan) is None:
            return
        found = [finding.code for finding in last.findings if finding.severity == "human"]
        failed = sum(outcome.result == "failed" for outcome in self.outcomes)
        parameters = {
            "table": self.config.table,
            "findings": len(found) + failed,
            # A wrong time written down would make the next run believe it.
            "trusts_clock": "clock" not in found,
        }
        conn.execute(statement("maintained"), parameters)


def _require_server(dsn: str) -> None:
    """Raise what keeps every table from being looked at, before any is."""
    with maintenance(dsn):
        pass


def _previewed(dsn: str, config: TableConfig) -> TableReport:
    try:
        with maintenance(dsn) as conn:
            planned = _planned(conn, config)
    except Exception as error:  # noqa: BLE001  # no table hides the others
        return TableReport(config.table, None, error=in_words(error))
    return TableReport(config.table, planned, covered_until=planned.covered_until)


def _planned(conn: Connection[Any], config: TableConfig) -> Plan:
    planned = plan(read(conn, config), config, host_now=datetime.now(UTC))
    left = tuple(find(conn, config.table))
    return replace(planned, findings=planned.findings + left)


def _adopt(conn: Connection[Any], config: TableConfig) -> None:
    """Write down the step and the length ahead that are wanted, for whoever makes partitions."""
    ahead = None if config.ahead is None else str(config.ahead)
    conn.execute(statement("adopted"), {"table": config.table, "step": config.by, "ahead": ahead})
