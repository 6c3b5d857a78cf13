"""A partition with rows of every kind, and what the tests of its archive ask of databases."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from auditlog.partitions.archive import Archived, archive
from auditlog.partitions.archive.raw import Format

FORMATS: tuple[Format, ...] = ("copy", "csv", "parquet")
LEAF = "logs_p202612"
LOWER, UPPER = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)

AWKWARD_TEXTS = (
    "plain",
    "",
    "\\N",
    "\\.",
    'line\nfeed\r\nreturn\rtab\tquote"quotes""back\\slash,comma;\'',
    '"\n"',
    "é☃😀\u2028\u202e\ufeff",
    "\x01\x1f\x7f",
    "NULL",
    " ",
)
AWKWARD_INSTANTS = (
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00.000001+00 BC",
    "4713-11-24 00:00:00+00 BC",
    "294276-12-31 23:59:59.999999+00",
    "10000-01-01 00:00:00+00",
    "1969-12-31 23:59:59.999999+00",
)
AWKWARD_JSON = (
    "null",
    '{"n": 12345678901234567890123456789012345678901234567890, "m": 1.100, "k": 1E-30}',
    '{"e": 1E+300, "é": ["☃", "\\u2028", "\\"", "\\\\n", ""], "": {}}',
    '[1, true, false, null, "a"]',
)


def make_leaf(conn: psycopg.Connection[Any], name: str = LEAF, *, of: str = "logs") -> None:
    """A table as retention leaves it: detached, with the key of a partition."""
    conn.execute(
        sql.SQL(
            "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS, PRIMARY KEY (instance_id, log_id))"
        ).format(sql.Identifier("logstore", name), sql.Identifier("logstore", of))
    )


def fill(conn: psycopg.Connection[Any], name: str = LEAF) -> int:
    """Put a row for each awkward value into it, and some that are huge; return how many."""
    values: list[tuple[str | None, str | None, str | None]] = [
        *((text, None, None) for text in AWKWARD_TEXTS),
        *((None, instant, None) for instant in AWKWARD_INSTANTS),
        *((None, None, document) for document in AWKWARD_JSON),
        ("x\ny" * 700_000, None, None),
        (None, None, '{"long": "' + "é" * 900_000 + '"}'),
    ]
    for number, (text, instant, document) in enumerate(values):
        conn.execute(
            sql.SQL(
                "INSERT INTO {} (instance_id, log_id, log_date, occurrence_date, message,"
                " metadata, event_sequence, response_status, log_level)"
                " VALUES ('t', %s, %s, coalesce(%s::timestamptz, '2026-12-24'), %s, %s, %s, %s, 2)"
            ).format(sql.Identifier("logstore", name)),
            [
                f"{number:04}",
                LOWER.replace(second=number),
                instant,
                text,
                document,
                None if number % 2 else (-1) ** number * 2**62,
                number or None,
            ],
        )
    return len(values)


def grow(conn: psycopg.Connection[Any], rows: int, name: str = LEAF) -> None:
    """Put many rows into it that do not compress to nothing."""
    conn.execute(
        sql.SQL(
            "INSERT INTO {} (instance_id, log_id, log_date, message)"
            " SELECT 'many', i::text, %s, md5(i::text) || md5(i::text || 'x')"
            " FROM generate_series(1, %s) AS i"
        ).format(sql.Identifier("logstore", name)),
        [LOWER, rows],
    )


def archived(
    conn: psycopg.Connection[Any], to: Path | str, fmt: Format = "copy", name: str = LEAF
) -> Archived:
    """Archive a leaf of `logs`."""
    return archive(conn, name, table="logs", lower=LOWER, upper=UPPER, to=str(to), fmt=fmt)


def contents(conn: psycopg.Connection[Any], name: str) -> list[str]:
    """Every row of a table of schema logstore as text, in order."""
    query = sql.SQL("SELECT t::text FROM {} AS t ORDER BY instance_id, log_id")
    return [row for (row,) in conn.execute(query.format(sql.Identifier("logstore", name)))]


def ask(conn: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> Any:
    """The first column of a query's only row."""
    return cast("tuple[Any]", conn.execute(query, parameters).fetchone())[0]


def data_file(archive: Archived | str) -> Path:
    """The file that an archive's rows are in."""
    uri = archive if isinstance(archive, str) else archive.uri
    (file,) = (file for file in Path(uri).glob("data.*") if file.suffix != ".part")
    return file
