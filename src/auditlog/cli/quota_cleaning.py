"""Counters of periods that ended long ago, in a run of maintenance: what was deleted, and told."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias

import psycopg
import typer

from auditlog.cli.partitions_enable import length
from auditlog.errors import PartitionError
from auditlog.partitions.applying import in_words
from auditlog.partitions.session import maintenance, only_run
from auditlog.partitions.spans import Span
from auditlog.quota.keeping.cleaning import Cleaned, clean

KeepUsage: TypeAlias = Annotated[
    Span,
    typer.Option(
        parser=length,
        metavar="SPAN",
        help="Delete counters of quotas whose period ended longer ago.",
    ),
]
DEFAULT_KEEP = "400 days"
_MOST_MONTHS = 24_000
"""Where the calendar of the database begins, nothing is older."""
_TABLE = "quotas"


@dataclass(frozen=True, slots=True)
class QuotaCleaning:
    """What became of it."""

    keep: Span
    done: Cleaned | None = None
    """None: nothing was deleted, or nobody knows how much."""
    is_busy: bool = False
    """Another run is at it, and is left to it."""
    error: str | None = None

    def as_json(self) -> dict[str, Any] | None:
        """Return it as JSON has it; None where the schema has no quotas yet."""
        if self.done is None and not self.is_busy and self.error is None:
            return None
        return {**asdict(self.done or Cleaned()), "busy": self.is_busy, "error": self.error}

    def lines(self) -> Iterator[str]:
        """Yield that something was deleted, or why not; nothing where there was nothing to do."""
        yield from self.lines_of_trouble()
        if self.done and self.done.rows:
            yield f"{_TABLE}: deleted {_words(self.done)}, which ended more than {self.keep} ago"

    def lines_of_trouble(self) -> Iterator[str]:
        """Yield only what somebody has to see."""
        if self.error is not None:
            yield f"{_TABLE}: {self.error}"


def clean_quotas(dsn: str, keep: Span, on_progress: Callable[[str], None]) -> QuotaCleaning:
    """Delete counters of periods that ended longer ago, unless another run is at it.

    What goes wrong is told in what it returns: the tables of the trail are maintained all the same.
    """
    try:
        with maintenance(dsn) as conn, only_run(conn, _TABLE) as is_ours:
            if not is_ours:
                return QuotaCleaning(keep, is_busy=True)
            done = clean(
                conn,
                f"{min(keep.months, _MOST_MONTHS)} months {keep.days} days",
                on_progress=lambda done: on_progress(f"{_TABLE}: deleted {_words(done)}"),
            )
            return QuotaCleaning(keep, done)
    except (psycopg.Error, PartitionError) as error:
        return QuotaCleaning(keep, error=in_words(error))


def _words(done: Cleaned) -> str:
    several = f"{done.counters:,} counters, {done.windows:,} rolling windows"
    return f"{several}, {done.crossings:,} crossings"
