"""A partition goes into an archive, in each format, and comes back as it was."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from archive_scene import (
    FORMATS,
    LEAF,
    LOWER,
    UPPER,
    archived,
    ask,
    contents,
    data_file,
    fill,
    grow,
    make_leaf,
)
from auditlog.errors import PartitionError
from auditlog.partitions.archive import (
    Archived,
    archive,
    exporting,
    fingerprint,
    found,
    restore,
    verify,
)
from auditlog.partitions.archive.parquet import BEYOND
from auditlog.partitions.archive.raw import Format
from auditlog.partitions.archive.storage import store_at
from auditlog.partitions.archive.store import Store
from auditlog.partitions.session import maintenance
from databases import Server, as_role

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(any_dsn: str) -> Iterator[Conn]:
    """Maintenance of a database that has a leaf with awkward rows."""
    with maintenance(any_dsn) as connection:
        make_leaf(connection)
        fill(connection)
        yield connection


@pytest.mark.parametrize("fmt", FORMATS)
def test_archive_comes_back_in_another_database(
    dsn: str, any_server: Server, tmp_path: Path, fmt: Format
) -> None:
    """Whatever is in the rows, and into a newer server; the schema is all that it has."""
    with maintenance(dsn) as conn:
        make_leaf(conn)
        rows = fill(conn)
        made = archived(conn, tmp_path, fmt)
        original = contents(conn, LEAF)
        assert made.fingerprint == fingerprint(conn, LEAF)
    with any_server.database() as other, maintenance(other) as conn:
        restored = restore(conn, made.uri)
        back = contents(conn, restored.table.removeprefix("logstore."))
        told = ask(conn, "SELECT metadata FROM logstore.logs WHERE event_type LIKE 'audit.arch%%'")
    assert verify(made.uri).is_whole
    assert (restored.table, restored.rows) == ("logstore.logs_restored_p202612", rows)
    assert back == original
    assert told["audit.rows"] == rows
    assert told["audit.archive_uri"] == made.uri


def test_fingerprint_is_the_same_everywhere(server: Server) -> None:
    """On every server, and whatever a session prints otherwise: it is compared years later."""
    checksums = set()
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        make_leaf(conn)
        fill(conn)
        for settings in (
            "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'",
            "SET timezone = 'America/New_York'; SET datestyle = 'German'",
            "SET search_path = logstore; SET extra_float_digits = 0; SET bytea_output = 'escape'",
        ):
            conn.execute(settings.encode())
            found = fingerprint(conn, LEAF)
            checksums.add(found.checksum)
            assert (found.rows, found.first) == (23, "2026-12-01 00:00:00+00")
        assert ask(conn, "SELECT current_setting('timezone')") == "America/New_York"
    assert checksums == {"9277300563992849958"}


def test_fingerprint_leaves_the_transaction_around_it_alone(conn: Conn) -> None:
    """It sees what that sees, and its settings end with it."""
    conn.execute("SET timezone = 'Asia/Kathmandu'")
    with conn.transaction(force_rollback=True):
        before = fingerprint(conn, LEAF)
        grow(conn, 1)
        assert fingerprint(conn, LEAF).rows == before.rows + 1
        assert ask(conn, "SELECT current_setting('timezone')") == "Asia/Kathmandu"
    assert fingerprint(conn, LEAF) == before


def test_fingerprint_tells_equal_numbers_of_other_rows_apart(conn: Conn) -> None:
    """One letter in one row is another checksum."""
    before = fingerprint(conn, LEAF)
    conn.execute("UPDATE logstore.logs_p202612 SET message = 'Plain' WHERE message = 'plain'")
    after = fingerprint(conn, LEAF)
    assert after.rows == before.rows
    assert after.checksum != before.checksum


def test_policies_hide_nothing_from_an_archive(any_server: Server, tmp_path: Path) -> None:
    """A role that would see some of the rows is refused, instead of archiving those."""
    with any_server.role() as role, any_server.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            make_leaf(admin)
            fill(admin)
            admin.execute(
                sql.SQL(
                    "GRANT USAGE ON SCHEMA logstore TO {role};"
                    "GRANT SELECT ON logstore.logs_p202612 TO {role};"
                    "ALTER TABLE logstore.logs_p202612 ENABLE ROW LEVEL SECURITY;"
                    "CREATE POLICY a_few ON logstore.logs_p202612 USING (message = 'plain')"
                ).format(role=sql.Identifier(role))
            )
        with (
            psycopg.connect(as_role(dsn, role), autocommit=True) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            archived(conn, tmp_path)
    assert found(str(tmp_path)) == []


@pytest.mark.parametrize("fmt", FORMATS)
def test_empty_partition_is_archived_too(any_dsn: str, tmp_path: Path, fmt: Format) -> None:
    """That nothing was there is evidence as well."""
    with maintenance(any_dsn) as conn:
        make_leaf(conn)
        made = archived(conn, tmp_path, fmt)
        restored = restore(conn, made.uri, into="nothing")
    assert made.fingerprint.rows == restored.rows == 0
    assert made.fingerprint.first is None
    assert verify(made.uri).is_whole


def test_psql_loads_what_the_manifest_says(conn: Conn, any_dsn: str, tmp_path: Path) -> None:
    """Nothing but gunzip and psql is needed, in ten years."""
    from databases import postgres_program  # noqa: PLC0415

    for fmt in ("copy", "csv"):
        made = archived(conn, tmp_path, fmt)
        manifest = verify(made.uri).manifest
        assert manifest is not None
        _, create, load = manifest.how_to_load
        conn.execute("DROP TABLE IF EXISTS public.logs_restored")
        commands = [create.removeprefix("or: "), load.removeprefix("and in psql: ")]
        subprocess.run(
            [postgres_program("psql"), any_dsn, "-v", "ON_ERROR_STOP=1"],
            input="\n".join((commands[0] + ";", commands[1])),
            cwd=made.uri,
            check=True,
            text=True,
            capture_output=True,
        )
        query = "SELECT t::text FROM public.logs_restored AS t ORDER BY instance_id, log_id"
        assert [row for (row,) in conn.execute(query)] == contents(conn, LEAF)


def test_parquet_is_read_in_place(conn: Conn, tmp_path: Path) -> None:
    """By whatever reads Parquet, in its own types; what these cannot be stands beside them."""
    made = archived(conn, tmp_path, "parquet")
    table = pq.read_table(data_file(made))
    assert table.num_rows == 23
    assert str(table.schema.field("log_date").type) == "timestamp[us, tz=UTC]"
    assert table.schema.field("metadata").metadata[b"postgresql.type"] == b"jsonb"
    assert table.column("log_date").to_pylist()[0] == LOWER
    beyond = [
        json.loads(note)["occurrence_date"] for note in table.column(BEYOND).drop_null().to_pylist()
    ]
    assert sorted(beyond)[::2] == [-(2**63), 2**63 - 1]
    nulls = table.filter(pc.is_valid(table.column(BEYOND))).column("occurrence_date").null_count
    assert nulls == len(beyond) == 3


def test_archiving_again_takes_what_is_there(conn: Conn, tmp_path: Path) -> None:
    """The same content has the same place; nothing is written a second time."""
    first = archived(conn, tmp_path)
    written = data_file(first).stat().st_mtime_ns
    assert archived(conn, tmp_path) == first
    assert data_file(first).stat().st_mtime_ns == written


def test_other_content_has_a_place_of_its_own(conn: Conn, tmp_path: Path) -> None:
    """A row that came after the first archive; both stay, and both are whole."""
    first = archived(conn, tmp_path)
    grow(conn, 1)
    second = archived(conn, tmp_path)
    assert second.fingerprint.rows == first.fingerprint.rows + 1
    assert sorted(each.uri for each in found(str(tmp_path))) == sorted([first.uri, second.uri])
    assert verify(first.uri).is_whole
    assert verify(second.uri).is_whole


def test_rows_that_come_during_the_export_are_not_in_it(
    conn: Conn, any_dsn: str, tmp_path: Path
) -> None:
    """And the fingerprint afterwards differs, by which whoever drops knows."""
    with psycopg.connect(any_dsn, autocommit=True) as writer:
        made = archive(
            conn,
            LEAF,
            table="logs",
            lower=LOWER,
            upper=UPPER,
            to=str(tmp_path),
            on_progress=lambda done, _: grow(writer, 1) if done == 23 else None,
        )
    assert made.fingerprint.rows == 23
    assert fingerprint(conn, LEAF).rows == 24


def test_counting_and_exporting_see_the_same_rows(
    conn: Conn, any_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that comes between the two is in neither."""

    def store_and_write(uri: str) -> Store:
        if LEAF in uri:
            with psycopg.connect(any_dsn, autocommit=True) as writer:
                grow(writer, 1)
        return store_at(uri)

    monkeypatch.setattr("auditlog.partitions.archive.exporting.store_at", store_and_write)
    assert archived(conn, tmp_path).fingerprint.rows == 23
    assert fingerprint(conn, LEAF).rows == 24


def test_progress_ends_at_the_number_of_rows(conn: Conn, tmp_path: Path) -> None:
    """In every format, and it only grows."""
    for fmt in FORMATS:
        seen: list[tuple[int, int | None]] = []
        archive(
            conn,
            LEAF,
            table="logs",
            lower=None,
            upper=UPPER,
            to=str(tmp_path),
            fmt=fmt,
            on_progress=lambda done, of, seen=seen: seen.append((done, of)),
        )
        assert seen == sorted(seen)
        assert seen[-1] == (23, 23)


KILLED = """
import sys
from archive_scene import LOWER, UPPER, LEAF
from auditlog.partitions.archive import archive
from auditlog.partitions.archive.storage import store_at
from auditlog.partitions.archive.store import Store
from auditlog.partitions.session import maintenance

def wait(done, of):
    print("exporting", flush=True)
    sys.stdin.read()

with maintenance(sys.argv[1]) as conn:
    archive(conn, LEAF, table="logs", lower=LOWER, upper=UPPER, to=sys.argv[2], on_progress=wait)
"""


def test_killed_export_is_finished_by_the_next_run(
    conn: Conn, any_dsn: str, tmp_path: Path
) -> None:
    """Kill -9 in the middle; what it left is no archive, and is replaced."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, any_dsn, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"exporting\n"
        with pytest.raises(PartitionError, match="another process writes"):
            archived(conn, tmp_path)
        process.kill()
    (left,) = found(str(tmp_path))
    assert left.problem is not None
    assert "never finished" in left.problem
    made = archived(conn, tmp_path)
    assert made.uri == left.uri
    assert verify(made.uri).is_whole
    assert not [*Path(made.uri).glob("*.part")]


def test_manifest_that_another_run_has_signed_is_not_overwritten(
    conn: Conn, any_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one reads back, its lock is lost with its connection; the database knows the other."""
    genuine, others = exporting.check, list[Archived]()

    def check(*arguments: Any) -> None:
        genuine(*arguments)
        if not others:
            monkeypatch.setattr(exporting, "check", genuine)
            with maintenance(any_dsn) as other:
                others.append(archived(other, tmp_path))

    monkeypatch.setattr(exporting, "check", check)
    made = archived(conn, tmp_path)
    assert made == others[0]
    assert verify(made.uri, known=[made.manifest_sha256]).is_whole


def test_archive_without_its_manifest_is_made_again(conn: Conn, tmp_path: Path) -> None:
    """Killed between data and manifest, with data that is not what it should be."""
    made = archived(conn, tmp_path)
    (Path(made.uri) / "manifest.json").unlink()
    data_file(made).with_suffix(".gz.part").write_bytes(bytes(10_000_000))
    data_file(made).write_bytes(b"half")
    assert archived(conn, tmp_path).uri == made.uri
    assert verify(made.uri).is_whole
    assert {file.name for file in Path(made.uri).iterdir()} == {"data.copy.gz", "manifest.json"}


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process may grow beyond that, as on a disk that is full."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fmt", FORMATS)
def test_full_disk_is_told_and_leaves_nothing(conn: Conn, tmp_path: Path, fmt: Format) -> None:
    """With what mends it; and the connection works on."""
    grow(conn, 3000)
    with small_files(64 * 1024), pytest.raises(PartitionError, match="free space there"):
        archived(conn, tmp_path, fmt)
    (left,) = found(str(tmp_path))
    assert [*Path(left.uri).iterdir()] == []
    assert verify(archived(conn, tmp_path, fmt).uri).is_whole


def test_archives_are_for_their_owner_alone(conn: Conn, tmp_path: Path) -> None:
    """They hold what the tables do, and the tables are not for everybody either."""
    made = Path(archived(conn, tmp_path / "new" / "place").uri)
    folders = [made, made.parent, made.parent.parent, made.parent.parent.parent]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}


def test_link_in_the_way_is_not_followed(conn: Conn, tmp_path: Path) -> None:
    """Whoever may write the folder must not choose what is overwritten."""
    made = archived(conn, tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (Path(made.uri) / "manifest.json").unlink()
    (Path(made.uri) / "data.copy.gz.part").symlink_to(victim)
    with pytest.raises(PartitionError, match="cannot be written"):
        archived(conn, tmp_path)
    assert victim.read_text() == "mine"


def test_no_such_leaf_is_told(conn: Conn, tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(PartitionError, match="there is no table nothing"):
        archived(conn, tmp_path, name="nothing")
    assert [*tmp_path.iterdir()] == []


def test_name_of_a_partition_is_no_path(conn: Conn, tmp_path: Path) -> None:
    """PostgreSQL allows any name; the folder's is made of it, and lies where it should."""
    name = '../"x"; DROP TABLE logstore.logs; --'
    make_leaf(conn, name)
    made = archived(conn, tmp_path / "to", name=name)
    restored = restore(conn, made.uri)
    assert Path(made.uri).resolve().parent == (tmp_path / "to" / "logs").resolve()
    assert ask(conn, "SELECT to_regclass('logstore.logs') IS NOT NULL")
    assert restored.rows == 0
