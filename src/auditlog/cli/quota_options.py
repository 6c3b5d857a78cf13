"""The settings of a quota as options, spelt once, and what is named among them."""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from auditlog.cli.durations import duration
from auditlog.cli.options import legible
from auditlog.partitions.configuration import sizes
from auditlog.quota.model import Counts, Per, milliseconds

NONE = "none"
"""Empties a list; takes an anchor away."""
_WHOLE = re.compile(r"\d{1,20}", re.ASCII)


class Policy(StrEnum):
    """What is decided while the database is away."""

    OPEN = "open"
    CLOSED = "closed"


Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", parser=legible, help="Name of a quota.")
]
Tenant: TypeAlias = Annotated[
    str | None,
    typer.Option(
        parser=legible, metavar="T", help="The quota of this tenant.", show_default="all tenants"
    ),
]
Applying: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        parser=legible,
        metavar="T",
        help="As it applies to this tenant: its own, else the one for all.",
        show_default=False,
    ),
]
AnyName: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="ID", parser=legible, help="Only of this quota.", show_default=False),
]
OfTenant: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        parser=legible,
        metavar="T",
        help="Only of this tenant.",
        show_default=False,
    ),
]
Subject: TypeAlias = Annotated[
    str | None,
    typer.Option(parser=legible, metavar="S", help="Only of this subject.", show_default=False),
]
By: TypeAlias = Annotated[
    str | None,
    typer.Option(parser=legible, metavar="NAME", help="Who does it.", show_default="the login"),
]
QuotaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="Also those of this file, in TOML.", show_default=False
    ),
]
Otherwise: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Of the first one of its name: what is not named is as in this file, in TOML.",
        show_default=False,
    ),
]
Limit: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="How much is allowed in a period: 200000; of bytes 10GB, of execution_ms 90s or 1h.",
        show_default=False,
    ),
]
Counted: TypeAlias = Annotated[
    Counts | None, typer.Option(help="What is counted.", show_default=False)
]
Whose: TypeAlias = Annotated[
    list[Per] | None,
    typer.Option(
        help="Whose usage is added up within a tenant; several together.", show_default=False
    ),
]
Period: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="LENGTH", help="minute to year, or 15 minutes.", show_default=False),
]
Rolling: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--rolling/--no-rolling",
        help="A window that ends now, instead of periods that follow each other.",
        show_default=False,
    ),
]
Anchor: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When a period begins, in ISO 8601, of the time zone; or none.",
        show_default=False,
    ),
]
Zone: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose days and months: Europe/Berlin.", show_default=False),
]
Thresholds: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PERCENT",
        help="Of the limit: told once in a period; or none.",
        show_default=False,
    ),
]
Enforced: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--enforce/--observe", help="Refuse what is beyond, or only count it.", show_default=False
    ),
]
Exact: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--exact/--no-exact",
        help="Ask the database each time, or take units in advance.",
        show_default=False,
    ),
]
OnUnavailable: TypeAlias = Annotated[
    Policy | None,
    typer.Option(help="While the database is away: let pass, or refuse.", show_default=False),
]
Refunds: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OUTCOME",
        help="Outcome or status of requests that are given back; or none.",
        show_default=False,
    ),
]
Routes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Of the paths that count; none: all of them.", show_default=False
    ),
]
Methods: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="METHOD", help="That counts; none: all of them.", show_default=False),
]
LogAllowed: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--log-allowed/--no-log-allowed",
        help="A row in quota_logs of what is allowed, too.",
        show_default=False,
    ),
]


def named(**given: Any) -> dict[str, Any]:
    """Return, by field of `Quota`, what was named among the options; all but the limit.

    Raises:
        typer.BadParameter: a value is none that can be read.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        if isinstance(value, list):
            changes[name] = () if NONE in value else tuple(map(legible, value))
    if "anchor" in changes:
        changes["anchor"] = _anchor(changes["anchor"])
    if "thresholds" in changes:
        changes["thresholds"] = tuple(map(_percent, changes["thresholds"]))
    return changes


def units(limit: str, counts: str) -> int:
    """Read a limit in units of what is counted, or with a unit that goes with it.

    Raises:
        typer.BadParameter: anything else, with an example of what would do.
    """
    text = limit.strip().replace("_", "")
    if _WHOLE.fullmatch(text):
        return int(text)
    if counts == Counts.EXECUTION_MS:
        return milliseconds(_duration(text))
    if counts != Counts.BYTES:
        raise typer.BadParameter(f"{limit!r} is no limit: write a whole number, 200000")
    try:
        return sizes.parse(text)
    except ValueError:
        raise typer.BadParameter(
            f"{limit!r} is no limit of bytes: write 500MB, 10GB, or a whole number"
        ) from None


def _duration(text: str) -> timedelta:
    try:
        return duration(text)
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text!r} is no limit of execution_ms: write 90s, 1h, or milliseconds"
        ) from None


def _anchor(text: str) -> datetime | None:
    """Without an offset it is the time of day in the quota's time zone, as in a file."""
    if text == NONE:
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no point in time: write 2026-01-15, 2026-01-15T06:00+01:00, or {NONE}"
        ) from None


def _percent(text: str) -> int:
    number = text.removesuffix("%").strip()
    if not _WHOLE.fullmatch(number):
        raise typer.BadParameter(f"{text!r} is no whole number of per cent: write 80, or {NONE}")
    return int(number)
