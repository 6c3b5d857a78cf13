"""`auditlog dead-letters …`: rows that were refused: to be shown, stored after all, or given up."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.letters import Buried, Filed, Letters, file_of
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import put, put_json, put_json_lines, put_table, say, stderr
from auditlog.postgres.causes import connect
from auditlog.query.dead_letters import LetterSummary
from auditlog.settings import Settings
from auditlog.sink.dead_letters import DeadLetter, DeadLetterFile
from auditlog.sink.encoding.legible import legible, legible_fields
from auditlog.sink.replay import Outcome

# As a rule enough to tell letters apart; more are taken, and fewer where they will do.
_SHOWN_CHARS = 13

app = typer.Typer(help="Look after the rows that were refused.", no_args_is_help=True)

File: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file",
        exists=True,
        dir_okay=False,
        help="The letters of this file, not those of the database.",
        show_default=False,
    ),
]
SpoolDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--spool-dir",
        exists=True,
        file_okay=False,
        help="The letters that the spool in this folder keeps, not those of the database.",
        show_default=False,
    ),
]
Identities: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Letters, by the beginning of their identity."),
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All letters.")]


@app.callback()
def group() -> None:
    """Look after the rows that were refused: what no table takes is kept until somebody decides."""


@app.command("list", epilog=EXIT_CODES)
def list_letters(
    dsn: Dsn = None,
    *,
    file: File = None,
    spool_dir: SpoolDirectory = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's letters.", show_default=False)
    ] = None,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=1, max=100_000, help="How many letters.")
    ] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each letter as one line of JSON.")
    ] = False,
) -> None:
    """Print the newest letters, the very newest last; exit 1 if there are any.

    What is in the rows is not printed, so the list may be sent to others.
    """
    with _letters(dsn, file, spool_dir) as letters:
        found = letters.newest(rows + 1, tenant)
    if not found:
        say("There are no dead letters." if tenant is None else f"There are none of {tenant}.")
        return
    newest = found[-rows:]
    if as_json:
        put_json_lines(map(_summary_fields, newest))
    else:
        columns = ("id", "died at", "table", "tenant", "sqlstate", "reason", "bytes", "tried")
        put_table(columns, map(_cells, newest))
    more = f" There are more than these {rows}; -n shows them." if len(found) > rows else ""
    say(f"Dead letters: {len(newest)}. `auditlog dead-letters show ID` shows what is in one.{more}")
    raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def show(
    letter: Annotated[
        str, typer.Argument(metavar="ID", help="A letter, by the beginning of its identity.")
    ],
    dsn: Dsn = None,
    *,
    file: File = None,
    spool_dir: SpoolDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Print one letter with its row, field by field; what does not print is written out."""
    with _letters(dsn, file, spool_dir) as letters:
        found = letters.fetch(_identity(letters, letter))
    if found is None:
        raise typer.BadParameter("it is gone by now")
    head, fields = _head(found), legible_fields(found.table_name, found.columns, found.row)
    if as_json:
        put_json({**head, "fields": [{"name": name, "value": value} for name, value in fields]})
        return
    for name, value in head.items():
        put(f"{name:17} {value}")
    put("")
    for field, content in fields:
        put(f"{_plain(field) or 'bytes':17} {'NULL' if content is None else content}")


@app.command(epilog=EXIT_CODES)
def replay(
    letters: Identities = None,
    dsn: Dsn = None,
    *,
    every: All = False,
    smallest: Annotated[
        bool,
        typer.Option(
            "--reduced",
            help="Store the smallest safe form: without texts and JSON that may be the reason.",
        ),
    ] = False,
    file: File = None,
    spool_dir: SpoolDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Store letters after all, when their cause is mended; exit 1 if one was refused again.

    A row that is stored already is not stored twice.
    """
    counts = dict.fromkeys(Outcome, 0)
    with _letters(dsn, file, spool_dir) as source:
        for letter_id in _with_bar("letters", _chosen(source, letters, every=every)):
            letter = source.fetch(letter_id)
            outcome = Outcome.GONE
            if letter is not None:
                replayed = source.replay(letter, smallest=smallest)
                outcome = replayed.outcome
                if outcome is Outcome.REFUSED:
                    say(f"{letter_id}: refused again, SQLSTATE {replayed.sqlstate}")
            counts[outcome] += 1
    _tell(counts, as_json=as_json)
    if counts[Outcome.REFUSED]:
        raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def discard(
    letters: Identities = None,
    dsn: Dsn = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is written into the trail.")],
    every: All = False,
    file: File = None,
    spool_dir: SpoolDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Take letters away for good; an audit.gap row for each tenant says so, and by whom."""
    if not reason.strip():
        raise typer.BadParameter("--reason must say why")
    with _letters(dsn, file, spool_dir) as source:
        chosen = _chosen(source, letters, every=every)
        count = sum(source.discard(chosen, _who(), reason))
    if as_json:
        put_json({"discarded": count})
    else:
        put(f"discarded {count}")


@contextmanager
def _letters(dsn: str | None, file: Path | None, spool_dir: Path | None) -> Iterator[Letters]:
    letters = _place(dsn, file_of(file, spool_dir))
    try:
        yield letters
    finally:
        letters.close()


def _place(dsn: str | None, file: DeadLetterFile | None) -> Letters:
    settings = Settings.from_environment()
    if file is None:
        return Buried(connect(required(dsn)), settings)
    letters = Filed(file, lambda: connect(required(dsn)), settings)
    if letters.unreadable:
        say(f"Lines of the file that cannot be read: {letters.unreadable}. They stay in it.")
    return letters


def _chosen(source: Letters, named: list[str] | None, *, every: bool) -> list[UUID]:
    if bool(named) == every:
        raise typer.BadParameter("name letters by their ID, or all of them by --all")
    if every:
        return source.identities()
    return list(dict.fromkeys(_identity(source, name) for name in named or ()))


def _identity(source: Letters, beginning: str) -> UUID:
    found = source.named(beginning.lower()) if beginning else []
    if len(found) == 1:
        return found[0]
    raise typer.BadParameter(
        f"{'more than one letter begins' if found else 'no letter begins'} with {beginning!r}"
    )


def _with_bar(what: str, letter_ids: list[UUID]) -> Iterator[UUID]:
    """Hand the letters on, with a bar if somebody looks."""
    console = stderr()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield from progress.track(letter_ids)


def _tell(counts: dict[Outcome, int], *, as_json: bool) -> None:
    if as_json:
        put_json({outcome.name.lower(): count for outcome, count in counts.items()})
        return
    for outcome, count in counts.items():
        if count or outcome is Outcome.STORED:
            put(f"{outcome.value} {count}")


def _who() -> str:
    """Return who is at the terminal, as far as this machine knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _head(letter: DeadLetter) -> dict[str, str]:
    return {
        "id": str(letter.letter_id),
        "died at": letter.died_at.isoformat(),
        "writer": _plain(letter.writer),
        "table": _plain(letter.table_name),
        "sqlstate": _plain(letter.sqlstate),
        "reason": _plain(letter.reason),
    }


def _summary_fields(letter: LetterSummary) -> dict[str, Any]:
    return {
        "letter_id": letter.letter_id,
        "died_at": letter.died_at,
        "writer": letter.writer,
        "table_name": letter.table_name,
        "instance_id": _identifier(letter.instance_id),
        "log_id": _identifier(letter.log_id),
        "sqlstate": letter.sqlstate,
        "reason": letter.reason,
        "bytes": letter.size,
        "attempts": letter.attempts,
    }


def _cells(letter: LetterSummary) -> tuple[object, ...]:
    return (
        str(letter.letter_id)[:_SHOWN_CHARS],
        f"{letter.died_at:%m-%d %H:%M:%S}",
        _plain(letter.table_name),
        _identifier(letter.instance_id),
        _plain(letter.sqlstate),
        _plain(letter.reason),
        letter.size,
        letter.attempts,
    )


def _plain(text: str) -> str:
    """Anybody who can write into the folder of a spool can write a letter."""
    return legible(text.encode(errors="surrogatepass"))


def _identifier(data: bytes | None) -> str | None:
    return None if data is None else legible(data)
