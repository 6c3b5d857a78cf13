"""Windows that have no partition: from now on as far as is wanted, then those that were missed.

Partitions begin and end where windows of the step do, unless another partition is in the way:
then where that one ends or begins. Nothing is made below what retention takes or has taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice

from auditlog.partitions.model import Finding, Leaf, Operation, Step
from auditlog.partitions.planning.ranges import FIRST, Range, gaps
from auditlog.partitions.planning.situation import Part, Situation
from auditlog.partitions.planning.wording import shown
from auditlog.partitions.windows import name, window

MAX_LEAVES = 400
"""A query without a date takes 24 ms at 360 partitions and 250 at 1440 (PostgreSQL 18), and a few
at once exhaust the locks of a server with default settings."""
_TICK = timedelta(microseconds=1)


def create(
    situation: Situation,
    step: Step,
    retired_until: datetime | None,
    reserved: Sequence[Range],
    *,
    is_too_big: bool = False,
) -> Part:
    """Plan what is to be made.

    Args:
        situation: The table.
        step: Length of a window.
        retired_until: Nothing is made below it, but for the rows of today.
        reserved: Ranges that other operations of the plan are going to take.
        is_too_big: Partitions of the past would be the next to go, for the table's size.
    """
    taken = [*situation.taken, *reserved]
    missing = _missing(situation, step, retired_until, taken)
    if situation.state.leaves and not situation.clock_jump and not is_too_big:
        missing = chain(missing, _missed(situation, step, retired_until, taken))
    pieces = list(islice(missing, MAX_LEAVES + 1))
    room = max(MAX_LEAVES - len(situation.state.leaves), _until_now(pieces, situation.now))
    operations, findings = _named(situation, step, pieces[:room])
    findings += _gaps(pieces[:room], situation.now)
    if len(pieces) > room:
        findings.append(_too_many(situation))
    return Part(tuple(operations), tuple(findings))


def _missing(
    situation: Situation, step: Step, retired_until: datetime | None, taken: Sequence[Range]
) -> Iterator[Range]:
    """Yield ranges without a partition from now on."""
    now, taken_away = situation.now, retired_until or FIRST
    start, end = window(step, now)[0], window(step, situation.horizon)[1]
    if taken_away <= now:
        start = max(start, taken_away)
    for gap in gaps(taken, start, end):
        for lower, upper in _pieces(step, gap):
            is_gone = upper <= taken_away or _is_old(situation, (lower, upper))
            if upper > now or not is_gone:
                yield lower, upper


def _missed(
    situation: Situation, step: Step, retired_until: datetime | None, taken: Sequence[Range]
) -> Iterator[Range]:
    """Yield ranges without a partition from the oldest partition till now, the newest first."""
    floor = max(_oldest(situation.state.leaves), retired_until or FIRST)
    for gap in reversed(list(gaps(taken, floor, window(step, situation.now)[0]))):
        for piece in _pieces_backwards(step, gap):
            if _is_old(situation, piece):
                return
            yield piece


def _is_old(situation: Situation, piece: Range) -> bool:
    """Tell whether retention would take it at once."""
    cutoff = situation.config.cutoff(situation.now)
    return cutoff is not None and piece[1] <= cutoff


def _pieces(step: Step, gap: Range) -> Iterator[Range]:
    """Cut a gap where windows end."""
    at, end = gap
    while at < end:
        upper = min(window(step, at)[1], end)
        yield at, upper
        at = upper


def _pieces_backwards(step: Step, gap: Range) -> Iterator[Range]:
    start, at = gap
    while start < at:
        lower = max(window(step, at - _TICK)[0], start)
        yield lower, at
        at = lower


def _oldest(leaves: Sequence[Leaf]) -> datetime:
    """Return from where on a table is meant to have partitions without a gap."""
    return leaves[0].lower or leaves[0].upper


def _until_now(pieces: Sequence[Range], now: datetime) -> int:
    """Return how many pieces there are up to the one that rows of now fall into."""
    places = (place for place, (lower, upper) in enumerate(pieces, 1) if lower <= now < upper)
    return next(places, 0)


def _named(
    situation: Situation, step: Step, pieces: Sequence[Range]
) -> tuple[list[Operation], list[Finding]]:
    """Give pieces their names; what cannot have its own is left to people."""
    operations: list[Operation] = []
    findings: list[Finding] = []
    taken = _taken_names(situation)
    for lower, upper in pieces:
        partition = name(situation.state.table, step, lower)
        if partition in taken:
            findings.append(_name_taken(partition, taken[partition], (lower, upper)))
        else:
            operations.append(
                Operation(
                    "create",
                    situation.state.table,
                    partition,
                    _why((lower, upper), situation.now),
                    lower,
                    upper,
                )
            )
    return operations, findings


def _taken_names(situation: Situation) -> Mapping[str, str]:
    attached = {each.name: "partition" for each in situation.children}
    return {**attached, **situation.state.taken_names}


def _why(piece: Range, now: datetime) -> str:
    lower, upper = piece
    if upper <= now:
        return "rows of that time have no partition"
    if lower <= now:
        return "rows of today have no partition"
    return f"rows from {shown(lower)} on will need it"


def _name_taken(partition: str, kind: str, piece: Range) -> Finding:
    lower, upper = piece
    return Finding(
        "name_taken",
        "human",
        f"the partition from {shown(lower)} to {shown(upper)} cannot be made: its name is that of"
        f" another {kind}",
        f"look at logstore.{partition}, and rename it or drop it",
        partition,
    )


def _gaps(pieces: Sequence[Range], now: datetime) -> list[Finding]:
    missed = [piece for piece in pieces if piece[1] <= now]
    if not missed:
        return []
    return [
        Finding(
            "gap",
            "drift",
            f"{len(missed)} partitions are missing between {shown(min(missed)[0])} and"
            f" {shown(max(missed)[1])}: rows of that time are not taken",
            "the next run makes them",
        )
    ]


def _too_many(situation: Situation) -> Finding:
    return Finding(
        "too_many",
        "human",
        f"{len(situation.state.leaves)} partitions are there and more are wanted, of which no more"
        f" than {MAX_LEAVES} are made",
        "choose a longer step (by), a shorter time ahead, or a retention",
    )
