"""A server of a durability benchmark in a process of its own, from its start to its last row.

The server is `serve.py`, whose log takes its settings from the environment, or
`durability_inserting.py`. In the end every request must have its row, and none may be lost.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg

from auditlog.settings import PREFIX
from auditlog.tables import LOGS
from benchmarks.serving import STORED_TIMEOUT_S

AUDITED, BARE, INSERTING = ("serve", "audited"), ("serve", "bare"), ("durability_inserting",)
_ROWS = f"""
    SELECT count(*) FROM {LOGS.qualified_name}
    WHERE protocol = 1 AND (metadata ->> 'audit.stage' IS NOT DISTINCT FROM 'received') = %s
"""  # noqa: S608  # a constant


@dataclass
class Served:
    """A server that runs, and what became of it."""

    process: "subprocess.Popen[str]"
    dsn: str
    """The database in which its rows are looked for."""
    is_recording: bool
    sent: int = 0
    stats: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def port(self) -> int:
        """Where it listens; waits until it does, so ask when all have been started."""
        return int(self._line())

    def cpu_seconds(self) -> float:
        """Ask for the CPU time of its process."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def load(self, connections: int, seconds: float, rate: float | None = None) -> dict[str, float]:
        """Send requests, wait until their rows are there, and return the client's figures."""
        arguments = [self.port, connections, seconds, *([rate] if rate else [])]
        command = [sys.executable, "-m", "benchmarks.load", *map(str, arguments)]
        before = self.cpu_seconds()
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        figures: dict[str, float] = json.loads(output)
        self.sent += int(figures["sent"])
        self.wait_until_stored()
        figures["server_us"] = (self.cpu_seconds() - before) / figures["sent"] * 1e6
        return figures

    def wait_until_stored(self, timeout_s: float = STORED_TIMEOUT_S) -> None:
        """Leave the next contestant a machine that has nothing to do."""
        deadline = time.monotonic() + timeout_s
        while self.is_recording and (stored := self.stored()) != self.sent:
            assert time.monotonic() < deadline, f"{self.sent} sent, {stored} stored"
            time.sleep(0.1)

    def stored(self) -> int:
        """Count the requests that were recorded to their end."""
        return self._rows(are_received=False)

    def received(self) -> int:
        """Count the requests that were recorded before they were handled."""
        return self._rows(are_received=True)

    def _rows(self, *, are_received: bool) -> int:
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(_ROWS.encode(), (are_received,)).fetchone()
        assert row
        return int(row[0])

    def stop(self) -> None:
        """Let it drain and end, and keep what its log counted."""
        assert self.process.stdin
        self.process.stdin.close()
        self.stats = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


@contextmanager
def served(
    which: tuple[str, ...], dsn: str, *, through: str | None = None, **settings: object
) -> Iterator[Served]:
    """Start a server.

    Args:
        which: `AUDITED`, `BARE` or `INSERTING`.
        dsn: A database of its own.
        through: Another way to the same database, for the server alone.
        settings: Of its log.
    """
    module, *mode = which
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment({"dsn": through or dsn, **settings}),
    )
    with process:
        try:
            yield Served(process, dsn, is_recording=which != BARE)
        finally:
            process.kill()


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    ours = {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, **ours}
