"""Rows that no table takes: buried once, stored once, never gone without a row that says so."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as replaced
from typing import Any

import psycopg
import pytest

from auditlog import Settings
from auditlog.query.dead_letters import find_letters, letters_named
from auditlog.sink.database.faults import Fault, classify
from auditlog.sink.dead_letters import DeadLetter, letter_of
from auditlog.sink.encoding.reduced import tuple_of
from auditlog.sink.encoding.tuples import fields
from auditlog.sink.replay import Outcome, Replayed, discard, fetch, letter_ids, replay
from auditlog.tables import LOGS
from databases import Server, as_role
from poison import POISON, batch_of, changed, good, target_of
from trail import batches, execute, ledger_agrees, rows, until, waits_for_a_lock
from trail import fetch as column

WHO = {"who": "ada@desk", "why": "a test", "settings": Settings()}
HOSTILE = b"\0\xff\x1b[2J\xe2\x80\xae"


def letter(row: bytes | None = None, table: int = 0, sqlstate: str = "22021") -> DeadLetter:
    row = good(table, 1)[0] if row is None else row
    return letter_of(table, row, sqlstate, "a reason", "host:1")


def poisoned(kind: str = "bad UTF-8") -> bytes:
    return changed(0, good(0, 1)[0], **POISON[kind][1])


async def bury(dsn: str, *letters: DeadLetter) -> None:
    async with target_of(dsn) as target:
        await target.bury(letters)


def connected(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True)


async def test_letter_comes_back_as_it_was_buried(dsn: str) -> None:
    """Whatever is in the row and in its identity, and once only."""
    buried = [
        letter(),
        letter(poisoned()),
        letter(changed(0, poisoned(), instance_id=HOSTILE, log_id=HOSTILE)),
        letter(b""),
        letter(HOSTILE, table=2),
        letter(changed(0, good(0, 1)[0], message=HOSTILE * 8192)),
    ]
    for _ in range(2):
        await bury(dsn, *buried)
    with connected(dsn) as conn:
        assert {fetch(conn, known) for known in letter_ids(conn)} == set(buried)
        summaries = find_letters(conn, limit=10)
    assert {(s.letter_id, s.size, s.attempts) for s in summaries} == {
        (known.letter_id, len(known.row), 0) for known in buried
    }
    assert [known.instance_id for known in buried] == [b"default"] * 2 + [
        HOSTILE,
        None,
        None,
        b"default",
    ]


async def test_letters_are_listed_by_time_and_by_tenant(any_dsn: str) -> None:
    """Another tenant's are not returned, nor those of nobody."""
    row = good(0, 1)[0]
    buried = [letter(changed(0, row, instance_id=name)) for name in (b"a", "ä".encode(), b"a'")]
    await bury(any_dsn, *buried, letter(b"?"))
    with connected(any_dsn) as conn:
        assert [s.letter_id for s in find_letters(conn, limit=3)] == [
            known.letter_id for known in (*buried, letter(b"?"))
        ][-3:]
        assert [s.letter_id for s in find_letters(conn, limit=9, tenant="ä")] == [
            buried[1].letter_id
        ]
        assert find_letters(conn, limit=9, tenant="") == []
        assert letters_named(conn, str(buried[0].letter_id)[:13]) == [buried[0].letter_id]
        assert letters_named(conn, "%") == []


async def test_older_schema_and_missing_rights_are_known_as_such(server: Server) -> None:
    """Whoever buries then knows that waiting will not help, and takes the file."""
    with server.role() as role, server.database() as dsn:
        execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            await bury(as_role(dsn, role), letter())
        assert classify(refused.value) is Fault.CONFIGURATION
        execute(dsn, f'GRANT INSERT ON logstore.dead_letters TO "{role}"')
        await bury(as_role(dsn, role), letter(), letter())
        execute(dsn, "DROP TABLE logstore.dead_letters")
        with pytest.raises(psycopg.errors.UndefinedTable) as missing:
            await bury(dsn, letter())
        assert classify(missing.value) is Fault.CONFIGURATION


async def test_letter_is_stored_when_its_cause_is_mended(dsn: str) -> None:
    """In one transaction with its removal; identity and clocks are those of then."""
    execute(dsn, "ALTER TABLE logstore.logs ADD CONSTRAINT mine CHECK (user_id <> '000000')")
    died = letter(sqlstate="23514")
    await bury(dsn, died)
    with connected(dsn) as conn:
        assert replay(conn, died) == Replayed(Outcome.REFUSED, "23514")
        (summary,) = find_letters(conn, limit=9)
        assert (summary.attempts, rows(dsn), batches(dsn)) == (1, [], [])
        execute(dsn, "ALTER TABLE logstore.logs DROP CONSTRAINT mine")
        assert replay(conn, died) == Replayed(Outcome.STORED)
        assert replay(conn, died) == Replayed(Outcome.GONE)
        assert letter_ids(conn) == []
    (row,) = rows(dsn)
    assert row["log_id"].encode() == died.log_id
    assert ledger_agrees(dsn)


@pytest.mark.parametrize("kind", POISON)
async def test_smallest_form_is_stored_where_there_is_one(dsn: str, kind: str) -> None:
    """What is refused for its identity, its clocks or its form stays a letter."""
    row = poisoned(kind)
    died = letter(row, sqlstate=POISON[kind][0])
    await bury(dsn, died)
    texts = {"message", "metadata"} & POISON[kind][1].keys()
    expected = Outcome.STORED if texts and kind != "another version of jsonb" else Outcome.REFUSED
    with connected(dsn) as conn:
        assert replay(conn, died).outcome is Outcome.REFUSED or kind == "too deep"
        if letter_ids(conn):
            assert replay(conn, died, smallest=True).outcome is expected
        assert len(letter_ids(conn)) == (expected is Outcome.REFUSED)
    assert ledger_agrees(dsn)


async def test_row_that_is_there_is_not_stored_again(dsn: str) -> None:
    """And where another row has its identity, the letter stays."""
    died = letter()
    async with target_of(dsn) as target:
        await target.write(batch_of([died.row]))
        other = letter(changed(0, died.row, message=b"another"))
        await target.bury([died, other])
        with connected(dsn) as conn:
            assert replay(conn, died) == Replayed(Outcome.THERE)
            assert replay(conn, other) == Replayed(Outcome.REFUSED, "23505")
            assert letter_ids(conn) == [other.letter_id]
        assert len(rows(dsn)) == 1
        assert ledger_agrees(dsn)


async def test_two_who_replay_the_same_letters_store_them_once(dsn: str) -> None:
    """Each letter is one's, and the other passes it over."""
    died = [letter(row) for row in good(0, 200)]
    await bury(dsn, *died)
    start = threading.Barrier(4)

    def work() -> list[Outcome]:
        with connected(dsn) as conn:
            start.wait(10)
            return [replay(conn, each).outcome for each in died]

    with ThreadPoolExecutor(4) as pool:
        outcomes = [
            outcome for task in [pool.submit(work) for _ in range(4)] for outcome in task.result()
        ]
    assert outcomes.count(Outcome.STORED) == 200
    assert outcomes.count(Outcome.GONE) == 600
    assert len(rows(dsn)) == 200
    assert ledger_agrees(dsn)


@pytest.mark.parametrize("work", [replay, discard], ids=["replay", "discard"])
async def test_the_ledger_is_locked_first(any_dsn: str, work: Callable[..., Any]) -> None:
    """As writing does, and migrations: in another order the two would wait for each other."""
    died = letter()
    await bury(any_dsn, died)
    with connected(any_dsn) as conn, psycopg.connect(any_dsn) as migration:
        conn.execute("SET application_name = 'auditlog'")
        migration.execute("LOCK TABLE logstore.batches IN ACCESS EXCLUSIVE MODE")
        arguments = (conn, died) if work is replay else (conn, [died.letter_id])
        options = {} if work is replay else WHO
        task = asyncio.create_task(asyncio.to_thread(work, *arguments, **options))
        await until(lambda: waits_for_a_lock(any_dsn))
        migration.execute(
            "LOCK TABLE logstore.logs, logstore.dead_letters IN ACCESS EXCLUSIVE MODE"
        )
        migration.commit()
        await task
        assert letter_ids(conn) == []
    assert ledger_agrees(any_dsn)


async def test_letter_of_an_older_version_fills_the_columns_it_has(any_dsn: str) -> None:
    """A column that was added since is null; one that is gone is not left out in silence."""
    whole = good(0, 1)[0]
    values = list(fields(whole))[:-1]
    older = replaced(letter(tuple_of(values)), columns=LOGS.column_names[:-1])
    newer = replaced(
        letter(tuple_of([*fields(whole), b"x"])), columns=(*LOGS.column_names, "of_tomorrow")
    )
    with connected(any_dsn) as conn:
        assert replay(conn, older, filed=True) == Replayed(Outcome.STORED)
        assert replay(conn, newer, filed=True) == Replayed(Outcome.REFUSED, "22P04")
    (row,) = rows(any_dsn)
    assert row["metadata"] is None


async def test_discarded_letters_leave_a_gap_for_each_tenant(dsn: str) -> None:
    """Who, why, how many and from when to when; with a ledger entry like every row."""
    of_a = [letter(changed(0, row, instance_id=b"a", message=HOSTILE)) for row in good(0, 3)]
    of_b = letter(changed(0, good(0, 1)[0], instance_id=b"b"))
    await bury(dsn, *of_a, of_b, letter(b"no tuple"))
    with connected(dsn) as conn:
        chosen = letter_ids(conn)
        assert discard(conn, chosen, **WHO) == 5
        assert discard(conn, chosen, **WHO) == 0
        assert letter_ids(conn) == []
    told = {row["instance_id"]: row for row in rows(dsn)}
    assert {name: row["metadata"]["audit.gap.count"] for name, row in told.items()} == {
        "a": 3,
        "b": 1,
        "default": 1,
    }
    for row in told.values():
        assert (row["event_type"], row["user_id"]) == ("audit.gap", "ada@desk")
        assert row["metadata"]["audit.gap.reason"] == "discarded"
        assert row["metadata"]["audit.gap.why"] == "a test"
    assert ledger_agrees(dsn)


async def test_letters_that_cannot_be_told_of_are_not_discarded(any_dsn: str) -> None:
    """The gap row is refused: so the letters stay."""
    await bury(any_dsn, letter())
    execute(
        any_dsn, "ALTER TABLE logstore.logs ADD CONSTRAINT mine CHECK (event_type <> 'audit.gap')"
    )
    with connected(any_dsn) as conn, pytest.raises(psycopg.errors.CheckViolation):
        discard(conn, letter_ids(conn), **WHO)
    assert column(any_dsn, "SELECT count(*) FROM logstore.dead_letters") == [1]


async def test_four_thousand_refused_rows_are_four_thousand_letters(any_dsn: str) -> None:
    """Bounded in time: a transaction for all of them."""
    died = [letter(changed(0, row, message=HOSTILE)) for row in good(0, 4000)]
    await bury(any_dsn, *died)
    assert column(any_dsn, "SELECT count(*) FROM logstore.dead_letters") == [4000]
    with connected(any_dsn) as conn:
        chosen = letter_ids(conn)
        assert (
            sum(discard(conn, chosen[at : at + 1000], **WHO) for at in range(0, 4000, 1000)) == 4000
        )
    assert sum(row["metadata"]["audit.gap.count"] for row in rows(any_dsn)) == 4000
