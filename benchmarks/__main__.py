"""`python -m benchmarks [NAME ...] [--quick] [--write]`: run, print the tables, keep them.

The exit code says whether the benchmarks ran, never whether an aim was met: machines are noisy.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import capture, events, index_cost, memory, report, serving, sink
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


BENCHMARKS: dict[str, Callable[[_Servers, bool], list[Table]]] = {
    "capture": lambda _, quick: capture.run(capture.QUICK if quick else capture.FULL),
    "sink": lambda servers, quick: sink.run(sink.QUICK if quick else sink.FULL, servers.get()),
    "uvicorn": lambda servers, quick: serving.run(
        serving.QUICK if quick else serving.FULL, servers.get()
    ),
    "grpc": lambda servers, quick: [
        *served.run(served.QUICK if quick else served.FULL, servers.get()),
        *inprocess.run(inprocess.QUICK if quick else inprocess.FULL),
    ],
    "events": lambda _, quick: events.run(events.QUICK if quick else events.FULL),
    "memory": lambda _, quick: memory.run(memory.QUICK if quick else memory.FULL),
    "index_cost": lambda servers, quick: [
        index_cost_table(servers.get(), 20_000 if quick else 200_000)
    ],
}


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {PAGE.name}")
    options = parser.parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(unknown)}: {', '.join(BENCHMARKS)}")
    tables: list[Table] = []
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        servers = _Servers(stack)
        for name in names:
            for table in BENCHMARKS[name](servers, options.quick):
                print(table.markdown(), flush=True)
                tables.append(table)
        source = report.source(servers.version, names, quick=options.quick, load_before=load_before)
    print(source)
    if options.write:
        report.write(PAGE, "\n".join([source, "", *(table.markdown() for table in tables)]))
        print(f"written to {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
