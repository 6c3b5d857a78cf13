import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from auditlog.errors import MigrationError
from auditlog.postgres.causes import CONNECT_TIMEOUT_S, connect, wrong_version
from auditlog.postgres.doctor import Finding, diagnose
from auditlog.postgres.embedded import EmbeddedServer, start
from auditlog.postgres.migrate import migrate
from databases import PASSWORD, Server, as_role, postgres_program

NEWEST_FILE = "0004_append_only.sql"


def test_migrated_database_is_well(dsn: str) -> None:
    """Every check is made, and none fails; a test server has fsync off, and that is said."""
    findings = diagnose(dsn)
    assert [finding.name for finding in findings if finding.state == "failed"] == []
    assert {"connection", "server", "encoding", "writable", "schema", "rights", "append-only"} | {
        "durability",
        "partitions",
        "clock",
        "pooler",
    } == {finding.name for finding in findings}


@pytest.mark.parametrize(
    ("parameters", "cause", "remedy"),
    [
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist', "createdb"),
        ({"user": "nobody-here"}, 'role "nobody-here" does not exist', "createuser"),
        ({"host": "nosuch.invalid"}, "failed to resolve host 'nosuch.invalid'", "correct the host"),
        ({"host": "/nowhere"}, "No such file or directory", "folder of its socket"),
    ],
)
def test_unreachable_database_has_its_cause_and_remedy(
    own_server: EmbeddedServer, parameters: dict[str, str], cause: str, remedy: str
) -> None:
    """One finding, whose text fits into a line."""
    dsn = make_conninfo(own_server.dsn, password=PASSWORD, **parameters)
    (finding,) = diagnose(dsn)
    assert (finding.name, finding.state) == ("connection", "failed")
    assert cause in finding.detail
    assert "\n" not in finding.detail
    assert remedy in finding.remedy


def test_refused_connection_names_host_and_port() -> None:
    """The most frequent cause of all: nobody listens there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (finding,) = diagnose(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/trail")
    assert finding.detail == (
        f'connection to server at "127.0.0.1", port {port} failed: Connection refused'
    )


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:tulipzinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip@zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip/zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip:zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip#zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip%zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip[zinnia@127.0.0.1:1/trail",
        "postgresql://me:tulip?zinnia@127.0.0.1:1/trail",
        "host=127.0.0.1 port=1 password=tulip zinnia",
        "host=127.0.0.1 port=1 password='tulip zinnia",
        "host=127.0.0.1 port=1 password=tulipzinnia nonsense",
        "tulipzinnia",
    ],
)
def test_no_part_of_a_password_is_ever_shown(dsn: str) -> None:
    """However the DSN is misread: libpq's own messages would quote parts of these."""
    for finding in diagnose(dsn):
        assert not re.search("tulip|zinnia", repr(finding))
    with pytest.raises(MigrationError) as caught:
        migrate(dsn)
    assert not re.search("tulip|zinnia", str(caught.value))


def test_missing_schema(empty_dsn: str) -> None:
    """The remedy is the command that makes it; nothing else is said about what is not there."""
    findings = diagnose(empty_dsn)
    assert _of(findings, "schema") == [
        Finding("schema", "failed", "the schema is missing", "auditlog migrate")
    ]
    assert _of(findings, "rights") == _of(findings, "append-only") == []


def test_schema_older_than_the_package(any_dsn: str) -> None:
    """It names the files that are missing."""
    _execute(any_dsn, "DELETE FROM logstore.migrations WHERE version = 4")
    (finding,) = _of(diagnose(any_dsn), "schema")
    assert finding.state == "failed"
    assert NEWEST_FILE in finding.detail
    assert finding.remedy == "auditlog migrate"


def test_schema_newer_than_the_package(any_dsn: str) -> None:
    """The remedy is a newer package."""
    _execute(any_dsn, "INSERT INTO logstore.migrations (version, name) VALUES (9999, 'future')")
    (finding,) = _of(diagnose(any_dsn), "schema")
    assert (finding.state, finding.remedy) == (
        "failed",
        "pip install --upgrade auditlog-postgres",
    )
    assert "9999_future.sql" in finding.detail


def test_changed_migration(any_dsn: str) -> None:
    """It names the file and what to do with it."""
    _execute(any_dsn, "UPDATE logstore.migrations SET sha256 = sha256('') WHERE version = 2")
    (finding,) = _of(diagnose(any_dsn), "schema")
    assert finding.state == "failed"
    assert finding.detail.startswith("0002_projections.sql was changed")
    assert finding.remedy.startswith("restore the file")


def test_missing_rights_come_with_grants_that_give_them(server: Server) -> None:
    """Running the remedies as they stand ends in a role that can write, and no more than that."""
    with server.role() as role, server.database() as dsn:
        theirs = as_role(dsn, role)
        for _ in range(2):  # the schema hides its tables until USAGE is granted
            for finding in diagnose(theirs):
                if finding.name in ("rights", "schema") and finding.remedy:
                    _execute(dsn, finding.remedy)
        findings = diagnose(theirs)
        assert {finding.state for finding in _of(findings, "rights")} == {"ok"}
        assert {finding.state for finding in _of(findings, "schema")} == {"ok"}
        _execute(
            theirs,
            "INSERT INTO logstore.batches (batch_id, writer, bytes, sha256)"
            " VALUES (gen_random_uuid(), 'host:1', 0, sha256(''))"
            " ON CONFLICT (batch_id) DO NOTHING",
            "INSERT INTO logstore.logs (instance_id, log_id) VALUES ('tenant', 'row')",
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            _execute(theirs, "SELECT message FROM logstore.logs")


def test_role_with_a_strange_name_gets_a_grant_that_runs(server: Server) -> None:
    """Names are quoted where they need it."""
    name = f'we"ird {os.getpid()}'
    role = sql.Identifier(name)
    server.admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
    try:
        with server.database() as dsn:
            (finding,) = _of(diagnose(as_role(dsn, name)), "rights")
            assert finding.state == "failed"
            _execute(dsn, finding.remedy)
    finally:
        server.admin.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE logstore.logs DISABLE TRIGGER append_only",
        "DROP TRIGGER append_only ON logstore.logs",
    ],
)
def test_missing_guard_comes_with_the_statement_that_restores_it(dsn: str, damage: str) -> None:
    """Disabled or dropped, and only of the table it is missing from."""
    _execute(dsn, damage)
    (finding,) = _of(diagnose(dsn), "append-only")
    assert finding.state == "failed"
    assert "logstore.logs can be changed" in finding.detail
    _execute(dsn, finding.remedy)
    (finding,) = _of(diagnose(dsn), "append-only")
    assert finding.state == "ok"


def test_encoding_that_cannot_hold_every_text(server: Server) -> None:
    """Named, with the command that makes a better database."""
    with server.database(migrated=False, options="ENCODING 'SQL_ASCII' LOCALE 'C'") as dsn:
        (finding,) = _of(diagnose(dsn), "encoding")
    assert finding.state == "failed"
    assert "SQL_ASCII" in finding.detail
    assert "createdb --encoding=UTF8" in finding.remedy


def test_read_only_transactions(any_dsn: str) -> None:
    """A role or database set to read-only cannot take rows."""
    dsn = make_conninfo(any_dsn, options="-c default_transaction_read_only=on")
    (finding,) = _of(diagnose(dsn), "writable")
    assert finding.state == "failed"
    assert "default_transaction_read_only = off" in finding.remedy


@pytest.mark.parametrize(
    ("skew_s", "state", "detail"),
    [
        (0, "ok", "within 2 s"),
        (-60, "warning", "the server's clock is 60.0 s ahead"),
        (60, "warning", "the server's clock is 60.0 s behind"),
    ],
)
def test_clock_skew(any_dsn: str, skew_s: float, state: str, detail: str) -> None:
    """Measured against the clock that stamps the records."""
    (finding,) = _of(diagnose(any_dsn, clock=lambda: time.time() + skew_s), "clock")
    assert finding.state == state
    assert detail in finding.detail


def test_slow_round_trip_is_not_taken_for_skew(any_dsn: str) -> None:
    """The server's clock was read at some moment between the two readings of ours."""
    readings = iter(time.time() + late for late in (-5, 1, -5, 1, -5, 1))
    (finding,) = _of(diagnose(any_dsn, clock=lambda: next(readings)), "clock")
    assert finding.state == "ok"


def test_settings_that_lose_commits(any_dsn: str) -> None:
    """Each with its consequence."""
    dsn = make_conninfo(any_dsn, options="-c synchronous_commit=off")
    warnings = _of(diagnose(dsn), "durability")
    assert {finding.state for finding in warnings} == {"warning"}
    assert any("synchronous_commit is off" in finding.detail for finding in warnings)


def test_direct_connection_is_told_from_a_pooler_in_transaction_mode(
    any_dsn: str, pgbouncer: Callable[[str], str]
) -> None:
    """It is a warning: the sink works, maintenance wants a direct DSN."""
    (direct,) = _of(diagnose(any_dsn), "pooler")
    assert (direct.state, direct.detail) == ("ok", "none, a direct connection")
    (pooled,) = _of(diagnose(pgbouncer(any_dsn)), "pooler")
    assert (pooled.state, pooled.detail) == ("warning", "a pooler in transaction mode")
    assert "direct DSN" in pooled.remedy


def test_name_and_time_out_of_the_dsn_win(any_dsn: str) -> None:
    """Ours are for a DSN that has none."""
    with connect(make_conninfo(any_dsn, application_name="mine", connect_timeout=3)) as conn:
        assert conn.execute("SHOW application_name").fetchone() == ("mine",)
        assert conn.info.get_parameters()["connect_timeout"] == "3"
    with connect(any_dsn) as conn:
        assert conn.execute("SHOW application_name").fetchone() == ("auditlog",)
        assert conn.info.get_parameters()["connect_timeout"] == str(CONNECT_TIMEOUT_S)


def test_old_and_new_servers() -> None:
    """14 is the oldest that will do."""
    assert wrong_version(140_000) is None
    assert wrong_version(180_004) is None
    cause = wrong_version(130_021)
    assert cause is not None
    assert cause.problem == "the server is PostgreSQL 13"


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """A server whose files may be changed."""
    with (
        TemporaryDirectory(prefix="auditlog-test-") as folder,
        start(Path(folder, "data")) as server,
    ):
        migrate(server.dsn)
        yield server


def test_wrong_password(own_server: EmbeddedServer) -> None:
    """The user is named, the password is not."""
    rules = own_server.path / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    _execute(
        own_server.dsn,
        "CREATE ROLE locked LOGIN PASSWORD 'another'",
        "SELECT pg_reload_conf()",
    )
    (finding,) = diagnose(make_conninfo(own_server.dsn, user="locked", password=PASSWORD))
    assert finding.detail == 'password authentication failed for user "locked"'
    assert "~/.pgpass" in finding.remedy
    (finding,) = diagnose(make_conninfo(own_server.dsn, user="locked"))
    assert finding.detail == "fe_sendauth: no password supplied"


def test_standby_takes_no_writes(own_server: EmbeddedServer) -> None:
    """For the doctor and for the migrations alike, with the primary as the remedy."""
    _execute(own_server.dsn, "DELETE FROM logstore.migrations WHERE version = 4")
    _control(own_server, "stop", "-m", "fast")
    (own_server.path / "standby.signal").touch()
    _control(own_server, "start", "-o", f"-h '' -k {own_server.path}", "-l", os.devnull)
    try:
        (finding,) = _of(diagnose(own_server.dsn), "writable")
        assert finding.state == "failed"
        assert "standby" in finding.detail
        assert "primary" in finding.remedy
        with pytest.raises(MigrationError, match="use the DSN of the primary"):
            migrate(own_server.dsn)
    finally:
        _control(own_server, "stop", "-m", "immediate")


def _control(server: EmbeddedServer, *arguments: str) -> None:
    """Run pg_ctl as whoever owns the data; root may not."""
    subprocess.run(
        [postgres_program("pg_ctl"), "-w", "-D", server.path, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        user=server.path.stat().st_uid if os.geteuid() == 0 else None,
    )


def _of(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)
