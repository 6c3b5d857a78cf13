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
from raw_client import Address, connect

COMMANDS = {
    "uvicorn-h11": "uvicorn {} --http h11 --ws wsproto --no-access-log"
    " --timeout-graceful-shutdown 1 --h11-max-incomplete-event-size 262144",
    "uvicorn-httptools": "uvicorn {} --http httptools --ws auto --no-access-log"
    " --timeout-graceful-shutdown 1",
    "hypercorn": "hypercorn {} --workers 0 --graceful-timeout 1 --keep-alive 1",
    "granian": "granian {} --interface asgi --no-access-log --workers-kill-timeout 3",
}
TCP, UNIX = "--host 127.0.0.1 --port {}", "--uds {}"
HYPERCORN_TCP, HYPERCORN_UNIX = "--bind 127.0.0.1:{}", "--bind unix:{}"
SERVERS = tuple(COMMANDS)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    address: Address
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Ask it to stop, as an operator does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it, and the processes that it started, as the kernel does when memory is short."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serving(
    name: str,
    dsn: str,
    log: Path,
    *,
    unix_socket: str = "",
    app: str = "served:app",
    **environ: str,
) -> Iterator[Running]:
    """Run a server for the length of the context."""
    address = unix_socket or _free_port()
    unix, tcp = (HYPERCORN_UNIX, HYPERCORN_TCP) if name == "hypercorn" else (UNIX, TCP)
    command = f"{COMMANDS[name].format(app)} {(unix if unix_socket else tcp).format(address)}"
    environment = {
        **os.environ,
        "AUDITLOG_DSN": dsn,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONHASHSEED": "0",  # Starlette's Allow header is made from a set
        **environ,
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_until_up(name, process, address, log)
            yield Running(name, address, process)
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)
                process.kill()


def _wait_until_up(
    name: str, process: "subprocess.Popen[bytes]", address: Address, log: Path
) -> None:
    """Servers say in different words that they are up; a connection says it for all."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            connect(address).close()
            return
        time.sleep(0.02)
    pytest.fail(f"{name} does not start:\n{log.read_text(errors='replace')}", pytrace=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
