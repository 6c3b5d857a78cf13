"""`auditlog archive …`: partitions in files: which there are, whether they are whole, and back."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeAlias

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import cell, plain, put, put_json, say, stderr, stdout
from auditlog.cli.partitions_report import span
from auditlog.cli.rows import plain_table
from auditlog.partitions import archive as archives
from auditlog.partitions.archive import Found, Verification, known_digests
from auditlog.partitions.archive.manifest import Manifest
from auditlog.partitions.archive.storage import below
from auditlog.partitions.session import maintenance
from auditlog.postgres.causes import connect

Place: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PLACE", help="Folder or URL that archives are in, as `maintain --archive` has it."
    ),
]
OnRows: TypeAlias = Callable[[int, int | None], None]

app = typer.Typer(help="Look after archived partitions.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look after archived partitions; `auditlog partitions maintain --archive` makes them."""


@app.command("list", epilog=EXIT_CODES)
def listed(place: Place, as_json: AsJson = False) -> None:
    """Print the archives that there are, as their manifests have them; exit 1 if one is not whole.

    Data is not read: that is `verify`.
    """
    found = archives.found(place)
    if as_json:
        put_json([_found_fields(each) for each in found])
    elif found:
        stdout().print(_table(found))
    else:
        say(f"There is no archive in {place}.")
    for each in found:
        if each.problem:
            say(plain(f"{each.uri}: {each.problem}"))
    if any(each.problem for each in found):
        raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def verify(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCHIVE...", help="Folders or URLs of archives, or places that they are in."
        ),
    ],
    dsn: Dsn = None,
    *,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Ask the database, too, whether each manifest is the one that was written.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read archives from end to end; exit 1 if one is not what its manifest says.

    No database is asked without --compare.
    """
    known = _known(dsn) if compare else _nothing
    found = []
    for uri in _each(sources):
        with _progress(uri) as on_rows:
            found.append(archives.verify(uri, known=known(uri), on_progress=on_rows))
        if not as_json:
            put(plain(_line(found[-1])))
    if as_json:
        put_json([_verification_fields(each) for each in found])
    if not all(each.is_whole for each in found):
        raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def restore(
    source: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Folder or URL of an archive.")],
    dsn: Dsn = None,
    *,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the table in schema logstore, which must not exist.",
            show_default="such as logs_restored_p202612",
        ),
    ] = None,
    attach: Annotated[
        bool,
        typer.Option(
            "--attach",
            help="Make it a partition again; what retention took needs a hold that covers it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load an archive into a table of its own, and compare it; all of it, or nothing."""
    with maintenance(required(dsn)) as conn, _progress(source) as on_rows:
        restored = archives.restore(conn, source, into=into, attach=attach, on_progress=on_rows)
    if as_json:
        put_json(restored)
        return
    put(plain(restored.table))
    where = "a partition again" if restored.is_attached else "only its owner may read it"
    say(f"Restored: {restored.rows} rows, as they were archived; {where}.")


def _known(dsn: str | None) -> Callable[[str], Collection[bytes]]:
    url = required(dsn)

    def digests(uri: str) -> Collection[bytes]:
        with connect(url) as conn:
            found = known_digests(conn, uri)
        if not found:
            say(plain(f"{uri}: the database knows of no archive there"))
        return found

    return digests


def _nothing(_uri: str) -> Collection[bytes]:
    return ()


def _each(sources: Iterable[str]) -> Iterator[str]:
    """Yield what is in the places, and what is no place itself, as the database calls it."""
    for source in sources:
        found = archives.found(source)
        yield from (each.uri for each in found) if found else (below(source),)


@contextmanager
def _progress(what: str) -> Iterator[OnRows]:
    """Show rows on stderr as they pass, if somebody looks."""
    console = stderr()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(plain(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _table(found: Iterable[Found]) -> Table:
    table = plain_table()
    table.add_column("table", min_width=6)
    table.add_column("partition", min_width=12)
    table.add_column("range", min_width=24)
    table.add_column("rows", min_width=8, justify="right")
    table.add_column("bytes", min_width=10, justify="right")
    table.add_column("format", min_width=6)
    table.add_column("archive", overflow="fold", min_width=20)
    for each in found:
        table.add_row(*map(cell, _cells(each)))
    return table


def _cells(each: Found) -> tuple[object, ...]:
    if each.manifest is None:
        return ("", "", "", "", "", "", each.uri)
    content = each.manifest.content
    return (
        content.table,
        content.partition,
        span(content.lower, content.upper),
        content.fingerprint.rows,
        each.manifest.sizes.stored_bytes,
        content.format,
        each.uri,
    )


def _line(verification: Verification) -> str:
    if verification.problem or verification.manifest is None:
        return f"not whole: {verification.uri}: {verification.problem}"
    return f"whole: {verification.uri}: {verification.manifest.content.fingerprint.rows} rows"


def _found_fields(each: Found) -> dict[str, Any]:
    return {"uri": each.uri, "problem": each.problem, **_manifest_fields(each.manifest)}


def _verification_fields(each: Verification) -> dict[str, Any]:
    digest = each.manifest_sha256
    return {
        "uri": each.uri,
        "is_whole": each.is_whole,
        "problem": each.problem,
        "manifest_sha256": digest.hex() if digest else None,
        **_manifest_fields(each.manifest),
    }


def _manifest_fields(manifest: Manifest | None) -> dict[str, Any]:
    """Return what the manifest says that a list is sorted and searched by."""
    if manifest is None:
        return {}
    content, prints = manifest.content, manifest.content.fingerprint
    return {
        "table": content.table,
        "partition": content.partition,
        "lower": content.lower,
        "upper": content.upper,
        "rows": prints.rows,
        "checksum": prints.checksum,
        "first_log_date": prints.first,
        "last_log_date": prints.last,
        "format": content.format,
        "stored_bytes": manifest.sizes.stored_bytes,
        "raw_bytes": manifest.sizes.raw_bytes,
        "created_at": manifest.created_at,
    }
