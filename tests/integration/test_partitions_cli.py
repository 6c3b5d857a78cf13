"""`auditlog partitions`: what an operator types, what comes back, and what is left behind."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from test_cli import UNREACHABLE

from auditlog.cli.failures import Exit
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.planning import LOCKS, WAITS_FOR
from auditlog.partitions.session import maintenance, only_run
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, windows
from commands import CommandLine, Result
from databases import Server, as_role
from trail import execute, fetch

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
Partitions: TypeAlias = Callable[..., Result]
RETIRE = ("--retain", "3 months", "--drop-without-archive")


@pytest.fixture
def partitions(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Partitions:
    return partial(CommandLine(monkeypatch, capfd), "partitions")


def attached(dsn: str) -> list[str]:
    """The partitions of the table logs, in the order of their names."""
    query = (
        "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'logstore.logs'::regclass ORDER BY relname"
    )
    names: list[str] = fetch(dsn, query)
    return names


def everything(dsn: str) -> list[Any]:
    """All of the catalog that maintenance could change, and its own tables."""
    relations = "SELECT (oid, relname, relkind, relacl, reltuples)::text FROM pg_class"
    of_schema = "WHERE relnamespace = 'logstore'::regnamespace"
    return [
        *fetch(dsn, f"{relations} {of_schema} ORDER BY oid"),
        *fetch(dsn, "SELECT partitioning::text FROM logstore.partitioning ORDER BY 1"),
        *fetch(dsn, "SELECT (inhrelid, inhparent)::text FROM pg_inherits ORDER BY 1"),
    ]


@pytest.fixture
def logs(any_dsn: str) -> str:
    """A database whose table logs is partitioned, by month."""
    with maintenance(any_dsn) as conn:
        assert enable(conn, "logs", "month").result == "done"
    return any_dsn


@pytest.fixture
def old_logs(logs: str) -> str:
    """One that has been partitioned for half a year."""
    bounds = "logstore.partitions_of('logstore.logs'::regclass) WHERE isfinite(lower)"
    (end,) = fetch(logs, f"SELECT min(lower) FROM {bounds}")  # noqa: S608  # a constant
    with maintenance(logs) as conn:
        conn.execute("ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_legacy")
        conn.execute("DROP TABLE logstore.logs_legacy")
        for lower, upper in windows("month", Span(months=6).before(datetime.now(UTC)), end):
            made = [name("logs", "month", lower), lower, upper]
            conn.execute("SELECT logstore.make_partition('logstore.logs', %s, %s, %s)", made)
    return logs


def test_a_table_is_enabled_looked_at_and_disabled(partitions: Partitions, any_dsn: str) -> None:
    """The way of an operator, from the first look to the way back."""
    before = everything(any_dsn)
    looked = partitions("enable", "logs", "--by", "month", "--dry-run", dsn=any_dsn)
    assert looked.returncode == Exit.OK, looked.stderr
    assert "logs: nothing stands in the way" in looked.stdout
    assert everything(any_dsn) == before, "a dry run changes nothing"

    enabled = partitions("enable", "logs", "--by", "month", "--json", dsn=any_dsn)
    assert enabled.returncode == Exit.OK, enabled.stderr
    (report,) = json.loads(enabled.stdout)["tables"]
    assert (report["table"], report["result"]) == ("logs", "done")
    assert attached(any_dsn) == sorted(["logs_legacy", *report["partitions"]])

    again = partitions("enable", "logs", "--by", "week", "--ahead", "2 months", dsn=any_dsn)
    assert (again.returncode, again.stderr) == (Exit.OK, "")
    assert "it is so already" in again.stdout
    settings = fetch(any_dsn, "SELECT (step, ahead)::text FROM logstore.partitioning")
    assert settings == ['(week,"2 mons")']

    as_it_is = partitions("enable", "logs", dsn=any_dsn)
    assert as_it_is.returncode == Exit.OK
    assert fetch(any_dsn, "SELECT (step, ahead)::text FROM logstore.partitioning") == settings
    well = partitions("status", dsn=any_dsn)
    assert (well.returncode, well.stderr) == (Exit.OK, ""), well.stdout
    assert re.search(r"^logs +20\d\d-\d\d-01 +\d+d +\d +week ", well.stdout, re.MULTILINE)

    looked = partitions("disable", "logs", "--dry-run", dsn=any_dsn)
    assert looked.returncode == Exit.OK, looked.stdout
    disabled = partitions("disable", "logs", dsn=any_dsn)
    assert (disabled.returncode, disabled.stderr) == (Exit.OK, ""), disabled.stdout
    assert "a plain table again" in disabled.stdout
    assert fetch(any_dsn, "SELECT relkind FROM pg_class WHERE relname = 'logs'") == ["r"]


def test_all_tables_at_once(partitions: Partitions, any_dsn: str) -> None:
    """`all` is each of them; one that something stands in the way of does not stop the others."""
    with psycopg.connect(any_dsn) as conn:
        conn.execute("CREATE RULE quiet AS ON INSERT TO logstore.execution_logs DO ALSO NOTHING")
    result = partitions("enable", "all", "--by", "day", "--ahead", "3 days", dsn=any_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert re.search(r"^logs: partitioned; logs_legacy has", result.stdout, re.MULTILINE)
    assert re.search(r"^execution_logs: something stands in the way", result.stdout, re.MULTILINE)
    assert "human    rule: " in result.stdout
    assert "to mend it: " in result.stdout
    assert re.search(r"^quota_logs: partitioned; ", result.stdout, re.MULTILINE)
    status = partitions("status", "--json", dsn=any_dsn)
    tables = json.loads(status.stdout)["tables"]
    assert [table["table"] for table in tables] == ["logs", "quota_logs"]


def test_plan_shows_each_step_and_touches_nothing(partitions: Partitions, old_logs: str) -> None:
    """With its lock, what it waits for and why; `maintain` then makes those steps and no other."""
    before = everything(old_logs)
    text = partitions("plan", *RETIRE, dsn=old_logs)
    assert text.returncode == Exit.OK, text.stdout + text.stderr
    planned = json.loads(partitions("plan", "logs", "--json", *RETIRE, dsn=old_logs).stdout)
    assert everything(old_logs) == before
    (table,) = planned["tables"]
    assert [step["kind"] for step in table["steps"]].count("drop") >= 1
    for step in table["steps"]:
        assert f"{step['kind']} {step['partition']}" in text.stdout
        assert f"why        {step['why']}\n" in text.stdout
        assert f"locks      {LOCKS[step['kind']]}\n" in text.stdout
        assert f"waits for  {WAITS_FOR[step['kind']]}\n" in text.stdout
    result = partitions("maintain", "--json", *RETIRE, dsn=old_logs)
    assert (result.returncode, result.stderr) == (Exit.OK, ""), result.stdout
    (done,) = json.loads(result.stdout)["tables"]
    keys = ("kind", "partition", "lower", "upper", "oid")
    wanted, made = ([[step[key] for key in keys] for step in run["steps"]] for run in (table, done))
    assert made == wanted
    assert {step["result"] for step in done["steps"]} == {"done"}
    dropped = {step["partition"] for step in done["steps"] if step["kind"] == "drop"}
    assert dropped.isdisjoint(attached(old_logs))


def test_maintain_says_what_it_did_and_that_there_is_nothing_left(
    partitions: Partitions, old_logs: str
) -> None:
    """A line for each step, and how far the table is covered."""
    first = partitions("maintain", *RETIRE, dsn=old_logs)
    assert (first.returncode, first.stderr) == (Exit.OK, ""), first.stdout
    assert re.search(r"^done     logs: drop logs_p\d{6} \(", first.stdout, re.MULTILINE)
    assert re.search(r"^logs: covered until 20\d\d-\d\d-01$", first.stdout, re.MULTILINE)
    second = partitions("maintain", dsn=old_logs)
    assert re.search(r"^logs: nothing to do, covered until ", second.stdout, re.MULTILINE)
    assert second.returncode == Exit.OK


def test_metrics_are_written_atomically_and_nothing_else_is_said(
    partitions: Partitions, old_logs: str, tmp_path: Path
) -> None:
    """For a textfile collector, that runs as another user; cron mails whatever is printed."""
    output = tmp_path / "auditlog.prom"
    output.write_text("as it was before")
    options = ("--format", "prometheus", "--output", str(output))
    result = partitions("maintain", *RETIRE, *options, dsn=old_logs)
    assert (result.returncode, result.stdout, result.stderr) == (Exit.OK, "", "")
    assert os.listdir(tmp_path) == [output.name]
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(output.read_text())
        for sample in family.samples
    }
    assert samples["auditlog_partitions", "logs"] == len(attached(old_logs))
    assert samples["auditlog_partition_steps", "logs", "drop", "done"] >= 1
    (ran,) = fetch(old_logs, "SELECT maintained_at FROM logstore.partitioning")
    last = samples["auditlog_partition_last_run_timestamp_seconds", "logs"]
    assert last == pytest.approx(ran.timestamp(), abs=0.001)


def test_an_output_that_cannot_be_written_is_known_before(
    partitions: Partitions, old_logs: str, tmp_path: Path
) -> None:
    """Nothing is retired by a run whose report would be lost."""
    before = attached(old_logs)
    for output in (tmp_path, tmp_path / "missing" / "auditlog.prom"):
        result = partitions("maintain", *RETIRE, "--output", str(output), dsn=old_logs)
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert "cannot be written" in result.stderr
    assert attached(old_logs) == before


# When a run has ended, the database takes no connection any more.
CLOSE_THE_DOOR = """
    CREATE FUNCTION close_the_door() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE pg_catalog.pg_database SET datallowconn = false WHERE datname = current_database();
        RETURN NEW;
    END $$;
    CREATE TRIGGER closed AFTER UPDATE ON logstore.partitioning
    FOR EACH ROW EXECUTE FUNCTION public.close_the_door()
"""


def test_a_report_is_kept_where_the_tables_cannot_be_looked_at_again(
    partitions: Partitions, logs: str, tmp_path: Path
) -> None:
    """What was done is told, and an alert rings."""
    execute(logs, f"DROP TABLE logstore.{attached(logs)[-1]}")
    execute(logs, CLOSE_THE_DOOR)
    output = tmp_path / "auditlog.prom"
    options = ("--format", "prometheus", "--output", str(output))
    result = partitions("maintain", *options, dsn=logs)
    # Nor can the counters of quotas be looked after.
    assert (result.returncode, result.stdout) == (Exit.NOT_WELL, "")
    assert result.stderr.startswith("quotas: ")
    text = output.read_text()
    assert 'auditlog_partition_findings{table="logs",severity="human"} 1' in text
    assert 'auditlog_partition_steps{table="logs",kind="create",result="done"} 1' in text


def test_a_step_that_waits_is_not_well(partitions: Partitions, logs: str, tmp_path: Path) -> None:
    """Exit 1 and who is in the way; with --output that is all that is printed."""
    output = tmp_path / "report"
    execute(logs, f"DROP TABLE logstore.{attached(logs)[-1]}")
    with psycopg.connect(logs, application_name="a long VACUUM") as conn:
        conn.execute("LOCK TABLE ONLY logstore.logs IN SHARE UPDATE EXCLUSIVE MODE")
        options = ("--lock-timeout", "0.05", "--json", "--output", str(output))
        result = partitions("maintain", *options, dsn=logs)
    assert (result.returncode, result.stdout) == (Exit.NOT_WELL, "")
    (table,) = json.loads(output.read_text())["tables"]
    (step,) = (step for step in table["steps"] if step["kind"] == "create")
    assert step["result"] == "waiting"
    assert "a long VACUUM" in step["detail"]
    assert result.stderr.startswith("waiting  logs: create logs_p")
    assert "a long VACUUM" in result.stderr
    assert partitions("maintain", dsn=logs).returncode == Exit.OK, "the next run makes it"


def test_another_run_at_work_exits_4(partitions: Partitions, logs: str, tmp_path: Path) -> None:
    """And says so, but not into a mail."""
    with maintenance(logs) as conn, only_run(conn, "logs") as is_ours:
        assert is_ours
        result = partitions("maintain", dsn=logs)
        assert (result.returncode, result.stderr) == (Exit.BUSY, "")
        assert result.stdout == "logs: another run is at work on it\n"
        quiet = partitions("maintain", "--output", str(tmp_path / "report"), dsn=logs)
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (Exit.BUSY, "", "")
        for command in (("enable", "logs", "--by", "month"), ("disable", "logs")):
            other = partitions(*command, dsn=logs)
            assert (other.returncode, other.stderr) == (Exit.BUSY, ""), command
            assert "another run is at work" in other.stdout
        assert partitions("plan", dsn=logs).returncode == Exit.OK, "who only looks is not kept"


def test_status_shows_what_is_wrong(partitions: Partitions, old_logs: str) -> None:
    """A hole, a partition without its guard, a DEFAULT, one that is none of ours; exit 1."""
    names = attached(old_logs)
    hostile = "z\x1b[2J\r\n[bold]\u202e"
    with psycopg.connect(old_logs) as conn:
        conn.execute(f"DROP TABLE logstore.{names[2]}")
        conn.execute(f"DROP TABLE logstore.{names[-1]}, logstore.{names[-2]}")
        conn.execute(f"DROP TRIGGER append_only ON logstore.{names[0]}")
        conn.execute(
            sql.SQL(
                "CREATE TABLE logstore.{} PARTITION OF logstore.logs"
                " FOR VALUES FROM ('1999-01-01+00') TO ('1999-02-01+00')"
            ).format(sql.Identifier(hostile))
        )
    text = partitions("status", "--partitions", dsn=old_logs)
    assert text.returncode == Exit.NOT_WELL
    assert not CONTROL.search(text.stdout)
    assert all(each in text.stdout for each in (*names[:2], *names[3:-2], "[bold]"))
    assert "lacks guard" in text.stdout
    assert "none of ours" in text.stdout
    document = json.loads(partitions("status", "--format", "json", dsn=old_logs).stdout)
    (table,) = document["tables"]
    assert (document["well"], table["well"], table["runway_is_short"]) == (False, False, True)
    assert [each["name"] for each in table["foreign"]] == [hostile]
    assert len(table["gaps"]) == 2
    assert {"drift", "runway"} <= {finding["code"] for finding in table["findings"]}
    metrics = partitions("status", "--format", "prometheus", dsn=old_logs)
    assert metrics.returncode == Exit.NOT_WELL
    assert "auditlog_partition_runway_seconds" in metrics.stdout
    plan = partitions("plan", dsn=old_logs)
    assert not CONTROL.search(plan.stdout)
    assert partitions("maintain", dsn=old_logs).returncode == Exit.OK, "all of it is mended"
    assert partitions("status", dsn=old_logs).returncode == Exit.OK


def test_a_retention_without_an_archive_is_a_mistake(partitions: Partitions, old_logs: str) -> None:
    """Nothing is dropped because somebody forgot an option."""
    before = attached(old_logs)
    for command in ("plan", "maintain"):
        result = partitions(command, "--retain", "3 months", dsn=old_logs)
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert "a retention needs an archive" in result.stderr
    assert attached(old_logs) == before


def test_settings_come_from_a_file_and_flags_precede_it(
    partitions: Partitions, old_logs: str, tmp_path: Path
) -> None:
    """The example's file is one."""
    file = tmp_path / "partitions.toml"
    file.write_text(
        '[defaults]\nmax_retire = 1\n[logs]\nretain = "3 months"\ndrop_without_archive = true\n'
    )
    kinds = []
    for options in ((), ("--max-retire", "2"), ("--max-retire", "0")):
        result = partitions("plan", "--json", "--config", str(file), *options, dsn=old_logs)
        assert result.returncode == Exit.OK, result.stderr
        (table,) = json.loads(result.stdout)["tables"]
        kinds.append([step["kind"] for step in table["steps"]].count("drop"))
    assert kinds == [1, 2, 0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[logs]\nretain = "soon"\n', r":2:.*soon"),
        ("[logs]\nratain = 1\n", r":2:.*ratain"),
        ("[lgos]\n", r":1:.*lgos"),
        ("[logs\n", r":.*line 1\b"),
    ],
)
def test_a_bad_file_exits_2_and_names_the_line(
    partitions: Partitions, logs: str, tmp_path: Path, settings: str, told: str
) -> None:
    """With what would do, and nothing is done."""
    file = tmp_path / "partitions.toml"
    file.write_text(settings)
    for command in ("plan", "maintain", "status"):
        result = partitions(command, "--config", str(file), dsn=logs)
        assert (result.returncode, result.stdout) == (Exit.USAGE, "")
        assert re.search(re.escape(str(file)) + told, result.stderr), result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "lgos"], "there is no table 'lgos': logs, execution_logs, quota_logs"),
        (["maintain", "lgos"], "there is no table 'lgos'"),
        (["status", "quota_logs"], "quota_logs is not partitioned: `auditlog partitions enable"),
        (["enable", "lgos", "--by", "month"], "there is no table 'lgos'"),
        (["enable", "--by", "month"], "TABLE"),
        (["enable", "logs", "--by", "year"], "year"),
        (["enable", "logs", "--by", "day", "--ahead", "soon"], "'soon' is no length of time"),
        (["disable"], "TABLE"),
        (["plan", "--retain", "soon"], "soon"),
        (["plan", "--retain-size", "much"], "much"),
        (["plan", "--max-retire", "-1"], "max-retire"),
        (["plan", "--archive-format", "zip"], "zip"),
        (["plan", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (["maintain", "--format", "xml"], "xml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(partitions: Partitions, logs: str, arguments: list[str], told: str) -> None:
    """Exit 2, one can see what would do, and nothing is done."""
    before = everything(logs)
    result = partitions(*arguments, dsn=logs, COLUMNS="200")
    assert (result.returncode, result.stdout) == (Exit.USAGE, ""), result.stderr
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert everything(logs) == before


def test_where_nothing_is_partitioned_one_says_how(partitions: Partitions, any_dsn: str) -> None:
    """No error: cron jobs are installed before tables are enabled."""
    for command in ("plan", "maintain", "status"):
        result = partitions(command, dsn=any_dsn)
        assert (result.returncode, result.stdout) == (Exit.OK, "")
        assert "auditlog partitions enable logs --by month" in result.stderr
        assert json.loads(partitions(command, "--json", dsn=any_dsn).stdout)["tables"] == []


@pytest.mark.parametrize(
    "arguments",
    [["plan"], ["maintain"], ["status"], ["enable", "all", "--by", "month"], ["disable", "logs"]],
    ids=" ".join,
)
def test_no_database_exits_3(partitions: Partitions, arguments: list[str]) -> None:
    """One line with the remedy, without the password."""
    result = partitions(*arguments, dsn=UNREACHABLE)
    assert (result.returncode, result.stdout) == (Exit.NO_DATABASE, "")
    assert "start the server" in result.stderr
    assert "geheim" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_schema_says_migrate(partitions: Partitions, any_server: Server) -> None:
    """In one line, for each command."""
    with any_server.database(migrated=False) as dsn:
        for arguments in (("plan",), ("maintain",), ("status",), ("enable", "logs", "--by", "day")):
            result = partitions(*arguments, dsn=dsn)
            assert result.returncode == Exit.NOT_WELL
            assert "auditlog migrate" in result.stdout + result.stderr, arguments
            assert "Traceback" not in result.stderr


def test_a_role_that_is_not_the_owner_is_told_whose_work_it_is(
    partitions: Partitions, any_server: Server
) -> None:
    """Exit 1, nothing changes."""
    with any_server.role() as role, any_server.database() as dsn:
        with maintenance(dsn) as conn:
            enable(conn, "logs", "month")
            conn.execute(f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        before = everything(dsn)
        for arguments in (
            ["maintain"],
            ["disable", "logs"],
            ["enable", "quota_logs", "--by", "day"],
        ):
            result = partitions(*arguments, dsn=as_role(dsn, role))
            assert result.returncode == Exit.NOT_WELL, arguments
            assert "owner" in result.stdout + result.stderr
            assert "Traceback" not in result.stderr
        assert everything(dsn) == before


def test_a_terminal_shows_the_step_and_a_pipe_stays_clean(old_logs: str, tmp_path: Path) -> None:
    """Talk to stderr while it goes on, data to stdout at the end."""
    retire = ("--retain", "3 months", "--archive", str(tmp_path))
    result, seen = on_terminal("maintain", *retire, "--json", dsn=old_logs)
    assert result.returncode == Exit.OK
    assert b"\x1b" not in result.stdout
    (table,) = json.loads(result.stdout)["tables"]
    assert "archive" in {step["kind"] for step in table["steps"]}
    for step in table["steps"]:
        text = f"logs: {step['kind']} {step['partition']}"
        assert f"done     {text}" in seen
        assert text in seen.replace(f"done     {text}", ""), "while it was at work"
    result, seen = on_terminal("enable", "quota_logs", dsn=old_logs)
    assert result.returncode == Exit.OK
    assert "swap quota_logs" in seen


def on_terminal(*arguments: str, dsn: str) -> tuple[subprocess.CompletedProcess[bytes], str]:
    """Run a command whose stderr is a terminal, and whose stdout is not."""
    command = [sys.executable, "-m", "auditlog", "partitions", *arguments, "--dsn", dsn]
    with terminal() as (parent, child):
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, check=False)
        os.close(child)
        return result, read_all(parent)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    parent, child = pty.openpty()
    try:
        yield parent, child
    finally:
        os.close(parent)


def read_all(descriptor: int) -> str:
    """What was written to the other side of a terminal that nobody has open any more."""
    pieces = []
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # on Linux, its end
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode(errors="replace")
