"""A partition → an archive: exported from one snapshot, read back, and only then signed.

Blocking; memory is bounded by the longest row. Safe to repeat after a kill at any point: what has
no manifest is replaced, what has one is verified and used again, and never overwritten.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from psycopg import Connection, sql

from auditlog.errors import PartitionError
from auditlog.partitions.archive.fingerprints import (
    SCHEMA,
    Fingerprint,
    column_list,
    columns_of,
    fingerprint,
    pinned,
)
from auditlog.partitions.archive.manifest import (
    COPY_OPTIONS,
    DATA_FILES,
    FILE,
    Content,
    Manifest,
    Sizes,
)
from auditlog.partitions.archive.packing import pack, stop_without
from auditlog.partitions.archive.raw import Digest, Format, Watched, joined, watched
from auditlog.partitions.archive.storage import below, store_at
from auditlog.partitions.archive.store import Store, StoreError
from auditlog.partitions.archive.verifying import check, manifest_of
from auditlog.partitions.session import scalar
from auditlog.postgres.files import package_version

Progress = Callable[[int, int | None], None]
"""Is called with the rows that are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Archived:
    """An archive that was read back, and holds what the fingerprint says."""

    uri: str
    manifest_sha256: bytes
    fingerprint: Fingerprint


def archive(
    conn: Connection[Any],
    leaf_name: str,
    *,
    table: str,
    lower: datetime | None,
    upper: datetime,
    to: str,
    fmt: Format = "copy",
    on_progress: Progress = lambda _done, _of: None,
) -> Archived:
    """Export a partition of schema `logstore`, store it, and verify what was stored.

    Rows that come while it runs are not in it: compare the fingerprint before anything is dropped.

    Args:
        conn: Not in a transaction; it holds one snapshot for as long as the export takes.
        leaf_name: The partition, attached or not.
        table: The table that it is or was of.
        lower: Its lower bound; None: -infinity.
        upper: Its upper bound.
        to: Folder or URL that archives are in.
        fmt: `copy`, `csv`, or `parquet`, which needs the extra of that name.
        on_progress: See `Progress`.

    Raises:
        SettingsError: a URL that cannot be used.
        PartitionError: it cannot be stored, or what was stored is not what was sent.
        psycopg.Error: the partition cannot be read.
    """
    # What cannot work is told before all rows are read.
    stop_without(fmt)
    store_at(to)
    with _snapshot(conn):
        content = Content(
            table,
            leaf_name,
            lower,
            upper,
            tuple(columns_of(conn, leaf_name)),
            fingerprint(conn, leaf_name),
            fmt,
        )
        store = store_at(below(to, table, content.folder))
        if store.exists(FILE):
            manifest = None
        else:
            rows = content.fingerprint.rows
            sizes = _export(conn, store, content, lambda done: on_progress(done, rows))
            manifest = _signed(conn, content, sizes)
    return _reused(store, content) if manifest is None else _finished(store, manifest)


@contextmanager
def _snapshot(conn: Connection[Any]) -> Iterator[None]:
    """See one state of the database, and write nothing."""
    with conn.transaction(force_rollback=True):
        conn.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _export(
    conn: Connection[Any], store: Store, content: Content, on_rows: Callable[[int], None]
) -> Sizes:
    raw, stored = Digest(), Digest()
    query = sql.SQL(
        "COPY (SELECT {columns} FROM {table} ORDER BY instance_id, log_id) TO STDOUT ({options})"
    ).format(
        columns=column_list(content.names),
        table=sql.Identifier(SCHEMA, content.partition),
        options=sql.SQL(COPY_OPTIONS[content.format]),
    )
    with (
        store.writing(DATA_FILES[content.format]) as file,
        pinned(conn),
        conn.cursor() as cursor,
        cursor.copy(query) as copy,
    ):
        sent = watched(joined(copy), raw.update)
        rows = pack(content, sent, Watched(file, stored), on_rows)
    if rows != content.fingerprint.rows:
        raise PartitionError(
            f"{content.partition}: {rows} rows were exported, and {content.fingerprint.rows}"
            " counted: nothing was archived; please report this"
        )
    return Sizes(raw.size, raw.sha256, stored.size, stored.sha256)


def _signed(conn: Connection[Any], content: Content, sizes: Sizes) -> Manifest:
    return Manifest(
        content=content,
        sizes=sizes,
        server_version=scalar(conn, "SELECT current_setting('server_version')"),
        database=conn.info.dbname,
        package_version=package_version(),
        created_at=scalar(conn, "SELECT clock_timestamp()").isoformat(),
    )


def _finished(store: Store, manifest: Manifest) -> Archived:
    """Read back what is stored, and sign it."""
    check(store, manifest)
    if store.exists(FILE):
        # That took long, and a run on another machine may have taken this one for dead meanwhile.
        return _reused(store, manifest.content)
    data = manifest.encode()
    with store.writing(FILE) as file:
        file.write(data)
    if manifest_of(store)[1] != data:
        raise PartitionError(f"the manifest in {store.uri} is not what was written there")
    return _archived(store, manifest, data)


def _reused(store: Store, content: Content) -> Archived:
    """Take an earlier archive of the same content, if it is what it says."""
    try:
        manifest, data = manifest_of(store)
        if manifest.content != content:
            raise PartitionError("its manifest is about something else")
        check(store, manifest)
    except StoreError:
        raise
    except PartitionError as error:
        raise PartitionError(
            f"{store.uri} is taken by an archive that is not whole ({error}), and nothing is"
            " overwritten: move that folder away, and run this again"
        ) from error
    return _archived(store, manifest, data)


def _archived(store: Store, manifest: Manifest, data: bytes) -> Archived:
    return Archived(store.uri, sha256(data).digest(), manifest.content.fingerprint)
