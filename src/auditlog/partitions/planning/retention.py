"""Partitions that retention takes: by their age, then by the size of the table, the oldest first.

A partition goes when its upper bound is past the cutoff, so everything in it is old enough. Never
the one that takes rows, never the last, none that a hold is on, and only so many in one run.
"""

from collections.abc import Iterable, Iterator, Sequence

from auditlog.partitions.configuration.sizes import shown as in_bytes
from auditlog.partitions.model import Finding, Leaf, Operation, OperationKind, TableConfig
from auditlog.partitions.planning.holds import Kept
from auditlog.partitions.planning.situation import Part, Situation
from auditlog.partitions.planning.wording import listed, shown


def retire(situation: Situation, begun: int) -> Part:
    """Plan what is to go.

    Args:
        situation: The table; its clock can be trusted.
        begun: How many partitions earlier runs took that are not dropped yet. They count: where
            archiving fails night after night, partitions do not heap up beside the table.
    """
    kept = Kept(situation)
    chosen = list(_chosen(situation, kept))
    ending = ending_of(situation.config)
    if chosen and not ending:
        names = [leaf.name for leaf, _ in chosen]
        return Part((), (*kept.findings(), no_archive(situation.state.table, names)))
    room = max(situation.config.max_retire - begun, 0)
    operations = [
        _operation(situation, kind, leaf, why)
        for leaf, why in chosen[:room]
        for kind in ("detach", *ending)
    ]
    later = [leaf.name for leaf, _ in chosen[room:]]
    return Part(tuple(operations), (*kept.findings(), *_more(situation.config, later)))


def is_too_big(situation: Situation, leaving: Sequence[Operation]) -> bool:
    """Tell whether a table has more than it may have by size, once some partitions are gone."""
    limit, gone = situation.config.retain_bytes, {operation.oid for operation in leaving}
    rest = (leaf for leaf in situation.state.leaves if leaf.oid not in gone)
    return limit is not None and _size(rest) > limit


def ending_of(config: TableConfig) -> tuple[OperationKind, ...]:
    """Return what becomes of a partition that is detached; nothing, where nothing is allowed."""
    if config.archive:
        return ("archive", "drop")
    return ("drop",) if config.drop_without_archive else ()


def no_archive(table: str, partitions: Sequence[str]) -> Finding:
    """Say that partitions are to go, and nothing says where to."""
    return Finding(
        "no_archive",
        "human",
        f"{listed(partitions)} cannot be dropped: no archive is named for the rows in there",
        f"set archive, or drop_without_archive, for {table}",
    )


def _chosen(situation: Situation, kept: Kept) -> Iterator[tuple[Leaf, str]]:
    """Yield what can go, with the reason; what a hold is on counts in the size that is left."""
    left = _size(situation.state.leaves)
    for leaf in situation.closed:
        why = _too_old(situation, leaf) or _too_much(situation, leaf, left)
        if why and not kept.keeps(leaf.name, leaf.lower, leaf.upper):
            yield leaf, why
            left -= leaf.size_bytes


def _size(leaves: Iterable[Leaf]) -> int:
    return sum(leaf.size_bytes for leaf in leaves if not leaf.is_detaching)


def _too_old(situation: Situation, leaf: Leaf) -> str | None:
    cutoff = situation.config.cutoff(situation.now)
    if cutoff is None or leaf.upper > cutoff:
        return None
    return f"its rows end at {shown(leaf.upper)}, {situation.config.retain} ago or more"


def _too_much(situation: Situation, leaf: Leaf, left: int) -> str | None:
    limit = situation.config.retain_bytes
    youngest = situation.config.min_retain.before(situation.now)
    if limit is None or left <= limit or leaf.upper > youngest:
        return None
    return f"partitions from {shown(leaf.lower)} on have {in_bytes(left)}, limit {in_bytes(limit)}"


def _operation(situation: Situation, kind: OperationKind, leaf: Leaf, why: str) -> Operation:
    entries = (each for each in situation.unfinished if each.oid == leaf.oid)
    return Operation(
        kind,
        situation.state.table,
        leaf.name,
        why,
        leaf.lower,
        leaf.upper,
        leaf.oid,
        retirement_id=next((each.retirement_id for each in entries), None),
        rows=leaf.rows if leaf.rows >= 0 else None,
    )


def _more(config: TableConfig, later: Sequence[str]) -> Iterator[Finding]:
    if later:
        yield Finding(
            "more_to_retire",
            "drift",
            f"{listed(later)} can go as well, and a run takes no more than"
            f" max_retire = {config.max_retire}",
            "the next runs take them",
        )
