"""`python -m benchmarks [NAME ...] [--quick] [--outage SECONDS] [--write]`: run, print, keep.

The exit code says whether the benchmarks ran, never whether an aim was met: machines are noisy.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import (
    capture,
    durability_commit,
    durability_outage,
    durability_replay,
    durability_submit,
    events,
    index_cost,
    memory,
    partitions_convert,
    partitions_copy,
    partitions_idle,
    partitions_retire,
    partitions_size,
    quota_exact,
    quota_lease,
    quota_served,
    report,
    serving,
    sink,
)
from benchmarks.database import Server, running_server
from benchmarks.report import Aim, Row, Table
from benchmarks.rpc import inprocess, served

SHIPPED, PLAIN = "shipped indexes", "six plain B-trees on the same columns"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


class _Servers:
    """The one server, started when a benchmark first asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._server: Server | None = None

    @property
    def version(self) -> str | None:
        return self._server.version if self._server else None

    def get(self) -> Server:
        if self._server is None:
            self._server = self._stack.enter_context(running_server())
        return self._server


@dataclass(frozen=True)
class _Options:
    """What the command line says of the sizes."""

    quick: bool
    outage_s: float | None

    def outage(self) -> durability_outage.Sizes:
        """Return what is measured of an outage."""
        sizes = durability_outage.QUICK if self.quick else durability_outage.FULL
        return sizes if self.outage_s is None else replace(sizes, outage=self.outage_s)


def index_cost_table(server: Server, rows: int) -> Table:
    """Run `index_cost` on a database of its own, and put what it returns into a table."""
    with server.database() as dsn:
        costs = index_cost.run(dsn, rows)
    plain = next(cost for name, cost, _ in costs if name == PLAIN)
    table = []
    for name, cost, remark in costs:
        share = cost / plain
        # The size is the last thing it remarks on.
        cells = (f"{cost:.1f}", f"{share:.2f}", remark.rpartition(", ")[2])
        aim = Aim(f"≤ {index_cost.AIM:g} of six plain B-trees", share <= index_cost.AIM)
        table.append(Row(name, cells, (aim,) if name == SHIPPED else ()))
    columns = ("server CPU, µs a row", "of six plain B-trees", "size")
    return Table("index_cost: what the server pays for a row", columns, table, (f"{rows:,} rows.",))


BENCHMARKS: dict[str, Callable[[_Servers, _Options], list[Table]]] = {
    "capture": lambda _, options: capture.run(capture.QUICK if options.quick else capture.FULL),
    "sink": lambda servers, options: sink.run(
        sink.QUICK if options.quick else sink.FULL, servers.get()
    ),
    "uvicorn": lambda servers, options: serving.run(
        serving.QUICK if options.quick else serving.FULL, servers.get()
    ),
    "grpc": lambda servers, options: [
        *served.run(served.QUICK if options.quick else served.FULL, servers.get()),
        *inprocess.run(inprocess.QUICK if options.quick else inprocess.FULL),
    ],
    "events": lambda _, options: events.run(events.QUICK if options.quick else events.FULL),
    "memory": lambda _, options: memory.run(memory.QUICK if options.quick else memory.FULL),
    "index_cost": lambda servers, options: [
        index_cost_table(servers.get(), 20_000 if options.quick else 200_000)
    ],
    "spool": lambda servers, options: durability_submit.run(
        durability_submit.QUICK if options.quick else durability_submit.FULL, servers.get()
    ),
    "commit": lambda servers, options: durability_commit.run(
        durability_commit.QUICK if options.quick else durability_commit.FULL, servers.get()
    ),
    "replay": lambda servers, options: durability_replay.run(
        durability_replay.QUICK if options.quick else durability_replay.FULL, servers.get()
    ),
    "outage": lambda servers, options: durability_outage.run(options.outage(), servers.get()),
    "partitions_copy": lambda servers, options: partitions_copy.run(
        partitions_copy.QUICK if options.quick else partitions_copy.FULL, servers.get()
    ),
    "partitions_convert": lambda servers, options: partitions_convert.run(
        partitions_convert.QUICK if options.quick else partitions_convert.FULL, servers.get()
    ),
    "partitions_retire": lambda servers, options: partitions_retire.run(
        partitions_retire.QUICK if options.quick else partitions_retire.FULL, servers.get()
    ),
    "partitions_idle": lambda servers, options: partitions_idle.run(
        partitions_idle.QUICK if options.quick else partitions_idle.FULL, servers.get()
    ),
    "partitions_size": lambda servers, options: partitions_size.run(
        partitions_size.QUICK if options.quick else partitions_size.FULL, servers.get()
    ),
    "quota_lease": lambda servers, options: quota_lease.run(
        quota_lease.QUICK if options.quick else quota_lease.FULL, servers.get()
    ),
    "quota_exact": lambda servers, options: quota_exact.run(
        quota_exact.QUICK if options.quick else quota_exact.FULL, servers.get()
    ),
    "quota_served": lambda servers, options: quota_served.run(
        quota_served.QUICK if options.quick else quota_served.FULL, servers.get()
    ),
}


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument(
        "--outage",
        type=float,
        metavar="SECONDS",
        help=f"how long `outage` lasts; {durability_outage.FULL.outage:g} without it",
    )
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {PAGE.name}")
    chosen = parser.parse_args(arguments)
    names = chosen.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(unknown)}: {', '.join(BENCHMARKS)}")
    options = _Options(quick=chosen.quick, outage_s=chosen.outage)
    tables: list[Table] = []
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        servers = _Servers(stack)
        for name in names:
            for table in BENCHMARKS[name](servers, options):
                print(table.markdown(), flush=True)
                tables.append(table)
        said = names if chosen.outage is None else [*names, f"--outage {chosen.outage:g}"]
        source = report.source(servers.version, said, quick=chosen.quick, load_before=load_before)
    print(source)
    if chosen.write:
        report.write(PAGE, tables, source)
        print(f"written to {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
