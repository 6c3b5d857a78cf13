"""A script that records events, killed again and again: its own journal against the trail."""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fault_client import until
from fault_journal import ANSWERED, read_journal
from fault_judge import judge
from fault_postgres import Postgres
from fault_process import HERE, Service
from fault_scene import Result, environment_of
from fault_trail import read_trail


def killed_script(postgres: Postgres, mode: str, seed: int, times: int = 3) -> Result:
    """Kill it so often, each time after some more events; what is left ships with the next one."""
    started = time.monotonic()
    chance = random.Random(seed)  # noqa: S311  # a scenario, not a secret
    kills = []
    with (
        tempfile.TemporaryDirectory(prefix="al-fault-", ignore_cleanup_errors=True) as name,
        postgres.database() as database,
    ):
        folder = Path(name)
        environment = environment_of(mode, database.service_dsn, folder)
        journal = folder / "journal"
        for number in range(times):
            _run_until_killed(environment, journal, f"s{seed}{number}", chance.randint(50, 400))
            kills.append(time.time())
        with Service("asgi", folder, environment) as service:
            until(lambda: not any(folder.rglob("*.segment")), "everything is shipped")
            said = service.said()
        trail = read_trail(database.dsn, folder / "spool")
        verdict = judge(read_journal(journal), trail, mode, kills=kills)
    seconds = time.monotonic() - started
    return Result("script: kill -9", mode, seed, verdict, seconds, 0.0, said)


def _run_until_killed(environment: dict[str, str], journal: Path, run: str, events: int) -> None:
    program = str(HERE / "fault_service.py")
    process = subprocess.Popen(
        [sys.executable, program, "script", str(journal), run],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        until(lambda: _answered(journal, run) >= events or process.poll() is not None, "events")
        assert process.poll() is None, "the script ended by itself"
    finally:
        process.kill()
        process.wait()


def _answered(journal: Path, run: str) -> int:
    return journal.read_text().count(f"{ANSWERED}\t{run}-") if journal.exists() else 0
