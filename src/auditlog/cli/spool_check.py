"""The folder of the spool → what is wrong with it, for `auditlog doctor`."""

import os
from pathlib import Path

from auditlog.postgres.doctor import Finding
from auditlog.sink.spool.inspection import LaneReport, survey

_NAME = "spool"


def check_spool(directory: str | None) -> list[Finding]:
    """Judge whether records can be kept there, and whether anything is left lying.

    Args:
        directory: `spool_dir`, as the environment has it; None or empty: there is nothing to judge.
    """
    if not directory:
        return []
    problem = _unusable(Path(directory))
    if problem:
        remedy = "make a folder there that belongs to the user of the service"
        return [Finding(_NAME, "failed", problem, remedy)]
    if not os.path.isdir(directory):
        return [Finding(_NAME, "ok", f"{directory} is made with the first record")]
    try:
        return [_judge(directory, survey(directory))]
    except OSError as error:
        return [Finding(_NAME, "failed", f"{directory}: {error.strerror}", "correct the rights")]


def _judge(directory: str, lanes: list[LaneReport]) -> Finding:
    left = sum(lane.rows for lane in lanes if not lane.is_alive)
    if left:
        detail = f"{left} rows wait in {directory} whose process is dead"
        remedy = "start a service on that folder, or run auditlog spool ship"
        return Finding(_NAME, "warning", detail, remedy)
    if any(lane.damaged for lane in lanes):
        detail = f"some records in {directory} cannot be read"
        return Finding(_NAME, "warning", detail, "look at auditlog spool verify")
    return Finding(_NAME, "ok", f"{directory}, {len(lanes)} lanes in use")


def _unusable(directory: Path) -> str:
    """Say why a folder there can be neither used nor made; nothing if it can."""
    # The first one above that exists decides whether the others can be made.
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is no folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"this user may not write in {existing}"
    return ""
