import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from auditlog import AuditLog, LogRecord, Settings
from auditlog.cli import demo_report
from auditlog.cli.failures import Exit
from auditlog.demo import run as demo
from auditlog.demo.compare import GRAPHQL, GRPC, HTTP, Sent, Stored, compare, read_rows
from auditlog.demo.processes import DemoError, uvicorn
from auditlog.demo.scenarios import SCENARIOS

SENT = [Sent("run-1", "read", 200), Sent("run-2", "write", 201), Sent("run-3", "left", None)]
STORED = [Stored("run-1", 200), Stored("run-2", 201), Stored("run-3", None)]


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """What the demo uses as TMPDIR; short, because a socket's path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="al-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def start_demo(folder: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    """Start it as a user does; `folder` takes everything temporary."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AUDITLOG_")}
    return subprocess.Popen(
        [sys.executable, "-m", "auditlog", "demo", *options],
        env={**clean, "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def leftovers(folder: Path) -> list[str]:
    """What is still there; the lock that all embedded servers of a user share may stay."""
    return [path.name for path in folder.iterdir() if not path.name.startswith("runtime-")]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that knows the folder: by its command line, or by its environment."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        words = [*(process.info["cmdline"] or ()), environment.get("TMPDIR", "")]
        if any(str(folder) in word for word in words):
            found.append(process)
    return found


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    """Read what the demo says until it says this."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    pytest.fail(f"the demo ended without saying {text!r}:\n{''.join(said)}")


def test_every_request_has_its_row_and_nothing_stays(temporary_folder: Path) -> None:
    """The demo end to end: sent = stored, exit 0, readable in a pipe, all cleaned up."""
    process = start_demo(temporary_folder, "--seconds", "2", "--rate", "150")
    out, err = process.communicate(timeout=100)
    assert process.returncode == Exit.OK, out + err
    sent, stored = (
        int(re.search(rf"^{name} +(\d+) ", out, re.MULTILINE)[1])
        for name in ("requests sent", "rows stored")
    )
    assert sent == stored > 300
    for protocol in ("http", "grpc", "graphql"):
        counted = re.search(rf"^{protocol} +(\d+) +(\d+)$", out, re.MULTILINE)
        assert counted
        assert counted[1] == counted[2] != "0"
    for usage in ("4 +5 +80 % is used +1", "5 +5 +100 % is used +1"):
        assert re.search(rf"^exports +{usage}$", out, re.MULTILINE)
    refused = re.search(r"^refused by a quota +(\d+) +answers of 429; (\d+) ref", out, re.MULTILINE)
    assert refused
    assert refused[1] == refused[2] != "0"
    assert re.search(r"^dropped +0 ", out, re.MULTILINE)
    assert re.search(r"^added latency p99 +[+-]\d+\.\d\d ms", out, re.MULTILINE)
    assert "client_disconnect" in out
    assert "run it with --keep" in err
    assert "logstore" not in err, "the psql line of a server that is gone"
    assert "\x1b" not in out + err
    assert "s3cr3t" not in out
    assert leftovers(temporary_folder) == []
    assert processes_of(temporary_folder) == []


def test_a_lost_row_makes_it_fail(temporary_folder: Path) -> None:
    """A queue of one row loses most of them: exit 1, and they are named."""
    process = start_demo(
        temporary_folder, "--seconds", "1", "--rate", "50", "--json", AUDITLOG_MAX_QUEUED_ROWS="1"
    )
    out, err = process.communicate(timeout=100)
    assert process.returncode == Exit.NOT_WELL, out + err
    report = json.loads(out)
    assert not report["well"]
    assert len(report["missing"]) == report["sent"] - report["stored"] == report["dropped"] > 0
    assert any("auditlog.queue_full" in line for line in report["warnings"])


@pytest.mark.parametrize("moment", ["starting PostgreSQL", "starting uvicorn", "sending"])
def test_an_interruption_leaves_nothing_behind(temporary_folder: Path, moment: str) -> None:
    """Ctrl-C, which a terminal sends to the whole process group."""
    process = start_demo(temporary_folder, "--seconds", "30")
    wait_for(process, moment)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, out + err
    assert "Traceback" not in err
    assert leftovers(temporary_folder) == []
    assert processes_of(temporary_folder) == []


def test_keep_serves_on_and_the_data_can_be_served_again(temporary_folder: Path) -> None:
    """Until SIGTERM; then the folder is there, and the application starts from it."""
    process = start_demo(temporary_folder, "--seconds", "1", "--rate", "50", "--keep", "--json")
    wait_for(process, "Serving at http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.OK, out + err
    assert processes_of(temporary_folder) == []
    kept = json.loads(out)["kept"]
    assert leftovers(temporary_folder) == [Path(kept).name]
    assert f"AUDITLOG_DSN=embedded:{kept}" in err
    assert "psql" in err
    assert "ORDER BY log_id DESC" in err
    log = temporary_folder / "again.log"
    with uvicorn(demo.AUDITED, log, dsn=f"embedded:{kept}") as server:
        assert demo._fetch_json(server.port, "/-/stats")["submitted"] == 0
    assert processes_of(temporary_folder) == []


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_both_parsers_let_every_scenario_through(temporary_folder: Path, http: str) -> None:
    """What one of them refuses would never reach the application, and prove nothing."""
    options = demo.Options(seconds=0.5, rate=20, http=http, path=temporary_folder / "data")
    with demo.run(options) as result:
        assert result.well, dataclasses.replace(result, database=None)
        assert result.comparison.sent > len(SCENARIOS)
        unheard = dataclasses.replace(result, refused=result.refused + 1)
        assert not unheard.well
        assert "1 answers of 429" in str(demo_report._complaints(unheard.comparison, unheard))
        with psycopg.connect(result.database.dsn) as conn:
            urls = {url for (url,) in conn.execute("SELECT request_url FROM logstore.logs")}
            rows = conn.execute("SELECT logs::text FROM logstore.logs").fetchall()
    assert {"/files/a%00b", "/files/%ff%fe%c3%28", "/orders?q=100%&r=%zz&%"} <= urls
    assert not re.search("s3cr3t|tok_4111", str(rows))


def test_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The end of its output is in the error."""
    with (
        pytest.raises(DemoError, match="no_such_factory"),
        uvicorn("auditlog.demo.app:no_such_factory", tmp_path / "log", dsn="dbname=x"),
    ):
        pass


async def test_a_request_without_a_row_is_missing(any_dsn: str) -> None:
    """Joined with a real table: one that was not stored is told from those that were."""
    async with AuditLog(any_dsn, settings=Settings(batch_age_s=0.01)) as audit:
        for request_id, status, _ in (*STORED[:2], Stored("other-1", 200)):
            metadata = {"audit.request_id": request_id}
            audit.submit(LogRecord(response_status=status, metadata=metadata, protocol=HTTP))
    with psycopg.connect(any_dsn) as conn:
        rows = read_rows(conn, "run")
    comparison = compare(SENT, rows)
    assert (comparison.sent, comparison.stored) == (3, 2)
    assert comparison.missing == (SENT[2],)
    assert not comparison.exact


def test_a_batch_has_a_row_for_every_operation() -> None:
    """One that lacks, one too many and one of another protocol are each found."""
    batch = Sent("run-1", "batch", 200, (HTTP, GRAPHQL, GRAPHQL))
    rows = [Stored("run-1", 200, protocol) for protocol in (GRAPHQL, HTTP, GRAPHQL)]
    whole = compare([batch], rows)
    assert whole.exact
    assert whole.protocols == ((HTTP, 1, 1), (GRPC, 0, 0), (GRAPHQL, 2, 2))
    lacking = compare([batch], rows[:1])
    assert (lacking.sent, lacking.stored, lacking.missing) == (3, 1, (batch, batch))
    assert compare([batch], [*rows, rows[0]]).repeated == ("run-1",)
    other = compare([batch], [*rows[:2], Stored("run-1", 200, GRPC)])
    assert (other.missing, other.repeated) == ((batch,), ("run-1",))


def test_comparison_is_exact_only_when_each_request_has_one_row() -> None:
    """Missing, repeated, unknown and differing rows are each found."""
    assert compare(SENT, STORED).exact
    assert compare(SENT, STORED[1:]).missing == (SENT[0],)
    assert compare(SENT, [*STORED, STORED[0]]).repeated == ("run-1",)
    assert compare(SENT, [*STORED, Stored("run-4", 200)]).unknown == ("run-4",)
    assert compare(SENT, [Stored("run-1", 500), *STORED[1:]]).differing == ((SENT[0], 500),)
    for rows in (
        STORED[1:],
        [*STORED, STORED[0]],
        [*STORED, Stored("run-4", 200)],
        [Stored("run-1", 500), *STORED[1:]],
        [],
    ):
        assert not compare(SENT, rows).exact
