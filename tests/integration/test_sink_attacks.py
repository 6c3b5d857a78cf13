"""What somebody tries who wants a log to hang a service, or to serve what is not stored."""

import asyncio
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

import trail
from auditlog import AuditLog, HealthStatus, Outcome
from auditlog.ticket import Ticket
from proxies import Proxy
from trail import numbered, quick

NOWHERE = "host=127.0.0.1 port=1 dbname=nobody connect_timeout=2"
PREAMBLE = """
import asyncio, logging, os, resource, sys, threading, time
from auditlog import AuditLog, LogRecord, Outcome, Settings

dsn, folder = sys.argv[1:]

def record(number):
    return LogRecord(user_id=f"{number:06}")
"""


def run(program: str, *arguments: str) -> str:
    """Run a program, which has to end in time; return what it says on stdout."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_full_queue_does_not_serve_what_is_not_committed(tmp_path: Path) -> None:
    """The spool takes the row, which is no commit; and it does not say that the outage is over."""
    settings = quick(
        durability="commit",
        spool_dir=str(tmp_path),
        max_queued_rows=1,
        commit_timeout_s=0.05,
        drain_timeout_s=0.1,
    )
    async with AuditLog(NOWHERE, settings=settings) as audit:
        first, *others = numbered(range(3))
        assert audit.submit(first) is Outcome.ACCEPTED
        for record in others:
            ticket = Ticket()
            assert audit.submit(record, ticket) is Outcome.SPOOLED
            assert not await audit.durable(ticket)
        assert audit.stats().refused == 2
        assert audit.stats().spooled == 2


async def test_requests_are_served_as_soon_as_the_database_is_back(any_dsn: str) -> None:
    """However long the writer would wait until it tries again by itself."""
    settings = quick(
        durability="commit",
        commit_timeout_s=1.0,
        retry_min_s=1000.0,
        retry_max_s=1000.0,
        drain_timeout_s=20.0,
    )
    away = Proxy(any_dsn)
    away.refuse()
    async with AuditLog(away.dsn, settings=settings) as audit:
        first = Ticket()
        audit.submit(*numbered([0]), first)
        assert not await audit.durable(first)
        with Proxy(any_dsn, int(conninfo_to_dict(away.dsn)["port"] or 0)):
            deadline = time.monotonic() + 15
            served = False
            while not served and time.monotonic() < deadline:
                ticket = Ticket()
                audit.submit(*numbered([1]), ticket)
                served = await audit.durable(ticket)
                await asyncio.sleep(0.05)
            assert served


async def test_refusing_requests_is_no_good_health(any_dsn: str) -> None:
    """The database hangs, and the writer has not been told of any error yet."""
    with Proxy(any_dsn) as proxy:
        settings = quick(durability="commit", commit_timeout_s=0.05)
        async with AuditLog(proxy.dsn, settings=settings) as audit:
            proxy.fall_silent()
            ticket = Ticket()
            audit.submit(*numbered([0]), ticket)
            assert not await audit.durable(ticket)
            health = audit.health()
            assert health.status is HealthStatus.DEGRADED
            assert health.remedy
            proxy.cut()
            proxy.speak()
            assert await audit.flush(20)
            assert audit.health().status is HealthStatus.OK


async def test_flush_that_is_cancelled_is_forgotten() -> None:
    """A health check with a time limit of its own, every second of an outage."""
    async with AuditLog(NOWHERE, settings=quick(drain_timeout_s=0.1)) as audit:
        audit.submit(*numbered([0]))
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(audit.flush(), 0.005)
        await trail.until(lambda: not audit._writer._flushes)


async def test_a_connection_cut_while_idle_leaves_nothing_in_the_spool(
    any_dsn: str, tmp_path: Path
) -> None:
    """The last rows before the end find out; the database takes them at the second attempt."""
    with Proxy(any_dsn) as proxy:
        async with AuditLog(proxy.dsn, settings=quick(spool_dir=str(tmp_path))) as audit:
            audit.submit(*numbered([0]))
            assert await audit.flush(20)
            proxy.cut()
            audit.submit(*numbered([1]))
    assert audit.stats().spooled == 0
    assert trail.stored_once(any_dsn, 2)


@pytest.mark.parametrize("program", ["asyncio.run(main())", "here()"])
def test_exit_without_a_close_tells_the_end_and_the_losses(
    any_dsn: str, tmp_path: Path, program: str
) -> None:
    """All rows are written by then; else the life would look as if it had been killed."""
    program = f"""
        audit = AuditLog(dsn, settings=Settings(batch_age_s=0.01, life_rows=True))

        async def main():
            audit.submit(record(0))
            assert await audit.flush(20)
            audit.lose(LookupError())

        def here():
            audit.submit(record(0))
            while not audit.stats().written:
                time.sleep(0.01)
            audit.lose(LookupError())

        {program}
        """
    run(program, any_dsn, str(tmp_path))
    told = trail.fetch(any_dsn, "SELECT event_type FROM logstore.logs WHERE user_id IS NULL")
    assert sorted(told) == ["audit.gap", "audit.start", "audit.stop"]


def test_no_file_descriptors_left_does_not_hold_up_the_loop(any_dsn: str, tmp_path: Path) -> None:
    """A segment that cannot be opened, with more than a batch in it."""
    program = """
        settings = Settings(
            durability="spool", spool_dir=folder, spool_fsync="never",
            batch_rows=5, batch_age_s=0.01, life_rows=False,
        )

        async def main():
            audit = AuditLog(dsn, settings=settings)
            assert audit.submit(record(0)) is Outcome.SPOOLED
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            taken = []
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for number in range(1, 20):
                assert audit.submit(record(number)) is Outcome.SPOOLED
            await asyncio.sleep(0.2)
            print(audit.health().reason)
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await audit.flush(20)
            await audit.aclose()

        asyncio.run(main())
        """
    assert "cannot be read" in run(program, any_dsn, str(tmp_path))
    assert trail.stored_once(any_dsn, 20)


def test_a_logging_handler_that_submits_holds_up_nobody(tmp_path: Path) -> None:
    """It has its own lock and wants the sink's, while a thread in there has a line to log."""
    program = """
        settings = Settings(
            durability="spool", spool_dir=folder, spool_max_bytes=1024 * 1024, drain_timeout_s=0.1
        )
        audit = AuditLog(dsn, settings=settings)
        large = LogRecord(message="x" * 30000)
        inside, full = threading.Event(), threading.Event()

        class Handler(logging.Handler):
            def emit(self, line):
                if line.name == "app":
                    inside.set()
                    assert full.wait(20)
                    time.sleep(0.1)
                    audit.submit(record(0))

        def is_full(line):
            if "spool_full" in line.getMessage():
                full.set()
            return True

        logging.getLogger().addHandler(Handler())
        logging.getLogger("auditlog").addFilter(is_full)
        other = threading.Thread(target=logging.getLogger("app").error, args=("x",), daemon=True)
        other.start()
        assert inside.wait(20)

        def fill():
            for _ in range(300):
                audit.submit(large)

        filler = threading.Thread(target=fill, daemon=True)
        filler.start()
        filler.join(10)
        other.join(10)
        print(filler.is_alive(), other.is_alive(), flush=True)
        os._exit(0)
        """
    assert run(program, NOWHERE, str(tmp_path)) == "False False\n"


def test_counters_add_up_at_the_end_of_the_stack(tmp_path: Path) -> None:
    """A record submitted from so deep within the application that there is no room for a call."""
    program = """
        audit = AuditLog(dsn, settings=Settings(max_queued_rows=3, drain_timeout_s=0.1))
        audit.submit(record(0))
        sys.setrecursionlimit(300)

        def deep(left):
            if left:
                deep(left - 1)
            else:
                audit.submit(record(0))

        def adds_up(stats):
            return stats.submitted == stats.written + stats.pending + stats.dropped

        for depth in range(200, 300):
            try:
                deep(depth)
            except RecursionError:
                pass
            assert adds_up(audit.stats()), depth
        sys.setrecursionlimit(1000)
        """
    run(program, NOWHERE, str(tmp_path))


def test_close_does_not_wait_for_another_loop_that_is_held_up(tmp_path: Path) -> None:
    """The writer runs there, and somebody blocks it with what should have been a thread."""
    program = """
        audit = AuditLog(dsn, settings=Settings(drain_timeout_s=0.2))
        blocked, over = threading.Event(), threading.Event()

        async def serve():
            audit.submit(record(0))
            await asyncio.sleep(0)
            blocked.set()
            over.wait(20)

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        assert blocked.wait(20)
        asyncio.run(asyncio.wait_for(audit.aclose(), 10))
        over.set()
        thread.join(20)
        stats = audit.stats()
        print(stats.submitted, stats.dropped, stats.pending)
        """
    assert run(program, NOWHERE, str(tmp_path)) == "1 1 0\n"
