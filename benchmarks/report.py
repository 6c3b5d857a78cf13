"""Figures → tables, on the terminal and in docs/benchmarks.md, with the machine they come from."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
_VERDICTS = {True: "yes", False: "no", None: "unclear"}
CPU_INFO = Path("/proc/cpuinfo")
_TITLE = "### "


@dataclass(frozen=True)
class Aim:
    """What a figure ought to be, and whether it was that."""

    text: str
    met: bool | None
    """None: the rounds differ by more than the aim allows, so this run cannot tell."""


@dataclass(frozen=True)
class Row:
    """One line: its name, one cell a column, and the aims that it is judged by."""

    name: str
    cells: tuple[str, ...]
    aims: tuple[Aim, ...] = ()


@dataclass(frozen=True)
class Table:
    """One benchmark's figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the table as Markdown, in columns of one width so that a terminal shows it too."""
        head = ("", *self.columns, "aim", "met")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:-2])]
        lines.insert(1, (*rule, "-" * widths[-2], "-" * widths[-1]))
        text = [f"{_TITLE}{self.title}", "", *(_line(cells, widths) for cells in lines), ""]
        return "\n".join(text + [f"- {note}" for note in self.notes] + [""] * bool(self.notes))


def source(
    postgres_version: str | None, names: list[str], *, quick: bool, load_before: float
) -> str:
    """Say where the figures come from: the day, the versions, the machine and the command."""
    parts = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{platform.python_implementation()} {platform.python_version()}",
        *([f"PostgreSQL {postgres_version}"] if postgres_version else []),
        f"{_cpu_model()}, {os.cpu_count()} cores",
        f"{platform.system()} {platform.release()}",
        f"load average {load_before:.1f} before",
        f"`python -m benchmarks {' '.join(names)}{' --quick' * quick}`",
    ]
    return ", ".join(parts) + "."


def versions(*distributions: str) -> str:
    """Name the installed versions of these distributions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions)


def write(path: Path, tables: Sequence[Table], said: str) -> None:
    """Put tables between the markers of a file, each with its source; others stay as they are.

    Raises:
        ValueError: the file has no such markers.
    """
    page = path.read_text("utf-8")
    before, begin, rest = page.partition(BEGIN)
    kept, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} must hold {BEGIN!r} and after it {END!r}")
    sections = {part.partition("\n")[0]: part.strip() for part in kept.split(_TITLE)[1:]}
    for table in tables:
        sections[table.title] = f"{table.markdown().strip()}\n\n{said}".removeprefix(_TITLE)
    text = "\n\n".join(f"{_TITLE}{section}" for section in sections.values())
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def _cells(row: Row) -> tuple[str, ...]:
    aims = "; ".join(aim.text for aim in row.aims)
    met = "; ".join(_VERDICTS[aim.met] for aim in row.aims)
    return (row.name, *row.cells, aims, met)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    numbers = range(1, len(cells) - 2)
    padded = (
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join(padded) + " |"


def _cpu_model() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or sys.platform
