"""The demo's processes: uvicorn, started and stopped so that nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TypeAlias

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

Output: TypeAlias = IO[bytes] | int
_Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RUNNING = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
_RPC_RUNNING = re.compile(r"gRPC on 127\.0\.0\.1:(\d+)")
# A proxy of the user's environment has no business on the loopback interface.
_LOOPBACK_ONLY: Mapping[str, str] = {"no_proxy": "*"}


class DemoError(RuntimeError):
    """The demo could not be carried through; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Server:
    """A uvicorn that answers."""

    port: int
    rpc_port: int
    """Where the application serves gRPC beside it."""
    log: Path


@contextmanager
def uvicorn(factory: str, log: Path, *, dsn: str, http: str = "auto") -> Iterator[Server]:
    """Serve an application from a process of its own; end it at the end, drained.

    Args:
        factory: `module:function` that makes the application.
        log: The file that takes the server's output.
        dsn: Its `AUDITLOG_DSN`.
        http: uvicorn's `--http`: auto, httptools or h11.

    Raises:
        DemoError: the server did not start; with the end of its output.
    """
    command = f"uvicorn {factory} --factory --host 127.0.0.1 --port 0 --workers 1 --http {http}"
    command += " --no-access-log --no-use-colors --timeout-graceful-shutdown 10"
    with log.open("wb") as output, child(command, stdout=output, AUDITLOG_DSN=dsn) as process:
        port, rpc_port = _ports(process, log)
        yield Server(port, rpc_port, log)


@contextmanager
def child(
    module_and_options: str, *, stdout: Output, stderr: Output = subprocess.STDOUT, **env: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run `python -m ...` in a session of its own, so that Ctrl-C reaches only us; end it after."""
    process: subprocess.Popen[str] | None = None
    try:
        with uninterrupted():
            process = subprocess.Popen(  # noqa: S603  # our own modules
                [sys.executable, "-m", *module_and_options.split()],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                env={**os.environ, **_LOOPBACK_ONLY, **env},
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            _stop(process)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything cleaned up."""
    with _handled(_interrupt):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put an interruption off until the block is done; for steps that must be whole."""
    pending: list[int] = []
    with _handled(lambda number, _frame: pending.append(number)):
        try:
            yield
        finally:
            if pending:
                raise KeyboardInterrupt


def tail(log: Path, lines: int = 15) -> str:
    """Return the end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _ports(process: "subprocess.Popen[str]", log: Path) -> tuple[int, int]:
    """Wait for uvicorn to say where it listens, which it does last."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        http, rpc = _RUNNING.search(text), _RPC_RUNNING.search(text)
        if http and rpc:
            return int(http[1]), int(rpc[1])
        time.sleep(0.02)
    raise DemoError(f"the demo's server does not start; its last words:\n{tail(log)}")


def _stop(process: "subprocess.Popen[str]") -> None:
    with _handled(signal.SIG_IGN):
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    # What was ignored before (nohup, a script's background) stays ignored.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
