"""The judge: what the client saw against what the database holds.

It believes no counter of the code under test. A record is accounted for when it is stored, kept as
a dead letter, or told of as lost in the trail itself. In `memory` mode a killed process takes along
what it had not written, which is the promise of that mode: only what was answered a moment before
the kill may be missing then, and is counted apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fault_journal import Request
from fault_trail import Gap, Row, Trail

MEMORY, SPOOL, COMMIT = "memory", "spool", "commit"
RECEIVED, COMPLETE, LATE, REDUCED = "received", "complete", "late", "reduced"
_ENDS = (None, COMPLETE, REDUCED)
IN_MEMORY_S = 5.0
"""How old a row may be that a kill takes from memory: many times `batch_age_s` of the harness."""


@dataclass(frozen=True)
class Verdict:
    """Every tuple of ids is empty, and `unexplained` 0, when nothing is lost without a reason."""

    sent: int
    acknowledged: int
    """Answered, and not with 503."""
    refused: int
    stored: int
    """Of those acknowledged."""
    missing: tuple[str, ...] = ()
    """Acknowledged, and nowhere: not stored, no dead letter."""
    gaps: Mapping[str, int] = field(default_factory=dict)
    dead: int = 0
    """Acknowledged, and kept as a dead letter."""
    killed: int = 0
    """Of the missing ones, those that a killed process had in memory, where that is the promise."""
    twice: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    """Stored, and never sent."""
    unannounced: tuple[str, ...] = ()
    """Acknowledged under `commit`, and without a received row."""
    orphans: tuple[str, ...] = ()
    """Received, acknowledged, and without a complete row; or with nothing that explains it."""
    exaggerated: int = 0
    """So many more are told to be lost than can be."""

    @property
    def unexplained(self) -> int:
        """How many are lost without a reason."""
        return max(0, len(self.missing) - self.killed - sum(self.gaps.values()))

    @property
    def good(self) -> bool:
        """Whether every record is accounted for, once."""
        wrong = self.twice or self.invented or self.unannounced or self.orphans
        return not (wrong or self.unexplained or self.exaggerated)

    def __str__(self) -> str:
        """Name what is wrong, by a few ids of each."""
        names = ("missing", "twice", "invented", "unannounced", "orphans")
        lists = "".join(
            f" {name}={len(ids)} {list(ids[:5])}" for name in names if (ids := getattr(self, name))
        )
        return (
            f"sent={self.sent} acknowledged={self.acknowledged} refused={self.refused}"
            f" stored={self.stored} gaps={dict(self.gaps)} dead={self.dead} killed={self.killed}"
            f" unexplained={self.unexplained} exaggerated={self.exaggerated}{lists}"
        )


def judge(
    requests: Mapping[str, Request],
    trail: Trail,
    mode: str,
    *,
    kills: Iterable[float] = (),
    volatile_s: float | None = None,
    told: Mapping[str, int] | None = None,
) -> Verdict:
    """Compare.

    Args:
        requests: The client's journal.
        trail: The database, when everything that could be shipped is.
        mode: The durability.
        kills: When the service was killed.
        volatile_s: How long before a kill a record may have been written that is gone with it;
            None: not at all, but under `memory` for `IN_MEMORY_S`.
        told: Losses that only a log line tells of, by reason, where nothing else could be written.
    """
    acknowledged = [each for each in requests.values() if each.acknowledged]
    kills = list(kills)
    if volatile_s is None:
        volatile_s = IN_MEMORY_S if mode == MEMORY else 0.0
    rows = Counter(trail.rows)
    ended = {row.identity for row in rows if row.stage in _ENDS}
    begun = {row.identity for row in rows if row.stage in (RECEIVED, REDUCED)}
    dead = set(trail.dead)
    missing = [
        each for each in acknowledged if each.identity not in ended and each.identity not in dead
    ]
    gaps = _sum(trail.gaps, told or {})
    return Verdict(
        sent=len(requests),
        acknowledged=len(acknowledged),
        refused=sum(each.status is not None for each in requests.values()) - len(acknowledged),
        stored=sum(each.identity in ended for each in acknowledged),
        missing=tuple(each.identity for each in missing),
        gaps=gaps,
        dead=sum(each.identity in dead and each.identity not in ended for each in acknowledged),
        killed=sum(_was_volatile(each, kills, volatile_s) for each in missing),
        twice=tuple(row.identity for row, count in rows.items() if count > _due_of(row, mode)),
        invented=tuple(sorted({row.identity for row in rows if row.identity not in requests})),
        unannounced=_unannounced(acknowledged, begun | dead) if mode == COMMIT else (),
        orphans=_orphans(requests, begun - ended - dead, kills, gaps),
        exaggerated=_exaggerated(requests, rows, dead, gaps, mode),
    )


def _due_of(row: Row, mode: str) -> int:
    """Both rows of a request look alike when nothing but their identity was stored."""
    return 2 if row.stage == REDUCED and mode == COMMIT else 1


def _sum(gaps: Iterable[Gap], told: Mapping[str, int]) -> dict[str, int]:
    total = Counter(told)
    for gap in gaps:
        total[gap.reason] += gap.count
    return dict(total)


def _was_volatile(request: Request, kills: list[float], seconds: float) -> bool:
    assert request.answered_at is not None
    # An answer may be read when whoever sent it is gone.
    return any(request.sent_at <= kill and kill - request.answered_at < seconds for kill in kills)


def _unannounced(acknowledged: list[Request], begun: set[str]) -> tuple[str, ...]:
    """Under `commit` a handler runs when the received row is committed; no gap excuses that."""
    return tuple(each.identity for each in acknowledged if each.identity not in begun)


def _orphans(
    requests: Mapping[str, Request],
    open_ends: set[str],
    kills: list[float],
    gaps: Mapping[str, int],
) -> tuple[str, ...]:
    """A received row without its end belongs to a request that a kill cut, or a gap tells of it."""
    open_requests = [requests[identity] for identity in open_ends if identity in requests]
    wrong = [
        each.identity
        for each in open_requests
        if each.acknowledged or not any(kill >= each.sent_at for kill in kills)
    ]
    return () if len(wrong) <= sum(gaps.values()) else tuple(wrong)


def _exaggerated(
    requests: Mapping[str, Request],
    rows: Counter[Row],
    dead: Iterable[str],
    gaps: Mapping[str, int],
    mode: str,
) -> int:
    """More rows told to be lost than were ever due and are nowhere."""
    due = sum(_rows_due(each, mode) for each in requests.values())
    here = sum(count for row, count in rows.items() if _is_due(row, requests, mode))
    return max(0, sum(gaps.values()) - max(0, due - here - len(set(dead))))


def _rows_due(request: Request, mode: str) -> int:
    """One; under `commit` one before and one after, and one more that an answer was withheld."""
    if mode != COMMIT:
        return 1
    return 2 if request.acknowledged else 3


def _is_due(row: Row, requests: Mapping[str, Request], mode: str) -> bool:
    if row.stage != LATE:
        return True
    request = requests.get(row.identity)
    return mode == COMMIT and request is not None and not request.acknowledged
