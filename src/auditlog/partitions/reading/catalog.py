"""One table in the catalog of the server → its `TableState`.

Reads only, and takes no lock on the tables that would stand in anybody's way. All but the sessions
and the rows is as of one instant. What the role may not read is said in `unread`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.errors import LockNotAvailable, QueryCanceled

from auditlog.errors import PartitionError
from auditlog.partitions.locking import blockers
from auditlog.partitions.lookups import rows
from auditlog.partitions.model import Default, Leaf, Retirement, TableConfig, TableState
from auditlog.partitions.reading import contents
from auditlog.partitions.reading.attached import sort
from auditlog.partitions.reading.drift import drift
from auditlog.partitions.reading.managers import find_manager
from auditlog.partitions.reading.recorded import read_recorded
from auditlog.partitions.windows import MARK

_KEY = "RANGE (log_date)"
_OLD = timedelta(seconds=1)
"""Transactions that are older than that are told of."""
_UNKNOWN = datetime.max.replace(tzinfo=UTC)
_LOCKED = "a table was being rewritten: its size is that of the last VACUUM; try again later"
_BUSY = "somebody has locked a partition against everybody; the next run tries again"
_OWNER = "run maintenance as the owner of the tables, whom no row security keeps from their rows"


def read(conn: Connection[Any], config: TableConfig) -> TableState:
    """Look at a table.

    Args:
        conn: As `session.maintenance` gives it, outside of a transaction.
        config: For the table's name, and for the tenants whose rows are to be looked for.

    Raises:
        PartitionError: the table is missing, or the schema is older than this package.
        psycopg.Error: the connection is lost.
    """
    with _one_instant(conn):
        state, children = _state(conn, config.table)
    return _with_rows(conn, state, children, config)


@contextmanager
def _one_instant(conn: Connection[Any]) -> Iterator[None]:
    with conn.transaction():
        conn.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _state(conn: Connection[Any], name: str) -> tuple[TableState, list[dict[str, Any]]]:
    """Return what the catalog and the tables of maintenance say, and the children as they are."""
    table = _table(conn, name)
    oid, key = table["oid"], table.pop("key")
    recorded = read_recorded(conn, name, oid)
    unread = recorded.unread
    children = rows(conn, "reading/children", oid=oid, mark=f"{MARK}{name}")
    sizes = _sizes(conn, [oid, *(child["oid"] for child in children)], unread)
    attached = sort(children, sizes, drift(conn, name))
    orphans = _orphans(conn, name, recorded.retirements)
    state = TableState(
        **table,
        step=recorded.step,
        ahead=recorded.ahead,
        leaves=attached.leaves,
        foreign=attached.foreign,
        default=attached.default,
        retirements=(*recorded.retirements, *orphans),
        taken_names={
            row["name"]: row["kind"] for row in rows(conn, "reading/names", table=name, oid=oid)
        },
        holds=recorded.holds,
        retired_until=recorded.retired_until,
        maintained_at=recorded.maintained_at,
        standing_down=_other_key(key) or find_manager(conn, name, oid, unread),
        locks_needed=1 + sum(1 + child["indexes"] for child in children),
        size_bytes=sum(sizes.values()),
        unread=unread,
    )
    return state, children


def _table(conn: Connection[Any], name: str) -> dict[str, Any]:
    found = rows(conn, "reading/table", table=name)
    if not found:
        raise PartitionError(f"there is no table logstore.{name}: run auditlog migrate first")
    return {"table": name, **found[0]}


def _other_key(key: str | None) -> str | None:
    if key in (None, _KEY):
        return None
    return f"it is partitioned by {key}, and this package knows {_KEY} only"


def _sizes(conn: Connection[Any], oids: Sequence[int], unread: dict[str, str]) -> dict[int, int]:
    """Return the bytes of tables with all that belongs to them; none while one is locked."""
    try:
        with conn.transaction():
            return {row["oid"]: row["bytes"] for row in rows(conn, "reading/sizes", oids=oids)}
    except (LockNotAvailable, QueryCanceled):
        unread["sizes"] = _LOCKED
        return {}


def _orphans(
    conn: Connection[Any], table: str, known: Sequence[Retirement]
) -> Iterator[Retirement]:
    entered = {retirement.oid for retirement in known}
    for row in rows(conn, "reading/orphans", mark=f"{MARK}{table}"):
        if row["oid"] not in entered:
            yield Retirement(
                retirement_id=None,
                partition=row["name"],
                oid=row["oid"],
                lower=None,
                upper=_UNKNOWN,
                state="detached",
                is_attached=False,
                exists=True,
            )


def _with_rows(
    conn: Connection[Any], state: TableState, children: list[dict[str, Any]], config: TableConfig
) -> TableState:
    """Add what is not in the catalog: the sessions and the rows."""
    unread = dict(state.unread)
    closed = {child["oid"] for child in children if not child["may_read"]}
    names = [config.table, *(child["name"] for child in children)]
    return replace(
        state,
        default=_default(conn, state.default, closed, unread),
        tenants_present=_tenants(conn, state, closed, config, unread),
        blockers=tuple(each for each in blockers(conn, names) if each.age > _OLD),
        unread=unread,
    )


def _default(
    conn: Connection[Any], default: Default | None, closed: set[int], unread: dict[str, str]
) -> Default | None:
    if default is None:
        return None
    if default.oid in closed:
        unread[f"rows of {default.name}"] = _OWNER
        return default
    try:
        return contents.with_extent(conn, default)
    except LockNotAvailable:
        unread[f"rows of {default.name}"] = _BUSY
        return default


def _tenants(
    conn: Connection[Any],
    state: TableState,
    closed: set[int],
    config: TableConfig,
    unread: dict[str, str],
) -> Mapping[str, frozenset[str]]:
    readable: list[Leaf] = [leaf for leaf in state.leaves if leaf.oid not in closed]
    if config.tenants and len(readable) < len(state.leaves):
        unread["rows of tenants"] = _OWNER
    try:
        return contents.tenants_present(conn, readable, config, state.now)
    except LockNotAvailable:
        unread["rows of tenants"] = _BUSY
        return {}
