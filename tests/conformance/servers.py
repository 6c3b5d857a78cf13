"""The four servers, each a process of its own on the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = {
    "uvicorn-h11": "uvicorn {app} --host 127.0.0.1 --port {port} --http h11 --ws wsproto"
    " --no-access-log --timeout-graceful-shutdown 1 --h11-max-incomplete-event-size 262144",
    "uvicorn-httptools": "uvicorn {app} --host 127.0.0.1 --port {port} --http httptools"
    " --ws websockets-sansio --no-access-log --timeout-graceful-shutdown 1",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port} --workers 0 --graceful-timeout 1",
    "granian": "granian {app} --interface asgi --host 127.0.0.1 --port {port} --no-access-log"
    " --workers-kill-timeout 3",
}
SERVERS = tuple(COMMANDS)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Ask it to stop, as an operator does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serving(name: str, dsn: str, log: Path) -> Iterator[Running]:
    """Run a server for the length of the context."""
    port = _free_port()
    command = COMMANDS[name].format(app="served:app", port=port)
    environment = {**os.environ, "AUDITLOG_DSN": dsn, "PYTHONPATH": str(Path(__file__).parent)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        try:
            _wait_until_up(name, process, port, log)
            yield Running(name, port, process)
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)
                process.kill()


def _wait_until_up(name: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Servers say in different words that they are up; a connection says it for all."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    pytest.fail(f"{name} does not start:\n{log.read_text(errors='replace')}", pytrace=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
