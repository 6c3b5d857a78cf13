"""What operators, triggers and other writers do to the database, and the writer has to survive."""

import asyncio
from typing import Any

import psycopg
import pytest

from auditlog.postgres import embedded
from auditlog.sink.database.faults import Fault, bad_row, classify, remedy
from auditlog.sink.database.ledger import copy_stream
from auditlog.sink.dead_letters import letter_of
from auditlog.sink.replay import Outcome, letter_ids, replay
from auditlog.tables import LOGS
from databases import Server, as_role
from own_server import own_server
from poison import batch_of, changed, good, refusal, target_of
from trail import execute, fetch, ledger_agrees, rows, until, waits_for_a_lock


def trigger(dsn: str, body: str, table: str = "logs") -> None:
    """A trigger of the operator's on each row of a table."""
    execute(
        dsn,
        f"CREATE FUNCTION public.attack() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$;"
        f" CREATE TRIGGER attack BEFORE INSERT ON logstore.{table}"
        " FOR EACH ROW EXECUTE FUNCTION public.attack()",
    )


def with_poison(count: int = 9) -> list[bytes]:
    tuples = good(0, count)
    tuples[4] = changed(0, tuples[4], message=b"poisoned")
    return tuples


@pytest.mark.parametrize(
    "statement",
    [
        "RAISE 'no' USING ERRCODE = 'ACME1';",
        "RAISE 'no' USING ERRCODE = 'U0001';",
        "RAISE case_not_found;",
        "RAISE triggered_action_exception;",
        "RAISE check_violation;",
        "INSERT INTO public.side (name) VALUES (NULL);",
        "INSERT INTO public.batches (name) VALUES ('twice'), ('twice');",
    ],
)
async def test_what_a_trigger_refuses_is_one_rows_fault(any_dsn: str, statement: str) -> None:
    """Whatever code it takes for that: waiting would hold up all other rows for ever."""
    execute(
        any_dsn,
        "CREATE TABLE public.side (name text NOT NULL);"
        " CREATE TABLE public.batches (name text UNIQUE)",
    )
    trigger(any_dsn, f"IF NEW.message = 'poisoned' THEN {statement} END IF;")
    async with target_of(any_dsn) as target:
        error = await refusal(target, batch_of(with_poison()))
    assert (classify(error), bad_row(error)) == (Fault.DATA, (0, 4))


@pytest.mark.parametrize("replayed", [False, True])
async def test_what_a_trigger_refuses_in_the_ledger_is_no_rows_fault(
    any_dsn: str, *, replayed: bool
) -> None:
    """Split to single rows, every one of them would be refused as well, and given up."""
    tuples = good(0, 3)
    async with target_of(any_dsn) as target:
        if replayed:
            await target.write(batch_of(tuples[:1]))
        trigger(any_dsn, "RAISE 'no more batches';", table="batches")
        error = await refusal(target, batch_of(tuples, replay=replayed))
    assert classify(error) is Fault.CONFIGURATION


async def test_letter_stays_where_nobody_may_look_whether_its_row_is_there(server: Server) -> None:
    """Another row may have its identity; then the letter is all there is of this one."""
    with server.role() as role, server.database() as dsn:
        execute(
            dsn,
            f'GRANT USAGE ON SCHEMA logstore TO "{role}";'
            f' GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}";'
            f' GRANT SELECT (batch_id) ON logstore.batches TO "{role}";'
            f' GRANT SELECT, UPDATE, DELETE ON logstore.dead_letters TO "{role}"',
        )
        row = good(0, 1)[0]
        letter = letter_of(0, changed(0, row, message=b"another"), "23505", "a reason", "host:1")
        async with target_of(dsn) as target:
            await target.write(batch_of([row]))
            await target.bury([letter])
        with psycopg.connect(as_role(dsn, role), autocommit=True) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                replay(conn, letter)
            assert letter_ids(conn) == [letter.letter_id]
            execute(dsn, f'GRANT SELECT ON logstore.logs TO "{role}"')
            assert replay(conn, letter).outcome is Outcome.REFUSED
        execute(dsn, f'DROP OWNED BY "{role}"')


async def test_server_says_itself_what_held_it_up(any_dsn: str) -> None:
    """A statement that waits for a lock is no dead connection, for which a firewall is to blame."""
    with psycopg.connect(any_dsn) as other:
        other.execute("LOCK TABLE logstore.logs IN SHARE MODE")
        async with target_of(any_dsn, statement_timeout_s=1) as target:
            error = await refusal(target, batch_of(good(0, 3)))
    assert (error.sqlstate, classify(error)) == ("57014", Fault.RETRY)
    assert "pg_stat_activity" in remedy(error)


async def test_row_that_is_refused_at_the_commit_is_found(any_dsn: str) -> None:
    """By halving: a deferred check names none. The connection lives on, and the rest is stored."""
    execute(
        any_dsn,
        "CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.message = 'poisoned' THEN RAISE 'no'; END IF; RETURN NULL; END $$;"
        " CREATE CONSTRAINT TRIGGER late AFTER INSERT ON logstore.logs"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.late()",
    )
    tuples = with_poison()
    async with target_of(any_dsn) as target:
        error = await refusal(target, batch_of(tuples))
        assert (classify(error), bad_row(error)) == (Fault.DATA, None)
        del tuples[4]
        await target.write(batch_of(tuples))
    assert len(rows(any_dsn)) == len(tuples)
    assert ledger_agrees(any_dsn)


@pytest.mark.parametrize("replayed", [False, True])
async def test_deadlock_with_another_writer_is_repeated(any_dsn: str, *, replayed: bool) -> None:
    """Two that write the same rows in another order: the one that is ended stores each once."""
    first, second = sorted(good(0, 2))
    batch = batch_of([first, second], replay=replayed)
    async with target_of(any_dsn) as target:
        with psycopg.connect(any_dsn) as other:
            other.execute("SET LOCAL deadlock_timeout = '1min'")  # so that we are the one
            _copy(other, second)
            writing = asyncio.create_task(refusal(target, batch))
            await until(lambda: waits_for_a_lock(any_dsn))
            await asyncio.to_thread(_copy, other, first)
            error = await writing
            assert (error.sqlstate, classify(error)) == ("40P01", Fault.RETRY)
            other.rollback()
        await target.write(batch)
    assert len(rows(any_dsn)) == 2
    assert ledger_agrees(any_dsn)


async def test_commit_that_waits_for_a_standby_is_not_taken_for_done() -> None:
    """The time-out of statements does not end that wait; else a failover would lose the row."""
    with own_server() as folder, embedded.start(folder) as server:
        dsn, batch = server.dsn, batch_of(good(0, 3))
        async with target_of(dsn, statement_timeout_s=0.5) as target:
            execute(dsn, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            execute(dsn, "SELECT pg_reload_conf()")
            await until(lambda: fetch(dsn, "SHOW synchronous_standby_names") == ["nobody"])
            for _ in range(3):
                assert classify(await refusal(target, batch)) is Fault.RETRY
            execute(dsn, "ALTER SYSTEM RESET synchronous_standby_names")
            execute(dsn, "SELECT pg_reload_conf()")
            await until(lambda: len(rows(dsn)) == 3)
            await target.write(batch)
        assert len(rows(dsn)) == 3
        assert ledger_agrees(dsn)


def _copy(conn: psycopg.Connection[Any], row: bytes) -> None:
    with conn.cursor().copy(LOGS.copy_statement) as copy:
        copy.write(copy_stream([row]))
