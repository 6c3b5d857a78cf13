"""`auditlog quota set`: a quota is laid down, or changed by what is named."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from psycopg import Rollback

from auditlog.cli import quota_options as options
from auditlog.cli import quota_report as report
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import plain, put, put_json, say
from auditlog.errors import SettingsError
from auditlog.partitions.session import maintenance
from auditlog.quota.definitions.file import load
from auditlog.quota.definitions.rows import document
from auditlog.quota.keeping import store
from auditlog.quota.keeping.store import StoredQuota
from auditlog.quota.keeping.usage import has_other_periods
from auditlog.quota.model import Counts, Quota

_PERIODS = {"period", "rolling", "anchor", "time_zone"}
_DRY_RUN = "This was a dry run: nothing is set."
_RESULTS = {
    "set": "Set for {}: every process takes it within seconds.",
    "unchanged": "Unchanged for {}: it was so already.",
}
_OTHER_PERIODS = (
    "Counters that there are have other periods: if an application defines this quota, name here"
    " whatever it says, --period, --per and --counts above all."
)


def put_quota(
    quota_id: options.Name,
    dsn: Dsn = None,
    *,
    tenant: options.Tenant = None,
    limit: options.Limit = None,
    counts: options.Counted = None,
    per: options.Whose = None,
    period: options.Period = None,
    rolling: options.Rolling = None,
    anchor: options.Anchor = None,
    time_zone: options.Zone = None,
    threshold: options.Thresholds = None,
    enforced: options.Enforced = None,
    exact: options.Exact = None,
    on_unavailable: options.OnUnavailable = None,
    refund: options.Refunds = None,
    route: options.Routes = None,
    method: options.Methods = None,
    log_allowed: options.LogAllowed = None,
    file: options.Otherwise = None,
    by: options.By = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be set, and set nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lay a quota down, or change what is named of one that is there; within seconds it applies."""
    changes = options.named(
        counts=counts,
        per=per,
        period=period,
        rolling=rolling,
        anchor=anchor,
        time_zone=time_zone,
        thresholds=threshold,
        enforced=enforced,
        exact=exact,
        on_unavailable=on_unavailable,
        refunds=refund,
        routes=route,
        methods=method,
        log_allowed=log_allowed,
    )
    with maintenance(required(dsn)) as conn, store.alone(conn) as transaction:
        found = store.stored(conn)
        quota = _wanted(found, quota_id, tenant, {**changes, "limit": limit}, file)
        has_others = not changes.keys() & _PERIODS and has_other_periods(conn, quota)
        result = store.put(conn, quota, by=by)
        if dry_run:
            raise Rollback(transaction)
    if as_json:
        before = store.find(found, quota_id, tenant)
        put_json(
            {
                "result": result,
                "before": before and document(before.values),
                "quota": document(asdict(quota)),
            }
        )
    else:
        for line in report.lines_of(asdict(quota)):
            put(line)
    whom = f"tenant {tenant}" if tenant else "every tenant"
    say(_DRY_RUN if dry_run else plain(_RESULTS[result].format(whom)))
    if has_others:
        say(_OTHER_PERIODS)


def _wanted(
    found: list[StoredQuota],
    quota_id: str,
    tenant: str | None,
    changes: dict[str, Any],
    file: Path | None,
) -> Quota:
    """Return what becomes of a quota, where the limit is as it was written."""
    limit = changes.pop("limit")
    otherwise = _in_file(file, quota_id, tenant) if file else None
    before = store.values_before(found, quota_id, tenant, otherwise=otherwise)
    values = {**before, **changes}
    if limit is not None:
        values["limit"] = options.units(limit, values.get("counts", Counts.REQUESTS))
    if "limit" not in values:
        raise SettingsError(
            f"the database has no quota {quota_id!r} yet: say how much is allowed, with --limit"
        )
    return Quota(**values)


def _in_file(file: Path, quota_id: str, tenant: str | None) -> Quota:
    of_id = {quota.tenant: quota for quota in load(file) if quota.id == quota_id}
    if found := of_id.get(tenant) or of_id.get(None):
        return found
    raise SettingsError(f"{file} has no quota {quota_id!r}: `auditlog quota check` shows those")
