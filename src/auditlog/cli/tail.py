"""`auditlog tail`: the newest rows, to see that they come."""

from typing import Annotated

import typer

from auditlog.cli.options import Dsn, required
from auditlog.cli.output import put_json_lines, say, stdout
from auditlog.cli.rows import table_of
from auditlog.postgres.causes import connect
from auditlog.query.newest import newest
from auditlog.tables import LOGS


def tail(
    dsn: Dsn = None,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=1, max=100_000, help="How many rows.")
    ] = 20,
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's rows.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each row as one line of JSON, whole.")
    ] = False,
) -> None:
    """Print the newest rows of the trail, the very newest last."""
    with connect(required(dsn)) as conn:
        records = newest(conn, limit=rows, tenant=tenant)
    if as_json:
        put_json_lines(
            {column.name: getattr(record, column.name) for column in LOGS.columns}
            for record in records
        )
    elif records:
        stdout().print(table_of(records))
    else:
        say("There is no row yet." if tenant is None else f"There is no row of {tenant} yet.")
