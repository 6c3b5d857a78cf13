"""The examples for schedulers, and the commands that docs/partitions.md begins with, do work."""

import re
import shlex
from pathlib import Path

import psycopg
import pytest
import yaml

from auditlog.cli.failures import Exit
from auditlog.partitions.configuration.config import load
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from commands import CommandLine
from trail import execute, fetch

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "partitions"
SETTINGS = EXAMPLES / "partitions.toml"
ARCHIVE = "/srv/audit-archive"

# What pg_cron does at the time that it is told.
CRON = """
    CREATE SCHEMA cron;
    CREATE FUNCTION cron.schedule(job text, at text, command text) RETURNS bigint
    LANGUAGE plpgsql AS 'BEGIN EXECUTE command; RETURN 1; END'
"""

LEAVES = (
    "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid"
    " WHERE inhparent = 'logstore.logs'::regclass AND relname <> 'logs_legacy'"
    " ORDER BY relname DESC"
)


@pytest.fixture
def auditlog(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


@pytest.fixture
def logs(any_dsn: str) -> str:
    """A database whose table logs is partitioned, and lacks its last partition."""
    with maintenance(any_dsn) as conn:
        enable(conn, "logs", "month")
    last, *_ = fetch(any_dsn, LEAVES)
    execute(any_dsn, f"DROP TABLE logstore.{last}")
    return any_dsn


def count(dsn: str) -> int:
    return len(fetch(dsn, LEAVES))


def settings_in(folder: Path, text: str) -> str:
    """The settings with an archive that can be written here."""
    file = folder / "partitions.toml"
    file.write_text(text.replace(ARCHIVE, str(folder / "archive")))
    return str(file)


def test_first_commands_of_the_document_work(
    auditlog: CommandLine, any_dsn: str, tmp_path: Path
) -> None:
    """In their order, as they stand there."""
    text = (ROOT / "docs" / "partitions.md").read_text()
    (block,) = re.findall(r"## In five minutes\n\n```\n(.*?)```", text, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 5
    for program, *arguments in commands:
        assert program == "auditlog"
        here = [word.replace(ARCHIVE, str(tmp_path)) for word in arguments]
        result = auditlog(*here, dsn=any_dsn)
        assert result.returncode == Exit.OK, (arguments, result.stdout, result.stderr)


def test_file_of_settings_says_what_it_seems_to() -> None:
    """And every key of it is explained."""
    configs = load(SETTINGS)
    assert configs["logs"].retain == Span(months=24)
    assert configs["logs"].retain_bytes == 500 * 1024**3
    assert configs["logs"].tenants == {"tenant-7": Span(days=90)}
    assert configs["execution_logs"].retain == Span(days=90)
    assert configs["quota_logs"].retain == Span(months=84)
    assert {config.archive for config in configs.values()} == {ARCHIVE}
    assert {config.ahead for config in configs.values()} == {Span(months=3)}
    text = (ROOT / "docs" / "partitions.md").read_text()
    for key in re.findall(r"^([a-z_]+) =", SETTINGS.read_text(), re.MULTILINE):
        assert f"| `{key}` |" in text


def test_crontab_works(auditlog: CommandLine, logs: str, tmp_path: Path) -> None:
    """The line as cron runs it: the missing partition is made, and the metrics are written."""
    (line,) = re.findall(
        r"^(?:\S+ ){5}auditlog (.*)$", (EXAMPLES / "crontab").read_text(), re.MULTILINE
    )
    program, *arguments = shlex.split(line)
    assert program == "auditlog"
    places = {
        "/etc/auditlog/partitions.toml": settings_in(tmp_path, SETTINGS.read_text()),
        "/var/lib/node_exporter/auditlog.prom": str(tmp_path / "auditlog.prom"),
    }
    before = count(logs)
    result = auditlog(*[places.get(word, word) for word in arguments], AUDITLOG_DSN=logs)
    assert (result.returncode, result.stdout, result.stderr) == (Exit.OK, "", "")
    assert count(logs) == before + 1
    assert "auditlog_partition_steps{" in (tmp_path / "auditlog.prom").read_text()


def test_cron_job_of_kubernetes_works(auditlog: CommandLine, logs: str, tmp_path: Path) -> None:
    """What its container runs, with the settings of its ConfigMap."""
    documents = yaml.safe_load_all((EXAMPLES / "cronjob.yaml").read_text())
    settings, job = documents
    assert (settings["kind"], job["kind"], job["apiVersion"]) == (
        "ConfigMap",
        "CronJob",
        "batch/v1",
    )
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert [variable["name"] for variable in container["env"]] == ["AUDITLOG_DSN"]
    program, *arguments = container["command"] + container["args"]
    assert program == "auditlog"
    file = settings_in(tmp_path, settings["data"]["partitions.toml"])
    places = {"/etc/auditlog/partitions.toml": file}
    before = count(logs)
    result = auditlog(*[places.get(word, word) for word in arguments], AUDITLOG_DSN=logs)
    assert (result.returncode, result.stderr) == (Exit.OK, "")
    assert count(logs) == before + 1


def test_pg_cron_makes_partitions(logs: str) -> None:
    """The file as psql runs it, where pg_cron runs the command at once."""
    before = count(logs)
    with psycopg.connect(logs) as conn:
        conn.execute(CRON)
        conn.execute((EXAMPLES / "pg_cron.sql").read_bytes())
    assert count(logs) == before + 1
