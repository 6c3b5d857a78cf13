"""Drives the workers of `quota_workers.py`, and keeps what they said, killed or not."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from quota_workers import Scene

PROGRAM = Path(__file__).with_name("quota_workers.py")
TIMEOUT_S = 30.0


class Crowd:
    """Workers that run, and what each of them has said by now."""

    def __init__(self, process: "subprocess.Popen[str]", scene: Scene) -> None:
        self.granted: Counter[int] = Counter()
        """Units, by process."""
        self.refused_at: list[int] = []
        """What was used when somebody was refused."""
        self.told: Counter[str] = Counter()
        """Callbacks, by `percent:crossing_id`."""
        self.ready: list[int] = []
        self.idle: list[int] = []
        """Those that have done their spendings, or were refused."""
        self.done: set[int] = set()
        self.killed: set[int] = set()
        self._process = process
        self._scene = scene

    @property
    def total(self) -> int:
        """Units that all of them were granted."""
        return self.granted.total()

    def begin(self) -> None:
        """Let them spend, once all of them are there."""
        self.listen(lambda: len(self.ready) == self._scene.workers)
        assert self._process.stdin
        self._process.stdin.write("." * self._scene.workers)
        self._process.stdin.flush()

    def until_idle(self) -> None:
        """Wait until none of them spends any more."""
        self.listen(lambda: len(self.idle) == self._scene.workers)

    def listen(self, enough: Callable[[], bool]) -> None:
        """Take in what they say until that is enough."""
        assert self._process.stdout
        while not enough():
            line = self._process.stdout.readline()
            assert line, "they have ended, or it took them too long"
            self._hear(*line.split())

    def kill(self, pid: int) -> None:
        """Without a warning."""
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)

    def finish(self) -> None:
        """Wait until all of them have ended as they should."""
        assert self._process.stdin
        self._process.stdin.close()
        self.listen(lambda: self.done | self.killed == set(self.ready))
        assert self._process.wait(TIMEOUT_S) == 0

    def _hear(self, pid: str, word: str, detail: str) -> None:
        match word:
            case "granted":
                self.granted[int(pid)] += int(detail)
            case "refused":
                self.refused_at.append(int(detail))
            case "told":
                self.told[detail] += 1
            case "ready":
                self.ready.append(int(pid))
            case "idle":
                self.idle.append(int(pid))
            case "killed":
                self.killed.add(int(pid))
            case "done":
                self.done.add(int(pid))


@contextmanager
def crowd(scene: Scene) -> Iterator[Crowd]:
    """Start workers, which wait for `begin`; none outlives the context."""
    command = [sys.executable, "-W", "error", str(PROGRAM), json.dumps(asdict(scene))]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # It unblocks whoever listens to workers that say nothing any more.
    too_long = threading.Timer(TIMEOUT_S, os.killpg, (process.pid, signal.SIGKILL))
    too_long.start()
    with process:
        try:
            yield Crowd(process, scene)
        finally:
            too_long.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def spend_all(scene: Scene) -> Crowd:
    """Let workers spend until they are refused, and return what they said."""
    with crowd(scene) as workers:
        workers.begin()
        workers.finish()
    return workers
