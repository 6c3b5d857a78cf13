"""What the library tells of itself in the trail: when a log started and stopped, what was lost.

Pure: settings, counters or a gap → a `LogRecord`. Such a row belongs to no request; its aggregate
is the writer, and `audit.run_id` ties the rows of one life of one log in one process. It is never
of low priority: it says what became of the others.
"""

import os
import platform
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import metadata
from typing import Any

import uuid_utils

from auditlog.records import LogLevel, LogRecord
from auditlog.settings import Settings
from auditlog.sink.queue.gaps import Gap
from auditlog.sink.queue.stats import Stats

START = "audit.start"
STOP = "audit.stop"
GAP = "audit.gap"
AGGREGATE = "auditlog"

SEVERAL_TENANTS = "several"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_CAUSES = {
    "capture": "they could not be put together",
    "overflow": "the queue was full",
    "unencodable": "they could not be stored as rows",
    "rejected": "the database refused them",
    "shutdown": "the process ended before they were written",
    "damaged": "the spool was damaged",
    "spool_full": "the spool was full",
    "discarded": "somebody discarded them from the dead letters",
}


def start_record(settings: Settings, run_id: str, writer: str) -> LogRecord:
    """Tell that a log began to take records, and what it promises about them.

    Args:
        settings: Those that say what may be lost and what is left out are in the row; no secret.
        run_id: A UUIDv7, made for this life of the log.
        writer: The process as the ledger names it, `host:pid`.
    """
    return LogRecord(
        event_type=START,
        aggregate_type=AGGREGATE,
        aggregate_id=writer,
        message=f"The audit log of {writer} started, with durability {settings.durability}.",
        instance_id=settings.instance_id,
        metadata={
            "audit.run_id": run_id,
            "audit.writer": writer,
            "audit.process_id": _process_id(os.getpid()),
            "audit.version": _version(),
            "audit.python": platform.python_version(),
            "audit.durability": settings.durability,
            "audit.settings": _settings(settings),
        },
    )


def stop_record(stats: Stats, run_id: str, writer: str, instance_id: str) -> LogRecord:
    """Tell that a log ended, and what became of every record since it was made.

    Args:
        stats: One reading; its counters add up, and so do the row's. A log that starts again goes
            on counting.
        run_id: That of the start row.
        writer: Likewise.
        instance_id: The tenant of records that name none.
    """
    lost = stats.dropped + stats.pending
    return LogRecord(
        event_type=STOP,
        aggregate_type=AGGREGATE,
        aggregate_id=writer,
        log_level=LogLevel.WARN if lost else LogLevel.INFO,
        message=f"The audit log of {writer} stopped: {_summary(stats)}.",
        instance_id=instance_id,
        metadata={
            "audit.run_id": run_id,
            "audit.writer": writer,
            "audit.submitted": stats.submitted,
            "audit.written": stats.written,
            "audit.pending": stats.pending,
            "audit.spooled": stats.spooled,
            "audit.dead_lettered": stats.dead_lettered,
            "audit.dropped": dict(stats.dropped_by_reason),
            "audit.recovered": stats.recovered,
        },
    )


def gap_record(gap: Gap, run_id: str | None, writer: str, default_tenant: str) -> LogRecord:
    """Tell that records are missing; the row belongs to the tenant that lost them.

    Args:
        gap: How many, when, and why.
        run_id: None where no running log tells it, but somebody at a command line.
        writer: The process that tells it, as the ledger names it.
        default_tenant: Whose row it is where the loss is not one known tenant's.
    """
    told: dict[str, Any] = {
        "audit.writer": writer,
        "audit.gap.reason": str(gap.reason),
        "audit.gap.count": gap.count,
        "audit.gap.first": _iso(gap.first_us),
        "audit.gap.last": _iso(gap.last_us),
    }
    if run_id is not None:
        told["audit.run_id"] = run_id
    if not gap.exact:
        told["audit.gap.at_least"] = True
    if gap.tenant is None:
        told["audit.gap.tenants"] = SEVERAL_TENANTS
    return LogRecord(
        occurrence_date=gap.last_us,
        event_type=GAP,
        aggregate_type=AGGREGATE,
        aggregate_id=writer,
        log_level=LogLevel.ERROR,
        message=_sentence(gap),
        instance_id=default_tenant if gap.tenant is None else gap.tenant,
        metadata=told,
    )


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "on_overflow": settings.on_overflow,
        "max_queued_rows": settings.max_queued_rows,
        "spool_dir": settings.spool_dir,
        "spool_fsync": settings.spool_fsync,
        "policy_file": settings.policy_file,
        "capture_headers": list(settings.capture_headers),
    }


def _summary(stats: Stats) -> str:
    rest = {
        "pending": stats.pending,
        "spooled": stats.spooled,
        "dead-lettered": stats.dead_lettered,
        "dropped": stats.dropped,
    }
    others = "".join(f", {count} {what}" for what, count in rest.items() if count)
    return f"{stats.submitted} submitted, {stats.written} written{others}"


def _sentence(gap: Gap) -> str:
    noun, verb = ("record", "was") if gap.count == 1 else ("records", "were")
    count = f"{gap.count}" if gap.exact else f"At least {gap.count}"
    whose = "one or several tenants" if gap.tenant is None else f"tenant {gap.tenant}"
    when = f"between {_iso(gap.first_us)} and {_iso(gap.last_us)}"
    cause = _CAUSES.get(gap.reason)
    why = f"{cause} ({gap.reason})" if cause else gap.reason
    return f"{count} {noun} of {whose} {verb} lost {when}: {why}."


def _iso(unix_us: int) -> str:
    # Always with microseconds, so that the texts sort as the times do.
    try:
        instant = _EPOCH + timedelta(microseconds=unix_us)
    except OverflowError:  # PostgreSQL knows years that Python does not
        instant = _LATEST if unix_us > 0 else _EARLIEST
    return instant.isoformat(timespec="microseconds")


@cache
def _process_id(_pid: int) -> str:
    """Return what tells this process from an earlier one that had its host and its pid.

    A container that starts again has both; a fork has another pid, and so another identity.
    """
    return str(uuid_utils.uuid7())


@cache
def _version() -> str:
    try:
        return metadata.version("auditlog-postgres")
    except metadata.PackageNotFoundError:  # its files were copied, not installed
        return "unknown"
