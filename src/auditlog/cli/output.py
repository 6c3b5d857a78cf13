"""Where the command line writes: data to stdout, talk to stderr; plain where nobody looks."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A pipe has no width; a table that is cut is worse than one that is wide.
PIPE_WIDTH = 132


def stdout() -> Console:
    """Return the console for data."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console for talk: steps, progress, errors."""
    return _console(stderr=True)


def say(text: str) -> None:
    """Tell the person at the terminal something, as it is: no markup, no wrapping."""
    stderr().print(Text(text), soft_wrap=True)


def put(text: str) -> None:
    """Write a line of data."""
    stdout().print(Text(text), soft_wrap=True)


def plain(text: str) -> str:
    """Return a text in which whatever could steer a terminal is written out.

    A client chooses what stands in a row, and escapes could repaint what is shown of others.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: object) -> Text:
    """Return what a table shows of a value: no markup, for a URL may hold brackets."""
    return Text("" if value is None else plain(str(value)))


def put_json(document: Any) -> None:
    """Write one JSON document; dates become ISO 8601, whatever else its `str`."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    sys.stdout.buffer.write(orjson.dumps(document, default=str, option=options))
    sys.stdout.flush()


def put_json_lines(documents: Iterable[Any]) -> None:
    """Write each document as one line of JSON; dates become ISO 8601."""
    for document in documents:
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def put_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, its cells as they are."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(cell, row))
    stdout().print(table)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
