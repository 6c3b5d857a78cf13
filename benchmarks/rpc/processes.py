"""The processes of a served benchmark: a server for each contestant, and one client for all."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Load:
    """What the client does in one turn."""

    method: str
    clients: int
    calls: int
    messages: int = 0


@dataclass(frozen=True)
class Cost:
    """What one turn took."""

    process_us: float
    """CPU time of the server's process, a call."""
    thread_us: float
    """CPU time of its main thread, a call."""
    per_second: float


@dataclass
class Served:
    """A server that runs, and what became of it."""

    process: "subprocess.Popen[str]"
    client: "subprocess.Popen[str]"
    sent: int = 0
    seen: int = 0
    stats: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def port(self) -> int:
        """Where it listens; waits until it does, so ask when all have been started."""
        return int(_line(self.process))

    def turn(self, load: Load) -> Cost:
        """Let the client do its work, and read the server's clocks before and after."""
        port = self.port
        before = _ask(self.process, "")["after"]
        did = _ask(self.client, json.dumps({"port": port, **vars(load)}))
        after = _ask(self.process, "")["before"]
        self.sent += did["sent"]
        process, thread = (
            (after[clock] - before[clock]) / load.calls * 1e6 for clock in ("process", "thread")
        )
        return Cost(process, thread, load.calls / did["seconds"])


@contextmanager
def served(kind: str, names: list[str], dsn: str | None = None) -> Iterator[dict[str, Served]]:
    """Start a server for each contestant; in the end they have drained, and told what they saw.

    Args:
        kind: Of server.
        names: Of the contestants.
        dsn: Where our log writes to; without one it swallows what it would have shipped.
    """
    environment = {key: value for key, value in os.environ.items() if key != "AUDITLOG_DSN"}
    if dsn is not None:
        environment["AUDITLOG_DSN"] = dsn
    with ExitStack() as stack:
        client = stack.enter_context(_process("benchmarks.rpc.load", env=environment))
        servers = {
            name: Served(
                stack.enter_context(_process("benchmarks.rpc.serve", kind, name, env=environment)),
                client,
            )
            for name in names
        }
        yield servers
        for each in servers.values():
            assert each.process.stdin
            each.process.stdin.close()
            figures = json.loads(_line(each.process))
            each.seen, each.stats = figures["seen"], figures["stats"]


@contextmanager
def _process(
    module: str, *arguments: str, env: dict[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(process: "subprocess.Popen[str]", line: str) -> Any:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return json.loads(_line(process))


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline()
