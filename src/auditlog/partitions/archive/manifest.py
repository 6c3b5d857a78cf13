"""The manifest: what an archive holds, and what it has to look like; written last. Pure.

    TO/logs/logs_p202612-0123456789abcdef/data.copy.gz
                                          manifest.json

The folder's name ends in a digest of what is archived: the same content has the same place, other
content has another, and a manifest that was changed does not fit the name. Nothing in a manifest
is believed: names are looked up, or quoted, and the data's file follows from its format.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson

from auditlog.errors import PartitionError
from auditlog.partitions.archive.fingerprints import CHECKSUM, Fingerprint, StoredColumn
from auditlog.partitions.archive.raw import Format
from auditlog.tables import TABLES

FILE = "manifest.json"
VERSION = 1
MAX_BYTES = 1024 * 1024
"""A manifest of 100 columns has 10 KB; more is none of ours."""

DATA_FILES: dict[Format, str] = {
    "copy": "data.copy.gz",
    "csv": "data.csv.gz",
    "parquet": "data.parquet",
}
COPY_OPTIONS: dict[Format, str] = {
    "copy": "FORMAT text, ENCODING 'UTF8'",
    "csv": "FORMAT csv, HEADER true, ENCODING 'UTF8'",
    "parquet": "FORMAT binary, ENCODING 'UTF8'",
}
"""Of the COPY whose bytes are called raw: they are stored, or can be made of what is stored.

Text for `copy`, and not binary: every version on every machine reads it, psql and people do, and
its rows can be counted. A million rows, 490 MB of a table, take 9.2 s as copy, 10.5 s as csv and
19 s as parquet, each 57 MB, from the count to the last byte read back (2026-11-28).
"""

_DIGEST_CHARS = 16
_MAX_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Content:
    """What is archived: rows of one partition."""

    table: str
    partition: str
    lower: datetime | None
    """None: -infinity."""
    upper: datetime
    columns: tuple[StoredColumn, ...]
    fingerprint: Fingerprint
    format: Format

    @property
    def folder(self) -> str:
        """The archive's folder, a safe name whatever the partition's is."""
        return f"{quote(self.partition, safe='')}-{self.digest}"

    @property
    def digest(self) -> str:
        """Changes with anything that is archived, and with nothing else."""
        return sha256(orjson.dumps(self._fields())).hexdigest()[:_DIGEST_CHARS]

    @property
    def names(self) -> list[str]:
        """Of the columns, in the order of the data."""
        return [column.name for column in self.columns]

    def _fields(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "partition": self.partition,
            "lower": "-infinity" if self.lower is None else self.lower.isoformat(),
            "upper": self.upper.isoformat(),
            "columns": [dataclasses.asdict(column) for column in self.columns],
            "rows": self.fingerprint.rows,
            "checksum": self.fingerprint.checksum,
            "first_log_date": self.fingerprint.first,
            "last_log_date": self.fingerprint.last,
            "format": self.format,
        }


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths and SHA-256 of the data: as the server sent it, and as it is stored."""

    raw_bytes: int
    raw_sha256: str
    stored_bytes: int
    stored_sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An archive that is whole."""

    content: Content
    sizes: Sizes
    server_version: str
    database: str
    package_version: str
    created_at: str

    def encode(self) -> bytes:
        """Return the file, for people too."""
        content = self.content
        document = {
            "format_version": VERSION,
            **content._fields(),  # both are the manifest
            "checksum_of": f"the rows t of these columns, in UTC and ISO dates: {CHECKSUM}",
            "file": DATA_FILES[content.format],
            **dataclasses.asdict(self.sizes),
            "server_version": self.server_version,
            "database": self.database,
            "package_version": self.package_version,
            "created_at": self.created_at,
            "how_to_load": self.how_to_load,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @property
    def how_to_load(self) -> list[str]:
        """Say how it is loaded, and how with nothing but PostgreSQL's own tools."""
        content, restore = self.content, "auditlog archive restore FOLDER"
        if content.format == "parquet":
            return [restore, "or query it in place: the schema's metadata has the types"]
        table = _quoted(f"{content.table}_restored")
        columns = ", ".join(map(_quoted, content.names))
        return [
            restore,
            f"or: CREATE TABLE {table} (LIKE logstore.{content.table} INCLUDING ALL)",
            f"and in psql: \\copy {table} ({columns})"
            f" FROM PROGRAM 'gunzip -c {DATA_FILES[content.format]}'"
            f" WITH ({COPY_OPTIONS[content.format]})",
        ]


def decode(data: bytes) -> Manifest:
    """Read a manifest of whoever's making.

    Raises:
        PartitionError: it is none, or of a version that is not known; says what is wrong.
    """
    try:
        document = orjson.loads(data)
        if document["format_version"] != VERSION:
            raise PartitionError(
                f"the manifest is of version {document['format_version']!r}, and {VERSION} is"
                " known here: use the version of auditlog-postgres that wrote it, or a newer one"
            )
        return Manifest(
            content=_content(document),
            sizes=Sizes(
                **{
                    field.name: _typed(document, field.name, field.type)
                    for field in dataclasses.fields(Sizes)
                }
            ),
            **{
                name: _typed(document, name, str)
                for name in ("server_version", "database", "package_version", "created_at")
            },
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise PartitionError(
            f"the manifest cannot be read ({type(error).__name__}: {error}): it was changed or is"
            " damaged; take another copy of the archive"
        ) from error


def _content(document: dict[str, Any]) -> Content:
    lower, first, last = document["lower"], document["first_log_date"], document["last_log_date"]
    return Content(
        table=_one_of([table.name for table in TABLES], document, "table"),
        partition=_name(document["partition"]),
        lower=None if lower == "-infinity" else _instant(lower),
        upper=_instant(document["upper"]),
        columns=tuple(_column(column) for column in document["columns"]),
        fingerprint=Fingerprint(
            _typed(document, "rows", int),
            _typed(document, "checksum", str),
            None if first is None else str(first),
            None if last is None else str(last),
        ),
        format=_one_of(list(DATA_FILES), document, "format"),
    )


def _column(document: dict[str, Any]) -> StoredColumn:
    return StoredColumn(
        _name(document["name"]),
        _typed(document, "type", str),
        _typed(document, "is_required", bool),
    )


def _typed(document: dict[str, Any], name: str, kind: Any) -> Any:
    value = document[name]
    # True is an int to Python, and no number of rows.
    if type(value) is not kind or (kind is int and value < 0):
        raise ValueError(f"{name} is {value!r}")
    return value


def _one_of(known: list[Any], document: dict[str, Any], name: str) -> Any:
    if document[name] not in known:
        raise ValueError(f"{name} is {document[name]!r}, and not one of {', '.join(known)}")
    return document[name]


def _name(name: Any) -> str:
    if isinstance(name, str) and 0 < len(name.encode()) <= _MAX_NAME_BYTES and "\0" not in name:
        return name
    raise ValueError(f"{name!r} is no name of PostgreSQL")


def _instant(text: Any) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.utcoffset() is None:
        raise ValueError(f"{text!r} has no time zone")
    return instant.astimezone(UTC)


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
