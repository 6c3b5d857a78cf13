import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from auditlog import AuditLog, LogRecord
from auditlog.cli import NOT_INSTALLED
from auditlog.cli.failures import EXIT_CODES, Exit, hide_secrets
from auditlog.postgres import embedded
from auditlog.tables import LOGS
from databases import Server, as_role
from trail import quick

SECRET = "geheim wort@99/tief"
UNREACHABLE = "postgresql://reader:geheimwort@127.0.0.1:1/logs"
MIGRATIONS = sorted(path.name for path in (Path(__file__).parents[2] / "migrations").glob("*.sql"))
COMMANDS = (
    ["migrate"],
    ["doctor"],
    ["tail"],
    ["orphans"],
    ["reconcile"],
    ["spool", "status"],
    ["spool", "verify"],
    ["spool", "export"],
    ["spool", "ship"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "replay"],
    ["dead-letters", "discard"],
    ["partitions", "enable"],
    ["partitions", "disable"],
    ["partitions", "plan"],
    ["partitions", "maintain"],
    ["partitions", "status"],
    ["hold", "add"],
    ["hold", "list"],
    ["hold", "release"],
    ["archive", "list"],
    ["archive", "verify"],
    ["archive", "restore"],
    ["quota", "set"],
    ["quota", "list"],
    ["quota", "show"],
    ["quota", "remove"],
    ["quota", "usage"],
    ["quota", "check"],
    ["demo"],
    ["policy", "explain"],
    ["version"],
)


def auditlog(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, with only the settings that are given."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AUDITLOG_")}
    return subprocess.run(
        [sys.executable, "-m", "auditlog", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_migrate_applies_everything_once(empty_dsn: str) -> None:
    """A line of data for each file; the second run has none and says so on stderr."""
    first = auditlog("migrate", "--dsn", empty_dsn)
    assert first.stdout.splitlines() == [f"applied {name}" for name in MIGRATIONS]
    assert (first.returncode, first.stderr) == (0, "")
    second = auditlog("migrate", "--dsn", empty_dsn)
    assert (second.returncode, second.stdout) == (0, "")
    assert "up to date" in second.stderr


def test_migrate_reads_the_dsn_from_the_environment(empty_dsn: str) -> None:
    """`AUDITLOG_DSN` is the twin of --dsn."""
    result = auditlog("migrate", "--json", AUDITLOG_DSN=empty_dsn)
    assert json.loads(result.stdout) == {"applied": MIGRATIONS, "pending": []}


def test_dry_run_shows_and_changes_nothing(empty_dsn: str) -> None:
    """What is pending is printed, twice the same."""
    for _ in range(2):
        result = auditlog("migrate", "--dry-run", "--dsn", empty_dsn)
        assert result.stdout.splitlines() == [f"pending {name}" for name in MIGRATIONS]
        assert result.returncode == 0
    as_json = auditlog("migrate", "--dry-run", "--json", "--dsn", empty_dsn)
    assert json.loads(as_json.stdout) == {"applied": [], "pending": MIGRATIONS}


def test_status_exits_1_until_everything_is_applied(empty_dsn: str) -> None:
    """The state of each migration, and an exit code that a deployment can wait for."""
    before = auditlog("migrate", "--status", "--json", "--dsn", empty_dsn)
    assert before.returncode == Exit.NOT_WELL
    assert [entry["state"] for entry in json.loads(before.stdout)] == ["pending"] * len(MIGRATIONS)
    auditlog("migrate", "--dsn", empty_dsn)
    after = auditlog("migrate", "--status", "--json", "--dsn", empty_dsn)
    assert after.returncode == Exit.OK
    assert [(entry["migration"], entry["state"]) for entry in json.loads(after.stdout)] == [
        (name, "applied") for name in MIGRATIONS
    ]


def test_status_is_a_table_for_people(any_dsn: str) -> None:
    """Whole names and times, though a pipe has no width; and no colours in it."""
    result = auditlog("migrate", "--status", "--dsn", any_dsn)
    assert all(name in result.stdout for name in MIGRATIONS)
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d", result.stdout)
    assert "\x1b" not in result.stdout
    assert "…" not in result.stdout


def test_a_changed_migration_is_not_well(any_dsn: str) -> None:
    """The history no longer fits the file: exit 1, with the remedy in one line."""
    with psycopg.connect(any_dsn) as conn:
        conn.execute("UPDATE logstore.migrations SET sha256 = '\\x00' WHERE version = 1")
    result = auditlog("migrate", "--dsn", any_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert "restore the file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_doctor_finds_a_migrated_database_well(dsn: str) -> None:
    """Nothing fails, in text and in JSON."""
    text = auditlog("doctor", "--dsn", dsn)
    assert (text.returncode, text.stderr) == (0, "")
    assert "FAIL" not in text.stdout
    findings = json.loads(auditlog("doctor", "--json", "--dsn", dsn).stdout)
    assert {finding["name"] for finding in findings} >= {"connection", "schema", "rights", "clock"}
    assert "failed" not in {finding["state"] for finding in findings}


def test_doctor_names_the_remedy_for_a_missing_schema(empty_dsn: str) -> None:
    """Exit 1, and the command that mends it."""
    result = auditlog("doctor", "--dsn", empty_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert re.search(r"FAIL +schema", result.stdout)
    assert "to mend it: auditlog migrate" in result.stdout
    assert "checks failed" in result.stderr


def test_doctor_warns_of_a_misspelt_setting(any_dsn: str) -> None:
    """It would leave the default in force without a word; a warning does not fail the command."""
    result = auditlog("doctor", "--dsn", any_dsn, AUDITLOG_BACTH_ROWS="5", AUDITLOG_BATCH_AGE_S="1")
    assert result.returncode == Exit.OK
    assert re.search(r"warn +environment +AUDITLOG_BACTH_ROWS is no setting", result.stdout)
    assert "did you mean AUDITLOG_BATCH_ROWS?" in result.stdout
    assert "AUDITLOG_BATCH_AGE_S" not in result.stdout
    well = auditlog("doctor", "--dsn", any_dsn, AUDITLOG_BATCH_ROWS="5", AUDITLOG_DEBUG="1")
    assert re.search(r"ok +environment +2 AUDITLOG_\* variables, all known", well.stdout)


def test_tail_prints_the_newest_rows(dsn: str) -> None:
    """A table for people, the very newest last; brackets of a URL are no markup."""
    with AuditLog(dsn, settings=quick()) as audit:
        for number in range(5):
            audit.submit(
                LogRecord(
                    request_method="GET",
                    request_url=f"/orders/[bold]{number}",
                    response_status=200 + number,
                    response_time_ms=7,
                    user_id="ada",
                    metadata={"audit.outcome": "ok"},
                )
            )
    result = auditlog("tail", "-n", "2", "--dsn", dsn)
    assert (result.returncode, result.stderr) == (0, "")
    words = [line.split() for line in result.stdout.splitlines()]
    heading = ["time", "method", "url", "or", "event", "status", "ms", "user", "outcome", "level"]
    assert words[0] == heading
    assert [line[2:] for line in words[2:]] == [
        ["GET", f"/orders/[bold]{number}", str(200 + number), "7", "ada", "ok", "info"]
        for number in (3, 4)
    ]


def test_tail_prints_whole_rows_as_lines_of_json(any_dsn: str) -> None:
    """Every column by its name; of one tenant if one is named."""
    with AuditLog(any_dsn, settings=quick()) as audit:
        for tenant in ("blue", "red"):
            headers = {"host": ["example.org"]}
            audit.submit(LogRecord(instance_id=tenant, request_headers=headers))
    both = auditlog("tail", "--json", "--dsn", any_dsn)
    rows = [json.loads(line) for line in both.stdout.splitlines()]
    assert [row["instance_id"] for row in rows] == ["blue", "red"]
    assert list(rows[0]) == [column.name for column in LOGS.columns]
    assert rows[0]["request_headers"] == {"host": ["example.org"]}
    assert datetime.fromisoformat(rows[0]["log_date"]).tzinfo is not None
    red = auditlog("tail", "--json", "--tenant", "red", "--dsn", any_dsn)
    assert [json.loads(line)["log_id"] for line in red.stdout.splitlines()] == [rows[1]["log_id"]]


def test_tail_of_nothing_says_so(any_dsn: str, empty_dsn: str) -> None:
    """No row is no error; no table is one, with the remedy."""
    nothing = auditlog("tail", "--dsn", any_dsn)
    assert (nothing.returncode, nothing.stdout) == (Exit.OK, "")
    assert nothing.stderr == "There is no row yet.\n"
    missing = auditlog("tail", "--dsn", empty_dsn)
    assert (missing.returncode, missing.stdout) == (Exit.NOT_WELL, "")
    assert "run `auditlog migrate`" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


def test_tail_of_a_role_that_may_not_read_says_what_to_grant(any_server: Server) -> None:
    """And not to make it the owner, which could then change the trail."""
    with any_server.role() as role, any_server.database() as dsn:
        result = auditlog("tail", "--dsn", as_role(dsn, role))
        assert result.returncode == Exit.NOT_WELL
        assert "OWNER" not in result.stderr
        grants = re.findall(r"GRANT [A-Z]+ ON (?:SCHEMA )?[a-z.]+", result.stderr)
        with psycopg.connect(dsn) as conn:
            for grant in grants:
                conn.execute(f'{grant} TO "{role}"')
        assert auditlog("tail", "--dsn", as_role(dsn, role)).returncode == Exit.OK


def test_an_embedded_database_is_only_migrated_by_migrate() -> None:
    """Looking changes nothing; `doctor` tells the psql line, which can be pasted."""
    with TemporaryDirectory(prefix="auditlog-test-") as folder:
        Path(folder).chmod(0o755)
        dsn = f"embedded:{folder}/trail"
        pending = {"applied": [], "pending": MIGRATIONS}
        assert (
            json.loads(auditlog("migrate", "--dry-run", "--json", "--dsn", dsn).stdout) == pending
        )
        status = auditlog("migrate", "--status", "--json", "--dsn", dsn)
        assert status.returncode == Exit.NOT_WELL
        assert {entry["state"] for entry in json.loads(status.stdout)} == {"pending"}
        doctor = auditlog("doctor", "--dsn", dsn)
        assert doctor.returncode == Exit.NOT_WELL
        assert "the schema is missing" in doctor.stdout
        (psql,) = re.findall(r"^  (\S*psql .*)$", doctor.stderr, re.MULTILINE)
        applied = {"applied": MIGRATIONS, "pending": []}
        assert json.loads(auditlog("migrate", "--json", "--dsn", dsn).stdout) == applied
        with embedded.start(f"{folder}/trail"):
            query = "SELECT count(*) FROM logstore.logs"
            command = f'{psql} -X -A -t -c "{query}"'
            shown = subprocess.check_output(  # noqa: S602  # a shell is what it is for
                command, shell=True, text=True
            )
        assert shown == "0\n"


@pytest.mark.parametrize("command", ["doctor", "migrate", "tail"])
def test_no_connection_exits_3_without_the_password(command: str) -> None:
    """One line with the remedy; the traceback of --debug has no password either."""
    for options in ([], ["--debug"]):
        result = auditlog(*options, command, "--dsn", UNREACHABLE)
        assert result.returncode == Exit.NO_DATABASE
        assert "start the server" in result.stdout + result.stderr
        assert "geheim" not in result.stdout + result.stderr
        assert ("File " in result.stderr) == (options != [] and command != "doctor")


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://reader:{SECRET}@localhost/logs",
        f"postgresql://reader@localhost:{SECRET}/logs",
        f"host=localhost password={SECRET}",
        f"password='{SECRET}' hots=localhost",
        SECRET,
    ],
)
def test_a_dsn_that_cannot_be_parsed_exits_2_and_is_not_repeated(dsn: str) -> None:
    """Libpq quotes what it stumbles over, which may be a piece of the password."""
    for options in ([], ["--debug"]):
        result = auditlog(*options, "migrate", "--dsn", dsn)
        assert result.returncode == Exit.USAGE, result.stderr
        assert not re.search("geheim|wort|tief", result.stdout + result.stderr), result.stderr


def test_no_dsn_at_all_is_a_usage_error() -> None:
    """Exit 2, and both ways to give one."""
    result = auditlog("migrate")
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert "--dsn" in result.stderr
    assert "AUDITLOG_DSN" in result.stderr


def test_secrets_are_found_percent_encoded_and_in_the_query() -> None:
    """What psycopg has decoded is hidden as well as what was written."""
    text = "in 'p@ss word' and p%40ss%20word"
    assert "ss" not in hide_secrets(text, "postgresql://u:p%40ss%20word@h/d")
    in_the_query = "postgresql://u@h/d?password=p%40ss%20word&sslmode=disable"
    assert "ss" not in hide_secrets("p@ss word", in_the_query)
    assert hide_secrets("nothing to hide", "postgresql://u@h/d") == "nothing to hide"


@pytest.mark.parametrize("password", ["se", "user", "no"])
def test_a_short_password_is_hidden_in_its_place_only(password: str) -> None:
    """Elsewhere it is a piece of a word, and a hole in the word would tell it."""
    dsn = f"postgresql://me:{password}@h/d"
    assert hide_secrets("the user is not known", dsn) == "the user is not known"
    assert hide_secrets(f"cannot use {dsn}", dsn) == "cannot use ***"
    assert hide_secrets(f"//me:{password}@h", dsn) == f"//me:{password}@h"
    assert hide_secrets(f"x://me:{password}@h/other", dsn) == "x://me:***@h/other"
    assert hide_secrets(f"host=h password='{password}'", dsn) == "host=h password='***'"


def test_policy_explain_tells_the_rule_and_what_is_stored(tmp_path: Path) -> None:
    """A rule that waits for the status may apply; with the status it does, or does not."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rules]]\nname = "quiet"\nlevel = "none"\npaths = ["/users/*"]\nstatuses = ["2xx"]\n'
    )
    explain = ("policy", "explain", "get", "/users/42?page=2", "--policy", str(policy), "--json")
    unknown = json.loads(auditlog(*explain).stdout)
    assert (unknown["level"], unknown["certain"]) == ("headers", False)
    assert unknown["rules"][0]["verdict"] == "may apply"
    applies = json.loads(auditlog(*explain, "--status", "200").stdout)
    assert (applies["rule"], applies["level"], applies["stored"]) == ("quiet", "none", [])
    differs = json.loads(auditlog(*explain, "--status", "404").stdout)
    assert (differs["rule"], differs["certain"]) == (None, True)


def test_policy_explain_tells_of_a_row_at_the_beginning(tmp_path: Path) -> None:
    """And which rule asks for it; without one there is no word of it."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rules]]\nname = "feeds"\nlevel = "metadata"\npaths = ["/feed"]\nreceived = true\n'
    )
    explain = ("policy", "explain", "get", "--policy", str(policy))
    assert "a row when the request begins (rule 'feeds')" in auditlog(*explain, "/feed").stdout
    assert "begins" not in auditlog(*explain, "/").stdout
    assert json.loads(auditlog(*explain, "/feed", "--json").stdout)["received"] == "feeds"
    assert json.loads(auditlog(*explain, "/", "--json").stdout)["received"] is None


def test_policy_explain_takes_the_users_file_from_the_environment(tmp_path: Path) -> None:
    """`AUDITLOG_POLICY_FILE`, as the application reads it; in text for people."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rules]]\nname = "alice"\nlevel = "metadata"\nusers = ["alice"]\n')
    result = auditlog(
        "policy", "explain", "GET", "/", "--user", "alice", AUDITLOG_POLICY_FILE=str(policy)
    )
    assert result.returncode == 0
    assert "metadata (rule 'alice')" in result.stdout
    assert "request headers" not in result.stdout


def test_an_invalid_policy_exits_2_and_names_the_line(tmp_path: Path) -> None:
    """The line of the file, and no traceback."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rules]]\nname = "quiet"\nlevel = "nothing"\n')
    result = auditlog("policy", "explain", "GET", "/", "--policy", str(policy))
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert f"{policy}:3:" in result.stderr
    assert "Traceback" not in result.stderr


def test_version_is_printed() -> None:
    """In text and in JSON; as an option too, in one line."""
    versions = json.loads(auditlog("version", "--json").stdout)
    assert auditlog("version").stdout.splitlines()[0] == (
        f"auditlog-postgres {versions['auditlog-postgres']}"
    )
    assert versions["python"].startswith(f"{sys.version_info.major}.")
    as_option = auditlog("--version")
    assert (as_option.returncode, as_option.stderr) == (0, "")
    assert as_option.stdout == f"auditlog-postgres {versions['auditlog-postgres']}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_ends_with_the_exit_codes(command: list[str]) -> None:
    """And docs/cli.md knows the command and each of its options."""
    result = auditlog(*command, "--help", COLUMNS="200")
    assert EXIT_CODES in result.stdout
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert f"auditlog {' '.join(command)}" in documented
    for option in set(re.findall(r"--[a-z]+(?:-[a-z]+)*", result.stdout)) - {"--help"}:
        assert option in documented


def test_help_shows_the_environment_twin_of_the_dsn() -> None:
    """Whoever reads the help of a command knows both."""
    assert "AUDITLOG_DSN" in auditlog("doctor", "--help", COLUMNS="200").stdout


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_extra_says_how_to_install_it(package: str) -> None:
    """One line on stderr, exit 2."""
    code = f"import sys; sys.modules[{package!r}] = None; from auditlog.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (2, "", NOT_INSTALLED)


def test_demo_without_its_extra_says_how_to_install_it() -> None:
    """A settings error before anything is started."""
    code = "import sys; sys.modules['uvicorn'] = None; from auditlog.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (Exit.USAGE, "")
    assert "the demo needs uvicorn: pip install 'auditlog-postgres[demo]'" in result.stderr


def test_the_installed_script_is_the_module() -> None:
    """`auditlog` and `python -m auditlog` are the same."""
    script = Path(sys.executable).with_name("auditlog")
    by_script = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert by_script.stdout == auditlog("version").stdout


def test_the_dsn_in_use_is_no_secret_of_its_own(any_dsn: str) -> None:
    """The tests above would prove nothing if every DSN were hidden whole."""
    host = conninfo_to_dict(any_dsn).get("host")
    assert host
    assert hide_secrets(f"{host} refused", any_dsn) == f"{host} refused"
