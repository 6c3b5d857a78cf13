"""A client in a process of its own, for gRPC: its threads do not survive that a process forks.

The same from outside as `fault_client.Client`; what it does is read from its journal.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fault_client import WAIT_S, Client
from fault_journal import ANSWERED, Journal


class RemoteClient:
    """A context: traffic flows in it."""

    def __init__(
        self, port: int, journal: Path, run: str, *, kind: str, rate: float, seed: int
    ) -> None:
        self.journal = Journal(journal)
        arguments = (port, journal, run, kind, rate, seed)
        self._command = [sys.executable, __file__, *map(str, arguments)]

    def __enter__(self) -> Self:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self.journal.close()

    def stop(self) -> None:
        """Let the requests under way end, and return when they have."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(WAIT_S) == 0, "the client failed"

    def flow(self, answers: int = 20) -> None:
        """Return when so many answers more have been read: requests do not stand still."""
        goal = self._answered() + answers
        deadline = time.monotonic() + WAIT_S
        while self._answered() < goal:
            assert self._process.poll() is None, "the client ended by itself"
            assert time.monotonic() < deadline, "requests stand still"
            time.sleep(0.01)

    def _answered(self) -> int:
        return self.journal.path.read_bytes().count(f"{ANSWERED}\t".encode())


def main() -> None:
    """Ask until stdin ends."""
    port, journal, run, kind, rate, seed = sys.argv[1:]
    settings = {"kind": kind, "rate": float(rate), "seed": int(seed)}
    with Client(int(port), Path(journal), run, **settings):  # type: ignore[arg-type]
        sys.stdin.read()


if __name__ == "__main__":
    main()
