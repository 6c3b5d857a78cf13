"""Rows of the catalog about what is attached to a table → leaves, foreign partitions, the DEFAULT.

A leaf bears our mark and looks as this package makes them. Whatever else is attached is somebody
else's, with the reason; as far as its range can be read, it is nobody else's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from auditlog.partitions.model import Default, Foreign, Leaf
from auditlog.partitions.reading.bounds import Bounds, parse


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached to one table, leaves in the order of their bounds."""

    leaves: tuple[Leaf, ...]
    foreign: tuple[Foreign, ...]
    default: Default | None


def sort(
    children: Iterable[Mapping[str, Any]],
    sizes: Mapping[int, int],
    drift: Mapping[int, tuple[str, ...]],
) -> Attached:
    """Tell apart what is attached.

    Args:
        children: Rows of catalog_children.sql.
        sizes: OID → bytes, where they are better known than from the planner's estimate.
        drift: OID → what the partition lacks of its table.
    """
    leaves: list[Leaf] = []
    foreign: list[Foreign] = []
    default: Default | None = None
    for child in children:
        size_bytes = sizes.get(child["oid"], child["size_bytes"])
        bounds = parse(child["bound"])
        if child["bound"] == "DEFAULT":
            default = Default(child["name"], child["oid"], size_bytes, rows=None)
        elif why := _why_foreign(child, bounds):
            foreign.append(_foreign(child, bounds, why))
        else:
            leaves.append(_leaf(child, bounds, size_bytes, drift))
    leaves.sort(key=lambda leaf: leaf.upper)
    return Attached(tuple(leaves), tuple(foreign), default)


def _why_foreign(child: Mapping[str, Any], bounds: Bounds) -> str | None:
    if child["kind"] == "p":
        return "it is partitioned itself"
    if child["kind"] != "r":
        return "it is a foreign table"
    if child["schema"] != "logstore":
        return f"it is in schema {child['schema']}"
    if child["persistence"] != "p":
        return "it is unlogged: a crash of the server empties it"
    if bounds.why_not:
        return bounds.why_not
    return None if child["is_marked"] else "it does not bear this package's mark"


def _foreign(child: Mapping[str, Any], bounds: Bounds, why: str) -> Foreign:
    return Foreign(
        child["name"], child["oid"], why, bounds.lower, bounds.upper, child["is_detaching"]
    )


def _leaf(
    child: Mapping[str, Any], bounds: Bounds, size_bytes: int, drift: Mapping[int, tuple[str, ...]]
) -> Leaf:
    # Bounds without an objection have an upper end.
    assert bounds.upper is not None  # noqa: S101  # for the type checker
    return Leaf(
        child["name"],
        child["oid"],
        bounds.lower,
        bounds.upper,
        size_bytes,
        child["rows"],
        child["is_detaching"],
        drift.get(child["oid"], ()),
    )
