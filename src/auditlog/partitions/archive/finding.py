"""Which archives there are in a folder or behind a URL: what their manifests say. Blocking."""

from dataclasses import dataclass

from auditlog.errors import PartitionError
from auditlog.partitions.archive.manifest import Manifest
from auditlog.partitions.archive.storage import below, store_at
from auditlog.partitions.archive.verifying import manifest_of
from auditlog.tables import TABLES


@dataclass(frozen=True, slots=True)
class Found:
    """An archive, or what was begun of one."""

    uri: str
    manifest: Manifest | None
    problem: str | None
    """Why there is no manifest. None says nothing of the data: `verify` reads that."""


def found(to: str) -> list[Found]:
    """Return the archives of every table, in the order of their folders' names.

    Raises:
        SettingsError: a URL that cannot be used.
        PartitionError: the place cannot be read.
    """
    tables = set(store_at(to).folders()) & {table.name for table in TABLES}
    return [
        _found(below(to, table, folder))
        for table in sorted(tables)
        for folder in store_at(below(to, table)).folders()
    ]


def _found(uri: str) -> Found:
    try:
        return Found(uri, manifest_of(store_at(uri))[0], None)
    except PartitionError as error:
        return Found(uri, None, str(error))
