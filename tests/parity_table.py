"""The parity table of docs/record.md, and rows in its terms: which columns and keys they fill."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from auditlog import AuditLog, Level, LogLevel, Policy, Rule, Settings
from auditlog.quota.model import Quota
from auditlog.tables import LOGS
from auditlog.testing import MemoryQuotas
from trail import quick

RECORD_MD = Path(__file__).parents[1] / "docs/record.md"
HTTP, WEBSOCKET, GRPC, GRAPHQL, EVENT, LINE = DOORS = (
    "HTTP",
    "WebSocket",
    "gRPC",
    "GraphQL",
    "event",
    "log line",
)
LIBRARY, APPLICATION = "•", "a"
TRAILING = "rpc.response.metadata."
"""The one line that stands for many keys: those that begin so."""

EVERYTHING = Policy(
    [
        Rule(
            name="left out",
            level=Level.NONE,
            paths=("/left-out", "/parity.Door/LeftOut"),
            outcomes=("ok",),
        ),
        Rule(name="all", level=Level.BODY, received=True),
    ]
)
"""Two rows of each request, with its body; also of one that is left out."""

SAID: dict[str, Any] = {
    "user_id": "ada",
    "resource_owner": "org",
    "instance_id": "acme",
    "aggregate": ("order", 42),
    "event_type": "order.paid",
    "event_sequence": 7,
    "message": "paid",
    "level": LogLevel.WARN,
}
"""All that `annotate` takes by name."""

PARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
LONG_PATH = "/" + "x" * 9000


class Broken(Policy):
    """A policy with a defect, which costs rows their details."""

    def decide(self, *_facts: Any) -> Any:
        raise ZeroDivisionError


def everything() -> Settings:
    return quick(capture_headers=("*",), echo_request_id=True)


def refusing() -> Settings:
    """No row is committed in so short a time; it is stored all the same, later."""
    return quick(durability="commit", commit_timeout_s=1e-9)


def closed(audit: AuditLog) -> MemoryQuotas:
    """Quotas whose database is away, and which therefore refuse everything."""
    quotas = MemoryQuotas(audit, [Quota("daily", limit=1, on_unavailable="closed")])
    quotas.counter.away = True
    return quotas


def marked(door: str, *marks: str) -> set[str]:
    """The names that have one of the marks in the column of a door."""
    column = DOORS.index(door)
    return {name for name, cells in table().items() if cells[column] in marks}


def table() -> dict[str, list[str]]:
    """The marks by column or key, in the order of the lines."""
    heading = "| | " + " | ".join(DOORS) + " |\n"
    lines = RECORD_MD.read_text().partition(heading)[2].partition("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): marks for name, *marks in cells}


def documented_keys() -> list[str]:
    """The keys that the section on metadata explains, in its order, and the one for many."""
    section = RECORD_MD.read_text().partition("| key | meaning |\n")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines()[1:]]
    return [*(key for cell in first_cells for key in re.findall(r"`(.+?)`", cell)), TRAILING]


def filled(rows: Iterable[dict[str, Any]]) -> set[str]:
    """The columns and keys that at least one of the rows fills."""
    names: set[str] = set()
    for row in rows:
        names |= {name for name in LOGS.column_names if row[name] is not None}
        names |= {TRAILING if key.startswith(TRAILING) else key for key in row["metadata"] or ()}
    return names
