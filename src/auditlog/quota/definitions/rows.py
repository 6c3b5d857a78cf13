"""Rows of `logstore.quotas` → `Quota`s, and back; read alike by the command line and by the engine.

Whoever may write the table may write what no `Quota` can be: one such row is told, and keeps no
other from being used.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from auditlog.errors import QuotaError
from auditlog.quota.model import Quota
from auditlog.statements import statement

DEFINITIONS: bytes = statement("auditlog.quota.definitions", "definitions")
"""One statement without parameters: a row, as a mapping by column, for each quota."""

EVERY_TENANT = ""
"""The `instance_id` of a quota that is for all of them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OTHER_NAMES = {"id": "quota_id", "tenant": "instance_id", "limit": "quota_limit"}
_COLUMNS = {field.name: _OTHER_NAMES.get(field.name, field.name) for field in fields(Quota)}
"""By field of `Quota`."""


def quota_from(row: Mapping[str, Any]) -> Quota:
    """Read a row of `DEFINITIONS`.

    Raises:
        QuotaError: it is no quota that can work; names it, and says what would do. No other error.
    """
    try:
        return Quota(**values_from(row))
    except QuotaError as error:
        tenant = f" --tenant {row['instance_id']}" if row["instance_id"] else ""
        raise QuotaError(
            f"a row of logstore.quotas cannot be used: {error}; `auditlog quota set"
            f" {row['quota_id']}{tenant}` mends it, `auditlog quota remove` takes it away"
        ) from None


def values_from(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a quota's fields, whether or not they can work."""
    lists = {column: tuple(value) for column, value in row.items() if isinstance(value, list)}
    tenant, anchor = row["instance_id"] or None, _instant(row["anchor_s"])
    given = {**row, **lists, "instance_id": tenant, "anchor": anchor}
    return {name: given[column] for name, column in _COLUMNS.items()}


def row_from(quota: Quota) -> dict[str, Any]:
    """Return the columns that define a quota, as parameters by name."""
    row = {_COLUMNS[name]: value for name, value in document(asdict(quota)).items()}
    return {**row, "anchor": quota.anchor, "instance_id": quota.tenant or EVERY_TENANT}


def document(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a quota's fields as a file or JSON has them."""
    return {name: _plain(value) for name, value in values.items()}


def changed_at(row: Mapping[str, Any]) -> datetime | None:
    """Return when a row of `DEFINITIONS` was last set; None: the calendar has no such instant."""
    when = _instant(row["changed_s"])
    return when if isinstance(when, datetime) else None


def _instant(seconds: Decimal | None) -> datetime | Decimal | None:
    """Return an instant in UTC; what Python has no date for, as it is."""
    if seconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    except (ValueError, OverflowError):
        return seconds


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, str | Decimal) else value
