"""`auditlog migrate`: bring the schema to this version, or show how far it is."""

from datetime import datetime
from typing import Annotated

import typer

from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import put, put_json, put_table, say
from auditlog.postgres import migrate as runner
from auditlog.postgres.causes import connect


def migrate(
    dsn: Dsn = None,
    show_status: Annotated[
        bool,
        typer.Option("--status", help="Change nothing; show each migration. Exit 1 if some wait."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what would be applied.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the schema of a database to this version. Safe to repeat, and to run twice at once."""
    if show_status:
        _show_status(required(dsn), as_json=as_json)
        return
    migrations = runner.migrate(required(dsn), dry_run=dry_run)
    if as_json:
        done = [] if dry_run else [migration.file_name for migration in migrations]
        pending = [migration.file_name for migration in migrations] if dry_run else []
        put_json({"applied": done, "pending": pending})
        return
    for migration in migrations:
        put(f"{'pending' if dry_run else 'applied'} {migration.file_name}")
    if not migrations:
        say("The schema is up to date.")


def _show_status(dsn: str, *, as_json: bool) -> None:
    with connect(dsn) as conn:
        migrations = runner.status(conn)
    if as_json:
        put_json(
            [
                {
                    "migration": migration.file_name,
                    "state": migration.state,
                    "applied_at": migration.applied_at,
                    "applied_by": migration.applied_by,
                    "package_version": migration.package_version,
                }
                for migration in migrations
            ]
        )
    else:
        put_table(
            ("migration", "state", "applied at", "by", "with package"),
            (
                (m.file_name, m.state, _minute(m.applied_at), m.applied_by, m.package_version)
                for m in migrations
            ),
        )
    if any(migration.state != "applied" for migration in migrations):
        raise typer.Exit(Exit.NOT_WELL)


def _minute(when: datetime | None) -> str | None:
    return None if when is None else f"{when:%Y-%m-%d %H:%M %Z}"
