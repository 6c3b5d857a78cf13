"""The client process and the stopwatch: run, listened to, and what they said."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditlog.demo.compare import Sent
from auditlog.demo.processes import DemoError, Server, child, tail
from auditlog.records import Protocol


class Listener:
    """Hears how far it is; a subclass tells somebody."""

    def step(self, text: str) -> None:
        """Hear what is done now."""

    def sent(self, count: int) -> None:
        """Hear how many requests were sent by now, without the timed ones."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that one plain read took, on the server with the trail and on the one without.

    The reads alternate between the two, which carry the same other traffic meanwhile.
    """

    audited: list[float]
    bare: list[float]

    def percentiles(self, share: float) -> tuple[float, float]:
        """Return a percentile of both, with the trail first; `share` is between 0 and 1."""
        return _percentile(self.audited, share), _percentile(self.bare, share)


class Traffic:
    """Listens to the client process and the stopwatch, and keeps what they say."""

    def __init__(self, listener: Listener, log: Path) -> None:
        self.sent: list[Sent] = []
        self.failed: list[str] = []
        self.latency = Latency([], [])
        self.elapsed_s = 0.0
        self._listener = listener
        self._log = log

    def drive(
        self, audited: Server, bare: Server, run: str, *, seconds: float, rate: float
    ) -> None:
        """Run both processes to their end, against two servers. Blocks.

        Raises:
            DemoError: one of them failed.
        """
        common = f"--run {run} --seconds {seconds}"
        timing = f"auditlog.demo.timing {common} --audited {audited.port} --bare {bare.port}"
        traffic = (
            f"auditlog.demo.traffic {common} --rate {rate}"
            f" --audited {audited.port} {audited.rpc_port} --bare {bare.port} {bare.rpc_port}"
        )
        with (
            self._log.open("wb") as errors,
            child(timing, stdout=subprocess.PIPE, stderr=errors) as stopwatch,
            child(traffic, stdout=subprocess.PIPE, stderr=errors) as client,
        ):
            self._take_requests(client)
            self._take_timing(stopwatch)

    def _take_requests(self, client: "subprocess.Popen[str]") -> None:
        started: float | None = None
        for line in client.stdout or ():
            now = time.monotonic()
            started = now if started is None else started
            self.elapsed_s = now - started
            self._take(json.loads(line))
        self._check(client)

    def _take(self, line: dict[str, Any]) -> None:
        if "failed" in line:
            self.failed.append(line["failed"])
            return
        due = tuple(map(Protocol, line["due"]))
        self.sent.append(Sent(line["id"], line["scenario"], line["status"], due))
        self._listener.sent(len(self.sent))

    def _take_timing(self, stopwatch: "subprocess.Popen[str]") -> None:
        text, _ = stopwatch.communicate()
        self._check(stopwatch)
        timing = json.loads(text)
        self.latency = Latency(**timing["latency"])
        self.sent += [Sent(key, "timed read", status) for key, status in timing["reads"]]

    def _check(self, process: "subprocess.Popen[str]") -> None:
        if process.wait() != 0:
            raise DemoError(f"a client process failed; its last words:\n{tail(self._log)}")


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that is not exceeded by that share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
