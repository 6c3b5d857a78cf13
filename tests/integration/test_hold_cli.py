"""`auditlog hold`: holds are placed, listed and released by name, and the trail tells of it."""

import json
import re
import subprocess
import sys

import pytest
from test_cli import UNREACHABLE

from auditlog.cli.failures import Exit
from commands import CommandLine
from databases import Server, as_role
from trail import fetch

MATTER = "Smith v. Shop, file 4711"


@pytest.fixture
def auditlog(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


def placed(auditlog: CommandLine, dsn: str, *options: str) -> str:
    """Place a hold and return its identity."""
    result = auditlog("hold", "add", "--reason", MATTER, *options, dsn=dsn)
    assert result.returncode == Exit.OK, result.stderr
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}\n", result.stdout)
    return result.stdout.strip()


def listed(auditlog: CommandLine, dsn: str, *options: str) -> list[dict[str, str]]:
    result = auditlog("hold", "list", "--json", *options, dsn=dsn)
    assert result.returncode == Exit.OK, result.stderr
    holds: list[dict[str, str]] = json.loads(result.stdout)
    return holds


def test_a_hold_is_placed_listed_and_released(auditlog: CommandLine, any_dsn: str) -> None:
    """By its identity, or the beginning of it; released, it is in the list of all."""
    bounds = ("--from", "2025-01-01", "--until", "2025-07-01T02:00+02:00")
    hold_id = placed(
        auditlog, any_dsn, "--table", "logs", "--tenant", "tenant-7", *bounds, "--by", "ada"
    )
    (hold,) = listed(auditlog, any_dsn)
    assert (hold["hold_id"], hold["table"], hold["instance_id"]) == (hold_id, "logs", "tenant-7")
    assert hold["start"].startswith("2025-01-01T00:00:00")
    assert hold["end"].startswith("2025-07-01T00:00:00")
    assert (hold["reason"], hold["placed_by"], hold["released_at"]) == (MATTER, "ada", None)
    other = auditlog("hold", "release", "ffff", "--reason", "settled", dsn=any_dsn)
    assert (other.returncode, len(listed(auditlog, any_dsn))) == (Exit.USAGE, 1)
    release = ("hold", "release", hold_id[:13].upper(), "--reason", "settled")
    result = auditlog(*release, dsn=any_dsn)
    assert (result.returncode, result.stdout) == (Exit.OK, f"released {hold_id}\n")
    assert listed(auditlog, any_dsn) == []
    (hold,) = listed(auditlog, any_dsn, "--all")
    assert hold["release_reason"] == "settled"
    again = auditlog(*release, dsn=any_dsn)
    assert (again.returncode, again.stdout) == (Exit.USAGE, "")
    assert "no hold in force begins with" in again.stderr


def test_a_hold_without_options_covers_everything(auditlog: CommandLine, any_dsn: str) -> None:
    """And says so, to whoever forgot them."""
    result = auditlog("hold", "add", "--reason", MATTER, dsn=any_dsn)
    assert result.stderr == "Held: every tenant in every table, ever to ever.\n"
    (hold,) = listed(auditlog, any_dsn)
    names = ("table", "instance_id", "start", "end")
    assert [hold[name] for name in names] == [None] * 4
    assert hold["placed_by"] == fetch(any_dsn, "SELECT session_user::text")[0]


def test_the_trail_tells_of_both(auditlog: CommandLine, any_dsn: str) -> None:
    """Who held what, and who let go of it."""
    hold_id = placed(auditlog, any_dsn)
    auditlog("hold", "release", hold_id, "--reason", "settled", dsn=any_dsn)
    events = fetch(any_dsn, "SELECT event_type FROM logstore.logs ORDER BY log_id")
    assert events == ["audit.hold.placed", "audit.hold.released"]


def test_holds_are_a_table_for_people(auditlog: CommandLine, any_dsn: str) -> None:
    """Nothing in them steers a terminal, and nothing is markup."""
    hostile = "[bold]\x1b[2J\r\n\u202efile\x07"
    holds = {
        placed(auditlog, any_dsn, "--tenant", hostile),
        placed(auditlog, any_dsn, "--until", "2025-07-01", "--by", hostile),
    }
    auditlog("hold", "add", "--reason", hostile, dsn=any_dsn)
    text = auditlog("hold", "list", "--all", dsn=any_dsn)
    assert text.returncode == Exit.OK
    assert all(hold_id in text.stdout for hold_id in holds)
    assert "[bold]" in text.stdout
    assert "ever to 2025-07-01" in text.stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", text.stdout)
    told = auditlog("hold", "add", "--reason", "x", "--tenant", hostile, dsn=any_dsn)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", told.stderr)


def test_no_hold_is_no_error(auditlog: CommandLine, any_dsn: str) -> None:
    """One says so, on stderr."""
    for options, text in (((), "Nothing is held.\n"), (("--all",), "There are no holds.\n")):
        result = auditlog("hold", "list", *options, dsn=any_dsn)
        assert (result.returncode, result.stdout, result.stderr) == (Exit.OK, "", text)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add"], "--reason"),
        (["add", "--reason", " \t"], "--reason must say why"),
        (["add", "--reason", "x", "--table", "lgos"], "there is no table 'lgos'"),
        (["add", "--reason", "x", "--from", "2026-01-01", "--until", "2026-01-01"], "nothing is"),
        (["add", "--reason", "x", "--from", "yesterday"], "is no point in time"),
        (["release", "0199"], "--reason"),
        (["release", "", "--reason", "x"], "no hold in force begins with ''"),
        (["release", "%", "--reason", "x"], "no hold in force begins with '%'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(auditlog: CommandLine, any_dsn: str, arguments: list[str], told: str) -> None:
    """Exit 2, with what would do; nothing is placed."""
    result = auditlog("hold", *arguments, dsn=any_dsn, COLUMNS="200")
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert fetch(any_dsn, "SELECT count(*) FROM logstore.holds") == [0]


def test_a_beginning_that_two_have_names_none(auditlog: CommandLine, any_dsn: str) -> None:
    """Identities of one moment begin alike."""
    first, second = placed(auditlog, any_dsn), placed(auditlog, any_dsn)
    common = next(n for n in range(37) if first[:n] != second[:n]) - 1
    assert common
    result = auditlog("hold", "release", first[:common], "--reason", "x", dsn=any_dsn)
    assert result.returncode == Exit.USAGE
    assert "more than one hold begins with" in result.stderr
    assert len(listed(auditlog, any_dsn)) == 2


def test_bytes_that_are_no_text_are_refused(any_dsn: str) -> None:
    """An argument can be any bytes; a hold is text."""
    command = [sys.executable, "-m", "auditlog", "hold", "add", "--dsn", any_dsn, "--reason"]
    result = subprocess.run([*command, b"\xff"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["add", "--reason", "x"]], ids=" ".join)
def test_no_database_exits_3(auditlog: CommandLine, arguments: list[str]) -> None:
    """Without the password."""
    result = auditlog("hold", *arguments, dsn=UNREACHABLE)
    assert (result.returncode, result.stdout) == (Exit.NO_DATABASE, "")
    assert "geheim" not in result.stderr


def test_no_schema_says_migrate(auditlog: CommandLine, any_server: Server) -> None:
    """One line."""
    with any_server.database(migrated=False) as dsn:
        result = auditlog("hold", "list", dsn=dsn)
    assert result.returncode == Exit.NOT_WELL
    assert "auditlog migrate" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_role_without_rights_holds_nothing(auditlog: CommandLine, any_server: Server) -> None:
    """And is told in one line."""
    with any_server.role() as role, any_server.database() as dsn:
        for arguments in (["list"], ["add", "--reason", "x"]):
            result = auditlog("hold", *arguments, dsn=as_role(dsn, role))
            assert result.returncode == Exit.NOT_WELL
            assert len(result.stderr.splitlines()) == 1
