"""`auditlog quota`: limits are laid down, changed by what is named, looked at and taken away."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from psycopg.types.json import Jsonb

from auditlog.cli.failures import Exit
from auditlog.quota.keeping.store import put, stored
from auditlog.quota.model import Quota
from commands import CommandLine, Result
from databases import Server, as_role
from trail import execute, fetch

Command: TypeAlias = Callable[..., Result]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
UNREACHABLE = "postgresql://reader:geheimwort@127.0.0.1:1/logs"
FILE = """
[[quota]]
id = "exports"
limit = 7
period = "week"
per = ["user"]

[[quota]]
id = "imports"
limit = 100
"""


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return partial(CommandLine(monkeypatch, capfd), "quota", COLUMNS="200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "quotas.toml"
    path.write_text(FILE)
    return path


def quotas(dsn: str) -> list[Quota | None]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return [each.quota for each in stored(conn)]


def done(quota: Command, *arguments: str, dsn: str) -> Any:
    """What a command prints as JSON."""
    result = quota(*arguments, "--json", dsn=dsn)
    assert result.returncode == Exit.OK, result.stderr
    return json.loads(result.stdout)


def spend(dsn: str, quota: Quota, subject: str, units: int, tenant: str = "acme") -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute("SELECT logstore.microseconds(clock_timestamp())").fetchone()
        assert row
        start, end = quota.of_instant(row[0])
        ask = {"q": quota.id, "t": tenant, "s": subject, "n": 1, "a": units, "forced": True}
        period = {"limit": quota.limit, "start": start, "end": end}
        conn.execute("SELECT logstore.spend_quotas(%s)", [Jsonb([ask | period])])


def test_a_quota_is_set_shown_raised_and_removed(quota: Command, any_dsn: str) -> None:
    """The way of an operator: only what is named changes."""
    named = ("--counts", "reported", "--per", "user", "--period", "day", "--threshold", "80")
    first = done(quota, "set", "exports", "--limit", "10", *named, "--by", "ada", dsn=any_dsn)
    assert (first["result"], first["before"]) == ("set", None)
    was = Quota("exports", limit=10, counts="reported", per="user", period="day", thresholds=(80,))
    assert quotas(any_dsn) == [was]

    raised = done(quota, "set", "exports", "--limit", "20", dsn=any_dsn)
    assert (raised["before"], raised["quota"]) == (first["quota"], {**first["quota"], "limit": 20})
    again = done(quota, "set", "exports", "--limit", "20", dsn=any_dsn)
    assert (again["result"], again["before"], again["quota"]) == (
        "unchanged",
        raised["quota"],
        raised["quota"],
    )
    shown = quota("show", "exports", dsn=any_dsn)
    assert (shown.returncode, shown.stderr) == (Exit.OK, "")
    assert re.search(r"^set +20\d\d-\d\d-\d\d \d\d:\d\d by ", shown.stdout, re.MULTILINE)
    assert {"limit 20", "period 1 day", "per user", "thresholds 80", "tenant all"} <= {
        " ".join(line.split()) for line in shown.stdout.splitlines()
    }
    removed = quota("remove", "exports", "--by", "grace", dsn=any_dsn)
    assert (removed.returncode, removed.stdout) == (Exit.OK, "removed exports\n")
    assert "code or file says under that name applies again" in removed.stderr
    assert quotas(any_dsn) == []
    query = "SELECT event_type FROM logstore.logs ORDER BY log_id"
    assert fetch(any_dsn, query) == ["audit.quota.set"] * 2 + ["audit.quota.removed"]


def test_every_setting_can_be_named_and_taken_back(quota: Command, any_dsn: str) -> None:
    """A list that is named replaces the one that was there; `none` empties it."""
    everything = (
        *("--limit", "1_000", "--counts", "writes", "--per", "route", "--per", "user"),
        *("--period", "2 weeks", "--anchor", "2026-03-02", "--time-zone", "Europe/Berlin"),
        *("--threshold", "50", "--threshold", "80%", "--observe", "--exact", "--log-allowed"),
        *("--on-unavailable", "closed", "--refund", "denied", "--refund", "404"),
        *("--route", "/orders/*", "--route", "/users/**", "--method", "post", "--method", "PUT"),
    )
    first = done(quota, "set", "orders", *everything, dsn=any_dsn)["quota"]
    assert first == {
        "id": "orders",
        "limit": 1000,
        "period": "2 weeks",
        "counts": "writes",
        "per": ["user", "route"],
        "rolling": False,
        "anchor": "2026-03-01T23:00:00+00:00",
        "time_zone": "Europe/Berlin",
        "thresholds": [50, 80],
        "enforced": False,
        "exact": True,
        "on_unavailable": "closed",
        "refunds": ["denied", "404"],
        "routes": ["/orders/*", "/users/**"],
        "methods": ["POST", "PUT"],
        "tenant": None,
        "log_allowed": True,
    }
    back = (
        *("--anchor", "none", "--threshold", "none", "--enforce", "--no-exact", "--no-log-allowed"),
        *("--on-unavailable", "open", "--refund", "none", "--route", "/users/**"),
        *("--method", "none", "--rolling"),
    )
    last = done(quota, "set", "orders", *back, dsn=any_dsn)["quota"]
    changed = {"anchor": None, "thresholds": [], "enforced": True, "exact": False, "refunds": []}
    changed |= {"log_allowed": False, "on_unavailable": "open", "routes": ["/users/**"]}
    assert last == {**first, **changed, "methods": [], "rolling": True}
    assert quotas(any_dsn) == [Quota(**last)]
    assert not done(quota, "set", "orders", "--no-rolling", dsn=any_dsn)["quota"]["rolling"]


@pytest.mark.parametrize(
    ("counts", "limit", "units"),
    [
        ("requests", "200000", 200_000),
        ("bytes", "10GB", 10 * 1024**3),
        ("bytes", "1.5 MB", 3 * 512 * 1024),
        ("bytes", "0", 0),
        ("execution_ms", "90s", 90_000),
        ("execution_ms", "1h", 3_600_000),
        ("execution_ms", "250", 250),
    ],
)
def test_a_limit_may_have_a_unit(
    quota: Command, any_dsn: str, counts: str, limit: str, units: int
) -> None:
    """One that goes with what is counted; of a quota that is there, too."""
    options = ("--limit", limit, "--counts", counts)
    assert done(quota, "set", "new", *options, dsn=any_dsn)["quota"]["limit"] == units
    done(quota, "set", "old", "--limit", "1", "--counts", counts, dsn=any_dsn)
    assert done(quota, "set", "old", "--limit", limit, dsn=any_dsn)["quota"]["limit"] == units
    assert quota("list", dsn=any_dsn).returncode == Exit.OK


def test_a_tenants_first_one_is_as_for_all(quota: Command, any_dsn: str, file: Path) -> None:
    """Else as in a file; nothing of it comes from anywhere else."""
    done(quota, "set", "exports", "--file", str(file), dsn=any_dsn)
    assert quotas(any_dsn) == [Quota("exports", limit=7, period="week", per="user")]
    own = ("set", "exports", "--tenant", "acme", "--limit", "500")
    assert done(quota, *own, dsn=any_dsn)["quota"]["per"] == ["user"]
    shown = quota("show", "exports", "--tenant", "globex", dsn=any_dsn)
    assert "this is the one for all" in shown.stderr
    assert done(quota, "show", "exports", "--tenant", "acme", dsn=any_dsn)["limit"] == 500
    removed = quota("remove", "exports", "--tenant", "acme", dsn=any_dsn)
    assert "For tenant acme the one for all tenants applies again." in removed.stderr


def test_a_dry_run_shows_and_sets_nothing(quota: Command, any_dsn: str) -> None:
    """Nor does it leave a row in the trail."""
    result = quota("set", "exports", "--limit", "10", "--dry-run", dsn=any_dsn)
    assert result.returncode == Exit.OK
    assert "limit           10" in result.stdout
    assert result.stderr == "This was a dry run: nothing is set.\n"
    assert (
        done(quota, "set", "exports", "--limit", "9", "--dry-run", dsn=any_dsn)["result"] == "set"
    )
    assert quotas(any_dsn) == []
    assert fetch(any_dsn, "SELECT count(*) FROM logstore.logs") == [0]


def test_whoever_replaces_another_quota_is_told(quota: Command, any_dsn: str) -> None:
    """An application counts by the minute: to name the limit alone makes a month of it."""
    spend(any_dsn, Quota("requests", limit=60, period="hour"), "ada", 1)
    result = quota("set", "requests", "--limit", "120", dsn=any_dsn)
    assert result.returncode == Exit.OK
    assert "Counters that there are have other periods" in result.stderr
    for options in (("--period", "hour"), ("--limit", "180"), ("--period", "day")):
        right = quota("set", "requests", *options, dsn=any_dsn)
        assert right.stderr == "Set for every tenant: every process takes it within seconds.\n"


def test_the_list_has_those_of_a_file_and_those_of_a_tenant(
    quota: Command, any_dsn: str, file: Path
) -> None:
    """The database goes before the file, a tenant's own before the one for all."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        put(conn, Quota("exports", limit=20))
        put(conn, Quota("exports", limit=500, tenant="acme"))
    listed = done(quota, "list", "--file", str(file), dsn=any_dsn)
    assert [(each["id"], each["tenant"], each["limit"], each["source"]) for each in listed] == [
        ("exports", None, 20, "database"),
        ("exports", "acme", 500, "database"),
        ("imports", None, 100, "file"),
    ]
    for tenant, limits in (("acme", [500, 100]), ("globex", [20, 100])):
        applying = done(quota, "list", "--tenant", tenant, "--file", str(file), dsn=any_dsn)
        assert [each["limit"] for each in applying] == limits


def test_a_quota_that_cannot_be_used_is_told(quota: Command, any_dsn: str) -> None:
    """Exit 1, with what mends it; the others are listed; what mends it does."""
    for name in ("exports", "imports"):
        done(quota, "set", name, "--limit", "10", dsn=any_dsn)
    execute(any_dsn, "UPDATE logstore.quotas SET period = 'x\033[2J' WHERE quota_id = 'exports'")
    for command in (("list",), ("show", "exports")):
        result = quota(*command, dsn=any_dsn)
        assert result.returncode == Exit.NOT_WELL
        assert "`auditlog quota set exports` mends it" in result.stderr
        assert not CONTROL.search(result.stdout + result.stderr)
    assert json.loads(quota("list", "--json", dsn=any_dsn).stdout)[0]["problem"]
    useless = quota("set", "exports", "--limit", "20", dsn=any_dsn)
    assert (useless.returncode, useless.stdout) == (Exit.USAGE, "")
    done(quota, "set", "exports", "--period", "day", dsn=any_dsn)
    assert quota("list", dsn=any_dsn).returncode == Exit.OK


def test_usage_is_told_nearest_first(quota: Command, any_dsn: str) -> None:
    """In text and JSON; by quota, tenant, subject, and how much is used."""
    daily = Quota("exports", limit=10, period="day")
    for subject, units in (("ada", 3), ("[bold]\x1b[2J\u202e", 9), ("grace", 12)):
        spend(any_dsn, daily, subject, units)
    spend(any_dsn, Quota("imports", limit=10), "", 1, tenant="globex")
    text = quota("usage", dsn=any_dsn)
    assert (text.returncode, text.stderr) == (Exit.OK, "")
    assert not CONTROL.search(text.stdout)
    assert "[bold]" in text.stdout
    words = [line.split() for line in text.stdout.splitlines()[2:]]
    assert words[0][:7] == ["exports", "acme", "grace", "12", "10", "120.0", "0"]
    assert [line[0] for line in words] == ["exports"] * 3 + ["imports"]
    found = done(quota, "usage", "exports", "--over", "90", dsn=any_dsn)
    assert [each["used"] for each in found] == [12, 9]
    assert 0 < found[0].pop("resets_in_s") <= 86_400
    assert "resets_in" not in found[0]
    assert found[0]["period_end"].endswith("+00:00")
    told = ("quota_id", "tenant", "subject", "limit", "percent", "remaining", "rolling")
    assert [found[0][name] for name in told] == ["exports", "acme", "grace", 10, 120.0, 0, False]
    assert len(done(quota, "usage", "-n", "2", dsn=any_dsn)) == 2
    assert "more than these 2; -n shows" in quota("usage", "-n", "2", dsn=any_dsn).stderr
    assert len(done(quota, "usage", "--tenant", "globex", "--past", dsn=any_dsn)) == 1
    assert len(done(quota, "usage", "--subject", "ada", dsn=any_dsn)) == 1


def test_nothing_is_no_error(quota: Command, any_dsn: str) -> None:
    """One says so, on stderr; JSON is an empty list."""
    for command in ("list", "usage"):
        result = quota(command, dsn=any_dsn)
        assert (result.returncode, result.stdout) == (Exit.OK, "")
        assert len(result.stderr.splitlines()) == 1
        assert done(quota, command, dsn=any_dsn) == []


def test_a_file_is_checked_without_a_database(quota: Command, file: Path) -> None:
    """What is in it, or what is wrong, with the line."""
    well = quota("check", str(file))
    assert well.returncode == Exit.OK
    assert "2 quotas, and all of them can be used" in well.stderr
    assert [each["limit"] for each in json.loads(quota("check", str(file), "--json").stdout)] == [
        7,
        100,
    ]
    file.write_text(FILE + 'period = "fortnight"\n')
    wrong = quota("check", str(file))
    assert (wrong.returncode, wrong.stdout) == (Exit.USAGE, "")
    assert f"{file}:11:" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["set", "x"], "say how much is allowed, with --limit"),
        (["set", "x", "--limit", "many"], "is no limit: write a whole number"),
        (["set", "x", "--limit", "-1"], "is no limit: write a whole number"),
        (["set", "x", "--limit", "1h"], "is no limit: write a whole number"),
        (["set", "x", "--limit", "1h", "--counts", "bytes"], "write 500MB, 10GB"),
        (["set", "x", "--limit", "1GB", "--counts", "execution_ms"], "write 90s, 1h"),
        (["set", "x", "--limit", str(2**53)], "must be a whole number from 0"),
        (["set", "x", "--limit", "9" * 5000], "is no limit: write a whole number"),
        (["set", "x", "--limit", "1", "--threshold", "9" * 5000], "is no whole number"),
        (["set", "", "--limit", "1"], "id: must be a text"),
        (["set", "x" * 300, "--limit", "1"], "at most"),
        (["set", "x", "--limit", "1", "--tenant", ""], "tenant: must be a text"),
        (["set", "x", "--limit", "1", "--period", "fortnight"], "'fortnight' is no period"),
        (["set", "x", "--limit", "1", "--rolling"], "write 30 days"),
        (["set", "x", "--limit", "1", "--anchor", "soon"], "'soon' is no point in time"),
        (["set", "x", "--limit", "1", "--time-zone", "Mars"], "time_zone"),
        (["set", "x", "--limit", "1", "--threshold", "most"], "is no whole number of per cent"),
        (["set", "x", "--limit", "1", "--threshold", "0"], "thresholds"),
        (["set", "x", "--limit", "1", "--route", "orders"], "'orders' matches no path"),
        (["set", "x", "--limit", "1", "--refund", "teapot"], "is no outcome"),
        (["set", "x", "--limit", "1", "--per", "planet"], "planet"),
        (["set", "x", "--file", "/nowhere.toml"], "cannot be read"),
        (["show", "x"], "the database has no quota 'x' for all tenants"),
        (["remove", "x", "--tenant", "acme"], "the database has no quota 'x' for tenant 'acme'"),
        (["list", "--file", "/nowhere.toml"], "cannot be read"),
        (["usage", "--over", "-1"], "--over"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_usage_errors(quota: Command, any_dsn: str, arguments: list[str], told: str) -> None:
    """Exit 2, with what would do; nothing is set."""
    result = quota(*arguments, dsn=any_dsn)
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert quotas(any_dsn) == []


def test_a_file_without_that_quota_says_so(quota: Command, any_dsn: str, file: Path) -> None:
    """Rather than that a limit is missing."""
    result = quota("set", "exprts", "--file", str(file), dsn=any_dsn)
    assert result.returncode == Exit.USAGE
    assert f"{file} has no quota 'exprts'" in result.stderr


def test_bytes_that_are_no_text_are_refused(any_dsn: str) -> None:
    """An argument can be any bytes; the database has text."""
    for arguments in (["set", "x", "--limit", "1", "--by"], ["usage", "--subject"]):
        command = [sys.executable, "-m", "auditlog", "quota", *arguments]
        result = subprocess.run(
            [*command, b"\xff", "--dsn", any_dsn], capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["set", "x", "--limit", "1"]], ids=" ".join)
def test_no_database_exits_3(quota: Command, arguments: list[str]) -> None:
    """Without the password."""
    result = quota(*arguments, dsn=UNREACHABLE)
    assert (result.returncode, result.stdout) == (Exit.NO_DATABASE, "")
    assert "geheim" not in result.stderr


def test_the_documented_rights_are_enough(quota: Command, any_server: Server) -> None:
    """Whoever sets limits need not own the trail."""
    grants = (
        "USAGE ON SCHEMA logstore",
        "SELECT ON logstore.quotas, logstore.quota_usage, logstore.quota_windows",
        "INSERT, UPDATE, DELETE ON logstore.quotas",
        "INSERT ON logstore.logs, logstore.batches",
        "EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz)",
    )
    with any_server.role() as role, any_server.database() as dsn:
        for grant in grants:
            execute(dsn, f'GRANT {grant} TO "{role}"')
        for arguments in (["set", "x", "--limit", "1"], ["list"], ["usage"], ["remove", "x"]):
            result = quota(*arguments, dsn=as_role(dsn, role))
            assert result.returncode == Exit.OK, result.stderr


def test_what_a_role_lacks_is_named(quota: Command, any_server: Server) -> None:
    """One line, for a schema that is missing and for rights."""
    with any_server.role() as role, any_server.database() as dsn:
        for arguments in (["list"], ["usage"], ["set", "x", "--limit", "1"], ["remove", "x"]):
            result = quota(*arguments, dsn=as_role(dsn, role))
            assert result.returncode == Exit.NOT_WELL
            assert len(result.stderr.splitlines()) == 1
    with any_server.database(migrated=False) as dsn:
        for arguments in (["list"], ["usage"], ["set", "x", "--limit", "1"]):
            result = quota(*arguments, dsn=dsn)
            assert result.returncode == Exit.NOT_WELL
            assert "auditlog migrate" in result.stderr
