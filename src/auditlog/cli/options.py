"""What several commands share: --dsn and --json, spelt and explained once."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

from auditlog.cli.output import plain
from auditlog.errors import SettingsError
from auditlog.postgres.embedded import EmbeddedServer, named_by


@dataclass(slots=True)
class Invocation:
    """What is known of this call when an error has to be told."""

    debug: bool = False
    dsn: str | None = None
    """As it was given; so that no message repeats it."""


def _remember(context: typer.Context, dsn: str | None) -> str | None:
    if isinstance(context.obj, Invocation):
        context.obj.dsn = dsn
    return dsn


Dsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar="AUDITLOG_DSN",
        help="The database: a libpq connection string or URL,"
        " or embedded:PATH, whose server is started.",
        show_default=False,
        callback=_remember,
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout, for machines.")
]


def legible(text: str) -> str:
    """See that a text can be stored: an argument can be any bytes.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{plain(text)} is no text in UTF-8") from None
    return text


def required(dsn: str | None) -> str:
    """Return a DSN that psycopg understands, see `opened`."""
    return opened(dsn)[0]


def opened(dsn: str | None) -> tuple[str, EmbeddedServer | None]:
    """Return a DSN that psycopg understands, and the embedded server if it leads to one.

    That server is started, or found running, and stays until the command ends; its database is
    left as it is.

    Raises:
        SettingsError: none was given.
        EmbeddedError: the embedded server cannot be had.
    """
    if not dsn:
        raise SettingsError("no database: give --dsn postgresql://..., or set AUDITLOG_DSN")
    server = named_by(dsn)
    return (server.dsn if server else dsn), server
