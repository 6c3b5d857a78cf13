"""A database that answers nothing for a minute: what requests feel before, during and after it.

Measured: the application under uvicorn with PostgreSQL behind a proxy on loopback that falls
silent. The client sends at a fixed rate from the beginning to the end, whatever happens (an open
loop: a request's time counts from the moment when it was due). The rate is the aim's, or half of
what the same server reaches when saturated, if that is less. The log has its default settings and
a folder for its spool. In the end it is told how many requests have their row, by the table.

The recovery lasts from the first byte after the silence until everything recorded by then is
committed, by the ledger, and at least a second. Its p99 is held against that of windows of the same
length before the silence and after the recovery; when these differ from each other by more than the
aim, the run cannot tell. The limit is the same application without an audit. Not measured: an
application that inserts its rows itself, for it answers no request during the silence.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.database import Server
from benchmarks.durability_proxy import proxied
from benchmarks.durability_served import AUDITED, BARE, Served, served
from benchmarks.report import Aim, Row, Table
from benchmarks.serving import within

NO_AUDIT = "no audit"
MODES = ("memory", "spool")
AIM_RATE, AIM_MS = 1_000.0, 2.0
UTILISATION = 0.5
CONNECTIONS = 32
STILL_S = 5.0
"""After so long without another row nothing more is waited for: it is lost, or a retry is far."""
# When the last of what was recorded before a time was committed.
_DRAINED = """
    SELECT extract(epoch FROM max(committed_at))::float8 FROM logstore.batches
    WHERE first_log_date < to_timestamp(%s)
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured, in seconds."""

    before: float
    outage: float
    after: float
    warm_up: float = 2.0


FULL, QUICK = Sizes(before=6, outage=60, after=9), Sizes(before=3, outage=3, after=4)


@dataclass(frozen=True)
class Answer:
    """One request."""

    due: float
    took: float


@dataclass(frozen=True)
class Course:
    """What happened to one server; times are those of the monotonic clock."""

    rate: float
    answers: list[Answer]
    began: float = 0.0
    silent: float = 0.0
    spoke: float = 0.0
    drained: float = 0.0
    sent: int = 0
    stored: int = 0
    dropped: int = 0

    @property
    def recovery_s(self) -> float:
        """How long the recovery is looked at."""
        return max(1.0, self.drained - self.spoke)

    def between(self, start: float, end: float) -> list[float]:
        """Return how long the requests took that were due in there, sorted, in milliseconds."""
        return sorted(each.took * 1e3 for each in self.answers if start <= each.due < end)

    def recovery(self) -> list[float]:
        """Return those of the recovery."""
        return self.between(self.spoke, self.spoke + self.recovery_s)

    def usual_p99s(self) -> list[float]:
        """Return the p99 of each window of the recovery's length in which all was well."""
        recovered = self.spoke + self.recovery_s
        ends = ((self.began, self.silent), (recovered, self.answers[-1].due))
        return [
            p99(self.between(*window)) for start, end in ends for window in self._cut(start, end)
        ]

    def _cut(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        while start + self.recovery_s <= end:
            yield start, start + self.recovery_s
            start += self.recovery_s


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    courses = {mode: _audited(mode, sizes, server) for mode in MODES}
    rate = min(course.rate for course in courses.values())
    return [_table(courses, _bare(sizes, rate, server), sizes)]


def p99(times: list[float]) -> float:
    """Return it, of sorted times."""
    return times[len(times) * 99 // 100]


def _audited(mode: str, sizes: Sizes, server: Server) -> Course:
    with (
        server.database() as dsn,
        proxied(dsn) as (through, speaks),
        tempfile.TemporaryDirectory(prefix="auditlog-bench-") as folder,
        served(AUDITED, dsn, through=through, durability=mode, spool_dir=folder) as audited,
    ):
        rate = _rate(audited, sizes)
        with _client(audited, sizes.before + sizes.outage + sizes.after, rate) as client:
            began = time.perf_counter()
            time.sleep(sizes.before)
            speaks.clear()
            silent = time.perf_counter()
            time.sleep(sizes.outage)
            spoke, spoke_at = time.perf_counter(), time.time()
            speaks.set()
            answers = _answers(client)
        audited.sent += len(answers) + CONNECTIONS
        _wait_until_settled(audited)
        drained = spoke + _committed_at(dsn, spoke_at) - spoke_at
        audited.stop()
        lost = sum(audited.stats["dropped_by_reason"].values())
        stored = audited.stored()
        assert stored + lost == audited.sent, (audited.sent, audited.stats)
        return Course(rate, answers, began, silent, spoke, drained, audited.sent, stored, lost)


def _bare(sizes: Sizes, rate: float, server: Server) -> Course:
    with server.database() as dsn, served(BARE, dsn) as bare:
        bare.load(CONNECTIONS, sizes.warm_up)
        with _client(bare, sizes.before, rate) as client:
            return Course(rate, _answers(client))


def _rate(audited: Served, sizes: Sizes) -> float:
    """Warm up, and find out what is half of what the server can do."""
    saturated = audited.load(CONNECTIONS, sizes.warm_up)["per_second"]
    return min(AIM_RATE, UTILISATION * saturated)


@contextmanager
def _client(server: Served, seconds: float, rate: float) -> Iterator["subprocess.Popen[str]"]:
    """Start the client, and wait until it begins."""
    arguments = map(str, (server.port, CONNECTIONS, seconds, rate))
    command = [sys.executable, "-m", "benchmarks.durability_load", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout
            client.stdout.readline()
            yield client
        finally:
            client.kill()


def _answers(client: "subprocess.Popen[str]") -> list[Answer]:
    output, _ = client.communicate()
    assert client.returncode == 0
    return [Answer(*answer) for answer in json.loads(output)]


def _wait_until_settled(server: Served) -> None:
    stored, since = -1, time.monotonic()
    while stored != server.sent and time.monotonic() < since + STILL_S:
        before, stored = stored, server.stored()
        if stored != before:
            since = time.monotonic()
        time.sleep(0.2)


def _committed_at(dsn: str, before: float) -> float:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_DRAINED, (before,)).fetchone()
    assert row
    return float(row[0])


def _table(courses: dict[str, Course], bare: Course, sizes: Sizes) -> Table:
    rows = [Row(NO_AUDIT, (*_cells(bare.between(0, float("inf"))), *[""] * 6))]
    rows += [_row(mode, course) for mode, course in courses.items()]
    columns = (
        *("before: p50, ms", "p99", "during: p50", "p99", "recovery: p50", "p99", "worst"),
        "recovered in, s",
    )
    notes = [_rate_note(courses), *(_note(mode, course) for mode, course in courses.items())]
    return Table(f"outage of {sizes.outage:g} s", columns, rows, tuple(notes))


def _row(mode: str, course: Course) -> Row:
    usual, recovery = course.usual_p99s(), course.recovery()
    cells = (
        *_cells(course.between(course.began, course.silent)),
        *_cells(course.between(course.silent, course.spoke)),
        *_cells(recovery),
        f"{recovery[-1]:.1f}",
        f"{course.drained - course.spoke:.1f}",
    )
    aims = (
        Aim(f"p99 within {AIM_MS:g} ms", within([p99(recovery)] * len(usual), usual, AIM_MS)),
        Aim("all stored", course.stored == course.sent),
    )
    return Row(mode, cells, aims)


def _cells(times: list[float]) -> tuple[str, str]:
    return f"{times[len(times) // 2]:.2f}", f"{p99(times):.2f}"


def _rate_note(courses: dict[str, Course]) -> str:
    rates = " and ".join(f"{course.rate:,.0f}/s ({mode})" for mode, course in courses.items())
    half = (
        "the aim's rate"
        if all(c.rate == AIM_RATE for c in courses.values())
        else (
            f"{UTILISATION:.0%} of what the server reaches when saturated, where that is less than"
            f" {AIM_RATE:,.0f}/s"
        )
    )
    return f"Open loop at {rates}: {half}."


def _note(mode: str, course: Course) -> str:
    usual = course.usual_p99s() or [math.nan]
    return (
        f"{mode}: {course.sent:,} sent, {course.stored:,} stored, {course.dropped:,} counted as"
        f" lost; usual p99 of {len(usual)} windows of {course.recovery_s:.1f} s: median"
        f" {statistics.median(usual):.2f} ms, from {min(usual):.2f} to {max(usual):.2f}."
    )
