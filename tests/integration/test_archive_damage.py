"""An archive that is not what it was: told by reading it, never loaded, never overwritten."""

import gzip
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from archive_scene import FORMATS, LEAF, archived, ask, data_file, fill, grow, make_leaf
from auditlog.errors import PartitionError
from auditlog.partitions.archive import restore, verify
from auditlog.partitions.archive.manifest import decode
from auditlog.partitions.archive.raw import Format
from auditlog.partitions.session import maintenance

Conn = psycopg.Connection[Any]
Damage = Callable[[Path], None]


@pytest.fixture
def conn(any_dsn: str) -> Iterator[Conn]:
    """Maintenance of a database that has a leaf with a few hundred rows."""
    with maintenance(any_dsn) as connection:
        make_leaf(connection)
        grow(connection, 500)
        yield connection


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(at: float) -> Damage:
    def damage(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[int(at * (len(data) - 1))] ^= 0x10
        file.write_bytes(data)

    return damage


def append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def lose(file: Path) -> None:
    file.unlink()


def forge(file: Path) -> None:
    """Sound gzip, or Parquet, of other rows."""
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"a", b"b")))
    else:
        file.write_bytes(b"PAR1" + file.read_bytes()[4:-4] + b"PAR2")


DAMAGES: tuple[Damage, ...] = (cut, empty, flip(0.5), flip(0), flip(1), append, lose, forge)


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_damage_is_found(conn: Conn, tmp_path: Path, fmt: Format) -> None:
    """Told, refused by restore, which leaves nothing, and not overwritten by another archive."""
    made = archived(conn, tmp_path, fmt)
    file = data_file(made)
    sound = file.read_bytes()
    for damage in DAMAGES:
        damage(file)
        found = verify(made.uri)
        assert not found.is_whole, damage
        if fmt == "parquet" and damage is not lose:
            # Before any of it is given to the library that reads Parquet.
            assert "SHA-256 of what is stored" in str(found.problem)
        with pytest.raises(PartitionError):
            restore(conn, made.uri, into="back")
        assert ask(conn, "SELECT to_regclass('logstore.back') IS NULL")
        before = file.read_bytes() if file.exists() else None
        with pytest.raises(PartitionError, match="move that folder away"):
            archived(conn, tmp_path, fmt)
        assert (file.read_bytes() if file.exists() else None) == before
        file.write_bytes(sound)
    assert verify(made.uri).is_whole


CHANGES: tuple[tuple[str, object], ...] = (
    ("rows", 499),
    ("checksum", "0"),
    ("table", "quota_logs"),
    ("partition", "logs_p202611"),
    ("lower", "-infinity"),
    ("upper", "2027-02-01T00:00:00+00:00"),
    ("first_log_date", "2026-12-02 00:00:00+00"),
    ("raw_sha256", "0" * 64),
    ("stored_sha256", "0" * 64),
    ("raw_bytes", 1),
    ("stored_bytes", 1),
    ("columns", []),
    ("format", "csv"),
    ("format_version", 2),
)


def test_changed_manifest_is_found(conn: Conn, tmp_path: Path) -> None:
    """By the folder's name or by the data."""
    made = archived(conn, tmp_path)
    file = Path(made.uri) / "manifest.json"
    sound = file.read_bytes()
    for name, value in CHANGES:
        change_manifest(made.uri, **{name: value})
        assert not verify(made.uri).is_whole, name
        with pytest.raises(PartitionError):
            restore(conn, made.uri)
        file.write_bytes(sound)
    assert verify(made.uri).is_whole


def test_database_knows_a_forgery_that_fits_itself(conn: Conn, tmp_path: Path) -> None:
    """Rows, checksums, sizes and the folder's name all changed: only the database can tell."""
    made = archived(conn, tmp_path)
    forged = forged_archive(made.uri)
    assert verify(forged).is_whole
    remember(conn, forged, made.manifest_sha256)
    assert not verify(forged, known=[made.manifest_sha256]).is_whole
    with pytest.raises(PartitionError, match="not the one that was written"):
        restore(conn, forged)
    remember(conn, made.uri, made.manifest_sha256)
    assert verify(made.uri, known=[made.manifest_sha256]).is_whole
    assert restore(conn, made.uri).rows == 500


def test_forgery_is_found_by_the_checksum(conn: Conn, tmp_path: Path) -> None:
    """In a database that knows nothing: the rows are not those that were counted."""
    made = archived(conn, tmp_path)
    with pytest.raises(PartitionError, match="what was loaded is not what was archived"):
        restore(conn, forged_archive(made.uri), into="back")
    assert ask(conn, "SELECT to_regclass('logstore.back') IS NULL")


def test_what_swells_without_end_is_stopped(conn: Conn, tmp_path: Path) -> None:
    """A few kilobytes that would be a hundred megabytes are not unpacked to their end."""
    made = archived(conn, tmp_path)
    bomb = gzip.compress(b"\n" * 100_000_000)
    data_file(made).write_bytes(bomb)
    seen: list[int] = []
    found = verify(made.uri, on_progress=lambda done, _: seen.append(done))
    assert found.problem is not None
    assert "bytes of raw data" in found.problem
    assert max(seen, default=0) < 1_000_000


def test_rows_outside_of_the_bounds_are_refused(conn: Conn, tmp_path: Path) -> None:
    """They would be where nobody looks for them."""
    conn.execute("INSERT INTO logstore.logs_p202612 VALUES ('t', 'late', '2027-01-01')")
    made = archived(conn, tmp_path)
    with pytest.raises(PartitionError, match="outside of the bounds"):
        restore(conn, made.uri)


@pytest.mark.parametrize(
    "change",
    ['ADD "x); DROP TABLE logstore.logs; --" text', "ALTER response_status TYPE bigint"],
)
def test_columns_that_the_table_has_not_are_refused(
    conn: Conn, tmp_path: Path, change: str
) -> None:
    """Nothing of an archive becomes a column; and types must be the same."""
    conn.execute(f"ALTER TABLE logstore.logs_p202612 {change}".encode())
    made = archived(conn, tmp_path)
    with pytest.raises(PartitionError, match="has none: add it"):
        restore(conn, made.uri)
    assert ask(conn, "SELECT to_regclass('logstore.logs') IS NOT NULL")


def test_columns_that_came_later_get_their_default(conn: Conn, tmp_path: Path) -> None:
    """One without a default must be given one first."""
    made = archived(conn, tmp_path)
    conn.execute("ALTER TABLE logstore.logs ADD region text NOT NULL")
    with pytest.raises(PartitionError, match="needs a value for region"):
        restore(conn, made.uri)
    conn.execute("ALTER TABLE logstore.logs ALTER region SET DEFAULT 'eu'")
    assert restore(conn, made.uri, into="back").rows == 500
    assert ask(conn, "SELECT DISTINCT region FROM logstore.back") == "eu"


def test_columns_in_another_order_are_the_same_columns(conn: Conn, tmp_path: Path) -> None:
    """A table that was made anew may have them so."""
    fill(conn)
    conn.execute(
        "ALTER TABLE logstore.logs_p202612 ADD later bigint, DROP event_sequence;"
        "ALTER TABLE logstore.logs_p202612 RENAME later TO event_sequence"
    )
    conn.execute("UPDATE logstore.logs_p202612 SET event_sequence = 7 WHERE instance_id = 't'")
    made = archived(conn, tmp_path)
    restore(conn, made.uri, into="back")
    assert ask(conn, "SELECT count(*) FROM logstore.back WHERE event_sequence = 7") == 23


def change_manifest(uri: str, **changes: object) -> bytes:
    file = Path(uri) / "manifest.json"
    data = orjson.dumps(orjson.loads(file.read_bytes()) | changes)
    file.write_bytes(data)
    return data


def forged_archive(uri: str) -> str:
    """Another archive beside one, with a row changed and everything about it put right."""
    folder = Path(uri).with_name("forged")
    shutil.copytree(uri, folder)
    file = data_file(str(folder))
    raw = gzip.decompress(file.read_bytes())
    assert raw.endswith(b"\t\\N\n")
    raw = raw[:-5] + b"g" + raw[-4:]  # the last letter of a message
    stored = gzip.compress(raw)
    file.write_bytes(stored)
    data = change_manifest(
        str(folder),
        raw_bytes=len(raw),
        raw_sha256=sha256(raw).hexdigest(),
        stored_bytes=len(stored),
        stored_sha256=sha256(stored).hexdigest(),
        partition="logs_p209912",
    )
    fitting = folder.with_name(f"logs_p209912-{decode(data).content.digest}")
    folder.rename(fitting)
    return str(fitting)


def remember(conn: Conn, uri: str, digest: bytes) -> None:
    """What maintenance keeps of an archive."""
    conn.execute(
        "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name,"
        " partition_oid, lower_bound, upper_bound, state, archive_uri, manifest_sha256)"
        " VALUES (gen_random_uuid(), 'logs', %s, 1, '2026-12-01', '2027-01-01', 'dropped', %s, %s)",
        [LEAF, uri, digest],
    )
