"""`auditlog archive`: what it prints, and the codes it exits with."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_cli import auditlog

from archive_scene import LEAF, archived, ask, data_file, fill, make_leaf
from auditlog.cli.failures import Exit
from auditlog.partitions.archive import Archived
from auditlog.partitions.session import maintenance

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(any_dsn: str) -> Iterator[Conn]:
    """Maintenance of a database that has a leaf with awkward rows."""
    with maintenance(any_dsn) as connection:
        make_leaf(connection)
        fill(connection)
        yield connection


@pytest.fixture
def made(conn: Conn, tmp_path: Path) -> Archived:
    """The archive of that leaf, in `tmp_path`."""
    return archived(conn, tmp_path)


def test_list_shows_what_manifests_say(made: Archived, tmp_path: Path) -> None:
    """As a table, and as JSON."""
    listed = auditlog("archive", "list", str(tmp_path))
    assert (listed.returncode, listed.stderr) == (Exit.OK, "")
    for word in ("logs", LEAF, "2026-12-01 to 2027-01-01", "23", "copy"):
        assert word in listed.stdout
    (fields,) = json.loads(auditlog("archive", "list", str(tmp_path), "--json").stdout)
    assert fields["uri"] == made.uri
    assert fields["checksum"] == made.fingerprint.checksum


def test_list_tells_of_what_was_never_finished(made: Archived, tmp_path: Path) -> None:
    """It is no archive yet, and the exit code says so."""
    (Path(made.uri) / "manifest.json").unlink()
    listed = auditlog("archive", "list", str(tmp_path))
    assert listed.returncode == Exit.NOT_WELL
    assert "never finished" in listed.stderr
    empty = auditlog("archive", "list", str(tmp_path / "none"))
    assert (empty.returncode, empty.stdout) == (Exit.OK, "")
    assert "There is no archive" in empty.stderr


def test_verify_reads_one_or_all(made: Archived, tmp_path: Path) -> None:
    """An archive, and the place that archives are in, also one that is none."""
    verified = auditlog("archive", "verify", made.uri, str(tmp_path))
    assert verified.returncode == Exit.OK
    assert verified.stdout == f"whole: {made.uri}: 23 rows\n" * 2
    data_file(made).write_bytes(b"other")
    verified = auditlog("archive", "verify", str(tmp_path), str(tmp_path / "none"))
    assert verified.returncode == Exit.NOT_WELL
    damaged, missing = verified.stdout.splitlines()
    assert damaged.startswith(f"not whole: {made.uri}: ")
    assert "there is no manifest" in missing
    (fields,) = json.loads(auditlog("archive", "verify", made.uri, "--json").stdout)
    assert fields["is_whole"] is False
    assert fields["problem"]


def test_verify_asks_the_database_if_told_to(conn: Conn, any_dsn: str, made: Archived) -> None:
    """It knows the manifest; one it knows nothing of is told, and is no fault."""
    arguments = ("archive", "verify", made.uri, "--compare", "--dsn", any_dsn)
    unknown = auditlog(*arguments)
    assert unknown.returncode == Exit.OK
    assert "the database knows of no archive there" in unknown.stderr
    conn.execute(
        "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name,"
        " partition_oid, lower_bound, upper_bound, state, archive_uri, manifest_sha256)"
        " VALUES (gen_random_uuid(), 'logs', 'x', 1, '2026-12-01', '2027-01-01', 'dropped',"
        " %s, %s)",
        [made.uri, made.manifest_sha256],
    )
    assert auditlog(*arguments).returncode == Exit.OK
    conn.execute("UPDATE logstore.retirements SET manifest_sha256 = 'other'")
    for uri in (made.uri, f"{made.uri}/", os.path.relpath(made.uri)):
        compared = auditlog("archive", "verify", uri, "--compare", "--dsn", any_dsn)
        assert compared.returncode == Exit.NOT_WELL, uri


def test_verify_needs_a_database_only_to_compare(made: Archived) -> None:
    """And says which option it lacks."""
    compared = auditlog("archive", "verify", made.uri, "--compare")
    assert compared.returncode == Exit.USAGE
    assert "--dsn" in compared.stderr


def test_restore_prints_the_table(conn: Conn, any_dsn: str, made: Archived) -> None:
    """Data on stdout; a second one needs another name; what fails leaves no table."""
    restored = auditlog("archive", "restore", made.uri, "--dsn", any_dsn)
    assert (restored.returncode, restored.stdout) == (
        Exit.OK,
        "logstore.logs_restored_p202612\n",
    )
    assert "23 rows" in restored.stderr
    again = auditlog("archive", "restore", made.uri, "--dsn", any_dsn)
    assert again.returncode == Exit.NOT_WELL
    assert "--into" in again.stderr
    third = auditlog("archive", "restore", made.uri, "--into", "b", "--json", "--dsn", any_dsn)
    assert json.loads(third.stdout) == {
        "table": "logstore.b",
        "uri": made.uri,
        "rows": 23,
        "is_attached": False,
    }
    attached = auditlog("archive", "restore", made.uri, "--attach", "--into", "c", "--dsn", any_dsn)
    assert attached.returncode == Exit.NOT_WELL
    assert "partitions enable logs" in attached.stderr
    assert ask(conn, "SELECT to_regclass('logstore.c') IS NULL")


def test_no_database_has_its_own_code(made: Archived) -> None:
    """As in every command."""
    unreachable = auditlog(
        "archive", "restore", made.uri, "--dsn", "postgresql://u:geheim@127.0.0.1:1/x"
    )
    assert unreachable.returncode == Exit.NO_DATABASE
    assert "geheim" not in unreachable.stderr


def test_url_with_a_password_is_a_matter_of_usage() -> None:
    """It is not repeated."""
    listed = auditlog("archive", "list", "ftp://user:geheim@host/archive")
    assert listed.returncode == Exit.USAGE
    assert "geheim" not in listed.stderr
