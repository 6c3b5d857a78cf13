"""Retirements that earlier runs began: taken further, or taken back.

A partition that is detached goes on into the archive and out of the database, as long as retention
would still take it. It goes back into its table where a hold has come upon it since, or where
retention was made longer.
"""

from auditlog.partitions.model import Finding, Operation, OperationKind, Retirement
from auditlog.partitions.planning.holds import Kept
from auditlog.partitions.planning.ranges import as_range, is_free
from auditlog.partitions.planning.retention import ending_of, no_archive
from auditlog.partitions.planning.situation import Part, Situation
from auditlog.partitions.planning.wording import shown


def finalize(situation: Situation) -> Part:
    """Plan the end of every detach that was interrupted: until then nothing else is detached."""
    operations = [
        Operation(
            "finalize",
            situation.state.table,
            leaf.name,
            "its detach was interrupted, and its rows are out of sight",
            leaf.lower,
            leaf.upper,
            leaf.oid,
        )
        for leaf in situation.state.leaves
        if leaf.is_detaching
    ]
    return Part(tuple(operations))


def go_on(situation: Situation) -> Part:
    """Plan what becomes of partitions that are detached, or will be when they are finalised.

    One whose detach was entered but never begun is attached, and retention chooses it anew.
    """
    kept = Kept(situation)
    parts = [
        _part(situation, each, kept) for each in situation.unfinished if _left(situation, each)
    ]
    return Part(
        tuple(operation for part in parts for operation in part.operations),
        (*(finding for part in parts for finding in part.findings), *kept.findings()),
    )


def _left(situation: Situation, entry: Retirement) -> bool:
    pending = {leaf.oid for leaf in situation.state.leaves if leaf.is_detaching}
    return not entry.is_attached or entry.oid in pending


def _part(situation: Situation, entry: Retirement, kept: Kept) -> Part:
    if entry in situation.renumbered:
        return Part(findings=(_renumbered(entry),))
    if not entry.exists:
        return Part(findings=(_vanished(entry),))
    if kept.keeps(entry.partition, entry.lower, entry.upper):
        return _back(situation, entry, "a hold is on it")
    if not _has_retention(situation):
        return Part(findings=(_no_retention(entry),))
    if not _is_still_to_go(situation, entry):
        return _back(situation, entry, "it is younger than what retention takes")
    return Part() if situation.clock_jump else _onward(situation, entry)


def _onward(situation: Situation, entry: Retirement) -> Part:
    ending: tuple[OperationKind, ...]
    ending = ("drop",) if entry.state == "archived" else ending_of(situation.config)
    if not ending:
        return Part(findings=(no_archive(situation.state.table, [entry.partition]),))
    why = "an earlier run began to retire it"
    return Part(tuple(_operation(situation, kind, entry, why) for kind in ending))


def _has_retention(situation: Situation) -> bool:
    return situation.config.retain is not None or situation.config.retain_bytes is not None


def _is_still_to_go(situation: Situation, entry: Retirement) -> bool:
    """By size anything may have gone that is old enough; of what was, nothing is known."""
    config, now = situation.config, situation.now
    cutoff = config.cutoff(now) if config.retain_bytes is None else config.min_retain.before(now)
    return cutoff is not None and entry.upper <= cutoff


def _back(situation: Situation, entry: Retirement, why: str) -> Part:
    others = (each for each in situation.children if each.oid != entry.oid)
    taken = [as_range(each.lower, each.upper) for each in others]
    if is_free(as_range(entry.lower, entry.upper), taken):
        return Part((_operation(situation, "attach", entry, why),))
    return Part(findings=(_range_taken(entry, why),))


def _operation(situation: Situation, kind: OperationKind, entry: Retirement, why: str) -> Operation:
    return Operation(
        kind,
        situation.state.table,
        entry.partition,
        why,
        entry.lower,
        entry.upper,
        entry.oid,
        retirement_id=entry.retirement_id,
    )


def _vanished(entry: Retirement) -> Finding:
    return Finding(
        "vanished",
        "human",
        f"{entry.partition} was {entry.state} and is gone, and no run of maintenance dropped it",
        "find out who did, then give its entry in logstore.retirements,"
        f" {entry.retirement_id}, the state 'dropped' and an ended_at",
        entry.partition,
    )


def _renumbered(entry: Retirement) -> Finding:
    return Finding(
        "vanished",
        "human",
        f"{entry.partition} was {entry.state}, and the table of that name has another identity, as"
        " after a dump was restored",
        "if its rows are those that were retired, give its entry in logstore.retirements,"
        f" {entry.retirement_id}, the partition_oid 'logstore.{entry.partition}'::regclass::oid:"
        " the next run goes on with it",
        entry.partition,
    )


def _no_retention(entry: Retirement) -> Finding:
    return Finding(
        "no_retention",
        "human",
        f"{entry.partition} is {entry.state}, and the settings name no retention any more: nobody"
        " sees its rows",
        "set retain as it was, or longer: the next run drops it or attaches it again",
        entry.partition,
    )


def _range_taken(entry: Retirement, why: str) -> Finding:
    return Finding(
        "range_taken",
        "human",
        f"{entry.partition} cannot be attached again ({why}): another partition has a part of its"
        f" range from {shown(entry.lower)} to {shown(entry.upper)}",
        "move its rows into the table by hand; until then it stays as it is",
        entry.partition,
    )
