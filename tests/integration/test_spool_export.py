"""`auditlog spool`: what it tells of a spool, and rows that psql loads from what it exports."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from auditlog.cli import spool as commands
from auditlog.errors import SettingsError
from auditlog.sink.spool import inspection
from auditlog.sink.spool.segment import segments_of
from auditlog.tables import TABLES
from spool_scene import (
    T0_US,
    flip,
    frames,
    killed,
    lane_of,
    left_behind,
    put,
    row_of,
    segments,
    spool_at,
)
from trail import users


def run(*arguments: object, spool: Path | None = None) -> Result:
    environment = {"AUDITLOG_SPOOL_DIR": str(spool)} if spool else {}
    return CliRunner().invoke(commands.app, [*map(str, arguments)], env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def damage_in_the_middle(folder: Path) -> Path:
    segment = left_behind(folder, range(5))
    flip(segment, frames(segment)[2][1] - 1)
    return segment


def load(dsn: str, command: str) -> None:
    """Do as psql does with the line: the file's bytes are what COPY ... FROM STDIN is sent."""
    prefix, _, rest = command.partition(" from '")
    file, _, options = rest.rpartition("' ")
    statement = prefix.removeprefix("\\") + f" from stdin {options}"
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        connection.cursor() as cursor,
        cursor.copy(statement.encode()) as copy,
    ):
        copy.write(Path(file.replace("''", "'")).read_bytes())


def test_exported_rows_are_loaded(dsn: str, folder: Path, tmp_path: Path) -> None:
    """Those that wait, of all lanes, by the printed line; the spool stays as it was."""
    spool = spool_at(folder)
    put(spool, range(100, 110))
    taken = spool.take(4, 1 << 20)
    assert taken is not None
    spool.settle(taken, 4)
    left_behind(folder, range(120, 125))
    before = [path.read_bytes() for path in segments(folder)]
    result = run("export", "-o", tmp_path / "logs.copy", spool=folder)
    assert result.exit_code == 0, result.output
    line = result.stdout.strip()
    assert line.startswith("\\copy logstore.logs (instance_id, log_id, log_date,")
    load(dsn, line)
    assert users(dsn) == [str(number) for number in (*range(104, 110), *range(120, 125))]
    assert [path.read_bytes() for path in segments(folder)] == before


@pytest.mark.parametrize("table", range(len(TABLES)))
def test_each_table_is_exported(any_dsn: str, folder: Path, tmp_path: Path, table: int) -> None:
    """Only its own rows; quotes in the file's name are doubled."""
    spool = spool_at(folder)
    for number in range(9):
        assert spool.append(number % 3, row_of(number % 3, number), False)
    spool.close()
    file = tmp_path / "it's.copy"
    result = run("export", "--table", TABLES[table].name, "-o", file, "--json", spool=folder)
    assert json.loads(result.stdout)["rows"] == 3
    load(any_dsn, json.loads(result.stdout)["command"])
    with psycopg.connect(any_dsn) as connection:
        query = f"TABLE {TABLES[table].qualified_name}"
        assert len(connection.execute(query.encode()).fetchall()) == 3


def test_export_of_one_segment_and_of_everything(folder: Path, tmp_path: Path) -> None:
    """A file or a lane by name; with --all also what is settled."""
    spool = spool_at(folder)
    put(spool, range(10))
    taken = spool.take(4, 1 << 20)
    assert taken is not None
    spool.settle(taken, 4)
    spool.close()
    (segment,) = segments(folder)
    for number, (arguments, rows) in enumerate(
        [([segment], 6), ([segment, "--all"], 10), ([lane_of(folder)], 6)]
    ):
        result = run("export", "--json", "-o", tmp_path / str(number), *arguments)
        assert json.loads(result.stdout)["rows"] == rows


def test_export_never_overwrites(folder: Path, tmp_path: Path) -> None:
    """And nobody else may read what it writes."""
    left_behind(folder, range(3))
    file = tmp_path / "rows.copy"
    assert run("export", "-o", file, spool=folder).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert isinstance(run("export", "-o", file, spool=folder).exception, FileExistsError)


def test_export_of_damage(any_dsn: str, folder: Path, tmp_path: Path) -> None:
    """What is whole is exported; exit 1."""
    segment = damage_in_the_middle(folder)
    result = run("export", "-o", tmp_path / "rows.copy", spool=folder)
    assert result.exit_code == 1
    assert f"{segment} bytes " in result.stderr
    load(any_dsn, result.stdout.strip())
    assert users(any_dsn) == ["0", "1", "3", "4"]


def test_status(folder: Path) -> None:
    """Each lane, its writer, whether that lives, and what waits."""
    left_behind(folder, range(3))
    owner = spool_at(folder)
    put(owner, range(7))
    result = run("status", "--json", spool=folder)
    assert result.exit_code == 0
    dead, alive = json.loads(result.stdout)["lanes"]
    assert (dead["is_alive"], dead["rows"], alive["is_alive"], alive["rows"]) == (False, 3, True, 7)
    assert dead["oldest"].startswith("2026-09-")
    assert alive["size"] == segments(folder)[-1].stat().st_size
    table = run("status", "--spool-dir", folder).stdout
    assert dead["lane"] in table
    assert "test:1" in table
    assert T0_US > 0


def test_status_of_an_empty_spool(folder: Path) -> None:
    """Is well."""
    folder.mkdir()
    result = run("status", spool=folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "empty" in result.stderr


def test_verify_of_a_whole_spool(folder: Path) -> None:
    """A torn tail is told, and is no damage."""
    segment = killed(folder, range(5))
    os.truncate(segment, segment.stat().st_size - 5)
    result = run("verify", spool=folder)
    assert result.exit_code == 0
    assert "torn tail" in result.stdout
    assert "Whole records: 4. No record is lost." in result.stderr


def test_verify_of_a_damaged_spool(folder: Path) -> None:
    """Each place with its file and bytes, how many records are lost, and exit 1."""
    segment = damage_in_the_middle(folder)
    result = run("verify", spool=folder)
    assert result.exit_code == 1
    assert f"{segment} bytes " in result.stdout
    assert "1 records lost" in result.stdout
    assert "Whole records: 4. Lost: 1." in result.stderr
    found = json.loads(run("verify", "--json", spool=folder).stdout)
    assert (found["records"], found["lost"]) == (4, 1)
    assert {each["kind"] for each in found["findings"]} == {"damaged", "records lost"}
    assert run("status", spool=folder).exit_code == 1


def test_damage_that_was_set_aside_is_told_until_it_is_gone(folder: Path) -> None:
    """By status and verify."""
    damage_in_the_middle(folder)
    spool = spool_at(folder)
    assert spool.adopt()
    taken = spool.take_recovered(10, 1 << 20)
    assert taken is not None
    spool.settle(taken, taken.size)
    for command in ("status", "verify"):
        result = run(command, spool=folder)
        assert result.exit_code == 1
        assert "set aside" in result.output
    for path in (folder / "damaged").iterdir():
        path.unlink()
    assert run("verify", spool=folder).exit_code == 0


@pytest.mark.parametrize("arguments", [["status"], ["verify"], ["export", "-o", "x"]])
def test_spool_has_to_be_named(arguments: list[str], tmp_path: Path) -> None:
    """In one line, with the remedy."""
    error = run(*arguments).exception
    assert isinstance(error, SettingsError)
    assert "AUDITLOG_SPOOL_DIR" in str(error)
    missing = run(*arguments, "--spool-dir", tmp_path / "nowhere").exception
    assert isinstance(missing, SettingsError)


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    """By name."""
    (tmp_path / "notes.txt").touch()
    error = run("export", "-o", tmp_path / "out", tmp_path / "notes.txt").exception
    assert isinstance(error, SettingsError)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def writer(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that appends and settles as fast as it can."""
    code = """
import sys
from pathlib import Path
from spool_scene import row, spool_at
spool = spool_at(Path(sys.argv[1]), max_bytes=1 << 20)
number = 0
while True:
    for _ in range(100):
        spool.append(0, row(number), False)
        number += 1
    taken = spool.take(80, 1 << 20)
    spool.settle(taken, taken.size)
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"....."
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_living_writer_is_no_damage(folder: Path, writer: "subprocess.Popen[bytes]") -> None:
    """Whatever it does while it is looked at."""
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.read(10)
        result = run("verify", "--json", spool=folder)
        found = json.loads(result.stdout)
        assert (found["findings"], result.exit_code) == ([], 0)
        (lane,) = json.loads(run("status", "--json", spool=folder).stdout)["lanes"]
        assert lane["is_alive"]
    assert isinstance(commands.app, typer.Typer)


def test_a_segment_that_goes_while_its_folder_is_read_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its writer has settled it in that moment."""
    left_behind(folder, range(10))
    (segment,), lane = segments(folder), str(lane_of(folder))
    scandir = os.scandir

    @contextmanager
    def slow_scandir(path: str) -> Iterator[list["os.DirEntry[str]"]]:
        with scandir(path) as entries:
            found = list(entries)
        segment.unlink(missing_ok=True)
        yield found

    monkeypatch.setattr(os, "scandir", slow_scandir)
    assert segments_of(lane) == []


def test_a_lane_that_goes_while_the_spool_is_read_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(folder, range(10))
    monkeypatch.setattr(
        inspection, "lane_names", lambda _: ["01a22275-e849-72b7-8dfa-308ca6812fd7"]
    )
    assert inspection.verify(str(folder)) == inspection.Verification(0, [], [])
    assert inspection.all_segments(str(folder)) == []
