"""The service's process: started on a port that stays, killed at any moment, started again.

Each process leads a group of its own, so that a kill takes its workers with it, and nothing is
left behind.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from fault_client import until

HERE = Path(__file__).parent
WAIT_S = 60.0
_SHUTDOWN_LOST = re.compile(r"auditlog\.shutdown_lost: (\d+) rows")

UVICORN = "-m uvicorn fault_service:application --factory --port {port} --no-access-log"
COMMANDS = {
    "asgi": UVICORN + " --timeout-graceful-shutdown 5",
    "workers": UVICORN + " --workers 2 --timeout-graceful-shutdown 5",
    "reload": UVICORN + " --reload --reload-dir {folder} --timeout-graceful-shutdown 5",
    "gunicorn": "-m gunicorn fault_service:application() --bind 127.0.0.1:{port} --workers 2"
    " --worker-class uvicorn.workers.UvicornWorker --graceful-timeout 10 --log-level warning"
    " --no-control-socket",
    "grpc_aio": str(HERE / "fault_service.py") + " grpc_aio {port}",
    "grpc_sync": str(HERE / "fault_service.py") + " grpc_sync {port}",
}


@dataclass
class Service:
    """A context: at its end nothing of the service runs any more."""

    kind: str
    folder: Path
    environment: Mapping[str, str]
    options: str = ""
    """More for the command line."""
    clock_shift: str = ""
    """A file that holds by how many seconds the service's clock is wrong."""
    port: int = 0
    kills: list[float] = field(default_factory=list)
    """When it was killed, in seconds since 1970."""
    _process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        if not self.port:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                self.port = int(listener.getsockname()[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """What the service's processes have said."""
        return self.folder / f"service-{self.port}.log"

    @property
    def pid(self) -> int:
        """Of the leading process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        command = COMMANDS[self.kind].format(port=self.port, folder=self.folder)
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        if self.clock_shift:
            paths.insert(0, str(HERE / "clock"))
        environment = {
            **os.environ,
            **self.environment,
            "PYTHONPATH": os.pathsep.join(paths),
            "FAULT_CLOCK_SHIFT": self.clock_shift,
        }
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command.split(), *self.options.split()],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.await_ready()

    def ship(self) -> None:
        """Write what is left in the spool by the command that is there for that."""
        done = self.command("spool", "ship")
        # 1: with damage, which it tells, as the trail does.
        assert done.returncode in {0, 1}, done.stdout + done.stderr

    def command(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the package's with the service's settings."""
        return subprocess.run(
            [sys.executable, "-m", "auditlog", *arguments],
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def await_ready(self) -> None:
        """Return when it takes connections."""
        deadline = time.monotonic() + WAIT_S
        while not self._listens():
            assert self._process is not None
            assert self._process.poll() is None, f"the service ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"the service does not start:\n{self.said()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it, and its workers, as kill -9 does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.kills.append(time.time())
            self._process.wait(WAIT_S)
            self._process = None

    def kill_worker(self, chance: random.Random) -> None:
        """End one of its workers as kill -9 does; the leader starts another."""
        workers = self.workers()
        victim = chance.choice(workers)
        victim.kill()
        self.kills.append(time.time())
        until(lambda: len(set(self.workers()) - {victim}) >= len(workers), "a new worker")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader."""
        os.kill(self.pid, number)

    def workers(self) -> list[psutil.Process]:
        """Return the leader's workers: what it has started, but for the tracker of its locks."""
        return [child for child in psutil.Process(self.pid).children() if _is_worker(child)]

    def terminate(self) -> None:
        """Send SIGTERM, and come back at once."""
        assert self._process is not None
        self._process.terminate()

    def stop(self, within_s: float = WAIT_S) -> None:
        """Send SIGTERM, and wait until it has drained; may be repeated."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not stop:\n{self.said()}") from None
        # Workers whose leader has gone first.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def said(self, lines: int = 30) -> str:
        """Return the end of what it wrote on stdout and stderr."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def told(self) -> dict[str, int]:
        """Return the losses that its processes could tell in nothing but a log line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lost = sum(map(int, _SHUTDOWN_LOST.findall(text)))
        return {"shutdown": lost} if lost else {}

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False
