"""What only rows can tell: the extent of a DEFAULT, and which tenants have rows that are too old.

Looked at in autocommit, one partition after the other, so that no lock outlives its query.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.errors import QueryCanceled

from auditlog.partitions.model import Default, Leaf, TableConfig
from auditlog.partitions.statements import statement

_EXTENT_TIMEOUT = "10s"
"""Of the search for the oldest and the newest row of a DEFAULT, which has no index for it; a second
is enough for some 5 M rows (2026-11-28)."""
_COUNTED = 10_000


def with_extent(conn: Connection[Any], default: Default) -> Default:
    """Add how many rows a DEFAULT has, and from when to when.

    Where that takes too long, the rows are counted up to a limit and the extent is left out.
    """
    partition = sql.Identifier("logstore", default.name)
    try:
        with conn.transaction():
            conn.execute(f"SET LOCAL statement_timeout = '{_EXTENT_TIMEOUT}'".encode())
            found = conn.execute(_query("reading/extent").format(partition=partition)).fetchone()
    except QueryCanceled:
        limited = sql.SQL("SELECT count(*) FROM (SELECT FROM ONLY {} LIMIT {}) AS some")
        counted = conn.execute(limited.format(partition, _COUNTED)).fetchone()
        return replace(default, rows=counted[0] if counted else None)
    count, first, last = found or (None, None, None)
    return replace(default, rows=count, first=first, last=last)


def tenants_present(
    conn: Connection[Any], leaves: Iterable[Leaf], config: TableConfig, now: datetime
) -> dict[str, frozenset[str]]:
    """Return for each closed partition which configured tenants have rows older than their cutoff.

    One look into the index for each partition and tenant.
    """
    cutoffs = {tenant: config.tenant_cutoff(tenant, now) for tenant in config.tenants}
    present = {}
    for leaf in leaves:
        asked = {
            tenant: cutoff
            for tenant, cutoff in cutoffs.items()
            if leaf.upper <= now and not leaf.is_detaching
            if leaf.lower is None or leaf.lower < cutoff
        }
        if asked and (found := _those_in(conn, leaf, asked)):
            present[leaf.name] = found
    return present


def _those_in(conn: Connection[Any], leaf: Leaf, cutoffs: dict[str, datetime]) -> frozenset[str]:
    # All of it in the text: beside parameters, a name with a % in it would be taken for one.
    query = _query("reading/tenants").format(
        partition=sql.Identifier("logstore", leaf.name),
        tenants=list(cutoffs),
        cutoffs=list(cutoffs.values()),
    )
    return frozenset(tenant for (tenant,) in conn.execute(query))


def _query(name: str) -> sql.SQL:
    """The files are ours, so what they say is as good as a literal."""
    return sql.SQL(statement(name).decode())
