"""A DEFAULT partition that holds rows: made a normal one, where its rows lie in one free range.

Nothing is moved. The range ends where the window does that the newest row or tomorrow lies in,
because rows go on arriving while the DEFAULT is being looked through; or where the next partition
begins.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from auditlog.partitions.model import Default, Finding, Operation, Step
from auditlog.partitions.planning.ranges import FIRST, LAST, Range, gaps
from auditlog.partitions.planning.situation import Part, Situation
from auditlog.partitions.planning.wording import shown
from auditlog.partitions.windows import window

MARGIN = timedelta(days=1)
"""A scan of a terabyte takes less."""
_TICK = timedelta(microseconds=1)


def heal(situation: Situation, step: Step) -> Part:
    """Plan what becomes of a DEFAULT."""
    default = situation.state.default
    if default is None:
        return Part()
    if default.rows is None:
        return Part()
    if default.rows == 0:
        return Part(findings=(_idle(default),))
    home = None if situation.clock_jump else _home(situation, step, default)
    if home is None:
        return Part(findings=(_polluted(default),))
    lower, upper = home
    why = f"it holds rows from {shown(default.first)} to {shown(default.last)}"
    operation = Operation(
        "heal",
        situation.state.table,
        default.name,
        why,
        lower,
        upper,
        default.oid,
        rows=default.rows,
    )
    return Part((operation,))


def unhealed(situation: Situation, healed: Part) -> Iterator[Range]:
    """Yield the range in which no partition can be made, because rows of it are in a DEFAULT."""
    default = situation.state.default
    if default and default.first and default.last and not healed.operations:
        yield default.first, default.last + _TICK


def _home(situation: Situation, step: Step, default: Default) -> Range | None:
    """Return the range that takes all rows of a DEFAULT; None: a partition is in the way."""
    if default.first is None or default.last is None:
        return None
    for start, end in gaps(situation.taken, FIRST, LAST):
        if start <= default.first and default.last < end:
            newest = _newest(situation, default.last, (start, end))
            return max(window(step, default.first)[0], start), min(window(step, newest)[1], end)
    return None


def _newest(situation: Situation, last: datetime, gap: Range) -> datetime:
    """Return the newest instant that rows may have before the DEFAULT is healed."""
    start, end = gap
    return max(last, situation.now + MARGIN) if start <= situation.now < end else last


def _idle(default: Default) -> Finding:
    return Finding(
        "default",
        "note",
        f"the DEFAULT partition {default.name} is empty: with it nothing can be detached without"
        " holding up writers, and a partition that is missing stays unnoticed",
        f"drop it: logstore.{default.name}",
        default.name,
    )


def _polluted(default: Default) -> Finding:
    extent = f", from {shown(default.first)} to {shown(default.last)}" if default.first else ""
    return Finding(
        "default_rows",
        "human",
        f"the DEFAULT partition {default.name} holds rows{extent}, and they do not all lie in one"
        " range that is free: no partition can be made for those that are in there",
        "move them into the partitions that they belong to, then drop it",
        default.name,
    )
