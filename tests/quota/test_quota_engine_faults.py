"""The engine while the database is away, silent, restarted or slow; forks, and processes that end.

Where something is to be decided without the database, the decision itself is the signal.
"""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from quota_engines import NOBODY, Lines, Told, engine, running, spend, until, until_used, used

import trail
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate
from auditlog.quota.engine import Engine
from auditlog.quota.model import Basis, Decision, Key, Quota
from own_server import own_server
from proxies import Proxy

KEY = Key("q", "t", "s")
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
OPEN = Quota("q", 1_000, period="year", exact=True)
CLOSED = Quota("q", 1_000, period="year", exact=True, on_unavailable="closed")
WATCHED = Quota("q", 1_000, period="year", exact=True, on_unavailable="closed", enforced=False)


@pytest.fixture(scope="module")
def server_folder() -> Iterator[Path]:
    with own_server() as folder:
        yield folder


def at_once(asking: Coroutine[Any, Any, Decision]) -> Decision:
    """What comes of it without waiting, but for a turn of the loop; an error if it waits."""
    assert asking.send(None) is None
    with pytest.raises(StopIteration) as end:
        asking.send(None)
    decision = end.value.value
    assert isinstance(decision, Decision)
    return decision


async def test_without_a_database_the_quota_decides() -> None:
    lines = Lines()
    async with running(NOWHERE, None, lines, timeout_s=0.2) as made:
        for limited, allowed in ((OPEN, True), (CLOSED, False), (WATCHED, True)):
            decision = await made.ask(limited, KEY, 1, NOBODY)
            assert (decision.allowed, decision.basis) == (allowed, Basis.UNAVAILABLE)
            assert (await made.look(limited, KEY)).allowed is allowed
            assert decision.resets_in_s > 0
        assert (await made.ask(CLOSED, KEY, 0, NOBODY)).allowed
        assert "auditlog.quota_database_failed" in lines.reasons
    assert "auditlog.quota_charges_lost" in lines.reasons
    assert not any("nobody" in message for message in lines.messages)


async def test_while_it_is_known_to_be_away_nobody_waits() -> None:
    """Not even for a turn of the loop."""
    async with running(NOWHERE, timeout_s=3_600.0) as made:
        await made.ask(OPEN, KEY, 1, NOBODY)
        assert at_once(made.ask(OPEN, KEY, 1, NOBODY)).basis is Basis.UNAVAILABLE
        assert made.ask_in_thread(OPEN, KEY, 1, NOBODY).basis is Basis.UNAVAILABLE


async def test_what_was_allowed_meanwhile_is_charged_when_it_is_back(any_dsn: str) -> None:
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.5) as made:
            await made.ask(OPEN, KEY, 1, NOBODY)
            proxy.refuse()
            await until(Basis.UNAVAILABLE, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            port = int(proxy.dsn.split("port=")[1].split()[0])
            before = await asyncio.to_thread(used, any_dsn)
            decisions = [await made.ask(OPEN, KEY, 2, NOBODY) for _ in range(10)]
            assert {decision.basis for decision in decisions} == {Basis.UNAVAILABLE}
            made.give_back(decisions[0])
            with Proxy(any_dsn, port):
                # One more than was counted before, which was allowed as it went away.
                await until_used(any_dsn, before + 1 + 18)
                decision = await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))
                assert decision.previous == before + 19


async def test_silence_is_decided_in_time_and_hung_up(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is half open: nothing comes, and nothing ends."""
    monkeypatch.setattr("auditlog.quota.engine.engine.MIN_CALL_S", 0.6)
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.2) as made:
            await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            proxy.fall_silent()
            assert (await made.ask(CLOSED, KEY, 1, NOBODY)).basis is Basis.UNAVAILABLE
            # Whoever comes now does not wait: a call is under way that has taken too long.
            assert not at_once(made.ask(CLOSED, KEY, 1, NOBODY)).allowed
            pairs = len(proxy._pairs)
            await trail.until(lambda: len(proxy._pairs) > pairs)
            proxy.speak()
            await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))


@pytest.mark.parametrize(("limited", "counted"), [(OPEN, 2), (CLOSED, 1)])
async def test_answer_that_comes_too_late_is_accounted_for(
    any_dsn: str, limited: Quota, counted: int
) -> None:
    """What was allowed without it is charged by it; what was refused is given back."""
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.3) as made:
            await until(Basis.COUNTER, lambda: made.ask(OPEN, Key("q", "t", "other"), 1, NOBODY))
            await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            before = await asyncio.to_thread(used, any_dsn)
            proxy.fall_silent()
            assert (await made.ask(limited, KEY, 1, NOBODY)).basis is Basis.UNAVAILABLE
            proxy.speak()
            await until_used(any_dsn, before + counted - 1)
            await until(Basis.COUNTER, lambda: made.ask(OPEN, Key("q", "t", "other"), 1, NOBODY))
            assert await asyncio.to_thread(used, any_dsn) == before + counted - 1


async def test_what_was_allowed_in_vain_of_waiting_is_charged(any_dsn: str) -> None:
    """The ask never reached the database, or nobody knows whether it did."""
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.3) as made:
            await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            before = await asyncio.to_thread(used, any_dsn)
            proxy.fall_silent()
            decision = await made.ask(OPEN, KEY, 5, NOBODY)
            assert (decision.allowed, decision.basis) == (True, Basis.UNAVAILABLE)
            proxy.cut()
            proxy.speak()
            await until_used(any_dsn, before + 5)


async def test_lost_answer_leaves_the_counter_ahead_and_never_behind(any_dsn: str) -> None:
    """The outcome is not known: the ask goes out again."""
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn) as made:
            granted = 1
            await made.ask(OPEN, KEY, 1, NOBODY)
            for _ in range(5):
                task = asyncio.ensure_future(made.ask(OPEN, KEY, 1, NOBODY))
                await asyncio.sleep(0)
                proxy.cut()
                granted += (await task).allowed
        assert granted == 6
        assert granted <= used(any_dsn) <= granted + 5


async def test_connection_that_was_ended_while_idle_costs_nobody_anything(any_dsn: str) -> None:
    """By a restart, a fail-over, a pooler: the next ask finds a new one."""
    async with running(any_dsn) as made:
        for number in range(3):
            decision = await made.ask(CLOSED, KEY, 1, NOBODY)
            assert (decision.basis, decision.previous) == (Basis.COUNTER, number)
            with psycopg.connect(any_dsn, autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE application_name = 'auditlog' AND datname = current_database()"
                )
        made.charge(OPEN, KEY, 7, NOBODY)
    assert used(any_dsn) == 10


async def test_leases_last_while_the_database_is_away(any_dsn: str) -> None:
    """They are paid for."""
    limited = Quota("q", 100_000, period="year", on_unavailable="closed")
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.3, lease_s=60.0) as made:
            while (await spend(made, limited, KEY)).usage < 200:
                pass
            proxy.refuse()
            bases = set()
            while (decision := await spend(made, limited, KEY)).allowed:
                bases.add(decision.basis)
            assert (bases, decision.basis) == ({Basis.LEASE}, Basis.UNAVAILABLE)


async def test_statement_that_is_held_up_is_ended_by_the_server(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is counted later, and the connection goes on."""
    monkeypatch.setattr("auditlog.quota.engine.engine.MIN_CALL_S", 2.0)
    async with running(any_dsn, timeout_s=0.2) as made:
        await until(Basis.COUNTER, lambda: made.ask(CLOSED, KEY, 1, NOBODY))
        before, pids = used(any_dsn), backends(any_dsn)
        with psycopg.connect(any_dsn) as conn:
            conn.execute("SELECT FROM logstore.quota_usage FOR UPDATE")
            assert (await made.ask(CLOSED, KEY, 1, NOBODY)).basis is Basis.UNAVAILABLE
            await until(Basis.COUNTER, lambda: made.ask(CLOSED, Key("q", "t", "x"), 0, NOBODY))
        assert backends(any_dsn) == pids
    assert used(any_dsn) == before


def backends(dsn: str) -> list[tuple[int]]:
    """The server's processes for engines."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'auditlog' AND datname = current_database()"
        ).fetchall()


async def test_missing_functions_are_told_with_what_mends_it(empty_dsn: str) -> None:
    lines = Lines()
    async with running(empty_dsn, None, lines) as made:
        decision = await made.ask(CLOSED, KEY, 1, NOBODY)
        assert (decision.allowed, decision.basis) == (False, Basis.UNAVAILABLE)
    assert any("auditlog migrate" in message for message in lines.messages)


async def test_defect_of_the_callback_stops_nothing(any_dsn: str) -> None:
    class Raising(Told):
        def on_definitions(self, rows: object) -> None:
            raise ZeroDivisionError

    lines = Lines()
    async with running(any_dsn, Raising(), lines) as made:
        assert (await made.ask(CLOSED, KEY, 1, NOBODY)).allowed
    assert lines.reasons == ["auditlog.quota_definitions_failed"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT])
async def test_restarted_server(
    server_folder: Path, sign: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shut down or crashed: what was granted is still counted, what was allowed meanwhile too."""
    monkeypatch.setattr("auditlog.quota.engine.driver.RETRY_MAX_S", 0.2)
    dsn = (await asyncio.to_thread(embedded.start, server_folder)).dsn
    key = Key("q", "t", sign.name)
    async with running(dsn, timeout_s=1.0) as made:
        granted = (await until(Basis.COUNTER, lambda: made.ask(OPEN, key, 1, NOBODY))).usage
        postmaster = int((server_folder / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, sign)
        while (await made.ask(OPEN, key, 1, NOBODY)).basis is Basis.COUNTER:
            granted += 1
        await trail.until(lambda: not Path(f"/proc/{postmaster}").exists())
        await asyncio.to_thread(embedded.start, server_folder)
        # The ask that was under way may have been counted, though nobody heard of it.
        await until_used(dsn, granted + 1, sign.name, most=granted + 2)
        await until(Basis.COUNTER, lambda: made.ask(OPEN, key, 1, NOBODY))


def test_forked_child_begins_empty(any_dsn: str) -> None:
    """The lease is the parent's, and so are its connection and its loop."""
    limited = Quota("q", 100_000, period="year")
    made = engine(any_dsn, lease_s=60.0)

    def spend_some(n: int) -> None:
        for _ in range(n):
            assert (
                made.try_now(limited, KEY, 1) or made.ask_in_thread(limited, KEY, 1, NOBODY)
            ).allowed

    def child() -> None:
        assert made.try_now(limited, KEY, 1) is None
        spend_some(50)
        made.close()

    spend_some(100)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    spend_some(10)
    made.close()
    assert used(any_dsn) == 160


SCRIPT = """
import asyncio, os, sys
from quota_engines import NOBODY, engine
from auditlog.quota.model import Key, Quota

made = engine(sys.argv[1], lease_s=60.0)
limited, key = Quota("q", 100_000, period="year"), Key("q", "t", "s")

async def spend():
    for _ in range(100):
        made.try_now(limited, key, 1) or await made.ask(limited, key, 1, NOBODY)
    made.charge(limited, key, 5, NOBODY)

if sys.argv[2] == "loop":
    asyncio.run(spend())
elif sys.argv[2] == "thread":
    for _ in range(100):
        made.try_now(limited, key, 1) or made.ask_in_thread(limited, key, 1, NOBODY)
    made.charge(limited, key, 5, NOBODY)
"""


@pytest.mark.parametrize("way", ["loop", "thread"])
def test_process_that_closes_nothing_gives_back_at_its_exit(any_dsn: str, way: str) -> None:
    """Whether its loop is gone by then or a thread runs one."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-c", SCRIPT, any_dsn, way],
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert used(any_dsn) == 105


def test_process_that_stands_still_for_longer_than_a_lease(any_dsn: str) -> None:
    """Stopped and continued, it spends what it has, or what it gets; and never what is not paid."""
    limited = Quota("q", 300, period="year")
    context = multiprocessing.get_context("fork")
    parent, child = context.Pipe()
    process = context.Process(target=_spend_on_demand, args=(any_dsn, limited, child))
    process.start()
    parent.send(100)
    assert parent.recv() == 100
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    made = engine(any_dsn)
    mine = 0
    while (made.try_now(limited, KEY, 1) or made.ask_in_thread(limited, KEY, 1, NOBODY)).allowed:
        mine += 1
    made.close()
    os.kill(process.pid, signal.SIGCONT)
    parent.send(300)
    theirs = 100 + parent.recv()
    parent.send(0)
    process.join()
    assert mine + theirs <= 300
    assert used(any_dsn) == mine + theirs


def _spend_on_demand(dsn: str, limited: Quota, pipe: object) -> None:
    made: Engine = engine(dsn)
    while n := pipe.recv():  # type: ignore[attr-defined]
        granted = 0
        for _ in range(n):
            decision = made.try_now(limited, KEY, 1)
            granted += (decision or made.ask_in_thread(limited, KEY, 1, NOBODY)).allowed
        pipe.send(granted)  # type: ignore[attr-defined]
    made.close()


def test_loop_that_stands_still_is_replaced(any_dsn: str) -> None:
    """A loop that nobody runs any more, with a call of it under way."""
    loop = asyncio.new_event_loop()
    made = engine(any_dsn, timeout_s=20.0)
    asked = loop.create_task(made.ask(OPEN, KEY, 1, NOBODY))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    thread = threading.Thread(target=lambda: made.ask_in_thread(OPEN, KEY, 1, NOBODY))
    thread.start()
    thread.join()
    assert used(any_dsn) >= 1
    decision = loop.run_until_complete(asked)
    assert decision.allowed
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    made.close()
    assert used(any_dsn) >= 2


async def test_who_spends_in_a_row_does_not_keep_the_loop_from_finding_it(any_dsn: str) -> None:
    """What is decided without the database is decided without waiting, but not without a turn."""
    with Proxy(any_dsn) as proxy:
        async with running(proxy.dsn, timeout_s=0.2) as made:
            await until(Basis.COUNTER, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            proxy.refuse()
            await until(Basis.UNAVAILABLE, lambda: made.ask(OPEN, KEY, 1, NOBODY))
            turns = 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                asyncio.get_running_loop().call_soon(turn)

            turn()
            for _ in range(100):
                await made.ask(OPEN, KEY, 1, NOBODY)
            assert turns >= 100


def test_start_waits_for_a_server_that_has_to_be_started() -> None:
    """Or the first spendings would be decided without it, under a limit that is a hard one."""

    async def main(path: Path) -> None:
        told, dsn = Told(), f"embedded:{path}"
        async with running(dsn, told, timeout_s=0.05):
            assert told.definitions
        embedded.stop(dsn)

    with tempfile.TemporaryDirectory(prefix="al-") as folder:
        path = Path(folder, "data")
        with embedded.start(path) as server:
            migrate(server.dsn)
        asyncio.run(main(path))
