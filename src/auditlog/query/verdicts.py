"""A `Reconciliation` → a verdict on each thing, and what the whole of it means.

`ok`: it adds up. `notice`: records are lost or waiting, and the trail says so with a reason; or
something cannot be told. `unexplained`: records are missing, or are there, and nothing says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from auditlog.query.reconciliation import LifeState, Reconciliation, TableCount

State: TypeAlias = Literal["ok", "notice", "unexplained"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was compared."""

    name: str
    state: State
    figure: int
    """Of what is the matter; where nothing is, of what was looked at."""
    detail: str


def verdicts(found: Reconciliation) -> list[Verdict]:
    """Judge everything that was compared, in the order in which a reader wants it."""
    return [
        *(verdict for table in found.tables for verdict in _table(table, found)),
        *_ledger(found),
        *_lives(found),
        *_gaps(found),
        *_open(found),
        *_kept(found),
    ]


def is_well(found: Reconciliation, *, strict: bool = False) -> bool:
    """Tell whether everything is accounted for; strictly, whether nothing is lost or waiting."""
    well = ("ok",) if strict else ("ok", "notice")
    return all(verdict.state in well for verdict in verdicts(found))


def conclusion(found: Reconciliation) -> str:
    """Return the last line: how many records are unaccounted for, and what that means."""
    killed = found.lives.memories_lost
    more = f", and what {_many(killed, 'killed process', 'es')} had in memory" if killed else ""
    head = f"Unaccounted for: {_many(found.unaccounted, 'record')}{more}."
    if not is_well(found):
        return f"{head} Nothing in the trail says what became of them: see what is unexplained."
    lost = sum(gap.count for gap in found.gaps)
    waiting = (found.dead_letters or 0) + (found.spooled.waiting if found.spooled else 0)
    retired = sum(table.retired_at_most for table in found.tables)
    gone = f" or was retired ({retired:,})" if retired else ""
    told = f" Lost with a reason: {lost:,}." if lost else ""
    wait = f" Kept, and not in the tables: {waiting:,}." if waiting else ""
    return f"{head} Every record that was written is there{gone}, and no other is.{told}{wait}"


def _table(table: TableCount, found: Reconciliation) -> Iterator[Verdict]:
    parts = []
    if table.missing:
        parts.append(f"{table.missing:,} missing that the ledger has: they were deleted")
    if table.unexplained:
        hint = ""
        without_entry = any(span.unexplained and not span.at_most for span in table.spans)
        if without_entry and (found.ledger.first_sequence or 0) > 1:
            hint = f"; the ledger begins at {found.ledger.first_committed_at}: was it pruned?"
        parts.append(
            f"{table.unexplained:,} that no batch of the ledger wrote:"
            f" inserted by hand, or their entry was deleted{hint}"
        )
    figures = f"{table.stored:,} in the table, {_retired(table)}{_of_ledger(table)}"
    figure = table.missing + table.unexplained
    detail = "; ".join([figures, *parts])
    yield Verdict(table.table, "unexplained" if figure else "ok", figure or table.stored, detail)
    if table.uncounted:
        detail = (
            "partitions that were detached, and not counted yet: nobody can tell what is missing"
            " there before `auditlog partitions maintain` has gone on"
        )
        yield Verdict(table.table, "notice", table.uncounted, detail)


def _retired(table: TableCount) -> str:
    if not table.retired_at_most:
        return ""
    return f"{_range(table.retired, table.retired_at_most)} retired, "


def _of_ledger(table: TableCount) -> str:
    border = "" if table.at_least == table.at_most else " (batches reach across the border)"
    return f"{_range(table.at_least, table.at_most)} by the ledger{border}"


def _range(at_least: int, at_most: int) -> str:
    return f"{at_most:,}" if at_least == at_most else f"{at_least:,} to {at_most:,}"


def _ledger(found: Reconciliation) -> Iterator[Verdict]:
    ledger = found.ledger
    numbers = f", numbers {ledger.first_sequence} to {ledger.last_sequence}"
    detail = _many(ledger.entries, "batch", "es") + (numbers if ledger.entries else "")
    yield Verdict("ledger", "ok", ledger.entries, detail)
    if ledger.impossible:
        detail = "entries with dates or sizes that no batch has: they were made or changed by hand"
        yield Verdict("ledger", "unexplained", ledger.impossible, detail)
    if ledger.holes:
        detail = (
            "numbers are missing in its sequence; batches that were rolled back and crashes of the"
            " server leave such holes, and so do entries that were deleted"
        )
        yield Verdict("ledger", "ok", ledger.holes, detail)


def _lives(found: Reconciliation) -> Iterator[Verdict]:
    lives = found.lives
    figures = ", ".join(f"{count:,} {state}" for state, count in sorted(lives.counts.items()))
    yield Verdict("lives", "ok", lives.total, figures or "no log tells when it starts")
    if lives.memories_lost:
        detail = "killed, or idle for long: what it had in memory, nobody knows"
        yield Verdict("lives", "unexplained", lives.memories_lost, detail)
    if kept := lives.killed - lives.memories_lost:
        detail = (
            "killed, or idle for long; what was acknowledged is in the spool or in the tables:"
            " `auditlog spool status` tells what waits"
        )
        yield Verdict("lives", "notice", kept, detail)
    for state, detail in _MISCOUNTS.items():
        if rows := lives.rows.get(state, 0):
            yield Verdict("lives", "unexplained", rows, detail)


def _gaps(found: Reconciliation) -> Iterator[Verdict]:
    lost = sum(gap.count for gap in found.gaps)
    if not lost:
        yield Verdict("gaps", "ok", 0, "no loss is told of")
        return
    reasons: dict[str, int] = {}
    for gap in found.gaps:
        reasons[gap.reason] = reasons.get(gap.reason, 0) + gap.count
    figures = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    at_least = "" if all(gap.exact for gap in found.gaps) else ", at least"
    yield Verdict("gaps", "notice", lost, f"lost, and the trail says why: {figures}{at_least}")


def _open(found: Reconciliation) -> Iterator[Verdict]:
    ended, perhaps = found.open.ended, found.open.perhaps
    if ended:
        detail = "began, have no end, and their process lives no longer: `auditlog orphans`"
        yield Verdict("requests", "unexplained", ended, detail)
    if perhaps:
        detail = "began, and have no end yet: served still, or their process died"
        yield Verdict("requests", "notice", perhaps, detail)
    if not ended and not perhaps:
        yield Verdict("requests", "ok", 0, "every received row has its complete row")


def _kept(found: Reconciliation) -> Iterator[Verdict]:
    if found.dead_letters is not None:
        detail = "rows that the database refused, kept: `auditlog dead-letters list`"
        yield _waiting("dead letters", found.dead_letters, detail)
    if found.spooled is not None:
        detail = "records on disk, not in the database yet: `auditlog spool ship`"
        yield _waiting("spool", found.spooled.waiting, detail)
        if found.spooled.damaged:
            detail = "places of the spool that cannot be read: `auditlog spool verify`"
            yield Verdict("spool", "unexplained", found.spooled.damaged, detail)


def _waiting(name: str, count: int, detail: str) -> Verdict:
    return Verdict(name, "notice" if count else "ok", count, detail if count else "none waits")


def _many(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else ending}"


_MISCOUNTS: dict[LifeState, str] = {
    "unbalanced": "rows by which the counters of a stop do not add up",
    "overdrawn": "rows that a process counted as written and the ledger has not: entries were"
    " deleted, a standby that lacked them took over, or records were submitted again under the same"
    " log_id",
}
