"""Schema, rights and credentials that do not fit: told aloud, no row lost, gone on when mended."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import trail
from auditlog import AuditLog, HealthStatus, LogRecord
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate
from auditlog.sink.database.faults import Fault, classify, sqlstate_of
from databases import Server, as_role
from own_server import own_server
from poison import batch_of, good, refusal, target_of
from proxies import Proxy
from trail import numbered, quick


@pytest.fixture(scope="module")
def server_folder() -> Iterator[Path]:
    with own_server() as folder:
        yield folder


async def test_missing_schema_is_loud_and_mended_by_migrating(
    empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows wait; the health and the log line say which command to run."""
    async with AuditLog(empty_dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        await trail.failing(audit, HealthStatus.FAILED)
        assert "auditlog migrate" in audit.health().remedy
        await asyncio.to_thread(migrate, empty_dsn)
        assert await audit.flush(20)
        assert audit.health().status is HealthStatus.OK
    assert trail.stored_once(empty_dsn, 20)
    lines = [record for record in caplog.records if record.name == "auditlog"]
    assert [record.levelname for record in lines] == ["ERROR"]
    assert "auditlog migrate" in lines[0].getMessage()


async def test_missing_rights_are_loud_and_mended_by_granting(any_server: Server) -> None:
    """A role that may connect, and no more."""
    with any_server.role() as role, any_server.database() as dsn:
        async with AuditLog(as_role(dsn, role), settings=quick()) as audit:
            audit.submit(numbered([0])[0])
            await trail.failing(audit, HealthStatus.FAILED)
            assert "42501" in audit.health().reason
            assert "auditlog doctor" in audit.health().remedy
            await trail.change(
                dsn,
                f'GRANT USAGE ON SCHEMA logstore TO "{role}";'
                f' GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}";'
                f' GRANT SELECT (batch_id) ON logstore.batches TO "{role}"',
            )
            assert await audit.flush(20)
        assert trail.stored_once(dsn, 1)


async def test_read_only_server_is_waited_for(any_dsn: str) -> None:
    """As after a failover, until the next connection reaches a primary."""
    database = psycopg.conninfo.conninfo_to_dict(any_dsn)["dbname"]
    await trail.change(
        any_dsn, f'ALTER DATABASE "{database}" SET default_transaction_read_only = on'
    )
    async with AuditLog(any_dsn, settings=quick()) as audit:
        audit.submit(numbered([0])[0])
        await trail.failing(audit, HealthStatus.DEGRADED)
        assert "primary" in audit.health().remedy
        await trail.change(
            make_conninfo(any_dsn, options="-c default_transaction_read_only=off"),
            f'ALTER DATABASE "{database}" RESET default_transaction_read_only',
        )
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 1)


async def test_wrong_password_is_loud_and_mended_by_the_right_one(server_folder: Path) -> None:
    """As after a rotation: the health says what was refused, not what was tried."""
    server = await asyncio.to_thread(embedded.start, server_folder)
    access = server_folder / "pg_hba.conf"
    before = access.read_text()
    access.write_text("local all locked scram-sha-256\n" + before)
    await trail.change(server.dsn, "CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'first'")
    await trail.change(server.dsn, "SELECT pg_reload_conf()")
    try:
        dsn = make_conninfo(server.dsn, user="locked", password="second")
        async with AuditLog(dsn, settings=quick()) as audit:
            audit.submit(LogRecord(user_id="with the right password"))
            await trail.failing(audit, HealthStatus.FAILED)
            health = audit.health()
            assert "password" in health.remedy
            assert "second" not in f"{health}"
            await trail.change(server.dsn, "ALTER ROLE locked PASSWORD 'second'")
            assert await audit.flush(20)
        assert "with the right password" in trail.users(server.dsn)
    finally:
        access.write_text(before)
        await trail.change(server.dsn, "DROP ROLE locked")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"dbname": "there_is_none"}, "the database does not exist"),
        ({"user": "there_is_none"}, "check user, password"),
    ],
)
async def test_wrong_name_is_loud(any_dsn: str, changes: dict[str, str], remedy: str) -> None:
    """Nothing to wait for: somebody has to correct it."""
    async with AuditLog(
        make_conninfo(any_dsn, **changes), settings=quick(drain_timeout_s=0.05)
    ) as audit:
        audit.submit(LogRecord())
        await trail.failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy.startswith(remedy)


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://127.0.0.1:hun/ter2@host/db"])
async def test_dsn_that_is_none_is_loud(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """And is not repeated, since a badly written one may have the password anywhere."""
    async with AuditLog(dsn, settings=quick(drain_timeout_s=0.05)) as audit:
        audit.submit(LogRecord())
        await trail.failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy.startswith("the DSN is not a connection string")
    told = f"{caplog.text} {audit!r} {audit.health()}"
    assert "hun" not in told
    assert "ter2" not in told


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        (
            "ALTER TABLE logstore.logs ADD COLUMN extra integer NOT NULL DEFAULT 0;"
            " ALTER TABLE logstore.logs ALTER COLUMN extra DROP DEFAULT",
            "ALTER TABLE logstore.logs DROP COLUMN extra",
        ),
        (
            "ALTER TABLE logstore.logs ALTER COLUMN response_status TYPE smallint",
            "ALTER TABLE logstore.logs ALTER COLUMN response_status TYPE integer",
        ),
        (
            "ALTER TABLE logstore.logs DROP COLUMN message",
            "ALTER TABLE logstore.logs ADD COLUMN message text",
        ),
        (
            # Many entries, for every attempt takes a number, and soon one that is free.
            "INSERT INTO logstore.batches (batch_id, writer, bytes, sha256)"
            " SELECT gen_random_uuid(), 'host:1', 0, sha256('') FROM generate_series(1, 10000);"
            " ALTER TABLE logstore.batches ALTER COLUMN sequence RESTART WITH 1",
            "SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'), max(sequence))"
            " FROM logstore.batches",
        ),
    ],
    ids=["extra NOT NULL column", "other type", "column gone", "sequence not carried over"],
)
async def test_schema_that_refuses_every_row_loses_none(any_dsn: str, harm: str, mend: str) -> None:
    """It is no row's fault: nothing is split and given up, and all arrive when it is mended."""
    async with AuditLog(any_dsn, settings=quick()) as audit:
        audit.submit(numbered([0])[0])
        assert await audit.flush(20)
        await trail.change(any_dsn, harm)
        for record in numbered(range(1, 30)):
            record.response_status = 200
            audit.submit(record)
        await trail.failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy
        await trail.change(any_dsn, mend)
        assert await audit.flush(20)
    assert audit.stats().dropped == 0
    assert trail.stored_once(any_dsn, 30)


async def test_missing_partition_loses_no_row(empty_dsn: str) -> None:
    """The rows of a day for which nobody made a partition wait until somebody does."""
    await asyncio.to_thread(migrate, empty_dsn)
    await trail.change(
        empty_dsn,
        "ALTER TABLE logstore.logs RENAME TO plain;"
        " CREATE TABLE logstore.logs (LIKE logstore.plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        " PARTITION BY RANGE (log_date)",
    )
    async with AuditLog(empty_dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        await trail.failing(audit, HealthStatus.FAILED)
        assert "partition" in audit.health().remedy
        await trail.change(
            empty_dsn, "CREATE TABLE logstore.today PARTITION OF logstore.logs DEFAULT"
        )
        assert await audit.flush(20)
    assert audit.stats().dropped == 0
    assert trail.stored_once(empty_dsn, 20)


@pytest.mark.parametrize("answer", [b"", b"S"], ids=["silent", "silent after TLS was agreed"])
async def test_server_that_accepts_and_says_nothing_is_given_up(answer: bytes) -> None:
    """As a host does whose process is stopped: the time-out of connecting holds until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as held:

        def accept() -> None:
            held.enter_context(listener.accept()[0]).sendall(answer)

        accepting = asyncio.create_task(asyncio.to_thread(accept))
        port = listener.getsockname()[1]
        dsn = make_conninfo(host="127.0.0.1", port=port, user="u", sslmode="require")
        async with target_of(dsn, connect_timeout_s=0.1) as target, asyncio.timeout(30):
            error = await refusal(target, batch_of(good(0, 1)))
            await accepting
    assert classify(error) is Fault.RETRY


async def test_first_host_that_takes_no_writes_is_passed_over(any_dsn: str) -> None:
    """Found out when connecting, where there are other hosts: a standby is never written to."""
    parameters = psycopg.conninfo.conninfo_to_dict(any_dsn)
    await trail.change(
        any_dsn, f'ALTER DATABASE "{parameters["dbname"]}" SET default_transaction_read_only = on'
    )
    async with target_of(any_dsn) as target:
        assert (await refusal(target, batch_of(good(0, 1)))).sqlstate == "25006"
    twice = {name: f"{parameters[name]},{parameters[name]}" for name in ("host", "port")}
    async with target_of(make_conninfo(any_dsn, **twice)) as target:
        error = await refusal(target, batch_of(good(0, 1)))
    assert (error.sqlstate, sqlstate_of(error)) == (None, "25006")
    assert classify(error) is Fault.RETRY


async def test_idle_connection_is_kept_alive_unless_the_dsn_says_otherwise(any_dsn: str) -> None:
    """A firewall would forget it, and the next batch would wait for an answer in vain."""
    for said, expected in (({}, "60"), ({"keepalives_idle": "7"}, "7")):
        async with target_of(make_conninfo(any_dsn, **said)) as target:
            connection = await target._database.connect()
            assert connection.info.get_parameters()["keepalives_idle"] == expected


async def test_transaction_of_a_client_that_is_gone_is_ended_by_the_server(dsn: str) -> None:
    """As when a firewall forgets a connection: its ledger row would hold up every next attempt."""
    batch = batch_of(good(0, 100))
    with Proxy(dsn) as proxy:
        release = proxy.holding = threading.Event()
        async with target_of(proxy.dsn, statement_timeout_s=2) as target:
            await refusal(target, batch)
        assert await asyncio.to_thread(proxy.held.wait, 10)
        # The server has seen no end of the first connection, and does not for the whole test.
        async with target_of(dsn, statement_timeout_s=60) as target:
            await target.write(batch)
        release.set()
    assert len(trail.rows(dsn)) == 100
    assert trail.ledger_agrees(dsn)
