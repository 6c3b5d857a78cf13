"""Processes that fork, exit and forget to close: their rows are stored once all the same.

Each scenario is a small program of its own, run with warnings as errors.
"""

import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

import trail
from auditlog.postgres import embedded
from proxies import Proxy

PYTHON = sys.executable
PREAMBLE = """
import asyncio, os, sys, threading, time
from auditlog import AuditLog, LogRecord, Settings

dsn = sys.argv[1]
settings = Settings(batch_age_s=60, retry_min_s=0.001, retry_max_s=0.05, drain_timeout_s=10)
audit = AuditLog(dsn, settings=settings)

def submit(*numbers):
    for number in numbers:
        audit.submit(LogRecord(user_id=str(number)))
"""


def run(dsn: str, program: str, *, code: int = 0) -> str:
    """Run a program; return what it says on stderr."""
    done = subprocess.run(
        [PYTHON, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program), dsn],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


EXITS = {
    "no loop": "submit(1, 2, 3)",
    "no loop, after a while": """
        submit(1)
        asyncio.run(audit.flush())
        submit(2, 3)
        """,
    "a thread is writing already": """
        with AuditLog(dsn, settings=settings) as other:
            pass
        submit(1)
        time.sleep(0.2)
        submit(2, 3)
        """,
    "a loop that has ended": """
        async def main():
            submit(1, 2, 3)
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
    "a loop that is not run any more": """
        async def main():
            submit(1, 2, 3)
            await asyncio.sleep(0)
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)  # the loop is not closed
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(main())
        """,
    "a log that nobody holds any more": """
        async def main():
            log = AuditLog(dsn, settings=settings)
            for number in (1, 2, 3):
                log.submit(LogRecord(user_id=str(number)))
            await asyncio.sleep(0)
        asyncio.run(main())
        import gc
        gc.collect()
        """,
    "sys.exit in a thread pool's thread": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(submit, (1, 2, 3)))
        """,
    "records of an exit handler": """
        import atexit
        atexit.register(submit, 3)
        submit(1, 2)
        """,
}


@pytest.mark.parametrize("program", EXITS.values(), ids=EXITS)
@pytest.mark.parametrize("connection", ["socket", "name"])
def test_exit_without_a_close_drains(any_dsn: str, program: str, connection: str) -> None:
    """Over a Unix socket, and over a host name that has to be looked up when the pools are gone."""
    with Proxy(any_dsn) as proxy:
        dsn = any_dsn if connection == "socket" else make_conninfo(proxy.dsn, host="localhost")
        assert run(dsn, program) == ""
    assert trail.users(any_dsn) == ["1", "2", "3"]
    assert trail.ledger_agrees(any_dsn)


def test_unhandled_exception_drains(any_dsn: str) -> None:
    """The traceback is the application's, the rows are stored."""
    stderr = run(any_dsn, "submit(1, 2, 3)\nraise ValueError('the end')", code=1)
    assert stderr.strip().endswith("ValueError: the end")
    assert trail.users(any_dsn) == ["1", "2", "3"]


def test_sigterm_that_becomes_an_exit_drains(any_dsn: str) -> None:
    """As servers and supervisors do it; the handler itself leaves a record too."""
    program = """
        import signal

        def stop(*_):
            submit(3)
            sys.exit(0)

        signal.signal(signal.SIGTERM, stop)
        submit(1, 2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """
    assert run(any_dsn, program) == ""
    assert trail.users(any_dsn) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "program",
    ["submit(1)", "async def main(): submit(1)\nasyncio.run(main())"],
    ids=["no loop", "a loop that has ended"],
)
def test_exit_with_the_database_gone_ends_in_time(program: str) -> None:
    """A little over `drain_timeout_s`, with a line that says what was lost."""
    started = time.monotonic()
    stderr = run(
        "host=127.0.0.1 port=1",
        "settings = Settings(drain_timeout_s=0.5)\n"
        "audit = AuditLog(dsn, settings=settings)\n" + textwrap.dedent(program),
    )
    assert time.monotonic() - started < 6
    assert "auditlog.shutdown_lost: 1 rows" in stderr
    assert "Traceback" not in stderr


def test_exit_with_a_silent_database_ends_in_time(any_dsn: str) -> None:
    """The connection is there, the server says nothing."""
    with Proxy(any_dsn) as proxy:
        program = """
            audit = AuditLog(dsn, settings=Settings(drain_timeout_s=0.5, batch_age_s=60))
            submit(1)
            print("ready", flush=True)
            sys.stdin.readline()
            submit(2)
            """
        with subprocess.Popen(
            [PYTHON, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program), proxy.dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            proxy.fall_silent()
            started = time.monotonic()
            _, stderr = process.communicate("\n", timeout=30)
            assert time.monotonic() - started < 6
    assert process.returncode == 0
    assert "auditlog.shutdown_lost: 2 rows" in stderr


def test_embedded_server_is_drained_before_it_stops() -> None:
    """The exit handlers of two packages, in the right order."""
    with tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "data")
        assert run(f"embedded:{path}", "submit(1)\nasyncio.run(audit.flush())\nsubmit(2, 3)") == ""
        assert run(f"embedded:{path}", "submit(4)") == ""
        with embedded.start(path) as server:
            assert trail.users(server.dsn) == ["1", "2", "3", "4"]


FORKS = {
    "before anything was written": """
        submit("parent 1")
        """,
    "with a connection open": """
        submit("parent 1")
        asyncio.run(audit.flush())
        """,
    "with a thread writing": """
        audit.__enter__()
        submit("parent 1")
        """,
}


@pytest.mark.parametrize("before", FORKS.values(), ids=FORKS)
def test_child_of_a_fork_has_a_log_of_its_own(any_dsn: str, before: str) -> None:
    """It keeps its hands off the parent's rows and connection, and so does the parent."""
    program = textwrap.dedent(before) + textwrap.dedent(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for threads
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                assert audit.stats().submitted == 0
                submit(f"child {child}")
                sys.exit(0)
            children.append(pid)
        submit("parent 2")
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        submit("parent 3")
        """
    )
    assert run(any_dsn, program) == ""
    expected = ["child 0", "child 1", "child 2", "parent 1", "parent 2", "parent 3"]
    assert trail.users(any_dsn) == expected
    assert trail.ledger_agrees(any_dsn)


def test_fork_in_a_running_loop(any_dsn: str) -> None:
    """The loop belongs to the parent; the child makes its own."""
    program = """
        async def main():
            async with audit:
                submit("parent 1")
                pid = os.fork()
                if pid == 0:
                    submit("child 1")
                    audit.close()
                    os._exit(0)
                submit("parent 2")
                assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        asyncio.run(main())
        """
    assert run(any_dsn, program) == ""
    assert trail.users(any_dsn) == ["child 1", "parent 1", "parent 2"]


def test_identities_of_children_differ(any_dsn: str) -> None:
    """The generator of the parent is not repeated in each child."""
    program = """
        submit("parent")
        pids = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                submit(*[f"child {child} {number}" for number in range(500)])
                sys.exit(0)
            pids.append(pid)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        """
    assert run(any_dsn, program) == ""
    assert len(trail.users(any_dsn)) == 2001


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(any_dsn: str, method: str, tmp_path: Path) -> None:
    """Its children end without exit handlers, so they close their log, as the docs say."""
    program = tmp_path / "program.py"
    program.write_text(
        PREAMBLE
        + textwrap.dedent(
            f"""
            import multiprocessing

            def work(number):
                submit(f"child {{number}}")
                audit.close()

            if __name__ == "__main__":
                submit("parent")
                context = multiprocessing.get_context({method!r})
                processes = [context.Process(target=work, args=(n,)) for n in range(2)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                    assert process.exitcode == 0
            """
        )
    )
    done = subprocess.run(
        [PYTHON, program, any_dsn], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert trail.users(any_dsn) == ["child 0", "child 1", "parent"]


def test_killed_process_loses_only_what_was_in_memory(any_dsn: str) -> None:
    """SIGKILL: what was flushed is stored, nothing is stored in part, and nothing twice."""
    program = """
        import signal
        submit(*range(1000))
        asyncio.run(audit.flush())
        submit(*range(1000, 2000))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    run(any_dsn, program, code=-9)
    assert len(trail.users(any_dsn)) == 1000
    assert trail.ledger_agrees(any_dsn)
