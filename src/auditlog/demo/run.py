"""The demo from end to end: PostgreSQL, two servers, the traffic, and the reckoning.

`run` yields once everything is counted, with the servers still up, and cleans up after that: no
process and no temporary folder outlives it, however it ends. Blocking; for the main thread, because
it takes over the signals that would end it.
"""

import http.client
import json
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from auditlog.demo.compare import Comparison, Sent, compare, read_rows
from auditlog.demo.processes import (
    DemoError,
    Server,
    child,
    interruptible,
    tail,
    uninterrupted,
    uvicorn,
)
from auditlog.demo.scenarios import SCENARIOS
from auditlog.demo.traffic import TIMED_READ
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate

AUDITED = "auditlog.demo.app:audited"
BARE = "auditlog.demo.app:bare"
SETTLE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to do."""

    seconds: float = 8.0
    rate: float = 300.0
    """Requests per second, beside the timed ones."""
    path: Path | None = None
    """Where PostgreSQL keeps its data; a temporary folder without one."""
    keep: bool = False
    """Leave the temporary folder in place."""
    http: str = "auto"
    """uvicorn's parser: auto, httptools or h11."""

    @property
    def expected(self) -> int:
        """How many requests will be sent, without the timed ones."""
        return int(self.seconds * self.rate) + len(SCENARIOS)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    comparison: Comparison
    failed: list[str]
    """Requests that could not be made at all."""
    stats: dict[str, Any]
    """The application's own `AuditLog.stats()`."""
    elapsed_s: float
    """From the first request to the last."""
    latency: Latency
    run_id: str
    url: str
    database: embedded.EmbeddedServer
    kept: Path | None
    """Where the data stays; None when it goes."""

    @property
    def well(self) -> bool:
        """Whether every request sent has exactly its row, and nothing was lost."""
        return self.comparison.exact and not self.failed and not self.stats["dropped"]


class Listener:
    """Hears how far it is; a subclass tells somebody."""

    def step(self, text: str) -> None:
        """Hear what is done now."""

    def sent(self, count: int) -> None:
        """Hear how many requests were sent by now, without the timed ones."""


@contextmanager
def run(options: Options, listener: Listener | None = None) -> Iterator[Result]:
    """Carry the demo through; what it started is up until the context ends.

    Raises:
        DemoError: a process did not do its part.
        EmbeddedError: PostgreSQL cannot be had.
        KeyboardInterrupt: on SIGINT, SIGTERM and SIGHUP; after cleaning up.
    """
    listener = listener or Listener()
    with interruptible(), ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="auditlog-demo-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        listener.step("starting PostgreSQL")
        database = _start_database(options, folder, cleanup)
        listener.step("applying the migrations")
        migrate(database.dsn)
        listener.step("starting uvicorn, with the middleware and without")
        log = folder / "audited.log"
        audited = cleanup.enter_context(uvicorn(AUDITED, log, dsn=database.dsn, http=options.http))
        bare = cleanup.enter_context(
            uvicorn(BARE, folder / "bare.log", dsn=database.dsn, http=options.http)
        )
        yield _drive_and_compare(options, listener, database, audited, bare)
        listener.step("stopping")


def _start_database(options: Options, folder: Path, cleanup: ExitStack) -> embedded.EmbeddedServer:
    path = options.path or folder / "postgresql"
    if options.keep and options.path is None:
        path = Path(tempfile.mkdtemp(prefix="auditlog-kept-"))
        cleanup.push(lambda kind, *_: _remove_after(kind, path))
    with uninterrupted():
        database = embedded.start(path)
        cleanup.callback(_stop_database, database)
    return database


def _remove_after(error: type[BaseException] | None, folder: Path) -> None:
    """Keep nothing of a demo that came to no result."""
    if error is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_database(database: embedded.EmbeddedServer) -> None:
    with uninterrupted():
        database.stop()


def _drive_and_compare(
    options: Options,
    listener: Listener,
    database: embedded.EmbeddedServer,
    audited: Server,
    bare: Server,
) -> Result:
    run_id = f"demo-{uuid.uuid4().hex[:8]}"
    listener.step(f"sending {options.rate:g} requests a second for {options.seconds:g} s")
    traffic = _Traffic(listener)
    traffic.drive(options, run_id, audited, bare)
    listener.step("comparing what was sent with what is stored")
    stats = _settled_stats(audited, len(traffic.sent))
    with psycopg.connect(database.dsn) as conn:
        comparison = compare(traffic.sent, read_rows(conn, run_id))
    return Result(
        comparison=comparison,
        failed=traffic.failed,
        stats=stats,
        elapsed_s=traffic.elapsed_s,
        latency=traffic.latency,
        run_id=run_id,
        url=f"http://127.0.0.1:{audited.port}",
        database=database,
        kept=database.path if options.keep or options.path else None,
    )


class _Traffic:
    """Listens to the client process and keeps what it says."""

    def __init__(self, listener: Listener) -> None:
        self.sent: list[Sent] = []
        self.failed: list[str] = []
        self.latency = Latency([], [])
        self.elapsed_s = 0.0
        self._listener = listener
        self._timed = 0

    def drive(self, options: Options, run_id: str, audited: Server, bare: Server) -> None:
        log = audited.log.with_name("traffic.log")
        command = f"auditlog.demo.traffic --audited {audited.port} --bare {bare.port}"
        command += f" --run {run_id} --seconds {options.seconds} --rate {options.rate}"
        with (
            log.open("wb") as errors,
            child(command, stdout=subprocess.PIPE, stderr=errors) as process,
        ):
            started: float | None = None
            for line in process.stdout or ():
                now = time.monotonic()
                started = now if started is None else started
                self.elapsed_s = now - started
                self._take(json.loads(line))
            if process.wait() != 0:
                raise DemoError(f"the client process failed; its last words:\n{tail(log)}")

    def _take(self, line: dict[str, Any]) -> None:
        if "id" in line:
            self.sent.append(Sent(line["id"], line["scenario"], line["status"]))
            self._timed += line["scenario"] == TIMED_READ
            self._listener.sent(len(self.sent) - self._timed)
        elif "failed" in line:
            self.failed.append(line["failed"])
        else:
            self.latency = Latency(**line["latency"])


def _settled_stats(server: Server, sent: int) -> dict[str, Any]:
    """Ask until the last request is accounted for: who hung up is noticed a little later."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        stats = _fetch_json(server.port, "/-/stats")
        settled = stats["submitted"] >= sent and not stats["pending"]
        if settled or time.monotonic() > deadline:
            return stats
        time.sleep(0.1)


def _fetch_json(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SETTLE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.load(connection.getresponse())
    finally:
        connection.close()
    return answer


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that is not exceeded by that share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
