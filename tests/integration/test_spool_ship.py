"""`auditlog spool ship`: a sidecar brings home what dead processes left."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import trail
from auditlog import AuditLog
from proxies import Proxy
from trail import numbered, quick

NOWHERE = "host=127.0.0.1 port=1 dbname=nobody connect_timeout=2"


async def leave(directory: Path, numbers: range) -> None:
    """Leave records in the spool, as a process does that never reached its database."""
    settings = quick(durability="spool", spool_dir=str(directory))
    async with AuditLog(NOWHERE, settings=settings) as audit:
        for record in numbered(numbers):
            audit.submit(record)


def ship(dsn: str, directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "auditlog", "spool", "ship", "--spool-dir", str(directory)]
    return subprocess.run(  # our own command
        [*command, "--dsn", dsn, *more], capture_output=True, text=True, timeout=60, check=False
    )


def test_what_was_left_is_shipped(any_dsn: str, tmp_path: Path) -> None:
    """By several dead processes; then there is nothing left to do."""
    for start in (0, 100, 200):
        asyncio.run(leave(tmp_path, range(start, start + 100)))
    result = ship(any_dsn, tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {
        "shipped": 300,
        "dead_letters": 0,
        "lost": 0,
        "done": True,
        "reason": "",
        "remedy": "",
    }
    assert trail.stored_once(any_dsn, 300)
    assert list(tmp_path.iterdir()) == []
    again = ship(any_dsn, tmp_path)
    assert (again.returncode, again.stdout.split(",")[0]) == (0, "shipped 0")


def test_database_that_is_away_is_given_up(any_dsn: str, tmp_path: Path) -> None:
    """The records stay, and the exit code says so."""
    asyncio.run(leave(tmp_path, range(10)))
    result = ship(NOWHERE, tmp_path, "--patience", "1s")
    assert result.returncode == 3
    assert "stays in the spool" in result.stderr
    assert ship(any_dsn, tmp_path).returncode == 0
    assert trail.stored_once(any_dsn, 10)


def test_living_lane_is_left_alone(any_dsn: str, tmp_path: Path) -> None:
    """Its owner ships it, and would otherwise meet its own rows."""
    settings = quick(durability="spool", spool_dir=str(tmp_path), batch_age_s=3600.0)
    with AuditLog(any_dsn, settings=settings) as audit:
        for record in numbered(range(5)):
            audit.submit(record)
        assert ship(any_dsn, tmp_path).stdout.startswith("shipped 0")
    assert trail.stored_once(any_dsn, 5)


def test_two_at_once_ship_each_row_once(any_dsn: str, tmp_path: Path) -> None:
    """Cron started the next one while the first was at work."""
    for start in range(0, 2000, 500):
        asyncio.run(leave(tmp_path, range(start, start + 500)))
    command = [sys.executable, "-m", "auditlog", "spool", "ship", "--dsn", any_dsn, "--json"]
    both = [
        subprocess.Popen([*command, "--spool-dir", str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(answer["shipped"] for answer in answers) == 2000
    assert trail.stored_once(any_dsn, 2000)


def test_damage_and_refused_rows_are_told(any_dsn: str, tmp_path: Path) -> None:
    """The rest is shipped; what is not has its place in the trail."""
    trail.execute(any_dsn, "ALTER TABLE logstore.logs ADD CONSTRAINT c CHECK (user_id <> '000007')")
    asyncio.run(leave(tmp_path, range(10)))
    (segment,) = tmp_path.glob("*/*.segment")
    data = bytearray(segment.read_bytes())
    data[data.index(b"000003")] ^= 0xFF
    segment.write_bytes(data)
    result = ship(any_dsn, tmp_path, "--json")
    assert result.returncode == 1, result
    answer = json.loads(result.stdout)
    assert (answer["shipped"], answer["dead_letters"], answer["lost"]) == (8, 1, 1)
    assert trail.gaps(any_dsn) == {"damaged": 1}
    assert trail.fetch(any_dsn, "SELECT sqlstate FROM logstore.dead_letters") == ["23514"]


def test_database_that_comes_back_within_its_patience(any_dsn: str, tmp_path: Path) -> None:
    """A restart of the server is no reason to leave it to the next run."""
    asyncio.run(leave(tmp_path, range(10)))
    with Proxy(any_dsn) as proxy:
        proxy.lose_answers = 1
        assert ship(proxy.dsn, tmp_path).returncode == 0
        assert proxy.lost == 1
    assert trail.stored_once(any_dsn, 10)


def test_no_folder_is_said(any_dsn: str, tmp_path: Path) -> None:
    """A typing error in a cron job must not look like an empty spool."""
    result = ship(any_dsn, tmp_path / "missing")
    assert result.returncode == 2
    assert "is no folder" in result.stderr
