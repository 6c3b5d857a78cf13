"""`auditlog quota …`: how much is allowed, changed without a restart, and how much is used."""

from pathlib import Path
from typing import Annotated

import typer

from auditlog.cli import quota_options as options
from auditlog.cli import quota_report as report
from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import plain, put, put_json, say, stdout
from auditlog.cli.quota_report import Listed
from auditlog.cli.quota_set import put_quota
from auditlog.partitions.session import maintenance
from auditlog.postgres.causes import connect
from auditlog.quota.definitions.file import load
from auditlog.quota.keeping import store
from auditlog.quota.keeping.usage import usage as used

app = typer.Typer(help="Look after quotas: limits, and what is used of them.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look after quotas: what is set here goes before what an application's code or file says."""


app.command("set", epilog=EXIT_CODES)(put_quota)


@app.command("list", epilog=EXIT_CODES)
def listed(
    dsn: Dsn = None,
    *,
    tenant: options.Applying = None,
    file: options.QuotaFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the quotas in the database, by name; exit 1 if one cannot be used."""
    with connect(required(dsn)) as conn:
        found = [report.from_database(each) for each in store.stored(conn)]
    if file is not None:
        found = _with_file(found, file)
    if tenant is not None:
        found = _applying(found, tenant)
    if as_json:
        put_json([report.as_json(each) for each in found])
    elif found:
        stdout().print(report.table_of(found))
    else:
        say("There is no quota in the database: `auditlog quota set ID --limit N` lays one down.")
    _tell_problems(found)


@app.command(epilog=EXIT_CODES)
def show(
    quota_id: options.Name,
    dsn: Dsn = None,
    *,
    tenant: options.Applying = None,
    as_json: AsJson = False,
) -> None:
    """Print a quota setting by setting; exit 1 if it cannot be used."""
    with connect(required(dsn)) as conn:
        found = store.stored(conn)
        its = store.find(found, quota_id, tenant) or store.named(found, quota_id, None)
    shown = report.from_database(its)
    if as_json:
        put_json(report.as_json(shown))
    else:
        for line in (*report.lines_of(shown.values), report.line_of_origin(shown)):
            put(line)
        if its.tenant != tenant:
            say(plain(f"Tenant {tenant} has none of its own: this is the one for all."))
    _tell_problems([shown])


@app.command(epilog=EXIT_CODES)
def remove(
    quota_id: options.Name,
    dsn: Dsn = None,
    *,
    tenant: options.Tenant = None,
    by: options.By = None,
    as_json: AsJson = False,
) -> None:
    """Take a quota out of the database; counters stay."""
    with maintenance(required(dsn)) as conn:
        removed = store.remove(conn, quota_id, tenant, by=by)
        left = store.stored(conn)
    if as_json:
        put_json(report.as_json(report.from_database(removed)))
    else:
        put(plain(f"removed {removed.id}"))
    if tenant is not None and store.find(left, quota_id, None):
        say(plain(f"For tenant {tenant} the one for all tenants applies again."))
    else:
        say("What an application's code or file says under that name applies again.")


@app.command(epilog=EXIT_CODES)
def usage(
    quota_id: options.AnyName = None,
    dsn: Dsn = None,
    *,
    tenant: options.OfTenant = None,
    subject: options.Subject = None,
    over: Annotated[
        int,
        typer.Option(metavar="PERCENT", min=0, max=1_000_000, help="Only who has used that much."),
    ] = 0,
    past: Annotated[
        bool, typer.Option("--past", help="Periods that are over, too; the newest come first.")
    ] = False,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=1, max=100_000, help="How many counters.")
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Print what is used of quotas, the nearest to its limit first."""
    with connect(required(dsn)) as conn:
        # One more than is shown tells that there are more.
        found = used(
            conn,
            quota_id=quota_id,
            tenant=tenant,
            subject=subject,
            over=over,
            past=past,
            rows=rows + 1,
        )
    if as_json:
        put_json([report.usage_as_json(each) for each in found[:rows]])
    elif found:
        stdout().print(report.usage_table(found[:rows]))
    else:
        say("Nothing is counted that would be asked for here.")
    if len(found) > rows:
        say(f"There are more than these {rows}; -n shows them.")


@app.command(epilog=EXIT_CODES)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of quotas, in TOML.")],
    as_json: AsJson = False,
) -> None:
    """Read a file of quotas, and say what is wrong in it; no database is asked."""
    found = [report.from_file(quota) for quota in load(file)]
    if as_json:
        put_json([report.as_json(each) for each in found])
    elif found:
        stdout().print(report.table_of(found))
    say(plain(f"{file}: {len(found)} quotas, and all of them can be used."))


def _with_file(found: list[Listed], file: Path) -> list[Listed]:
    there = {each.key for each in found}
    more = [each for each in map(report.from_file, load(file)) if each.key not in there]
    return sorted(found + more, key=lambda each: each.key)


def _applying(found: list[Listed], tenant: str) -> list[Listed]:
    """Return those that hold for a tenant: its own go before those of the same name for all."""
    own = {each.values["id"] for each in found if each.values["tenant"] == tenant}
    return [
        each
        for each in found
        if each.values["tenant"] == tenant
        or (each.values["tenant"] is None and each.values["id"] not in own)
    ]


def _tell_problems(found: list[Listed]) -> None:
    problems = [each.problem for each in found if each.problem]
    for problem in problems:
        say(plain(problem))
    if problems:
        raise typer.Exit(Exit.NOT_WELL)
