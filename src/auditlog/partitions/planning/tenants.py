"""Rows of tenants that are kept for less long: deleted from partitions that take no more rows."""

from collections.abc import Collection, Iterator

from auditlog.partitions.model import Finding, Leaf, Operation, Retirement
from auditlog.partitions.planning.holds import Kept
from auditlog.partitions.planning.situation import Part, Situation


def delete(situation: Situation, leaving: Collection[str]) -> Part:
    """Plan deletions.

    Args:
        situation: The table; its clock can be trusted.
        leaving: Partitions that go as a whole, by the same plan.
    """
    operations: list[Operation] = []
    findings = list(_stranded(situation))
    for tenant in sorted(situation.config.tenants):
        kept = Kept(situation, tenant)
        for leaf in _closed(situation):
            if leaf.name not in leaving or _begun(situation, leaf, tenant):
                operations.extend(_operation(situation, leaf, tenant, kept))
        findings.extend(kept.findings())
    return Part(tuple(operations), tuple(findings))


def _closed(situation: Situation) -> Iterator[Leaf]:
    for leaf in situation.state.leaves:
        if leaf.upper <= situation.now and not leaf.is_detaching:
            yield leaf


def _operation(situation: Situation, leaf: Leaf, tenant: str, kept: Kept) -> Iterator[Operation]:
    cutoff = situation.config.tenant_cutoff(tenant, situation.now)
    before = min(cutoff, leaf.upper)
    entry = _begun(situation, leaf, tenant)
    has_rows = tenant in situation.state.tenants_present.get(leaf.name, ())
    if not (entry or has_rows) or (leaf.lower is not None and leaf.lower >= before):
        return
    if kept.keeps(leaf.name, leaf.lower, before):
        return
    yield Operation(
        "delete",
        situation.state.table,
        leaf.name,
        f"rows of {tenant} are kept for {situation.config.tenants[tenant]}",
        leaf.lower,
        leaf.upper,
        leaf.oid,
        tenant=tenant,
        before=before,
        retirement_id=entry.retirement_id if entry else None,
    )


def _deletions(situation: Situation) -> Iterator[Retirement]:
    return (each for each in situation.state.retirements if each.state == "deleting")


def _begun(situation: Situation, leaf: Leaf, tenant: str) -> Retirement | None:
    """Return the deletion that an earlier run began there."""
    entries = _deletions(situation)
    return next((e for e in entries if e.oid == leaf.oid and e.instance_id == tenant), None)


def _stranded(situation: Situation) -> Iterator[Finding]:
    """Tell of deletions that were begun, and that nothing will take further."""
    for entry in _deletions(situation):
        if entry.instance_id in situation.config.tenants and entry.is_attached:
            continue
        yield Finding(
            "deletion_unfinished",
            "note",
            f"rows of {entry.instance_id} in {entry.partition} were being deleted, and "
            + ("no retention is set for them" if entry.is_attached else "it has left the table"),
            f"set it again in [{situation.state.table}.tenants], or give the entry in"
            f" logstore.retirements, {entry.retirement_id}, the state 'deleted' and an ended_at",
            entry.partition,
        )
