"""Results → the Markdown table of docs/reliability.md."""

import platform
from collections.abc import Iterable
from datetime import UTC, datetime

from fault_scene import Result

_COLUMNS = (
    "fault",
    "mode",
    "acknowledged",
    "refused",
    "stored",
    "gaps",
    "dead letters",
    "gone with the process",
    "lost without a reason",
    "stored twice",
    "s",
)


def heading(seed: int) -> str:
    """Say when and on what it was measured."""
    when = datetime.now(UTC).date().isoformat()
    return f"{when}, CPython {platform.python_version()}, {platform.system()}, seed {seed}."


def table_head() -> str:
    """Return the first two lines of the table."""
    return f"{_line(_COLUMNS)}\n{_line('---' for _ in _COLUMNS)}"


def table_line(result: Result) -> str:
    """Return a trial's line."""
    verdict = result.verdict
    gaps = ", ".join(f"{reason} {count}" for reason, count in sorted(verdict.gaps.items()))
    twice = len(verdict.twice) + len(verdict.invented)
    lost = verdict.unexplained + len(verdict.unannounced) + len(verdict.orphans)
    return _line(
        (
            result.fault,
            f"`{result.mode}`",
            verdict.acknowledged,
            verdict.refused or "",
            verdict.stored,
            gaps,
            verdict.dead or "",
            verdict.killed or "",
            lost,
            twice,
            f"{result.seconds:.0f}",
        )
    )


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
