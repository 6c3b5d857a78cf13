"""The demo from end to end: PostgreSQL, two servers, the traffic, and the reckoning.

`run` yields once everything is counted, with the servers still up, and cleans up after that: no
process and no temporary folder outlives it, however it ends. Blocking; for the main thread, because
it takes over the signals that would end it.
"""

import http.client
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from auditlog.demo.compare import Comparison, Sent, compare, read_rows
from auditlog.demo.drive import Latency, Listener, Traffic
from auditlog.demo.processes import (
    Server,
    interruptible,
    uninterrupted,
    uvicorn,
)
from auditlog.demo.quotas import REFUSED, Decisions, read_decisions
from auditlog.demo.scenarios import SCENARIOS
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate

AUDITED = "auditlog.demo.app:audited"
BARE = "auditlog.demo.app:bare"
FETCH_TIMEOUT_S = 15.0
# A row that has not come when nothing has moved for so long will not come.
QUIET_TIMEOUT_S = 5.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    comparison: Comparison
    failed: list[str]
    """Requests that could not be made at all."""
    stats: dict[str, Any]
    """The application's own `AuditLog.stats()`."""
    warnings: list[str]
    """What the trail has written to the application's log."""
    elapsed_s: float
    """From the first request to the last."""
    latency: Latency
    refused: int
    """Requests that a quota refused, as their clients saw it."""
    decisions: list[Decisions]
    """What the trail tells of quotas."""
    run_id: str
    url: str
    database: embedded.EmbeddedServer
    kept: Path | None
    """Where the data stays; None when it goes."""

    @property
    def well(self) -> bool:
        """Whether every request and every refusal has exactly its row, and nothing was lost."""
        lost = self.failed or self.stats["dropped"]
        return self.comparison.exact and self.refused == self.refusals and not lost

    @property
    def refusals(self) -> int:
        """Requests that a quota refused, as the trail tells it."""
        return sum(each.rows for each in self.decisions if not each.allowed)


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
    began = datetime.now(UTC)
    listener.step(f"sending {options.rate:g} requests a second for {options.seconds:g} s")
    traffic = Traffic(listener, audited.log.with_name("traffic.log"))
    traffic.drive(audited, bare, run_id, seconds=options.seconds, rate=options.rate)
    listener.step("comparing what was sent with what is stored")
    stats, comparison = _reckon(audited, database, traffic.sent, run_id)
    with psycopg.connect(database.dsn) as conn:
        decisions = read_decisions(conn, began)
    return Result(
        comparison=comparison,
        failed=traffic.failed,
        stats=stats,
        warnings=_warnings(audited.log),
        elapsed_s=traffic.elapsed_s,
        latency=traffic.latency,
        refused=sum(request.status == REFUSED for request in traffic.sent),
        decisions=decisions,
        run_id=run_id,
        url=f"http://127.0.0.1:{audited.port}",
        database=database,
        kept=database.path if options.keep or options.path else None,
    )


def _reckon(
    server: Server, database: embedded.EmbeddedServer, sent: list[Sent], run_id: str
) -> tuple[dict[str, Any], Comparison]:
    """Compare, and again while rows still come: a client's leaving is noticed a little later."""
    previous: dict[str, Any] = {}
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        while True:
            stats = _fetch_json(server.port, "/-/stats")
            comparison = compare(sent, read_rows(conn, run_id))
            if stats != previous:
                previous, deadline = stats, time.monotonic() + QUIET_TIMEOUT_S
            if comparison.exact or time.monotonic() > deadline:
                return stats, comparison
            time.sleep(0.1)


def _fetch_json(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FETCH_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.load(connection.getresponse())
    finally:
        connection.close()
    return answer


def _warnings(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("auditlog.")]
