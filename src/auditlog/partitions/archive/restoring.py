"""An archive → a table again, with every row of it, or no table at all. Blocking.

One transaction makes the table, loads it and compares count and checksum; a kill leaves nothing.
Of the manifest only what the database confirms is used: the table by its name among ours, the
columns by name and type among the table's, everything else quoted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import Connection, sql

from auditlog.errors import PartitionError
from auditlog.partitions import evidence
from auditlog.partitions.archive.fingerprints import (
    SCHEMA,
    column_list,
    columns_of,
    fingerprint,
)
from auditlog.partitions.archive.known import known_digests
from auditlog.partitions.archive.manifest import COPY_OPTIONS, Content, Manifest
from auditlog.partitions.archive.packing import stop_without
from auditlog.partitions.archive.storage import store_at
from auditlog.partitions.archive.store import Store
from auditlog.partitions.archive.targets import bound, is_taken, make_partition, make_table
from auditlog.partitions.archive.verifying import OnRows, manifest_of, quietly, raw_bytes
from auditlog.partitions.session import only_run

_MAX_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Restored:
    """A table of schema `logstore` that holds what the archive does."""

    table: str
    uri: str
    rows: int
    is_attached: bool


def restore(
    conn: Connection[Any],
    uri: str,
    *,
    into: str | None = None,
    attach: bool = False,
    on_progress: OnRows = quietly,
) -> Restored:
    """Load an archive into a table of its own, also in a database that it did not come from.

    Args:
        conn: Of the tables' owner, not in a transaction.
        uri: The folder of the archive, or its URL.
        into: Name of the table in schema `logstore`, which must not exist; None: the
            partition's, with `_restored` in it unless it is attached.
        attach: Make it a partition again, of a table that has none for that range. Refused for
            what retention took, unless a hold covers it: the next run would take it again.
        on_progress: Is called with the rows that are loaded, and how many there are.

    Raises:
        PartitionError: the archive is not whole, or does not fit the database; nothing is done.
        psycopg.Error: the database refuses.
    """
    store = store_at(uri)
    manifest, data = manifest_of(store)
    content = manifest.content
    stop_without(content.format)
    name = _name(content, into, attach=attach)
    with _alone(conn, content.table, attach=attach), conn.transaction():
        _confirm(conn, store, content, name, sha256(data).digest())
        if attach:
            make_partition(conn, content, name)
        else:
            make_table(conn, content, name)
        _load(conn, store, manifest, name, on_progress)
        _compare(conn, content, name)
        if not attach:
            bound(conn, content, name)
        _tell(conn, store, content, name, attach=attach)
    return Restored(f"{SCHEMA}.{name}", store.uri, content.fingerprint.rows, attach)


@contextmanager
def _alone(conn: Connection[Any], table: str, *, attach: bool) -> Iterator[None]:
    """Keep maintenance away from a table whose partitions are changed."""
    if not attach:
        yield
        return
    with only_run(conn, table) as is_ours:
        if not is_ours:
            raise PartitionError(
                f"maintenance of {table} is at work: run this again when it has ended"
            )
        yield


def _name(content: Content, into: str | None, *, attach: bool) -> str:
    name = (into or "").removeprefix(f"{SCHEMA}.")
    if not into:
        rest = content.partition.removeprefix(f"{content.table}_")
        name = content.partition if attach else f"{content.table}_restored_{rest}"
    if not name or "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
        raise PartitionError(f"{name!r} is no name for a table: give another with --into")
    return name


def _confirm(
    conn: Connection[Any], store: Store, content: Content, name: str, digest: bytes
) -> None:
    """Stop before anything is made if the database speaks against it."""
    if is_taken(conn, name):
        raise PartitionError(
            f"there is something named {name} in schema {SCHEMA}: give another name with --into,"
            " or drop it if it is an earlier restore"
        )
    known = known_digests(conn, store.uri)
    if known and digest not in known:
        raise PartitionError(
            f"the manifest in {store.uri} is not the one that was written when the partition was"
            " archived: it was changed; take another copy of the archive"
        )
    _compare_columns(conn, content)


def _compare_columns(conn: Connection[Any], content: Content) -> None:
    present = {column.name: column for column in columns_of(conn, content.table)}
    for column in content.columns:
        if column.name not in present or present[column.name].type != column.type:
            raise PartitionError(
                f"the archive has a column {column.name} of type {column.type}, and"
                f" {SCHEMA}.{content.table} has none: add it to the table, or restore into a"
                " database of the version that the archive came from"
            )
    for name in present.keys() - set(content.names):
        if present[name].is_required:
            raise PartitionError(
                f"{SCHEMA}.{content.table} needs a value for {name}, and the archive has none:"
                " give the column a default for the time of the restore"
            )


def _load(
    conn: Connection[Any], store: Store, manifest: Manifest, name: str, on_progress: OnRows
) -> None:
    content = manifest.content
    query = sql.SQL("COPY {table} ({columns}) FROM STDIN ({options})").format(
        table=sql.Identifier(SCHEMA, name),
        columns=column_list(content.names),
        options=sql.SQL(COPY_OPTIONS[content.format]),
    )
    try:
        with conn.cursor() as cursor, cursor.copy(query) as copy:
            for chunk in raw_bytes(store, manifest, on_progress):
                copy.write(chunk)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise PartitionError(
            f"the server does not take the rows of {store.uri} (SQLSTATE {error.sqlstate}):"
            " nothing was restored; `auditlog archive verify` tells whether the archive is whole"
        ) from error


def _compare(conn: Connection[Any], content: Content, name: str) -> None:
    restored = fingerprint(conn, name, content.names)
    if restored != content.fingerprint:
        raise PartitionError(
            f"what was loaded is not what was archived: {restored.rows} rows with checksum"
            f" {restored.checksum} instead of {content.fingerprint.rows} with"
            f" {content.fingerprint.checksum}; nothing was restored"
        )


def _tell(
    conn: Connection[Any], store: Store, content: Content, name: str, *, attach: bool
) -> None:
    if not attach:
        comment = f"Restored from {store.uri}: partition {content.partition} of {content.table}."
        conn.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(
                sql.Identifier(SCHEMA, name), sql.Literal(comment)
            )
        )
    evidence.record(
        conn,
        "audit.archive.restored",
        content.table,
        f"{content.partition} was restored from its archive"
        + (" and is a partition again" if attach else f" into the table {name}"),
        partition=content.partition,
        into=name,
        archive_uri=store.uri,
        rows=content.fingerprint.rows,
        is_attached=attach,
    )
