"""The lives that processes lead, on a spool: loops that come and go, forks, exits, two logs.

Each scenario is a small program of its own, run with warnings as errors; what it leaves in the
spool is shipped by the next process. Every row is stored once.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fault_postgres import Database, Postgres

PREAMBLE = """
import asyncio, os, sys, threading, time
import psycopg
from auditlog import AuditLog, LogRecord, Settings

dsn, spool, owner = sys.argv[1:4]
quick = dict(batch_age_s=0.02, retry_min_s=0.001, retry_max_s=0.05, drain_timeout_s=10)

def log(**changes):
    return AuditLog(dsn, settings=Settings(durability="spool", spool_dir=spool, **quick | changes))

def submit(audit, *numbers):
    for number in numbers:
        audit.submit(LogRecord(user_id=f"{number:03}"))

def empty():
    return not any(name.endswith(".segment") for _, _, names in os.walk(spool) for name in names)

async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")
"""
SHIP = """
async def main():
    async with log():
        await until(empty)
asyncio.run(main())
"""

LIVES = {
    "asyncio.run several times": """
        audit = log()
        async def work(*numbers):
            submit(audit, *numbers)
            await asyncio.sleep(0)
        for start in range(0, 60, 10):
            asyncio.run(work(*range(start, start + 10)))
        asyncio.run(audit.aclose())
        """,
    "loops that are closed in mid-COPY": """
        audit = log()
        async def work(*numbers):
            submit(audit, *numbers)
            await asyncio.sleep(0.05)
        with psycopg.connect(owner) as other:
            other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
            asyncio.run(work(*range(20)))
            asyncio.run(work(*range(20, 40)))
        asyncio.run(work(*range(40, 60)))
        audit.close()
        """,
    "a task that is cancelled in mid-COPY": """
        async def main():
            async with log() as audit:
                for start in range(0, 60, 20):
                    with psycopg.connect(owner) as other:
                        other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
                        submit(audit, *range(start, start + 20))
                        await asyncio.sleep(0.1)
                        for task in asyncio.all_tasks() - {asyncio.current_task()}:
                            task.cancel()
                        await asyncio.sleep(0.1)
                    submit(audit)
        asyncio.run(main())
        """,
    "two logs on one spool": """
        async def main():
            async with log() as one, log() as two:
                for number in range(0, 60, 2):
                    submit(one, number)
                    submit(two, number + 1)
                    await asyncio.sleep(0.001)
        asyncio.run(main())
        """,
    "submitted after the close, closed twice": """
        async def main():
            audit = log()
            await audit.start()
            submit(audit, *range(20))
            await audit.aclose()
            submit(audit, *range(20, 40))
            await audit.aclose()
            await audit.aclose()
            submit(audit, *range(40, 60))
        asyncio.run(main())
        """,
    "never closed": "submit(log(), *range(60))",
    "ended without an exit": """
        submit(log(batch_age_s=60), *range(60))
        os._exit(0)
        """,
    "forked with rows under way": """
        audit = log(batch_age_s=60)
        submit(audit, *range(20))
        children = []
        for start in (20, 30, 40):
            pid = os.fork()
            if pid == 0:
                submit(audit, *range(start, start + 10))
                if start == 20:
                    os._exit(0)
                sys.exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        submit(audit, *range(50, 60))
        """,
    "threads": """
        with log() as audit:
            threads = [
                threading.Thread(target=submit, args=(audit, *range(start, start + 10)))
                for start in range(0, 60, 10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """,
}


@pytest.mark.parametrize("life", LIVES)
def test_every_row_of_a_life_is_stored_once(life: str, postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as database:
        run(database, tmp_path, LIVES[life])
        if any(tmp_path.rglob("*.segment")):
            run(database, tmp_path, SHIP)
        assert users(database) == [f"{number:03}" for number in range(60)]


def run(database: Database, spool: Path, program: str) -> None:
    text = PREAMBLE + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, database.service_dsn, spool, database.dsn],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def users(database: Database) -> list[str]:
    rows = database.fetch("SELECT user_id FROM logstore.logs WHERE event_type IS NULL ORDER BY 1")
    return [user for (user,) in rows]
